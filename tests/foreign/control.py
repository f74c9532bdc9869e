"""The frames of the control stream, as dicts like those in the vectors (proto-spec/2-handshake.md, 4-control.md)."""

import ipaddress
import re
from typing import Any, Callable, NamedTuple

from wire import MAX_INTEGER, Fault, Frames, Reader, counted, need, read_identifier, read_text, write_integer

FRAMES = {
    "HELLO": 0x01,
    "PING": 0x02,
    "WELCOME": 0x03,
    "PONG": 0x04,
    "REFUSE": 0x05,
    "SERVICES": 0x06,
    "DRAIN": 0x07,
    "LIMITS": 0x08,
    "DRAINED": 0x09,
    "REAUTH": 0x0B,
    "HEALTH": 0x0C,
    "CLOSE": 0x0D,
    "ROSTER": 0x0E,
    "REAUTHED": 0x11,
}
CLOSE_CODES = {
    "done": 0x00,
    "internal": 0x01,
    "protocol": 0x02,
    "handshake_timeout": 0x03,
    "refused": 0x04,
    "superseded": 0x05,
    "idle": 0x06,
    "limit": 0x07,
    "revoked": 0x08,
}
REFUSALS = (400, 401, 403, 404, 409, 429, 503)
SERVICE_KINDS = ["http", "tcp", "udp"]
# CT-59
DOWN_CAUSES = {
    "failed": 0x01,
    "target_refused": 0x04,
    "target_unreachable": 0x05,
    "target_timed_out": 0x06,
    "target_closed": 0x08,
    "check_failed": 0x09,
}
DEFAULT_LIMITS = [65536, 100]
MAX_PAYLOAD = 65536
MAX_UINT32 = 2**32 - 1
DAY_MS = 86_400_000


# How each sort of value is read and written.


class Kind(NamedTuple):
    read: Callable[[Reader], Any]
    write: Callable[[Any], bytes]


def fixed(size):
    return Kind(lambda r: r.take(size).hex(), bytes.fromhex)


def integer(low=0, high=MAX_INTEGER):
    return Kind(lambda r: r.integer(low, high), write_integer)


def text(shortest, longest):
    return Kind(lambda r: read_text(r.rest(), shortest, longest), str.encode)


def read_versions(r):
    low, high = r.integer(1, MAX_UINT32), r.integer(1, MAX_UINT32)
    need(low <= high and not r.has_more(), "versions")
    need(low == 1, f"versions {low} to {high} are offered, and this end speaks 1", refusal=404)
    return [low, high]


def read_limits(r):
    return [r.integer(4096, MAX_UINT32), r.integer(32, MAX_UINT32)]


def write_pair(pair):
    return write_integer(pair[0]) + write_integer(pair[1])


def read_token(r):
    need(1 <= len(r.data) <= 8192, "the length of a token")
    return r.rest().hex()


def read_number(r):
    """ER-1: of an unknown number only the hundred is understood."""
    number = r.integer()
    need(400 <= number < 600, f"{number} is no refusal")
    return number if number in REFUSALS else 403 if number < 500 else 503


def read_services(r):
    """HS-17: services of unknown kinds count, and are left out."""
    services = []
    while r.has_more():
        services.append((r.integer(), read_identifier(r.counted(), 64)))
    need(len(services) <= 256, "too many services")
    need(len({name for _, name in services}) == len(services), "a service comes twice")
    known = range(1, len(SERVICE_KINDS) + 1)
    return [{"kind": SERVICE_KINDS[kind - 1], "name": name} for kind, name in services if kind in known]


def read_schemes(r):
    """HS-25."""
    schemes = []
    while r.has_more():
        schemes.append(r.integer(0, 65535))
    need(len(schemes) <= 64, "too many signature schemes")
    return schemes


def read_certificates(r):
    """CT-32."""
    chain = []
    while r.has_more():
        chain.append(r.counted().hex())
    need(1 <= len(chain) <= 16 and all(chain), "the list of certificates")
    return chain


def write_certificates(chain):
    return b"".join(counted(bytes.fromhex(certificate)) for certificate in chain)


def read_signature(r):
    scheme = r.integer(0, 65535)
    need(r.has_more(), "the signature")
    return [scheme, r.rest().hex()]


def write_signature(signature):
    return write_integer(signature[0]) + bytes.fromhex(signature[1])


def read_some_services(r):
    need(r.has_more(), "a list of no services")
    return read_services(r)


def write_services(services):
    def write(service):
        return write_integer(SERVICE_KINDS.index(service["kind"]) + 1) + counted(service["name"].encode())

    return b"".join(map(write, services))


def read_down(r):
    """CT-58, CT-59."""
    names = {number: name for name, number in DOWN_CAUSES.items()}
    down = []
    while r.has_more():
        cause = names.get(r.integer(), "failed")
        down.append({"cause": cause, "name": read_identifier(r.counted(), 64)})
    need(1 <= len(down) <= 256, "the number of services that are down")
    need(len({service["name"] for service in down}) == len(down), "a service comes twice")
    return down


def write_down(down):
    return b"".join(write_integer(DOWN_CAUSES[service["cause"]]) + counted(service["name"].encode()) for service in down)


def read_listed(r):
    """HS-26: one responder of a roster."""
    listed = read_fields("LISTED", r)
    for address in listed["addresses"]:
        check_address(address)
    return listed


def read_addresses(r):
    addresses = []
    while r.has_more():
        addresses.append(read_text(r.counted(), 1, 261))
    need(1 <= len(addresses) <= 16, "the number of addresses")
    return addresses


def check_address(address):
    """HS-27."""
    host, _, port = address.rpartition(":")
    need(re.fullmatch("[1-9][0-9]{0,4}", port) and int(port) <= 65535, f"the port of {address}")
    if host.startswith("["):
        try:
            need(host == f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]", f"the form of {address}")
        except ValueError:
            raise Fault(f"the host of {address}") from None
    else:
        need(re.fullmatch("[A-Za-z0-9._-]{1,253}", host), f"the host of {address}")


def read_region(r):
    need(re.fullmatch(rb"[ -~]{1,128}", r.data), "a region")
    return r.rest().decode()


def read_roster(r):
    """HS-26."""
    need(1 <= len(r.data) <= 16384, "the length of the roster")
    roster = []
    while r.has_more():
        roster.append(read_listed(Reader(r.counted())))
    need(len(roster) <= 64, "too many responders")
    need(len({listed["id"] for listed in roster}) == len(roster), "a responder comes twice")
    return roster


def write_roster(roster):
    return b"".join(counted(write_fields("LISTED", listed)) for listed in roster)


IDENTIFIER = Kind(lambda r: read_identifier(r.rest()), str.encode)
VERSIONS = Kind(read_versions, write_pair)
LIMITS = Kind(read_limits, write_pair)
TOKEN = Kind(read_token, bytes.fromhex)
NUMBER = Kind(read_number, write_integer)
TIME = integer(0, DAY_MS)
SCHEMES = Kind(read_schemes, lambda schemes: b"".join(map(write_integer, schemes)))
CERTIFICATES = Kind(read_certificates, write_certificates)
SIGNATURE = Kind(read_signature, write_signature)
ROSTER = Kind(read_roster, write_roster)
ADDRESSES = Kind(read_addresses, lambda addresses: b"".join(counted(address.encode()) for address in addresses))


class Field(NamedTuple):
    name: str
    kind: Kind
    required: bool = True
    default: Any = None  # of an optional field; None: it has no key then


FIELDS = {
    "HELLO": {
        1: Field("versions", VERSIONS),
        2: Field("token", TOKEN, required=False),
        3: Field("tenant", IDENTIFIER),
        4: Field("services", Kind(read_some_services, write_services), required=False, default=[]),
        5: Field("cluster", IDENTIFIER),
        6: Field("limits", LIMITS, required=False, default=DEFAULT_LIMITS),
        7: Field("node", IDENTIFIER),
        8: Field("build", text(1, 128), required=False, default=""),
        9: Field("instance", fixed(16)),
        11: Field("slot", integer(0, MAX_UINT32)),
        13: Field("generation", integer()),
    },
    "WELCOME": {
        1: Field("version", integer()),
        2: Field("observed", text(1, 64), required=False),
        3: Field("tunnel", fixed(8)),
        4: Field("limits", LIMITS, required=False, default=DEFAULT_LIMITS),
        5: Field("responder", text(1, 128)),
        6: Field("reauth", SCHEMES, required=False),
        7: Field("keepalive_ms", integer(10, 3_600_000)),
        8: Field("roster", ROSTER, required=False),
        9: Field("idle_ms", TIME),
    },
    "REFUSE": {
        1: Field("number", NUMBER),
        2: Field("retry_after_ms", TIME, required=False),
        3: Field("reason", text(0, 512)),
    },
    "DRAIN": {
        1: Field("deadline_ms", TIME),
        3: Field("reconnect_after_ms", TIME),
        4: Field("serves_ms", integer(1, DAY_MS), required=False),
    },
    "CLOSE": {
        1: Field("code", integer()),
        3: Field("reason", text(0, 512)),
    },
    "REAUTH": {
        1: Field("number", integer()),
        2: Field("token", TOKEN, required=False),
        3: Field("certificates", CERTIFICATES, required=False),
        5: Field("signature", SIGNATURE, required=False),
    },
    "HEALTH": {
        1: Field("down", Kind(read_down, write_down), required=False, default=[]),
    },
    "ROSTER": {
        1: Field("roster", ROSTER, required=False, default=[]),
    },
    # Each responder of a roster.
    "LISTED": {
        1: Field("id", Kind(lambda r: read_identifier(r.rest(), 64), str.encode)),
        2: Field("region", Kind(read_region, str.encode), required=False),
        3: Field("weight", integer(0, 65535)),
        4: Field("addresses", ADDRESSES, required=False, default=[]),
    },
    "REAUTHED": {
        1: Field("number", integer()),
        3: Field("refusal", NUMBER, required=False),
        5: Field("reason", text(0, 512), required=False),
    },
}

# Frames whose payload is one value, or nothing.
PLAIN = {
    "PING": Field("echo", fixed(8)),
    "PONG": Field("echo", fixed(8)),
    "SERVICES": Field("services", Kind(read_services, write_services)),
    "LIMITS": Field("limits", LIMITS),
    "DRAINED": None,
}


def decode(name, payload):
    r = Reader(payload)
    if name not in PLAIN:
        return {"frame": name, **read_fields(name, r)}
    frame = {"frame": name}
    if PLAIN[name]:
        frame[PLAIN[name].name] = PLAIN[name].kind.read(r)
    need(not r.has_more(), f"bytes after the end of {name}")
    return frame


def read_fields(name, r):
    """HS-4 to HS-6."""
    known, values, last = FIELDS[name], {}, -1
    while r.has_more():
        number, value = r.integer(), Reader(r.counted())
        need(number > last, f"field {number} is out of order or comes twice")
        last = number
        if number in known:
            values[known[number].name] = known[number].kind.read(value)
            need(not value.has_more(), f"bytes after the end of {known[number].name}")
        else:
            need(number % 2 == 0, f"field {number} is unknown")
    for field in known.values():
        need(field.name in values or not field.required, f"{field.name} is missing")
        if field.default is not None:
            values.setdefault(field.name, field.default)
    need(name != "WELCOME" or values["idle_ms"] > values["keepalive_ms"], "idle timeout")  # HS-23
    if name == "REAUTH":  # CT-32
        need(("certificates" in values) == ("signature" in values), "certificates and a signature go together")
        need("certificates" in values or "token" in values, "a credential is missing")
    if name == "REAUTHED":  # CT-56
        need(("refusal" in values) == ("reason" in values), "a refusal and its reason go together")
    return values


def encode(frame):
    name = frame["frame"]
    if name in PLAIN:
        field = PLAIN[name]
        payload = field.kind.write(frame[field.name]) if field else b""
    else:
        payload = write_fields(name, frame)
    return write_integer(FRAMES[name]) + counted(payload)


def write_fields(name, values):
    return b"".join(
        write_integer(number) + counted(field.kind.write(values[field.name]))
        for number, field in FIELDS[name].items()
        # No services and no build are absent fields.
        if field.name in values and (field.required or values[field.name])
    )


def judge(number, length):
    """CT-2, CT-4: type, then length (ER-4)."""
    is_known = number in FRAMES.values()
    need(is_known or number % 2 == 0, f"frame {number:#x} is unknown")
    need(length <= MAX_PAYLOAD, f"a frame of {length} bytes", code="limit")
    return "keep" if is_known else "skip"


class FrameReader:
    """Decodes what arrives on the control stream, however it is cut. In the handshake nothing is skipped (CT-4)."""

    def __init__(self, in_handshake=False):
        self.in_handshake = in_handshake
        self.frames = Frames(self.judge)
        self.names = {number: name for name, number in FRAMES.items()}

    def judge(self, number, length):
        need(number in self.names or not self.in_handshake, f"frame {number:#x} in the handshake")
        return judge(number, length)

    def feed(self, data):
        for number, payload in self.frames.feed(data):
            yield decode(self.names[number], payload)
