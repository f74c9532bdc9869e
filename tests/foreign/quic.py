"""A tunnel over QUIC, with aioquic: dialling, streams, exchanges (proto-spec/1 and 3).

aioquic opens flow control windows by itself, so an echo to a reader slower than its sender is kept in memory. SE-5
forbids that; a test does not mind.
"""

import asyncio
import functools

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

import control
import messages
from answers import Answer
from tunnel import ALPN, Tunnel, name_of, say
from wire import Fault, need

ACKNOWLEDGE_TIMEOUT = 3.0
NO_QUIC_TIMEOUT = 2 * 86_400.0  # OV-8
TLS_ALERTS = range(0x100, 0x200)


def dial(host, port, hello, arguments):
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[ALPN], server_name=host, idle_timeout=NO_QUIC_TIMEOUT
    )
    configuration.load_verify_locations(cafile=arguments.ca)
    if arguments.cert:
        configuration.load_cert_chain(arguments.cert, arguments.key)
    create = functools.partial(QuicTunnel, hello=hello)
    return connect(host, port, configuration=configuration, create_protocol=create)


class QuicTunnel(Tunnel, QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.control_id = None
        self.early = []  # events of requests that overtook WELCOME

    def quic_event_received(self, event):
        if isinstance(event, events.ConnectionTerminated):
            self.on_terminated(event)
        elif self.state == "closed":
            return
        elif isinstance(event, events.HandshakeCompleted):
            self.on_connected(event)
        elif isinstance(event, (events.StreamDataReceived, events.StreamReset, events.StopSendingReceived)):
            self.heard = self.loop.time()
            try:
                self.on_stream_event(event)
            except Fault as fault:
                self.close_tunnel(fault.code, str(fault))
        elif isinstance(event, events.DatagramFrameReceived):
            self.heard = self.loop.time()  # and dropped: ST-41

    def on_connected(self, event):
        if event.alpn_protocol != ALPN:
            self.close_tunnel("protocol", f"{ALPN} was not negotiated")  # OV-2
            return
        self.control_id = self._quic.get_next_available_stream_id()
        self.begin()

    def on_stream_event(self, event):
        if event.stream_id == self.control_id:
            self.on_control(event)
        elif event.stream_id & 2:
            raise Fault("a unidirectional stream")  # OV-6
        elif self.state == "handshaking":
            self.early.append(event)  # HS-35
        else:
            self.on_exchange(event)

    def on_terminated(self, event):
        is_alert = event.frame_type is not None and event.error_code in TLS_ALERTS
        if is_alert and self.welcome is None:
            self.on_tls_refusal(f"TLS alert {event.error_code - 0x100}: {event.reason_phrase}")
        by_application = event.frame_type is None
        code = name_of(control.CLOSE_CODES, event.error_code) if by_application else f"quic {event.error_code:#x}"
        self.on_closed(code, event.reason_phrase)

    # Control stream

    def send_control_bytes(self, data):
        self._quic.send_stream_data(self.control_id, data)
        self.transmit()

    def on_control(self, event):
        need(isinstance(event, events.StreamDataReceived), "the control stream was reset")
        for frame in self.control.feed(event.data):
            self.on_control_frame(frame)
        if event.end_stream:
            self.on_control_end()
        if self.state != "handshaking":
            early, self.early = self.early, []
            for event in early:
                self.on_exchange(event)

    async def hang_up(self, code, why):
        """Lets what was sent on the control stream arrive; aioquic shows acknowledgements only inside."""
        until = self.loop.time() + ACKNOWLEDGE_TIMEOUT
        while self.has_unacknowledged() and self.loop.time() < until:
            await asyncio.sleep(0.01)
        self._quic.close(control.CLOSE_CODES[code], reason_phrase=why)
        self.transmit()

    def has_unacknowledged(self):
        stream = self._quic._streams.get(self.control_id)
        return stream is not None and stream.sender._buffer_start < stream.sender._buffer_stop

    # Exchanges

    def on_exchange(self, event):
        exchange = self.exchanges.get(event.stream_id)
        if isinstance(event, events.StreamDataReceived):
            if exchange is None:
                exchange = self.exchanges[event.stream_id] = Exchange(self, event.stream_id)
            exchange.on_data(event.data, event.end_stream)
        elif exchange is None:
            return  # over on both sides, or nothing of it has come yet
        elif isinstance(event, events.StreamReset):
            exchange.on_reset(name_of(messages.STREAM_CODES, event.error_code))
        else:
            exchange.on_stop(name_of(messages.STREAM_CODES, event.error_code))
        self.forget_if_over(exchange)
        self.transmit()


class Exchange:
    """One request and its answer."""

    def __init__(self, tunnel, stream_id):
        self.tunnel = tunnel
        self.stream_id = stream_id
        self.request = messages.MessageReader(True, tunnel.hello["limits"])
        self.answer = Answer(self, tunnel.services)
        self.is_sending = True
        self.is_reading = True
        self.peer_is_done = False  # nothing more arrives on this stream

    def is_over(self):
        """Not before the peer is done: bytes may arrive after STOP_SENDING (ST-36)."""
        return self.peer_is_done and not self.is_sending

    # What the responder does

    def on_data(self, data, fin):
        self.peer_is_done = fin
        if not self.is_reading:
            return
        try:
            for event in self.request.feed(data, fin):
                if event["event"] == "request":
                    say("request", stream=self.stream_id, method=event["method"], path=event["path"])
                self.answer.on_event(event)
        except Fault as fault:
            self.on_fault(fault)

    def on_fault(self, fault):
        say("bad stream", stream=self.stream_id, code=fault.code, why=str(fault))
        if self.request.is_whole():
            self.stop_reading("protocol")  # ST-35
        else:
            self.abandon(fault.code)  # ST-2, ST-34

    def on_reset(self, code):
        self.peer_is_done = True
        if self.is_reading and not self.request.is_whole():  # ST-37
            self.on_cancel(code)

    def on_stop(self, code):
        """aioquic has answered with a reset of the same code (ST-36)."""
        was_sending, self.is_sending = self.is_sending, False
        if was_sending and code != "no_error":
            self.on_cancel(code)

    def on_cancel(self, code):
        say("cancelled", stream=self.stream_id, code=code, path=getattr(self.answer, "path", None))
        self.abandon("cancelled")

    # What the answer does

    def send(self, *parts):
        """Sends events of a response; finishes the stream after END."""
        if not self.is_sending:
            return
        end = parts[-1]["event"] == "end" or parts[-1].get("end", False)
        self.quic(self.tunnel._quic.send_stream_data, b"".join(map(messages.encode, parts)), end)
        if end:
            self.is_sending = False
            if not self.request.is_whole():
                self.stop_reading("no_error")  # ST-30

    def abandon(self, code):
        """Cuts both directions."""
        if self.is_sending:
            self.is_sending = False
            self.quic(self.tunnel._quic.reset_stream, messages.STREAM_CODES[code])
        self.stop_reading(code)

    def after(self, seconds, callback):
        def run():
            callback()
            self.tunnel.forget_if_over(self)

        self.tunnel.loop.call_later(seconds, run)

    def stop_reading(self, code):
        if self.is_reading and not self.peer_is_done:
            self.quic(self.tunnel._quic.stop_stream, messages.STREAM_CODES[code])
        self.is_reading = False

    def quic(self, call, *arguments):
        """Calls into aioquic, which raises when the peer stopped or reset the stream and that event is still queued."""
        try:
            call(self.stream_id, *arguments)
        except (RuntimeError, ValueError):
            self.is_sending = False
        self.tunnel.transmit()
