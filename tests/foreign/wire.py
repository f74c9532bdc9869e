"""Integers, texts and frames: what all streams are made of (proto-spec/1-overview.md)."""

import re

MAX_INTEGER = 2**62 - 1


class Fault(Exception):
    """The peer broke the text. `code` is a close code or stream code; `refusal` is what a responder would say."""

    def __init__(self, why, code="protocol", refusal=400):
        super().__init__(why)
        self.code = code
        self.refusal = refusal


class Incomplete(Exception):
    """More bytes are needed."""


def need(condition, why, **fault):
    if not condition:
        raise Fault(why, **fault)


def write_integer(number):
    """OV-10, and the shortest form of OV-11."""
    for high_bits, size in enumerate((1, 2, 4, 8)):
        if number < 1 << (8 * size - 2):
            return (number | high_bits << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(f"{number} is too large for the wire")


def read_integer(data, at=0):
    """The integer at `at`, and where it ends."""
    if at >= len(data):
        raise Incomplete
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise Incomplete
    number = int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
    need(len(write_integer(number)) == size, "an integer is not in its shortest form")
    return number, at + size


def counted(data):
    """`len + bytes`."""
    return write_integer(len(data)) + data


class Reader:
    """Reads a payload that is whole: what is missing in it never comes."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def has_more(self):
        return self.at < len(self.data)

    def integer(self, low=0, high=MAX_INTEGER):
        try:
            number, self.at = read_integer(self.data, self.at)
        except Incomplete:
            raise Fault("ends inside a value") from None
        need(low <= number <= high, f"{number} is out of range")
        return number

    def take(self, count):
        need(self.at + count <= len(self.data), "ends inside a value")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def counted(self):
        return self.take(self.integer())

    def rest(self):
        return self.take(len(self.data) - self.at)


def read_identifier(data, longest=128):
    """HS-10, HS-11."""
    valid = re.fullmatch(rb"[\x21-\x7e]+", data) and not re.search(rb"[:@/%?#]", data)
    need(valid and len(data) <= longest, "not an identifier")
    return data.decode()


def read_text(data, shortest, longest):
    """OV-12."""
    need(shortest <= len(data) <= longest, "a text is too short or too long")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Fault("a text is not UTF-8") from None
    need(not re.search("[\x00-\x1f\x7f-\x9f]", text), "a text has a control character")
    return text


class Frames:
    """Cuts bytes into frames (CT-1 to CT-4, ST-4 to ST-6).

    `judge(type, length)` sees the header alone. It raises, or says what becomes of the payload: "keep" it until it is
    whole, hand it on in "pieces", or "skip" it.
    """

    def __init__(self, judge):
        self.judge = judge
        self.buffer = bytearray()
        self.missing = None  # bytes of the payload; None: a header comes next

    def feed(self, data):
        """Yields the type and the payload of each frame, or of each piece of one."""
        self.buffer += data
        while self.missing is not None or self.read_header():
            ready = min(self.missing, len(self.buffer))
            if self.fate == "keep" and ready < self.missing:
                return
            payload = bytes(self.buffer[:ready])
            del self.buffer[:ready]
            self.missing -= ready
            frame_is_over = self.missing == 0
            if frame_is_over:
                self.missing = None
            if self.fate == "keep" or (self.fate == "pieces" and payload):
                yield self.type, payload
            if not frame_is_over:
                return

    def read_header(self):
        try:
            self.type, at = read_integer(self.buffer)
            length, at = read_integer(self.buffer, at)
        except Incomplete:
            return False
        del self.buffer[:at]
        self.fate = self.judge(self.type, length)
        self.missing = length
        return True
