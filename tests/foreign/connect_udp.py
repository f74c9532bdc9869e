#!/usr/bin/env python3
"""CONNECT-UDP (RFC 9298) with another stack (aioquic): a QUIC connection inside of one of HTTP/3.

    connect_udp.py serve --cert site.pem --key site.key
    connect_udp.py ask --address 127.0.0.1:8443 --ca ca.pem --path /.well-known/masque/udp/quic/443/ --node edge-1 [--datagrams]

The first is a QUIC server that sends back what comes on a stream; it prints its port. The second asks the HTTP/3 listener for
datagrams, and speaks QUIC with the server over them: it prints the status, and how many bytes came back as they were. They go
in capsules, or in QUIC datagrams; how many came in each is printed at the end.
"""

import argparse
import asyncio
import json
import sys

sys.dont_write_bytecode = True  # the folder belongs to the sources

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

PATIENCE = 110
ALPN = "echo"
SIZES = [1, 1000, 300_000]


def integer(value):
    """RFC 9000 section 16"""
    for size, mark in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | mark << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def take_integer(data):
    """A variable-length integer from the front, and what is behind it; None if it is not whole."""
    size = 1 << (data[0] >> 6) if data else 1
    if len(data) < size:
        return None, data
    return int.from_bytes(data[:size], "big") & ((1 << 8 * size - 2) - 1), data[size:]


def capsule(kind, value):
    return integer(kind) + integer(len(value)) + value


class Capsules:
    """Reads capsules out of a stream."""

    def __init__(self):
        self.data = b""

    def push(self, data):
        self.data += data
        while True:
            kind, rest = take_integer(self.data)
            length, rest = take_integer(rest) if kind is not None else (None, rest)
            if length is None or len(rest) < length:
                return
            value, self.data = rest[:length], rest[length:]
            context, payload = take_integer(value)
            if (kind, context) == (0, 0):
                yield payload


class Outer(QuicConnectionProtocol):
    """The connection to the proxy, with one CONNECT-UDP on it."""

    datagrams = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # That is how this stack says SETTINGS_H3_DATAGRAM.
        self.http = H3Connection(self._quic, enable_webtransport=self.datagrams)
        self.came = {"capsules": 0, "datagrams": 0}
        self.capsules, self.head, self.take = Capsules(), asyncio.get_running_loop().create_future(), None
        self.stream = None

    def ask(self, path, node):
        self.stream = self._quic.get_next_available_stream_id()
        head = [
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-udp"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
            (b"capsule-protocol", b"?1"),
            (b"x-node-id", node.encode()),
        ]
        self.http.send_headers(self.stream, head)
        self.transmit()

    def send(self, payload, strange):
        """Something that nobody knows comes before it, if that is wanted: another context, and another type."""
        if self.datagrams:
            if strange:
                self.http.send_datagram(self.stream, integer(2) + b"another context")
            self.http.send_datagram(self.stream, integer(0) + payload)
        else:
            before = capsule(0, integer(2) + b"another context") + capsule(0x29, b"another type") if strange else b""
            self.http.send_data(self.stream, before + capsule(0, integer(0) + payload), False)
        self.transmit()

    def quic_event_received(self, event):
        for happened in self.http.handle_event(event):
            if isinstance(happened, HeadersReceived) and not self.head.done():
                self.head.set_result(dict(happened.headers))
            elif isinstance(happened, DataReceived):
                for payload in self.capsules.push(happened.data):
                    self.came["capsules"] += 1
                    self.take(payload)
            elif isinstance(happened, DatagramReceived) and happened.stream_id == self.stream:
                context, payload = take_integer(happened.data)
                if context == 0:
                    self.came["datagrams"] += 1
                    self.take(payload)


class Datagrams(asyncio.DatagramTransport):
    """What the inner connection sends goes to the proxy."""

    def __init__(self, outer):
        super().__init__()
        self.outer, self.sent = outer, 0

    def sendto(self, data, address=None):
        self.sent += 1
        self.outer.send(bytes(data), self.sent < 4)

    def get_extra_info(self, name, default=None):
        return default

    def close(self):
        pass


class Inner(QuicConnectionProtocol):
    """A connection that counts what comes back on its streams."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.answers, self.changed = {}, asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            data, ended = self.answers.get(event.stream_id, (b"", False))
            self.answers[event.stream_id] = (data + event.data, ended or event.end_stream)
            self.changed.set()

    async def echo(self, data):
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, data, True)
        self.transmit()
        while not self.answers.get(stream, (b"", False))[1]:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENCE)
        return self.answers[stream][0]


class Echo(QuicConnectionProtocol):
    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)
            self.transmit()


def configuration(ca, alpn):
    found = QuicConfiguration(is_client=True, alpn_protocols=[alpn], server_name="localhost")
    found.load_verify_locations(cafile=ca)
    return found


async def ask(arguments):
    host, port = arguments.address.rsplit(":", 1)
    Outer.datagrams, own = arguments.datagrams, configuration(arguments.ca, "h3")
    if arguments.datagrams:
        # The inner one sends 1,200 bytes from the start, which have to fit.
        own.max_datagram_frame_size, own.max_datagram_size = 65536, 1400
    async with connect(host, int(port), configuration=own, create_protocol=Outer) as outer:
        outer.ask(arguments.path, arguments.node)
        head = await asyncio.wait_for(outer.head, PATIENCE)
        told = {"status": int(head[b":status"]), "capsules": head.get(b"capsule-protocol", b"").decode()}
        print(json.dumps({"did": "head"} | told), flush=True)
        if told["status"] != 200:
            return
        inner = Inner(QuicConnection(configuration=configuration(arguments.ca, ALPN)))
        inner.connection_made(Datagrams(outer))
        address = ("192.0.2.1", 443)
        outer.take = lambda payload: inner.datagram_received(payload, address)
        inner.connect(address)
        await asyncio.wait_for(inner.wait_connected(), PATIENCE)
        for size in SIZES:
            sent = bytes(at * 7 & 0xFF for at in range(size))
            same = await inner.echo(sent) == sent
            print(json.dumps({"did": "echo", "bytes": size, "same": same}), flush=True)
        inner.close()
        print(json.dumps({"did": "end"} | outer.came), flush=True)


async def answer(arguments):
    found = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    found.load_cert_chain(arguments.cert, arguments.key)
    server = await serve("127.0.0.1", 0, configuration=found, create_protocol=Echo)
    port = server._transport.get_extra_info("sockname")[1]
    print(json.dumps({"did": "serve", "port": port}), flush=True)
    await asyncio.Event().wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    server = commands.add_parser("serve")
    server.add_argument("--cert", required=True)
    server.add_argument("--key", required=True)
    server.set_defaults(run=answer)
    client = commands.add_parser("ask")
    for name in ("--address", "--ca", "--path", "--node"):
        client.add_argument(name, required=True)
    client.add_argument("--datagrams", action="store_true")
    client.set_defaults(run=ask)
    arguments = parser.parse_args()
    asyncio.run(arguments.run(arguments))


if __name__ == "__main__":
    main()
