"""One tunnel over aioquic: dialling, the control stream, exchanges, liveness, drain (proto-spec/2, 3 and 4).

aioquic opens flow control windows by itself, so an echo to a reader slower than its sender is kept in memory. SE-5
forbids that; a test does not mind.
"""

import asyncio
import functools
import json
import os
import signal

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

import control
import messages
from answers import Answer
from wire import Fault, need

ALPN = "adit/1"
HANDSHAKE_TIMEOUT = 10.0  # seconds, as all times here
SUSPECT_TIMEOUT = 3.0
ACKNOWLEDGE_TIMEOUT = 3.0
REFUSED_TIMEOUT = 3.0
DRAIN_DEADLINE_MS = 30_000
LONGEST_PAUSE = 0.05  # between two looks at the clock
NO_QUIC_TIMEOUT = 2 * 86_400.0  # OV-8
TLS_ALERTS = range(0x100, 0x200)


def say(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def name_of(table, code):
    """ER-5."""
    return next((name for name, number in table.items() if number == code), "internal")


def run(arguments):
    """Dials once and serves until the tunnel is closed; the exit status."""
    return asyncio.run(dial(arguments))


async def dial(arguments):
    host, _, port = arguments.address.rpartition(":")
    host = host.strip("[]")
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[ALPN], server_name=host, idle_timeout=NO_QUIC_TIMEOUT
    )
    configuration.load_verify_locations(cafile=arguments.ca)
    if arguments.cert:
        configuration.load_cert_chain(arguments.cert, arguments.key)
    create = functools.partial(Tunnel, hello=hello(arguments))
    try:
        async with (
            asyncio.timeout(HANDSHAKE_TIMEOUT) as dialling,
            connect(host, int(port), configuration=configuration, create_protocol=create) as tunnel,
        ):
            dialling.reschedule(None)  # the tunnel looks at the clock itself from here
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, tunnel.stop)
            return await tunnel.finished
    except (ConnectionError, TimeoutError) as error:
        say("no connection", why=str(error) or type(error).__name__)
        return 1


def hello(arguments):
    frame = {
        "frame": "HELLO",
        "versions": [1, 1],
        "tenant": arguments.tenant,
        "services": [{"kind": "http", "name": name} for name in arguments.service],
        "cluster": arguments.cluster,
        "limits": control.DEFAULT_LIMITS,
        "node": arguments.node,
        "build": "foreign-initiator/1",
        "instance": os.urandom(16).hex(),
        "slot": 0,
        "generation": 0,
    }
    return frame | ({"token": arguments.token.encode().hex()} if arguments.token else {})


class Tunnel(QuicConnectionProtocol):
    def __init__(self, *args, hello, **kwargs):
        super().__init__(*args, **kwargs)
        self.hello = hello
        self.services = {service["name"] for service in hello["services"]}
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        self.tasks = set()
        self.state = "handshaking"
        self.dialled = self.heard = self.loop.time()
        self.control_id = None
        self.control = control.FrameReader()
        self.welcome = None
        self.refused = False
        self.pings = 0
        self.pinged = -1.0
        self.drains = set()  # who sent DRAIN
        self.deadline = None
        self.exchanges = {}
        self.early = []  # events of requests that overtook WELCOME
        self.on_frame = {
            "PING": self.on_ping,
            "PONG": self.on_pong,
            "LIMITS": lambda frame: None,  # the echo never comes near a limit
            "DRAIN": self.on_drain,
            "DRAINED": self.on_drained,
        }

    # QUIC

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
        self.send_control(self.hello)
        self.spawn(self.watch_the_clock())

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
            self.refused = True
            say("refuse", number=401, reason=f"TLS alert {event.error_code - 0x100}: {event.reason_phrase}")  # HS-36
        by_application = event.frame_type is None
        code = name_of(control.CLOSE_CODES, event.error_code) if by_application else f"quic {event.error_code:#x}"
        say("closed", code=code, reason=event.reason_phrase)
        self.state = "closed"
        if not self.finished.done():
            self.finished.set_result(1 if self.refused or code != "done" else 0)

    def spawn(self, job):
        task = self.loop.create_task(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # Control stream

    def send_control(self, frame):
        self._quic.send_stream_data(self.control_id, control.encode(frame))
        self.transmit()

    def on_control(self, event):
        need(isinstance(event, events.StreamDataReceived), "the control stream was reset")
        for frame in self.control.feed(event.data):
            if self.state == "handshaking":
                self.on_answer(frame)
            elif self.state != "closed":
                need(frame["frame"] in self.on_frame, f"{frame['frame']} while {self.state}")
                self.on_frame[frame["frame"]](frame)
        need(not event.end_stream or self.refused or self.state == "closed", "the control stream ended")  # CT-6
        if self.state != "handshaking":
            early, self.early = self.early, []
            for event in early:
                self.on_exchange(event)

    def on_answer(self, frame):
        need(frame["frame"] in ("WELCOME", "REFUSE") and not self.refused, f"{frame['frame']} in the handshake")
        say(frame["frame"].lower(), **{name: value for name, value in frame.items() if name != "frame"})
        if frame["frame"] == "REFUSE":
            self.refused = True
            self.loop.call_later(REFUSED_TIMEOUT, self.close_tunnel, "refused")  # HS-37
            return
        low, high = self.hello["versions"]
        need(low <= frame["version"] <= high, "a version that was not offered")  # HS-9
        self.welcome = frame
        self.state = "open"

    def on_ping(self, frame):
        self.send_control({"frame": "PONG", "echo": frame["echo"]})

    def on_pong(self, frame):
        number = int(frame["echo"], 16)
        need(1 <= number <= self.pings, "a PONG for no PING")  # CT-13
        say("pong", number=number)

    def on_drain(self, frame):
        need("responder" not in self.drains, "DRAIN came twice")
        say("drain", deadline_ms=frame["deadline_ms"])
        self.start_drain("responder", frame["deadline_ms"])

    def on_drained(self, frame):
        need(self.state == "draining", "DRAINED without DRAIN")
        say("drained")
        self.close_tunnel("done")  # CT-24

    def start_drain(self, who, deadline_ms):
        """CT-23."""
        self.drains.add(who)
        deadline = self.loop.time() + deadline_ms / 1000
        self.deadline = min(deadline, self.deadline or deadline)
        self.state = "draining"

    def stop(self):
        """At SIGTERM."""
        if self.state == "handshaking":
            self.close_tunnel("done", "stopped")
        elif self.state != "closed" and "initiator" not in self.drains:
            self.start_drain("initiator", DRAIN_DEADLINE_MS)
            self.send_control({"frame": "DRAIN", "deadline_ms": DRAIN_DEADLINE_MS, "reconnect_after_ms": 0})

    def close_tunnel(self, code, why=""):
        if self.state != "closed":
            self.state = "closed"
            self.spawn(self.close_when_acknowledged(code, why))

    async def close_when_acknowledged(self, code, why):
        """Lets what was sent on the control stream arrive; aioquic shows acknowledgements only inside."""
        until = self.loop.time() + ACKNOWLEDGE_TIMEOUT
        while self.has_unacknowledged() and self.loop.time() < until:
            await asyncio.sleep(0.01)
        self._quic.close(control.CLOSE_CODES[code], reason_phrase=why)
        self.transmit()

    def has_unacknowledged(self):
        stream = self._quic._streams.get(self.control_id)
        return stream is not None and stream.sender._buffer_start < stream.sender._buffer_stop

    # Liveness

    async def watch_the_clock(self):
        while self.state != "closed":
            self.look_at_the_clock()
            await asyncio.sleep(LONGEST_PAUSE)

    def look_at_the_clock(self):
        now = self.loop.time()
        if self.welcome is None:
            if now >= self.dialled + HANDSHAKE_TIMEOUT:
                self.close_tunnel("handshake_timeout")  # CT-40
            return
        if now >= self.heard + self.welcome["idle_ms"] / 1000:
            self.close_tunnel("idle")  # CT-43
        elif self.deadline is not None and now >= self.deadline:
            self.close_tunnel("done", "the drain deadline passed")  # CT-23
        elif now >= self.next_ping():
            self.pings += 1
            self.pinged = now
            self.send_control({"frame": "PING", "echo": f"{self.pings:016x}"})

    def next_ping(self):
        """CT-41, and CT-42 while one is unanswered."""
        if self.pinged >= self.heard:
            return self.pinged + SUSPECT_TIMEOUT
        return self.heard + self.welcome["keepalive_ms"] / 1000

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

    def forget_if_over(self, exchange):
        if exchange.is_over():
            self.exchanges.pop(exchange.stream_id, None)


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
