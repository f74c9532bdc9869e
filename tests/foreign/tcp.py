"""A tunnel over TCP, with ssl and the h2 library: dialling, streams, exchanges (proto-spec/8).

What the responder does not take yet of an answer is kept in memory, and its window opened all the same. SE-5 forbids
that; a test does not mind.
"""

import asyncio
import contextlib
import functools
import re
import ssl

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

import control
import messages
from answers import Answer
from tunnel import ALPN, Tunnel, name_of, say
from wire import Fault, need, read_identifier

LINGER_TIMEOUT = 1.0  # TB-10
CONTROL_ID = 1
MOST_STREAMS = 1000
FIELD_OVERHEAD = 32  # RFC 9113, section 6.5.2
SERVICE = "adit-service"
PSEUDO_FIELDS = {":method", ":scheme", ":authority", ":path", ":protocol"}

# TB-8.
SENT_AS = {
    "no_error": ErrorCodes.NO_ERROR,
    "internal": ErrorCodes.INTERNAL_ERROR,
    "truncated": ErrorCodes.INTERNAL_ERROR,
    "protocol": ErrorCodes.PROTOCOL_ERROR,
    "unknown_type": ErrorCodes.PROTOCOL_ERROR,
    "cancelled": ErrorCodes.CANCEL,
    "rejected": ErrorCodes.REFUSED_STREAM,
    "limit": ErrorCodes.ENHANCE_YOUR_CALM,
}
READ_FROM = {
    ErrorCodes.NO_ERROR: "no_error",
    ErrorCodes.PROTOCOL_ERROR: "protocol",
    ErrorCodes.FRAME_SIZE_ERROR: "protocol",
    ErrorCodes.FLOW_CONTROL_ERROR: "protocol",
    ErrorCodes.CANCEL: "cancelled",
    ErrorCodes.REFUSED_STREAM: "rejected",
    ErrorCodes.ENHANCE_YOUR_CALM: "limit",
}


@contextlib.asynccontextmanager
async def dial(host, port, hello, arguments):
    context = ssl.create_default_context(cafile=arguments.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    if arguments.cert:
        context.load_cert_chain(arguments.cert, arguments.key)
    create = functools.partial(TcpTunnel, hello=hello)
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(create, host, port, ssl=context, server_hostname=host)
    try:
        yield tunnel
    finally:
        transport.abort()


class TcpTunnel(Tunnel, asyncio.Protocol):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.http = None  # from WELCOME on
        self.control_out = b""  # for the control stream, before it is there or beyond its window
        self.control_is_open = False
        self.end_code = ("internal", "the connection was lost")
        self.gone = asyncio.Event()

    # TLS

    def connection_made(self, transport):
        self.transport = transport
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != ALPN:
            self.end_code = ("protocol", f"{ALPN} was not negotiated")
            transport.abort()  # TB-1
            return
        self.begin()

    def data_received(self, data):
        self.heard = self.loop.time()  # TB-9
        try:
            if self.http is None:
                data = self.on_bare_bytes(data)
            if self.http is not None:
                self.on_http_bytes(data)
        except Fault as fault:
            self.close_tunnel(fault.code, str(fault))
        except ProtocolError as error:
            self.close_tunnel("protocol", f"HTTP/2: {error}")

    def eof_received(self):
        self.gone.set()  # and asyncio closes the transport

    def connection_lost(self, error):
        self.gone.set()
        if isinstance(error, ssl.SSLError) and self.welcome is None and "ALERT" in (error.reason or ""):
            self.on_tls_refusal(f"TLS: {error.reason}")
        code, reason = ("refused", "") if self.refused else self.end_code
        self.on_closed(code, reason)

    # Handshake

    def on_bare_bytes(self, data):
        """TB-3. Returns what HTTP/2 gets of them."""
        for frame in self.control.feed(data):
            if frame["frame"] == "CLOSE":
                self.on_close_frame(frame)
                break
            self.on_control_frame(frame)
            if self.welcome:
                self.begin_http()
                rest = bytes(self.control.frames.buffer)
                self.control.frames.buffer.clear()
                return rest
        return b""

    def begin_http(self):
        """TB-4."""
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        most_bytes, most_fields = self.hello["limits"]
        self.http.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: most_bytes + FIELD_OVERHEAD * (most_fields + 8),
            }
        )
        self.http.initiate_connection()
        self.transmit()
        self.on_frame["CLOSE"] = self.on_close_frame

    def transmit(self):
        if self.http is not None:
            self.transport.write(self.http.data_to_send())

    # HTTP/2

    def on_http_bytes(self, data):
        try:
            happened = self.http.receive_data(data)
        finally:
            self.transmit()  # GOAWAY, if that failed
        for event in happened:
            if self.state == "closed":
                break
            self.on_http_event(event)
        self.transmit()

    def on_http_event(self, event):
        if isinstance(event, events.ConnectionTerminated):
            raise Fault(f"GOAWAY {event.error_code}")
        if isinstance(event, (events.WindowUpdated, events.RemoteSettingsChanged)):
            self.flush_control()
            for exchange in list(self.exchanges.values()):
                exchange.flush()
                self.forget_if_over(exchange)
        elif getattr(event, "stream_id", None) == CONTROL_ID:
            self.on_control_event(event)
        elif isinstance(event, events.RequestReceived):
            exchange = self.exchanges[event.stream_id] = Exchange(self, event.stream_id)
            exchange.on_head(event.headers, event.stream_ended is not None)
            self.forget_if_over(exchange)
        else:
            self.on_exchange_event(event)

    def on_exchange_event(self, event):
        exchange = self.exchanges.get(getattr(event, "stream_id", None))
        if isinstance(event, events.DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if exchange is None:
            return
        if isinstance(event, events.DataReceived):
            exchange.on_data(event.data)
        elif isinstance(event, events.TrailersReceived):
            exchange.on_trailers(event.headers)
        elif isinstance(event, events.StreamEnded):
            exchange.on_end()
        elif isinstance(event, events.StreamReset):
            exchange.on_reset(READ_FROM.get(event.error_code, "internal"))
        self.forget_if_over(exchange)

    # Control stream

    def send_control_bytes(self, data):
        if self.http is None:
            self.transport.write(data)
            return
        self.control_out += data
        self.flush_control()

    def flush_control(self):
        if self.control_is_open:
            self.control_out = self.send_some(CONTROL_ID, self.control_out)

    def send_some(self, stream_id, data):
        """Sends what the window has room for, and returns the rest."""
        while data and (room := self.http.local_flow_control_window(stream_id)) > 0:
            size = min(room, self.http.max_outbound_frame_size)
            self.http.send_data(stream_id, data[:size])
            data = data[size:]
        self.transmit()
        return data

    def on_control_event(self, event):
        """TB-5."""
        if isinstance(event, events.RequestReceived):
            self.http.send_headers(CONTROL_ID, [(":status", "200")])
            self.control_is_open = True
            self.flush_control()
        elif isinstance(event, events.DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, CONTROL_ID)
            for frame in self.control.feed(event.data):
                self.on_control_frame(frame)
        elif isinstance(event, (events.StreamEnded, events.StreamReset)):
            self.control_is_open = False
            self.on_control_end()

    # The end

    def on_close_frame(self, frame):
        self.end_code = (name_of(control.CLOSE_CODES, frame["code"]), frame["reason"])
        self.state = "closed"
        self.transport.close()  # CT-34

    async def hang_up(self, code, why):
        """TB-10."""
        self.end_code = (code, why)
        if not self.refused:
            self.say_close(code, why)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), LINGER_TIMEOUT)
        self.transport.close()

    def say_close(self, code, why):
        frame = control.encode({"frame": "CLOSE", "code": control.CLOSE_CODES[code], "reason": why})
        if self.http is None:
            self.transport.write(frame)
        elif self.control_is_open:
            with contextlib.suppress(ProtocolError):
                self.flush_control()
                self.http.send_data(CONTROL_ID, frame, end_stream=True)
            self.transmit()


class Exchange:
    """One request and its answer (TB-6 to TB-8)."""

    def __init__(self, tunnel, stream_id):
        self.tunnel = tunnel
        self.stream_id = stream_id
        self.answer = Answer(self, tunnel.services)
        self.promised = None
        self.request_is_whole = False
        self.is_reading = True
        self.is_sending = True
        self.out = b""  # of the body, beyond the window
        self.last = []  # events that end the answer, behind that

    def is_over(self):
        return not self.is_sending and not self.is_reading

    # What the responder does

    def on_head(self, headers, ended):
        self.guard(lambda: self.read_head(headers, ended))

    def read_head(self, headers, ended):
        event = read_request(headers, self.tunnel.hello["limits"]) | {"end": ended}
        self.promised = messages.promised_length(event["fields"])
        self.request_is_whole = ended
        say("request", stream=self.stream_id, method=event["method"], path=event["path"])
        self.answer.on_event(event)

    def on_data(self, data):
        if not self.is_reading or not data:
            return
        self.guard(lambda: self.read_data(data))

    def read_data(self, data):
        if self.promised is not None:
            self.promised -= len(data)
            need(self.promised >= 0, "more than content-length")
        self.answer.on_event({"event": "data", "bytes": data})

    def on_trailers(self, headers):
        def read():
            fields = read_fields(headers, self.tunnel.hello["limits"])
            need(all(name != "content-length" for name, _ in fields), "content-length must not be here")

        if self.is_reading:
            self.guard(read)

    def on_end(self):
        def read():
            need(not self.promised, "less than content-length")
            already, self.request_is_whole = self.request_is_whole, True
            if not already:
                self.answer.on_event({"event": "end"})

        if self.is_reading:
            self.guard(read)
        self.is_reading = False

    def guard(self, read):
        try:
            read()
        except Fault as fault:
            say("bad stream", stream=self.stream_id, code=fault.code, why=str(fault))
            self.abandon(fault.code)

    def on_reset(self, code):
        """HTTP/2 resets both directions at once."""
        was_sending = self.is_sending
        self.is_sending = self.is_reading = False
        if was_sending:
            say("cancelled", stream=self.stream_id, code=code, path=getattr(self.answer, "path", None))

    # What the answer does

    def send(self, *parts):
        if not self.is_sending:
            return
        for part in parts:
            self.send_one(part)
        self.flush()

    def send_one(self, part):
        http, kind = self.tunnel.http, part["event"]
        if kind == "data":
            self.out += part["bytes"]
        elif kind in ("trailers", "end"):
            self.last.append(part)
        else:
            headers = [(":status", str(part["status"])), *map(tuple, part["fields"])]
            end = part.get("end", False)
            http.send_headers(self.stream_id, headers, end_stream=end)
            if end:
                self.end()

    def flush(self):
        if not self.is_sending or not self.out and not self.last:
            return
        self.out = self.tunnel.send_some(self.stream_id, self.out)
        if self.last and not self.out:
            if self.last[0]["event"] == "trailers":
                fields = [tuple(field) for field in self.last[0]["fields"]]
                self.tunnel.http.send_headers(self.stream_id, fields, end_stream=True)
            else:
                self.tunnel.http.end_stream(self.stream_id)
            self.end()
        self.tunnel.transmit()

    def end(self):
        self.is_sending = False
        if self.is_reading and not self.request_is_whole:
            self.reset("no_error")  # ST-30

    def abandon(self, code):
        if self.is_sending:
            self.reset(code)

    def reset(self, code):
        self.is_sending = self.is_reading = False
        with contextlib.suppress(ProtocolError):
            self.tunnel.http.reset_stream(self.stream_id, SENT_AS[code])
        self.tunnel.transmit()

    def after(self, seconds, callback):
        def run():
            if self.tunnel.state != "closed" and self.is_sending:
                callback()
            self.tunnel.forget_if_over(self)

        self.tunnel.loop.call_later(seconds, run)


# Heads


def read_request(headers, limits):
    """A HEAD out of the fields of HTTP/2, by the rules of section 3."""
    pseudo = {name.decode(): value for name, value in headers if name.startswith(b":")}
    need(set(pseudo) <= PSEUDO_FIELDS, "pseudo-field")
    method, scheme = pseudo[":method"], pseudo.get(":scheme", b"")
    need(re.fullmatch(messages.TOKEN, method) and len(method) <= 32, "method")
    authority = messages.read_authority(pseudo.get(":authority", b""))
    path = pseudo.get(":path", b"")
    messages.check_path(path, method.decode(), ":protocol" in pseudo)
    size = len(method) + len(pseudo.get(":authority", b"")) + len(path)
    fields = read_fields(headers, limits, size)
    services = [value for name, value in fields if name == SERVICE]
    need(len(services) <= 1, f"{SERVICE} comes twice")
    head = {"event": "request", "method": method.decode(), "scheme": scheme.decode(), "authority": authority}
    if services:
        head["service"] = read_identifier(services[0].encode(), 64)
    return head | {"path": path.decode(), "fields": [field for field in fields if field[0] != SERVICE]}


def read_fields(headers, limits, size=0):
    """TB-7."""
    fields = [[name.decode(), value] for name, value in headers if not name.startswith(b":")]
    most_bytes, most_fields = limits
    size += sum(len(name) + len(value) for name, value in fields)
    need(size <= most_bytes and len(fields) <= most_fields, "the size of a head", code="limit")
    for name, value in fields:
        need(not messages.BAD_VALUE.search(value), "field value")
        need(
            name not in messages.NEVER_SENT and (name != "te" or value == b"trailers"), f"{name} must not be here"
        )
    return [[name, value.decode("utf-8", "surrogateescape")] for name, value in fields]
