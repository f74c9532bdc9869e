"""One direction of a raw stream or a flow, as events like those in the vectors (proto-spec/3-streams.md, 8-tcp.md)."""

from ipaddress import ip_address

from messages import MAX_SKIPPED
from wire import Frames, Incomplete, Reader, counted, need, read_identifier, read_integer, read_text, write_integer

STREAM_TYPES = {"raw": 0x03, "flow": 0x05}
FRAMES = {"OPEN": 0x01, "OPENED": 0x01, "DATA": 0x03, "END": 0x09, "REFUSED": 0x0B, "DATAGRAM": 0x0D}
CAUSES = {
    "internal": 0x01,
    "unknown_service": 0x02,
    "wrong_kind": 0x03,
    "target_refused": 0x04,
    "target_unreachable": 0x05,
    "target_timed_out": 0x06,
    "limit": 0x07,
    "denied": 0x08,
}
CLIENT = 6
MAX_OPEN = 4096
MAX_DATAGRAM = 65527
MAX_REASON = 512

# The number 0x01 means OPEN in one direction and OPENED in the other.
REQUEST_NAMES = {0x01: "OPEN", 0x03: "DATA", 0x09: "END", 0x0B: "REFUSED", 0x0D: "DATAGRAM"}
ANSWER_NAMES = REQUEST_NAMES | {0x01: "OPENED"}

# What may come in each place of a direction (ST-51, TB-15).
PLACES = {
    "opening": ("OPEN",),
    "opening, answered": ("OPENED", "REFUSED"),
    "raw": ("DATA", "END"),
    "flow": ("DATAGRAM", "END"),
    "body of HTTP/2": ("DATAGRAM",),
    "after END": (),
}


def read_options(r, known=()):
    """ST-52: fields as in HS-4 to HS-6; those that are known."""
    last, options = -1, {}
    while r.has_more():
        number, value = r.integer(), r.counted()
        need(number > last, f"option {number} is out of order or comes twice")
        need(number % 2 == 0, f"option {number} is unknown")
        last = number
        if number in known:
            options[number] = value
    return options


def read_client(data):
    """ST-66: who connected, and to where."""
    r = Reader(data)
    family = r.byte()
    need(family in (4, 6), f"family of addresses {family}")
    size = 4 if family == 4 else 16
    addresses = [ip_address(r.take(size)) for _ in range(2)]
    ports = [int.from_bytes(r.take(2)) for _ in range(2)]
    need(not r.has_more(), "bytes after the end of client")
    written = [f"{address}" if family == 4 else f"[{address}]" for address in addresses]
    return " ".join(f"{address}:{port}" for address, port in zip(written, ports))


def write_client(client):
    pairs = [end.rsplit(":", 1) for end in client.split(" ")]
    addresses = [ip_address(address.strip("[]")) for address, _ in pairs]
    ports = b"".join(int(port).to_bytes(2) for _, port in pairs)
    return bytes([addresses[0].version]) + b"".join(address.packed for address in addresses) + ports


def read_open(r, stream):
    need(r.byte() == 0, "flag")
    opened = {"event": "open", "service": read_identifier(r.counted(), 64)}
    if stream == "flow":
        opened["flow"] = r.integer()
    options = read_options(r, known=(CLIENT,))
    if CLIENT in options:
        opened["client"] = read_client(options[CLIENT])
    return opened


def read_opened(r):
    need(r.byte() == 0, "flag")
    read_options(r)
    return {"event": "opened"}


def read_refused(r):
    """ST-54; an unknown cause is `internal` (ER-9)."""
    number = r.integer()
    cause = next((name for name, known in CAUSES.items() if known == number), "internal")
    refused = {"event": "refused", "cause": cause, "reason": read_text(r.counted(), 0, MAX_REASON)}
    read_options(r)
    return refused


def encode(event):
    """What `event` takes on the wire; before OPEN comes the stream's type."""
    name, before, payload = event["event"].upper(), b"", event.get("bytes", b"")
    if name == "OPEN":
        before = write_integer(STREAM_TYPES["flow" if "flow" in event else "raw"])
        payload = b"\0" + counted(event["service"].encode())
        payload += write_integer(event["flow"]) if "flow" in event else b""
        payload += write_integer(CLIENT) + counted(write_client(event["client"])) if "client" in event else b""
    elif name == "OPENED":
        payload = b"\0"
    elif name == "REFUSED":
        payload = write_integer(CAUSES[event["cause"]]) + counted(event["reason"].encode())
    return before + write_integer(FRAMES[name]) + counted(payload)


class ServiceReader:
    """Decodes one direction, however its bytes are cut. DATA comes in pieces.

    `stream` is "raw" or "flow" for what an initiator sends, "body" for a flow over TCP, and None for what a responder
    sends: then the stream's type comes first.
    """

    def __init__(self, stream=None):
        self.stream = stream
        self.type_bytes = b"" if stream is None else None  # the stream's type, until it is whole
        self.names = REQUEST_NAMES if stream is None else ANSWER_NAMES
        self.place = {None: "opening", "body": "body of HTTP/2"}.get(stream, "opening, answered")
        self.frames = Frames(self.judge)

    def feed(self, data, fin=False):
        """Yields events. `fin`: the stream finished after these bytes."""
        if self.type_bytes is not None:
            data = self.read_type(data)
        for number, payload in self.frames.feed(data):
            yield self.read(self.names[number], payload)
        is_whole = self.place == "after END"
        need(not (is_whole and self.frames.buffer), "bytes follow END")
        if self.place == "body of HTTP/2":
            is_whole = not self.frames.buffer and self.frames.missing is None
        need(is_whole or not fin, "the stream ended before END", code="truncated")

    def read_type(self, data):
        self.type_bytes += data
        try:
            number, at = read_integer(self.type_bytes)
        except Incomplete:
            return b""
        need(number in STREAM_TYPES.values(), f"stream type {number:#x}", code="unknown_type")
        self.stream = next(name for name, known in STREAM_TYPES.items() if known == number)
        rest, self.type_bytes = self.type_bytes[at:], None
        return rest

    def judge(self, number, length):
        """Type, then place, then length (ER-4)."""
        if number not in self.names:
            need(number % 2 == 0, f"frame {number:#x} is unknown")
            need(self.place != "after END", "a frame after END")
            need(length <= MAX_SKIPPED, f"an unknown frame of {length} bytes", code="limit")
            return "skip"
        name = self.names[number]
        need(name in PLACES[self.place], f"{name} is out of place")
        if name == "DATA":
            need(length > 0, "DATA without bytes")
            return "pieces"
        if name == "END":
            need(length == 0, "END with a payload")
        need(length <= (MAX_DATAGRAM if name == "DATAGRAM" else MAX_OPEN), f"{name} of {length} bytes", code="limit")
        return "keep"

    def read(self, name, payload):
        r = Reader(payload)
        if name in ("DATA", "DATAGRAM"):
            return {"event": name.lower(), "bytes": payload}
        if name in ("OPEN", "OPENED"):
            self.place = self.stream
            return read_open(r, self.stream) if name == "OPEN" else read_opened(r)
        self.place = "after END"
        return read_refused(r) if name == "REFUSED" else {"event": "end"}
