"""One tunnel whatever it runs over: the control stream, liveness, drain (proto-spec/2 and 4).

quic.py and tcp.py say how its bytes travel.
"""

import asyncio
import json
import os
import signal

import control
from wire import need

ALPN = "adit/1"
HANDSHAKE_TIMEOUT = 10.0  # seconds, as all times here
SUSPECT_TIMEOUT = 3.0
REFUSED_TIMEOUT = 3.0
DRAIN_DEADLINE_MS = 30_000
LONGEST_PAUSE = 0.05  # between two looks at the clock


def say(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def name_of(table, code):
    """ER-5."""
    return next((name for name, number in table.items() if number == code), "internal")


def run(arguments, dial):
    """Dials once and serves until the tunnel is closed; the exit status. `dial` is that of a transport."""
    return asyncio.run(serve(arguments, dial))


async def serve(arguments, dial):
    host, _, port = arguments.address.rpartition(":")
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT) as dialling:
            async with dial(host.strip("[]"), int(port), hello(arguments), arguments) as tunnel:
                dialling.reschedule(None)  # the tunnel looks at the clock itself from here
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().add_signal_handler(number, tunnel.stop)
                return await tunnel.finished
    except (OSError, TimeoutError) as error:
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


class Tunnel:
    """The transport adds `send_control_bytes(data)` and `hang_up(code, why)`, and calls the methods that begin with on."""

    def __init__(self, *args, hello, **kwargs):
        super().__init__(*args, **kwargs)
        self.hello = hello
        self.services = {service["name"] for service in hello["services"]}
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        self.tasks = set()
        self.state = "handshaking"
        self.dialled = self.heard = self.loop.time()
        self.control = control.FrameReader(in_handshake=True)
        self.welcome = None
        self.refused = False
        self.pings = 0
        self.pinged = -1.0
        self.drains = set()  # who sent DRAIN
        self.deadline = None
        self.exchanges = {}
        self.on_frame = {
            "PING": self.on_ping,
            "PONG": self.on_pong,
            "LIMITS": lambda frame: None,  # the echo never comes near a limit
            "DRAIN": self.on_drain,
            "DRAINED": self.on_drained,
            "ROSTER": self.on_roster,
        }

    def begin(self):
        """TLS is done."""
        self.send_control(self.hello)
        self.spawn(self.watch_the_clock())

    def spawn(self, job):
        task = self.loop.create_task(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # The end

    def close_tunnel(self, code, why=""):
        if self.state != "closed":
            self.state = "closed"
            self.spawn(self.hang_up(code, why))

    def on_tls_refusal(self, why):
        """HS-36."""
        self.refused = True
        say("refuse", number=401, reason=why)

    def on_closed(self, code, reason):
        """The connection is gone."""
        say("closed", code=code, reason=reason)
        self.state = "closed"
        if not self.finished.done():
            self.finished.set_result(1 if self.refused or code != "done" else 0)

    # Control stream

    def send_control(self, frame):
        self.send_control_bytes(control.encode(frame))

    def on_control_frame(self, frame):
        if self.state == "handshaking":
            self.on_answer(frame)
        elif self.state != "closed":
            need(frame["frame"] in self.on_frame, f"{frame['frame']} while {self.state}")
            self.on_frame[frame["frame"]](frame)

    def on_control_end(self):
        need(self.refused or self.state == "closed", "the control stream ended")  # CT-6

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
        self.control.in_handshake = False

    def on_ping(self, frame):
        self.send_control({"frame": "PONG", "echo": frame["echo"]})

    def on_pong(self, frame):
        number = int(frame["echo"], 16)
        need(1 <= number <= self.pings, "a PONG for no PING")  # CT-13
        say("pong", number=number)

    def on_roster(self, frame):
        """CT-62. This end has one tunnel, and stays where it is."""
        say("roster", responders=[listed["id"] for listed in frame["roster"]])

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

    def forget_if_over(self, exchange):
        if exchange.is_over():
            self.exchanges.pop(exchange.stream_id, None)
