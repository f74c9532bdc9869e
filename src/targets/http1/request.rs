//! The head of a request in HTTP/1.1.

use http::header::{CONTENT_LENGTH, TE};
use http::{HeaderName, Method};

use crate::net::output::Output;
use crate::targets::outbound::Outbound;
use crate::targets::upload::Upload;

/// How a target finds the end of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

impl Framing {
    pub(super) fn new(outbound: &Outbound, upload: &Upload) -> Self {
        match (outbound.declared, upload) {
            (Some(declared), _) => Self::Length(declared),
            (None, Upload::Whole(data)) => Self::Length(data.len() as u64),
            (None, Upload::Streaming(_)) => Self::Chunked,
        }
    }
}

/// Writes the head: origin-form, `Host`, and how the body is framed.
pub(super) fn write_head(outbound: &Outbound, framing: Framing, out: &mut Output) {
    request_line(outbound, out);
    for (name, value) in &outbound.headers {
        field(name.as_str(), value.as_bytes(), out);
    }
    field("host", outbound.authority.as_ref().map_or("", |authority| authority.as_str()).as_bytes(), out);
    if outbound.headers.contains_key(TE) {
        field("connection", b"te", out);
    }
    match framing {
        Framing::Chunked => field("transfer-encoding", b"chunked", out),
        Framing::Length(length) => content_length(outbound, length, out),
    }
    out.put(b"\r\n");
}

/// Origin-form, RFC 9112 section 3.2.1; a target without a path has one here.
fn request_line(outbound: &Outbound, out: &mut Output) {
    let path = outbound.path.as_str();
    out.put(outbound.method.as_str().as_bytes());
    out.put(b" ");
    if !path.starts_with(['/', '*']) {
        out.put(b"/");
    }
    out.put(path.as_bytes());
    out.put(b" HTTP/1.1\r\n");
}

fn content_length(outbound: &Outbound, length: u64, out: &mut Output) {
    const NAME: HeaderName = CONTENT_LENGTH;
    let is_told = outbound.declared.is_some();
    if !is_told && (length > 0 || expects_body(&outbound.method)) {
        field(NAME.as_str(), decimal(length, &mut [0; 20]), out);
    }
}

fn field(name: &str, value: &[u8], out: &mut Output) {
    out.put(name.as_bytes());
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

/// Methods whose empty body is worth a `Content-Length: 0`. RFC 9110 section 8.6.
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Writes the number at the end of `room`.
fn decimal(number: u64, room: &mut [u8; 20]) -> &[u8] {
    digits(number, 10, room)
}

/// The chunk that `data` is, but for the data itself and the line end behind it. RFC 9112 section 7.1.
pub(super) fn write_chunk_size(length: usize, out: &mut Output) {
    out.put(digits(length as u64, 16, &mut [0; 20]));
    out.put(b"\r\n");
}

/// A trailer section, or its absence, and the end of the message.
pub(super) fn write_last_chunk(trailers: Option<&http::HeaderMap>, out: &mut Output) {
    out.put(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(name.as_str(), value.as_bytes(), out);
    }
    out.put(b"\r\n");
}

fn digits(mut number: u64, base: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_their_base() {
        for (number, base, expected) in
            [(0, 10, "0"), (0, 16, "0"), (255, 16, "ff"), (4096, 16, "1000"), (10, 10, "10")]
        {
            assert_eq!(digits(number, base, &mut [0; 20]), expected.as_bytes());
        }
        assert_eq!(digits(u64::MAX, 10, &mut [0; 20]), u64::MAX.to_string().as_bytes());
    }
}
