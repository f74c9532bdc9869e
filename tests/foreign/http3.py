#!/usr/bin/env python3
"""An HTTP/3 client on another stack (aioquic), told step by step what to do.

    http3.py --address 127.0.0.1:8443 --ca ca.pem '[{"do": "request", "name": "a", "path": "/"}, {"do": "wait", "name": "a"}]'

Every step prints one line of JSON; a step that waits prints when what it waits for has happened. Steps:

    request  begins an exchange. method, path, authority, fields (more of them), body (text) or size (bytes of a pattern), trailers,
             open (the body goes on), head (the whole head in place of all that), plain (HTTP/3 frames in hex instead)
    body     sends more of a body: size or text, end
    interim  waits for a response before the final one
    head     waits for the head of a final response
    read     waits until so many bytes of a body have come (bytes)
    wait     waits for the end of an exchange: status, fields, interim, trailers, how long the body is and whether it is
             the pattern, or the code of a reset
    cancel   gives an exchange up, both directions
    reset    gives up what it sends
    stop     gives up what it gets
    rebind   goes on from another port
    control  sends bytes (hex) on the control stream
    one_way  sends bytes (hex) on a new stream of one direction
    goaway   waits for GOAWAY: the id
    closed   waits for the end of the connection: the code
    mark     prints a line, and no more
    flood    asks for far too much so often (times), or until the connection ends: bombs, heads, encoder, resets
    reconnect  ends the connection, and begins another one as a client that was here before: what follows goes out in early
             data if the server allowed it. anonymous (without the token that proves its address), mute (reads nothing)
    replay   sends all datagrams of this connection once more, from another port
    connected  waits until the handshake is done: whether the session was resumed, and early data accepted
"""

import argparse
import asyncio
import functools
import hashlib
import json
import socket
import sys

sys.dont_write_bytecode = True  # the folder belongs to the sources

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3 import connection as h3
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

PATIENCE = 110
HEAD = b"\0\0\xd1\xd7\xc1\x50\x09localhost"  # GET, https, /
HANG = b"\0\0\xd1\xd7\x51\x05/hang\x50\x09localhost\x27\x02x-node-id\x06edge-1"
FLOODS = {
    # The longest value of the static table, once a byte: 60,000 bytes stand for megabytes.
    "bombs": h3.encode_frame(1, HEAD + b"\xf5" * 60_000),
    # Never whole.
    "heads": h3.encode_frame(1, HEAD + b"\x27\x01aaaaaaaa" + b"x" * 60_000)[:-100],
    "resets": h3.encode_frame(1, HANG) + b"\0\x09x",
}
SHOWN = 4096
GOAWAY = 0x7
REQUEST_CANCELLED = 0x10C


def pattern(size):
    """The pattern of the tests' targets, from its beginning."""
    return bytes((at ^ at >> 8 ^ at >> 16) & 0xFF for at in range(size))


def string(first, prefix, text):
    """A string of QPACK whose length has a prefix of so many bits. RFC 9204 section 4.1.2"""
    full = (1 << prefix) - 1
    if len(text) < full:
        return bytes([first | len(text)]) + text
    rest, length = len(text) - full, bytes([first | full])
    while rest >= 0x80:
        length += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return length + bytes([rest]) + text


def written_out(value):
    """A value that is written as [text, count] is that text so many times."""
    return value if isinstance(value, str) else value[0] * value[1]


def readable(fields):
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields]


class ControlStream:
    """Looks at what a peer's control stream carries for GOAWAY, which aioquic reads and drops. RFC 9114 section 5.2"""

    def __init__(self):
        self.bytes = b""
        self.goaway = None

    def push(self, data):
        self.bytes += data
        rest = self.bytes[1:]  # behind the type of the stream
        while True:
            kind, rest = integer(rest)
            length, rest = integer(rest)
            if length is None or len(rest) < length:
                return
            if kind == GOAWAY:
                self.goaway = integer(rest[:length])[0]
            rest = rest[length:]


def integer(data):
    """A variable-length integer from the front, and what is behind it; None if it is not whole."""
    length = 1 << (data[0] >> 6) if data else 1
    if data is None or len(data) < length:
        return None, b""
    return int.from_bytes(data[:length], "big") & ((1 << 8 * length - 2) - 1), data[length:]


class Exchange:
    def __init__(self, stream):
        self.stream = stream
        self.status = None
        self.fields, self.interim, self.trailers = [], [], []
        self.bytes, self.digest = 0, hashlib.sha256()
        self.ended, self.reset, self.stopped = False, None, None
        self.sent = 0

    def on_headers(self, fields):
        status = dict(fields).get(b":status")
        if status is None:
            self.trailers = readable(fields)
        elif status.startswith(b"1"):
            self.interim.append([int(status), readable(fields)])
        else:
            self.status, self.fields = int(status), readable(fields)

    def report(self):
        return {
            "status": self.status,
            "fields": self.fields,
            "interim": self.interim,
            "trailers": self.trailers,
            "bytes": self.bytes,
            "is_pattern": self.digest.digest() == hashlib.sha256(pattern(self.bytes)).digest(),
            "text": getattr(self, "text", b"").decode("latin-1"),
            "reset": self.reset,
            "stopped": self.stopped,
        }


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = h3.H3Connection(self._quic)
        self.one_way = {}
        self.exchanges, self.streams = {}, {}
        self.changed = asyncio.Condition()
        self.close_code = None
        self.handshake = None
        self.is_mute, self.sent = False, []

    def connection_made(self, transport):
        super().connection_made(Recorded(transport, self.sent))

    def datagram_received(self, data, addr):
        if not self.is_mute:
            super().datagram_received(data, addr)

    def quic_event_received(self, event):
        if isinstance(event, events.ConnectionTerminated):
            self.close_code = event.error_code
        elif isinstance(event, events.StreamReset) and event.stream_id in self.streams:
            self.streams[event.stream_id].reset = event.error_code
        elif isinstance(event, events.StopSendingReceived) and event.stream_id in self.streams:
            self.streams[event.stream_id].stopped = event.error_code
        elif isinstance(event, events.StreamDataReceived) and event.stream_id % 4 == 3:
            self.one_way.setdefault(event.stream_id, ControlStream()).push(event.data)
        elif isinstance(event, events.HandshakeCompleted):
            self.handshake = event
        for happened in self.http.handle_event(event):
            self.on_http(happened)
        asyncio.ensure_future(self.tell())

    def on_http(self, event):
        exchange = self.streams.get(getattr(event, "stream_id", None))
        if exchange is None:
            return
        if isinstance(event, HeadersReceived):
            exchange.on_headers(event.headers)
        elif isinstance(event, DataReceived):
            exchange.bytes += len(event.data)
            exchange.digest.update(event.data)
            exchange.text = getattr(exchange, "text", b"") + event.data[: SHOWN - len(getattr(exchange, "text", b""))]
        exchange.ended |= getattr(event, "stream_ended", False)

    async def tell(self):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, true):
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(true), PATIENCE)

    # Steps

    async def do_request(self, name, method="GET", path="/", authority="localhost", fields=(), body=None, size=None,
                         trailers=(), open=False, head=None, plain=None):
        stream = self._quic.get_next_available_stream_id()
        exchange = self.exchanges[name] = self.streams[stream] = Exchange(stream)
        content = body.encode() if body is not None else pattern(size or 0)
        if plain is not None:
            self._quic.send_stream_data(stream, bytes.fromhex(plain), not open)
        elif head is not None:
            self.send_section(stream, head, not (content or open))
            if content:
                self._quic.send_stream_data(stream, h3.encode_frame(h3.FrameType.DATA, content), not open)
        else:
            lines = [[":method", method], [":scheme", "https"], [":authority", authority], [":path", path], *fields]
            lines = [(name.encode(), value.encode()) for name, value in lines]
            last = not (content or trailers or open)
            self.http.send_headers(stream, lines, last)
            if content:
                self.http.send_data(stream, content, not (trailers or open))
            if trailers:
                self.http.send_headers(stream, [(name.encode(), value.encode()) for name, value in trailers], not open)
        exchange.sent = len(content)
        self.transmit()
        return {}

    def send_section(self, stream, fields, end):
        """Any fields in any order, spelled out: without what a proper client would check. RFC 9204 section 4.5.6"""
        section = b"\0\0"
        for name, value in fields:
            section += string(0x20, 3, name.encode("latin-1")) + string(0, 7, written_out(value).encode("latin-1"))
        self._quic.send_stream_data(stream, h3.encode_frame(h3.FrameType.HEADERS, section), end)

    async def do_body(self, name, size=0, text=None, end=False):
        exchange = self.exchanges[name]
        content = pattern(exchange.sent + size)[exchange.sent :] if text is None else text.encode()
        exchange.sent += len(content)
        self._quic.send_stream_data(
            exchange.stream, h3.encode_frame(h3.FrameType.DATA, content) if content else b"", end
        )
        self.transmit()
        return {}

    async def do_head(self, name):
        exchange = self.exchanges[name]
        await self.until(lambda: exchange.status or exchange.reset is not None or self.close_code is not None)
        return exchange.report()

    async def do_interim(self, name):
        exchange = self.exchanges[name]
        await self.until(lambda: exchange.interim or exchange.ended or self.close_code is not None)
        return exchange.report()

    async def do_read(self, name, bytes):
        exchange = self.exchanges[name]
        await self.until(lambda: exchange.bytes >= bytes or exchange.ended or self.close_code is not None)
        return exchange.report()

    async def do_wait(self, name):
        exchange = self.exchanges[name]
        await self.until(lambda: exchange.ended or exchange.reset is not None or self.close_code is not None)
        return exchange.report() | {"whole": exchange.ended, "closed": self.close_code}

    async def do_cancel(self, name):
        await self.do_stop(name)
        if not self._quic._streams[self.exchanges[name].stream].sender.is_finished:
            await self.do_reset(name)
        return {}

    async def do_reset(self, name):
        self._quic.reset_stream(self.exchanges[name].stream, REQUEST_CANCELLED)
        self.transmit()
        return {}

    async def do_stop(self, name):
        self._quic.stop_stream(self.exchanges[name].stream, REQUEST_CANCELLED)
        self.transmit()
        return {}

    async def do_rebind(self):
        before = self._transport
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=new_socket())
        before.close()
        return {"port": transport.get_extra_info("sockname")[1]}

    async def do_control(self, hex):
        self._quic.send_stream_data(self.http._local_control_stream_id, bytes.fromhex(hex))
        self.transmit()
        return {}

    async def do_one_way(self, hex):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream, bytes.fromhex(hex))
        self.transmit()
        return {}

    async def do_goaway(self):
        await self.until(lambda: self.goaway() is not None)
        return {"id": self.goaway()}

    def goaway(self):
        control = [stream for stream in self.one_way.values() if stream.bytes[:1] == b"\0"]
        return control[0].goaway if control else None

    async def do_closed(self):
        await self.until(lambda: self.close_code is not None)
        return {"code": self.close_code}

    async def do_flood(self, name, kind, times):
        for _ in range(times):
            if self.close_code is not None:
                break
            if kind == "encoder":
                self._quic.send_stream_data(self.http._local_encoder_stream_id, b"\x20" * 4096)
            else:
                stream = self._quic.get_next_available_stream_id()
                self._quic.send_stream_data(stream, FLOODS[kind])
                if kind == "resets":
                    # aioquic would reset it beyond the limit of streams.
                    while self._quic._streams[stream].is_blocked and self.close_code is None:
                        await asyncio.sleep(0.001)
                    self._quic.reset_stream(stream, REQUEST_CANCELLED)
            self.transmit()
            await asyncio.sleep(0)
        return {}

    async def do_mark(self):
        return {}

    async def do_connected(self):
        await self.until(lambda: self.handshake is not None or self.close_code is not None)
        done = self.handshake
        return {"resumed": done.session_resumed, "early": done.early_data_accepted, "closed": self.close_code}

    async def do_replay(self):
        again = new_socket()
        for data, address in self.sent:
            again.sendto(data, address)
        return {}


class Recorded:
    """A transport that keeps what it sends."""

    def __init__(self, transport, sent):
        self.transport, self.sent = transport, sent

    def sendto(self, data, address):
        self.sent.append((data, address))
        self.transport.sendto(data, address)

    def __getattr__(self, name):
        return getattr(self.transport, name)


class Memory:
    """What a client keeps of a server."""

    def __init__(self):
        self.tickets, self.tokens = [], []


def new_socket():
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind(("127.0.0.1", 0))
    return found


async def connect(address, arguments, memory, mute=False, anonymous=False):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[arguments.alpn], server_name=arguments.name)
    configuration.load_verify_locations(cafile=arguments.ca)
    if arguments.cert:
        configuration.load_cert_chain(arguments.cert, arguments.key)
    returns = bool(memory.tickets)
    if returns:
        configuration.session_ticket = memory.tickets.pop(0)
    if memory.tokens and not anonymous:
        configuration.token = memory.tokens.pop(0)
    quic = QuicConnection(
        configuration=configuration, session_ticket_handler=memory.tickets.append, token_handler=memory.tokens.append
    )
    create = functools.partial(Client, quic)
    _, client = await asyncio.get_running_loop().create_datagram_endpoint(create, sock=new_socket())
    client.is_mute = mute
    client.connect(address, transmit=not returns)
    if not returns:
        await asyncio.wait_for(client.wait_connected(), PATIENCE)
    return client


async def reconnect(before, address, arguments, memory, mute=False, anonymous=False):
    if not before.is_mute:
        async with asyncio.timeout(PATIENCE):
            while not memory.tickets:
                await before.ping()
        await before.ping()  # tokens come with the tickets, if any come
        before.close()
    return await connect(address, arguments, memory, mute, anonymous)


async def run(arguments):
    host, port = arguments.address.rsplit(":", 1)
    memory = Memory()
    client = await connect((host, int(port)), arguments, memory)
    for step in json.loads(arguments.steps):
        kind = step.pop("do")
        if kind == "reconnect":
            client, result = await reconnect(client, (host, int(port)), arguments, memory, **step), {}
        else:
            result = await getattr(client, f"do_{kind}")(**step)
        print(json.dumps({"did": kind, "name": step.get("name")} | result), flush=True)
    if not client.is_mute:
        client.close()
        await client.wait_closed()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--name", default="localhost")
    parser.add_argument("--alpn", default="h3")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("steps", help="a list in JSON")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments))
    except ConnectionError as error:
        print(json.dumps({"did": "connect", "error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
