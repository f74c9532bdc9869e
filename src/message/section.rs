//! Where a section of fields ends, and reading one: the head of an HTTP/1 message and its trailers.
//!
//! Sans-IO, for whoever reads HTTP/1: the egress, the client of targets, the handshake with an Envoy.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::fields::strip_from_response_trailers;
use crate::message::validate;
use crate::message::violation::Violation;

/// The most fields that any section may have: there is room for so many on the stack.
pub const MAX_FIELDS: usize = 256;

/// Finds the empty line that ends a head or a trailer section, and rejects lines that end in LF alone: whether such a
/// line ends at all is what two parsers disagree on.
#[derive(Debug)]
pub struct SectionEnd {
    max_lines: usize,
    scanned: usize,
    line: usize,
    lines: usize,
}

impl SectionEnd {
    /// At the start of a section of at most so many lines, the empty one not counted.
    pub const fn new(max_lines: usize) -> Self {
        Self { max_lines, scanned: 0, line: 0, lines: 0 }
    }

    /// Nothing of the section was looked at yet.
    pub const fn is_at_start(&self) -> bool {
        self.scanned == 0
    }

    /// The first line has not ended yet.
    pub const fn is_in_first_line(&self) -> bool {
        self.line == 0
    }

    /// Looks only at what was not looked at before; `bytes` must have grown at its end only. Starts anew once it found
    /// the end. What is wrong is decided by the first line that makes it so, hence the same for every split.
    ///
    /// # Errors
    ///
    /// [`Violation::BareLineFeed`], or [`Violation::TooManyFields`] for too many lines.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        while let Some(offset) = bytes[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let feed = self.scanned + offset;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Err(Violation::BareLineFeed);
            }
            if feed - self.line == 1 {
                *self = Self::new(self.max_lines);
                return Ok(Some(feed + 1));
            }
            self.lines += 1;
            if self.lines > self.max_lines {
                return Err(Violation::TooManyFields);
            }
            self.scanned = feed + 1;
            self.line = feed + 1;
        }
        self.scanned = bytes.len();
        Ok(None)
    }
}

/// Reads a trailer section of a request, the empty line at its end included.
///
/// # Errors
/// [`Violation::Trailers`] or a broken limit: the section is not one that may follow a body.
pub fn trailers(bytes: Bytes, max_fields: usize) -> Result<HeaderMap, Violation> {
    let fields = read_trailers(bytes)?;
    validate::trailers(&fields, max_fields)?;
    Ok(fields)
}

/// The same of a response: what must not be in it, or is no target's to say, is removed.
///
/// # Errors
/// [`Violation::Trailers`] or a broken limit: the section is none.
pub fn response_trailers(bytes: Bytes, max_fields: usize) -> Result<HeaderMap, Violation> {
    let mut fields = read_trailers(bytes)?;
    if fields.len() > max_fields {
        return Err(Violation::TooManyFields);
    }
    strip_from_response_trailers(&mut fields);
    Ok(fields)
}

fn read_trailers(bytes: Bytes) -> Result<HeaderMap, Violation> {
    let mut room = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Ok(httparse::Status::Complete((length, lines))) = httparse::parse_headers(&bytes, &mut room) else {
        return Err(Violation::Trailers);
    };
    if length != bytes.len() {
        return Err(Violation::Trailers);
    }
    let mut fields = HeaderMap::with_capacity(lines.len());
    lines.iter().try_for_each(|line| append(&mut fields, &bytes, line))?;
    Ok(fields)
}

/// Values share the memory of the head they came in.
pub(crate) fn append(fields: &mut HeaderMap, bytes: &Bytes, line: &httparse::Header<'_>) -> Result<(), Violation> {
    let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Violation::Syntax)?;
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| Violation::Syntax)?;
    fields.append(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_too_many_lines_is_told_before_its_end() {
        let found = |bytes: &[u8]| SectionEnd::new(2).find(bytes);
        assert_eq!(found(b"a: b\r\nc: d\r\n\r\n"), Ok(Some(14)));
        assert_eq!(found(b"a: b\r\nc: d\r\ne: f\r\n"), Err(Violation::TooManyFields));
        assert_eq!(found(b"a: b\r\nc: d\r\ne: f\n"), Err(Violation::BareLineFeed));
    }

    #[test]
    fn trailers_are_read_as_strictly_as_heads() {
        assert_eq!(trailers(Bytes::from_static(b"A: b\r\n\r\n"), 1).unwrap()["a"], "b");
        assert!(trailers(Bytes::from_static(b"\r\n"), 1).unwrap().is_empty());
        for bad in
            ["A : b\r\n\r\n", " a: b\r\n\r\n", "a: b\r\n c\r\n\r\n", "a\r\n\r\n", "a: \0\r\n\r\n", "host: h\r\n\r\n"]
        {
            assert_eq!(trailers(Bytes::from(bad), 1), Err(Violation::Trailers), "{bad:?}");
        }
    }

    #[test]
    fn trailers_of_a_response_are_none_or_lose_what_must_not_be_there() {
        let read = |text: &'static str| response_trailers(Bytes::from(text), 2);
        let kept = read("x-envoy-internal: true\r\nx-sum: 4\r\n\r\n").unwrap();
        assert_eq!((kept.len(), &kept["x-sum"]), (1, &HeaderValue::from_static("4")));
        assert!(read("host: h\r\nTrailer: x\r\n\r\n").unwrap().is_empty());
        for bad in ["A : b\r\n\r\n", " a: b\r\n\r\n", "a\r\n\r\n", "a: \0\r\n\r\n"] {
            assert_eq!(read(bad), Err(Violation::Trailers), "{bad:?}");
        }
        assert_eq!(read("a: b\r\na: b\r\nhost: h\r\n\r\n"), Err(Violation::TooManyFields));
    }
}
