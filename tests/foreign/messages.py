"""One direction of an HTTP stream, as events like those in the vectors (proto-spec/3-streams.md)."""

import ipaddress
import re

from wire import Fault, Frames, Incomplete, Reader, counted, need, read_identifier, read_integer, write_integer

STREAM_TYPE_HTTP = 0x01
FRAMES = {"HEAD": 0x01, "DATA": 0x03, "INFO": 0x05, "TRAILERS": 0x07, "END": 0x09}
RELAYED_FRAMES = {"HERE": 0x02}
STREAM_CODES = {
    "no_error": 0x00,
    "internal": 0x01,
    "protocol": 0x02,
    "cancelled": 0x03,
    "rejected": 0x04,
    "unknown_type": 0x05,
    "limit": 0x06,
    "truncated": 0x07,
    # Between siblings only.
    "not_here": 0x08,
    "tunnel_lost": 0x09,
    "head_too_large": 0x0A,
    "tunnel_full": 0x0B,
    "quota": 0x0C,
}
METHODS = "GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH".split()
SCHEMES = ["http", "https"]
FIELD_NAMES = """
accept accept-charset accept-encoding accept-language accept-ranges access-control-allow-credentials
access-control-allow-headers access-control-allow-methods access-control-allow-origin access-control-expose-headers
access-control-max-age access-control-request-headers access-control-request-method age allow alt-svc authorization
cache-control content-disposition content-encoding content-language content-length content-location content-range
content-security-policy content-type cookie date dnt early-data etag expect expires forwarded from grpc-accept-encoding
grpc-encoding grpc-message grpc-status grpc-timeout if-match if-modified-since if-none-match if-range
if-unmodified-since last-event-id last-modified link location max-forwards origin pragma priority proxy-authenticate
proxy-authorization proxy-status range referer referrer-policy retry-after sec-ch-ua sec-ch-ua-mobile
sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-websocket-accept
sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version server server-timing set-cookie
strict-transport-security te timing-allow-origin trailer traceparent tracestate upgrade-insecure-requests user-agent
vary via warning www-authenticate x-content-type-options x-correlation-id x-envoy-attempt-count
x-envoy-expected-rq-timeout-ms x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-frame-options
x-real-ip x-request-id x-requested-with x-xss-protection
""".split()

FLAG_END, FLAG_SERVICE, FLAG_PROTOCOL = 0x01, 0x02, 0x04
MAX_SKIPPED = 65536

LOWER_TOKEN = rb"[!#$%&'*+.^_`|~0-9a-z-]+"
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._~!$&'()*+,;=-]+)(?::(\d*))?")
BAD_VALUE = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]\Z")
NEVER_SENT = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"}


# Heads


def read_name(r, table, pattern, what):
    """An index in the table, or the name spelled out if it is not in there (ST-11, ST-16)."""
    index = r.byte()
    if index:
        need(index <= len(table), f"{what} {index} is unknown")
        return table[index - 1]
    name = r.counted()
    need(re.fullmatch(pattern, name) and name.decode() not in table, what)
    return name.decode()


def write_name(name, table):
    return bytes([table.index(name) + 1]) if name in table else b"\0" + counted(name.encode())


def read_fields(r, most):
    """ST-7, ST-16 to ST-19."""
    fields = []
    while r.has_more():
        need(len(fields) < most, "the number of fields", code="limit")
        name, value = read_name(r, FIELD_NAMES, LOWER_TOKEN, "field name"), r.counted()
        need(not BAD_VALUE.search(value), "field value")
        need(name not in NEVER_SENT and (name != "te" or value == b"trailers"), f"{name} must not be here")
        fields.append([name, value.decode("utf-8", "surrogateescape")])
    return fields


def write_fields(fields):
    def write(name, value):
        return write_name(name, FIELD_NAMES) + counted(value.encode("utf-8", "surrogateescape"))

    return b"".join(write(name, value) for name, value in fields)


def read_authority(data):
    """ST-12."""
    if not data:
        return ""
    match = AUTHORITY.fullmatch(data)
    need(match and len(data) <= 512 and int(match[2] or 0) <= 65535, "authority")
    if match[1]:
        try:
            ipaddress.IPv6Address(match[1].decode())
        except ValueError:
            raise Fault("authority") from None
    return data.decode()


def check_path(path, method, extended):
    """ST-13."""
    if method == "CONNECT" and not extended:
        need(path == b"", "path")
    elif path != b"*" or method != "OPTIONS":
        need(re.fullmatch(rb"/[\x21-\x7e]*", path) and not re.search(rb"[#<>]", path), "path")


def read_request(r, most_fields):
    """ST-10 to ST-15."""
    flags = r.byte()
    need(flags & ~(FLAG_END | FLAG_SERVICE | FLAG_PROTOCOL) == 0, "flag")
    method = read_name(r, METHODS, TOKEN, "method")
    need(len(method) <= 32, "method")
    scheme = r.byte()
    need(1 <= scheme <= len(SCHEMES), "scheme")
    authority, path = read_authority(r.counted()), r.counted()
    need(authority or method != "CONNECT", "authority")
    head = {"event": "request", "method": method, "scheme": SCHEMES[scheme - 1], "authority": authority}
    if flags & FLAG_SERVICE:
        head["service"] = read_identifier(r.counted(), 64)
    if flags & FLAG_PROTOCOL:
        protocol = r.counted()
        valid = re.fullmatch(TOKEN + rb"(?:/" + TOKEN + rb")?", protocol) and len(protocol) <= 64
        need(valid and method == "CONNECT", "protocol")
        head["protocol"] = protocol.decode()
    check_path(path, method, flags & FLAG_PROTOCOL)
    return head | {"path": path.decode(), "fields": read_fields(r, most_fields), "end": bool(flags & FLAG_END)}


def write_request(head):
    flags = FLAG_END * head["end"] | FLAG_SERVICE * ("service" in head) | FLAG_PROTOCOL * ("protocol" in head)
    parts = [bytes([flags]), write_name(head["method"], METHODS), bytes([SCHEMES.index(head["scheme"]) + 1])]
    parts += [counted(head[part].encode()) for part in ("authority", "path", "service", "protocol") if part in head]
    return b"".join(parts) + write_fields(head["fields"])


def read_response(r, most_fields):
    """ST-20."""
    flags = r.byte()
    need(flags & ~FLAG_END == 0, "flag")
    status = r.integer(200, 999)
    return {"event": "response", "status": status, "fields": read_fields(r, most_fields), "end": bool(flags & FLAG_END)}


def read_info(r, most_fields):
    """ST-21."""
    status = r.integer(100, 199)
    need(status != 101, "status 101")
    return {"event": "info", "status": status, "fields": read_fields(r, most_fields)}


def read_trailers(r, most_fields):
    """ST-23, ST-24."""
    fields = read_fields(r, most_fields)
    need(fields, "TRAILERS without a field")
    need(all(name != "content-length" for name, _ in fields), "content-length must not be here")
    return {"event": "trailers", "fields": fields}


def promised_length(fields):
    """ST-24."""
    lengths = [value for name, value in fields if name == "content-length"]
    need(len(lengths) <= 1 and all(re.fullmatch("[0-9]{1,19}", length) for length in lengths), "content-length")
    return int(lengths[0]) if lengths else None


def encode(event):
    """One frame."""
    if event["event"] == "here":
        return write_integer(RELAYED_FRAMES["HERE"]) + counted(b"")
    if event["event"] == "request":
        name, payload = "HEAD", write_request(event)
    elif event["event"] == "response":
        name = "HEAD"
        payload = bytes([event["end"]]) + write_integer(event["status"]) + write_fields(event["fields"])
    elif event["event"] == "info":
        name, payload = "INFO", write_integer(event["status"]) + write_fields(event["fields"])
    elif event["event"] == "data":
        name, payload = "DATA", event["bytes"]
    elif event["event"] == "trailers":
        name, payload = "TRAILERS", write_fields(event["fields"])
    else:
        name, payload = "END", b""
    return write_integer(FRAMES[name]) + counted(payload)


# Messages

# What may come in each place of a message (ST-8).
PLACES = {
    "head of a request": ("HEAD",),
    "head of a response": ("INFO", "HEAD"),
    "body": ("DATA", "TRAILERS", "END"),
    "after trailers": ("END",),
    "after END": (),
}


class MessageReader:
    """Decodes one message, however its bytes are cut. DATA comes in pieces."""

    def __init__(self, is_request, limits, is_relayed=False):
        self.is_request = is_request
        self.may_say_here = is_relayed  # a sibling says once that it wants the request's body (FL-47)
        self.has_said_here = False
        self.head_bytes, self.head_fields = limits
        self.type_bytes = b"" if is_request else None  # the stream's type, until it is whole
        self.place = "head of a request" if is_request else "head of a response"
        self.promised = None  # what is left of a request's content-length
        self.frames = Frames(self.judge)
        self.names = {number: name for name, number in FRAMES.items()}

    def is_whole(self):
        return self.place == "after END"

    def feed(self, data, fin=False):
        """Yields events. `fin`: the stream finished after these bytes."""
        if self.type_bytes is not None:
            data = self.read_type(data)
        for number, payload in self.frames.feed(data):
            yield from self.here()
            yield self.read(self.names[number], payload)
        yield from self.here()
        need(not (self.is_whole() and self.frames.buffer), "bytes follow END")
        need(self.is_whole() or not fin, "the stream ended before END", code="truncated")

    def here(self):
        if self.has_said_here:
            self.has_said_here = False
            yield {"event": "here"}

    def read_type(self, data):
        self.type_bytes += data
        try:
            number, at = read_integer(self.type_bytes)
        except Incomplete:
            return b""
        need(number == STREAM_TYPE_HTTP, f"stream type {number:#x}", code="unknown_type")
        rest, self.type_bytes = self.type_bytes[at:], None
        return rest

    def judge(self, number, length):
        """Type, then place, then length (ER-4)."""
        if number not in self.names:
            need(number % 2 == 0, f"frame {number:#x} is unknown")
            need(not self.is_whole(), "a frame after END")
            need(length <= MAX_SKIPPED, f"an unknown frame of {length} bytes", code="limit")
            if number == RELAYED_FRAMES["HERE"] and self.may_say_here and self.place == "head of a response":
                self.may_say_here, self.has_said_here = False, True
            return "skip"
        name = self.names[number]
        need(name in PLACES[self.place], f"{name} is out of place")
        if name == "DATA":
            need(length > 0, "DATA without bytes")
            self.spend(length)
            return "pieces"
        if name == "END":
            need(length == 0, "END with a payload")
        need(length <= self.head_bytes, f"{name} of {length} bytes", code="limit")
        return "keep"

    def spend(self, length):
        if self.promised is not None:
            self.promised -= length
            need(self.promised >= 0, "more than content-length")

    def read(self, name, payload):
        r = Reader(payload)
        if name == "DATA":
            return {"event": "data", "bytes": payload}
        if name == "INFO":
            return read_info(r, self.head_fields)
        if name == "TRAILERS":
            self.place = "after trailers"
            return read_trailers(r, self.head_fields)
        if name == "END":
            self.end()
            return {"event": "end"}
        head = read_request(r, self.head_fields) if self.is_request else read_response(r, self.head_fields)
        self.place = "body"
        if self.is_request:
            self.promised = promised_length(head["fields"])
        if head["end"]:
            self.end()
        return head

    def end(self):
        need(not self.promised, "less than content-length")
        self.place = "after END"
