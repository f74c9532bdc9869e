"""One WebSocket as an extended CONNECT of aioquic. RFC 9220"""

import asyncio

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamReset

PATIENCE = 120


class Connection(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.happened = asyncio.Queue()

    def quic_event_received(self, event):
        for happened in [event, *self.http.handle_event(event)]:
            self.happened.put_nowait(happened)


class Stream:
    def __init__(self, host, port, node, authority_file, frames):
        self.address, self.node, self.authority_file = (host, port), node, authority_file
        self.frames = frames
        self.status, self.fields, self.ended, self.code = None, None, False, None

    async def open(self, path):
        configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost")
        configuration.load_verify_locations(cafile=self.authority_file)
        create = lambda: Connection(QuicConnection(configuration=configuration))
        _, self.connection = await asyncio.get_running_loop().create_datagram_endpoint(create, local_addr=("127.0.0.1", 0))
        self.http = self.connection.http
        self.connection.connect(self.address)
        while self.http.received_settings is None:
            await self.more()
        assert self.http.received_settings.get(Setting.ENABLE_CONNECT_PROTOCOL) == 1, self.http.received_settings
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path)]
        head += [(":authority", "localhost"), ("x-node-id", self.node), ("sec-websocket-version", "13")]
        self.stream = self.connection._quic.get_next_available_stream_id()
        self.http.send_headers(self.stream, [(name.encode(), value.encode()) for name, value in head])
        self.connection.transmit()
        while self.status is None and self.code is None:
            await self.more()
        return self

    async def more(self):
        match await asyncio.wait_for(self.connection.happened.get(), PATIENCE):
            case ConnectionTerminated() as end:
                raise AssertionError(f"the connection ended: {end}")
            case HeadersReceived(headers=headers, stream_ended=ended):
                self.fields = {name.decode(): value.decode() for name, value in headers}
                self.status, self.ended = int(self.fields[":status"]), ended
            case DataReceived(data=data, stream_ended=ended):
                if self.status == 200:
                    self.frames.receive_data(data)
                self.ended = ended
            case StreamReset(error_code=code):
                self.code = code
        await self.send_frames()

    async def send_frames(self):
        for data in self.frames.data_to_send():
            if data:
                self.http.send_data(self.stream, data, False)
        self.connection.transmit()
