"""Compares this implementation with registry.toml and every vector of proto-spec."""

import tomllib

import control
import messages
import services
from wire import Fault, Incomplete, Reader, read_integer, write_integer

# Streams and control frames must mean the same however their bytes are cut.
STEPS = (None, 1, 3)

# Vectors of raw streams and flows, and who reads them.
SERVICE_STREAMS = {"service_request": None, "raw_answer": "raw", "flow_answer": "flow", "flow_body": "body"}


def run(vectors):
    """Prints what differs and how much agrees; the exit status."""
    problems = [f"registry.toml: {table}" for table in registry_differences(vectors.parent / "registry.toml")]
    count = 0
    for path in sorted(vectors.glob("*/*.toml")):
        check = check_valid if path.parent.name == "valid" else check_invalid
        for vector in tomllib.loads(path.read_text())["vector"]:
            if vector["kind"].startswith(("envoy_", "http2_")) or vector["kind"] in ("greeting", "route"):
                continue  # another protocol, the frames of a library, and what siblings say to each other
            count += 1
            problems += [f"{path.parent.name}/{path.name}: {vector['name']}: {why}" for why in check(vector)]
    print(*problems, f"{count} vectors, {len(problems)} problems", sep="\n")
    return 1 if problems or not count else 0


def registry_differences(path):
    registry = tomllib.loads(path.read_text())
    mine = {
        "control_frames": control.FRAMES,
        "close_codes": control.CLOSE_CODES,
        "stream_frames": messages.FRAMES,
        "relayed_frames": messages.RELAYED_FRAMES,
        "stream_codes": messages.STREAM_CODES,
        "stream_types": {"http": messages.STREAM_TYPE_HTTP} | services.STREAM_TYPES,
        "service_frames": services.FRAMES,
        "open_causes": services.CAUSES,
        "tables": {"methods": messages.METHODS, "field_names": messages.FIELD_NAMES},
    }
    return [table for table, numbers in mine.items() if registry[table] != numbers]


def check_valid(vector):
    kind, data, expected = vector["kind"], parse_hex(vector["hex"]), vector["decoded"]
    for step in STEPS:
        try:
            decoded = decode(kind, data, step)
        except (Fault, Incomplete) as problem:
            yield f"is refused in pieces of {step}: {problem!r}"
            continue
        same = joined(decoded) == joined(expected) if step else decoded == expected
        if not same:
            yield f"is {decoded} in pieces of {step}"
    canonical = parse_hex(vector.get("canonical", vector["hex"]))
    if encode(kind, expected) != canonical:
        yield f"encodes to {encode(kind, expected).hex(' ')}"


def check_invalid(vector):
    expected = next(vector[key] for key in ("reset", "close", "error", "refuse") if key in vector)
    for step in STEPS:
        try:
            outcome = decode(vector["kind"], parse_hex(vector["hex"]), step)
        except Incomplete:
            outcome = "incomplete"
        except Fault as fault:
            outcome = name_of(fault, vector)
        if outcome != expected:
            yield f"is {outcome} instead of {expected} in pieces of {step}"


def name_of(fault, vector):
    if vector["kind"] == "varint":
        return "not_shortest"
    if vector["kind"] == "datagram":
        return "dropped"
    return fault.refusal if "refuse" in vector else fault.code


def parse_hex(text):
    """`#` starts a comment, `xx*n` is the byte `xx`, `n` times."""
    data = bytearray()
    for line in text.splitlines():
        for word in line.split("#")[0].split():
            byte, _, count = word.partition("*")
            data += bytes.fromhex(byte) * int(count or 1)
    return bytes(data)


def decode(kind, data, step):
    """What `data` means, fed in pieces of `step` bytes."""
    size = step or len(data) or 1
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if kind == "varint":
        number, end = read_integer(data)
        return number if end == len(data) else "bytes after the integer"
    if kind == "datagram":
        r = Reader(data)
        return [{"flow": r.integer(), "payload": r.rest().hex()}]
    if kind == "control":
        reader = control.FrameReader()
        return [frame for piece in pieces for frame in reader.feed(piece)]
    if kind in SERVICE_STREAMS:
        reader = services.ServiceReader(SERVICE_STREAMS[kind])
    else:
        reader = messages.MessageReader(kind == "request", control.DEFAULT_LIMITS, kind == "relayed_response")
    events = [event for piece in pieces for event in reader.feed(piece)]
    events += reader.feed(b"", fin=True)
    return [event | {"bytes": event["bytes"].hex()} if "bytes" in event else event for event in events]


def encode(kind, decoded):
    if kind == "varint":
        return write_integer(decoded)
    if kind == "datagram":
        return b"".join(write_integer(each["flow"]) + bytes.fromhex(each["payload"]) for each in decoded)
    if kind == "control":
        return b"".join(map(control.encode, decoded))
    events = (event | {"bytes": bytes.fromhex(event["bytes"])} if "bytes" in event else event for event in decoded)
    if kind in SERVICE_STREAMS:
        return b"".join(map(services.encode, events))
    stream_type = write_integer(messages.STREAM_TYPE_HTTP) if kind == "request" else b""
    return stream_type + b"".join(map(messages.encode, events))


def joined(decoded):
    """The same with all DATA in one piece, in front."""
    if not isinstance(decoded, list):
        return decoded
    body = "".join(event["bytes"] for event in decoded if "bytes" in event)
    return [body] + [event for event in decoded if "bytes" not in event]
