"""CONNECT as Python's http.client and the package h2 speak it, with TLS inside.

    connect.py server CERT KEY                          prints the port of a TLS server that echoes lines, and that of one that echoes bytes
    connect.py client HOST PORT NODE CA                 judges what comes back, through the services tls and bytes

The client prints a line for each promise that holds and ends with 1 at the first that does not.
"""

import asyncio
import hashlib
import http.client
import ssl
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events

LARGE = 20 * 1024 * 1024
PATIENCE = 120


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    writer.close()


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret")
    await writer.drain()
    writer.close()


async def serve(cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    tls = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    plain = await asyncio.start_server(echo, "127.0.0.1", 0)
    print("ports", *(server.sockets[0].getsockname()[1] for server in (tls, plain)), flush=True)
    await asyncio.gather(tls.serve_forever(), plain.serve_forever())


def tls_inside_is_between_client_and_service(host, port, node, ca):
    context = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=context)
    # The name in the certificate, by a route of the listener.
    connection.set_tunnel("localhost", 443, {"x-node-id": node})
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"secret")


class Stream:
    """A CONNECT over HTTP/2."""

    def __init__(self, host, port, fields):
        self.where, self.fields = (host, port), fields
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"
        )
        self.http = h2.connection.H2Connection(config)
        self.status = self.code = None
        self.received, self.ended = hashlib.sha256(), False

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(*self.where)
        self.http.initiate_connection()
        self.http.increment_flow_control_window(LARGE)
        self.http.send_headers(1, self.fields)
        while self.status is None and self.code is None:
            await self.more()
        return self

    async def more(self):
        self.writer.write(self.http.data_to_send())
        await self.writer.drain()
        data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
        assert data, "the connection ended"
        for event in self.http.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    self.status = int(dict(event.headers)[":status"])
                case h2.events.DataReceived():
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    self.received.update(event.data)
                case h2.events.StreamEnded():
                    self.ended = True
                case h2.events.StreamReset():
                    self.code = event.error_code
        self.writer.write(self.http.data_to_send())

    async def send(self, data):
        while data:
            room = min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size, len(data))
            if room == 0:
                await self.more()
                continue
            self.http.send_data(1, data[:room])
            data = data[room:]


def head(node, *more):
    return [(":method", "CONNECT"), *more, ("x-node-id", node)]


async def every_byte_passes_over_http_2(host, port, node):
    stream = await Stream(host, port, head(node, (":authority", "bytes:1"))).open()
    assert stream.status == 200 and not stream.ended, stream.status
    whole = bytes(range(256)) * (LARGE // 256)
    await stream.send(whole)
    stream.http.end_stream(1)
    while not stream.ended:
        await stream.more()
    assert stream.received.digest() == hashlib.sha256(whole).digest()


async def what_is_no_connect_is_reset_or_400(host, port, node):
    for more in (
        [(":authority", "bytes:1"), (":scheme", "http"), (":path", "/")],
        [(":authority", "bytes:1"), (":path", "/")],
        [],
    ):
        stream = await Stream(host, port, head(node, *more)).open()
        assert stream.code == h2.errors.ErrorCodes.PROTOCOL_ERROR or stream.status == 400, (more, stream.status, stream.code)
    for field in (("content-length", "0"), ("transfer-encoding", "chunked"), ("host", "other:1")):
        stream = await Stream(host, port, [*head(node, (":authority", "bytes:1")), field]).open()
        assert stream.code == h2.errors.ErrorCodes.PROTOCOL_ERROR or stream.status == 400, (field, stream.status, stream.code)


async def trailers_are_nothing_that_passes(host, port, node):
    stream = await Stream(host, port, head(node, (":authority", "bytes:1"))).open()
    assert stream.status == 200
    stream.http.send_headers(1, [("x-more", "1")], end_stream=True)
    while stream.code is None:
        assert not stream.ended
        await stream.more()


def judge(host, port, node, ca):
    tls_inside_is_between_client_and_service(host, port, node, ca)
    print("tls_inside_is_between_client_and_service", flush=True)
    for promise in (every_byte_passes_over_http_2, what_is_no_connect_is_reset_or_400, trailers_are_nothing_that_passes):
        asyncio.run(promise(host, port, node))
        print(promise.__name__, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", cert, key]:
            asyncio.run(serve(cert, key))
        case ["client", host, port, node, ca]:
            judge(host, int(port), node, ca)
        case _:
            sys.exit(__doc__)
