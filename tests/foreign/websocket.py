"""WebSocket as the package websockets speaks it, and as an extended CONNECT of the packages h2 and aioquic.

    websocket.py server                          prints its port and echoes
    websocket.py client HOST PORT NODE           judges what comes back
    websocket.py client HOST PORT NODE h2        the same over HTTP/2
    websocket.py client HOST PORT NODE envoy     the same over HTTP/2 where the target is behind an Envoy
    websocket.py client HOST PORT NODE h3 CA     the same over HTTP/3, from a server with a certificate of this CA

Paths of the server: /echo; /close answers the first message with a close frame of 4001; /no answers 403; /reset resets its
connection at the first message. The client prints a line for each promise that holds and ends with 1 at the first that
does not.
"""

import asyncio
import contextlib
import http
import socket
import struct
import sys

sys.dont_write_bytecode = True  # the folder belongs to the sources

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as listen
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

import websocket_h3

LARGE = 16 * 1024 * 1024
PATIENCE = 120
OPTIONS = {"max_size": 2 * LARGE, "compression": None, "ping_interval": None, "close_timeout": PATIENCE}


async def answer(socket_):
    path = socket_.request.path
    # How the connection ends is judged by the client.
    with contextlib.suppress(websockets.ConnectionClosed):
        await echo(socket_, path)


async def echo(socket_, path):
    async for message in socket_:
        if path == "/close":
            return await socket_.close(4001, "enough")
        if path == "/reset":
            raw = socket_.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return socket_.transport.abort()
        await socket_.send(message)


def refuse(connection, request):
    if request.path == "/no":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here\n")
    return None


def choose(connection, offered):
    return "chat" if "chat" in offered else None


async def serve():
    async with listen(answer, "127.0.0.1", 0, process_request=refuse, select_subprotocol=choose, **OPTIONS) as server:
        print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


class Upgrades:
    """HTTP/1.1: an Upgrade each."""

    def __init__(self, host, port, node):
        self.base = f"ws://{host}:{port}"
        self.fields = {"x-node-id": node}

    def connect(self, path, **more):
        return connect(self.base + path, additional_headers=self.fields, open_timeout=PATIENCE, proxy=None, **OPTIONS, **more)

    async def texts_and_bytes(self):
        async with self.connect("/echo", subprotocols=["other", "chat"]) as ws:
            assert ws.subprotocol == "chat"
            for message in ("", "héllo", b"", b"\x00" * 70_000):
                await ws.send(message)
                assert await ws.recv() == message

    async def a_large_message(self):
        message = bytes(range(256)) * (LARGE // 256)
        async with self.connect("/echo") as ws:
            await ws.send(message)
            assert await asyncio.wait_for(ws.recv(), PATIENCE) == message

    async def many_at_once(self):
        async def one(number):
            async with self.connect("/echo") as ws:
                for _ in range(10):
                    await ws.send(str(number))
                    assert await ws.recv() == str(number)

        await asyncio.gather(*map(one, range(20)))

    async def pings(self):
        async with self.connect("/echo") as ws:
            for _ in range(3):
                await asyncio.wait_for(await ws.ping(), PATIENCE)

    async def the_closing_of_either_side(self):
        ws = await self.connect("/echo")
        await ws.close(4000, "mine")
        assert (ws.close_code, ws.close_reason) == (4000, "mine"), (ws.close_code, ws.close_reason)
        ws = await self.connect("/close")
        await ws.send("x")
        await asyncio.wait_for(ws.wait_closed(), PATIENCE)
        assert (ws.close_code, ws.close_reason) == (4001, "enough"), (ws.close_code, ws.close_reason)

    async def a_reset(self):
        ws = await self.connect("/reset")
        await ws.send("x")
        await asyncio.wait_for(ws.wait_closed(), PATIENCE)
        assert ws.close_code == 1006, ws.close_code

    async def a_refusal(self):
        try:
            await self.connect("/no")
        except websockets.InvalidStatus as refused:
            assert (refused.response.status_code, refused.response.body) == (403, b"not here\n"), refused.response
        else:
            raise AssertionError("it is accepted")


class Stream:
    """One WebSocket as an extended CONNECT. RFC 8441"""

    def __init__(self, host, port, node, frames):
        self.address, self.node, self.frames = (host, port), node, frames

    async def open(self, path):
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()
        self.status, self.fields, self.ended, self.code, self.settings = None, None, False, None, None
        self.flush()
        while self.settings is None:
            await self.more()
        assert self.settings.get(8) == 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL"
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
        head += [(":authority", "adit.test"), ("x-node-id", self.node), ("sec-websocket-version", "13")]
        self.http.send_headers(1, head)
        self.flush()
        while self.status is None and self.code is None:
            await self.more()
        return self

    def flush(self):
        self.writer.write(self.http.data_to_send())

    async def more(self):
        data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
        assert data, "the connection ended"
        for event in self.http.receive_data(data):
            match event:
                case h2.events.RemoteSettingsChanged():
                    self.settings = {int(code): change.new_value for code, change in event.changed_settings.items()}
                case h2.events.ResponseReceived():
                    self.fields = dict(event.headers)
                    self.status = int(self.fields[":status"])
                case h2.events.DataReceived():
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if self.status == 200:
                        self.frames.receive_data(event.data)
                case h2.events.StreamEnded():
                    self.ended = True
                case h2.events.StreamReset():
                    self.code = event.error_code
        self.flush()
        await self.send_frames()

    async def send_frames(self):
        for data in self.frames.data_to_send():
            while data:
                room = min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size, len(data))
                if room == 0:
                    await self.more()
                    continue
                self.http.send_data(1, data[:room])
                data = data[room:]
                self.flush()


class BehindEnvoy(Stream):
    """An Envoy resets a stream whose target closes its connection."""

    async def more(self):
        await super().more()
        self.ended = self.ended or self.code is not None


async def receive(stream):
    whole = b""
    while True:
        for frame in stream.frames.events_received():
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                whole += frame.data
                if frame.fin:
                    return whole
        await stream.more()


class ExtendedConnect:
    """HTTP/2 or HTTP/3: an extended CONNECT each."""

    def __init__(self, over, *where):
        self.over, self.where = over, where

    def open(self, path):
        frames = Protocol(Side.CLIENT, state=State.OPEN, max_size=2 * LARGE)
        return self.over(*self.where, frames).open(path)

    async def texts_and_bytes(self):
        stream = await self.open("/echo")
        assert stream.status == 200 and "sec-websocket-accept" not in stream.fields, stream.fields
        for message in (b"hello", b"\x00" * 70_000):
            stream.frames.send_binary(message)
            await stream.send_frames()
            assert await receive(stream) == message

    async def a_large_message(self):
        stream = await self.open("/echo")
        message = bytes(range(256)) * (LARGE // 256)
        stream.frames.send_binary(message)
        await stream.send_frames()
        assert await receive(stream) == message

    async def the_closing_of_either_side(self):
        stream = await self.open("/echo")
        stream.frames.send_close(4000, "mine")
        await stream.send_frames()
        while not stream.ended:
            await stream.more()
        assert stream.frames.close_rcvd.code == 4000
        stream = await self.open("/close")
        stream.frames.send_text(b"x")
        await stream.send_frames()
        while not stream.ended:
            await stream.more()
        assert (stream.frames.close_rcvd.code, stream.frames.close_rcvd.reason) == (4001, "enough")

    async def a_reset(self):
        stream = await self.open("/reset")
        stream.frames.send_text(b"x")
        await stream.send_frames()
        while stream.code is None:
            await stream.more()

    async def a_refusal(self):
        stream = await self.open("/no")
        assert stream.status == 403, stream.fields


async def judge(client):
    promises = [value for name, value in type(client).__dict__.items() if name[0] != "_" and asyncio.iscoroutinefunction(value)]
    for promise in promises:
        await promise(client)
        print(promise.__name__, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server"]:
            asyncio.run(serve())
        case ["client", host, port, node]:
            asyncio.run(judge(Upgrades(host, int(port), node)))
        case ["client", host, port, node, "h2"]:
            asyncio.run(judge(ExtendedConnect(Stream, host, int(port), node)))
        case ["client", host, port, node, "envoy"]:
            asyncio.run(judge(ExtendedConnect(BehindEnvoy, host, int(port), node)))
        case ["client", host, port, node, "h3", authority]:
            asyncio.run(judge(ExtendedConnect(websocket_h3.Stream, host, int(port), node, authority)))
        case _:
            sys.exit(__doc__)
