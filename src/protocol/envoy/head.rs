//! Finds the end of an HTTP/1 head in bytes that arrive in any split, and holds no more than the head. spec: EV-10

use crate::message::section::SectionEnd;
use crate::message::violation::Violation;
use crate::protocol::envoy::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS};

/// Why bytes are not a head. Decided at the first byte that makes it so, hence the same for every split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    /// They are not HTTP/1.
    Syntax,
    /// Too many bytes or fields.
    TooLarge,
}

impl From<Violation> for HeadError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::TooManyFields => Self::TooLarge,
            _ => Self::Syntax,
        }
    }
}

/// A head as far as it has arrived. Looks at each byte once, however slowly they come.
#[derive(Debug)]
pub(super) struct HeadScanner {
    bytes: Vec<u8>,
    section: SectionEnd,
}

impl Default for HeadScanner {
    fn default() -> Self {
        // The first line is no field.
        Self { bytes: Vec::new(), section: SectionEnd::new(MAX_HEAD_FIELDS + 1) }
    }
}

impl HeadScanner {
    /// Takes from `input` what belongs to the head; whether the head is complete.
    pub(super) fn push(&mut self, input: &mut &[u8]) -> Result<bool, HeadError> {
        let before = self.bytes.len();
        let fits = &input[..input.len().min(MAX_HEAD_BYTES - before)];
        if self.section.is_in_first_line() {
            check_first_line(fits)?;
        }
        self.bytes.extend_from_slice(fits);
        let Some(end) = self.section.find(&self.bytes)? else {
            let is_too_large = fits.len() < input.len();
            *input = &[];
            return if is_too_large { Err(HeadError::TooLarge) } else { Ok(false) };
        };
        if end == EMPTY_LINE {
            return Err(HeadError::Syntax);
        }
        self.bytes.truncate(end);
        *input = &input[end - before..];
        Ok(true)
    }

    /// The head, once it is complete; the empty line at its end included.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes of a line with nothing in it; a head does not begin with one.
const EMPTY_LINE: usize = 2;

/// Tells TLS and other binary protocols by the first line, without waiting for a line feed that may never come.
fn check_first_line(bytes: &[u8]) -> Result<(), HeadError> {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_text = line.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\r');
    if is_text { Ok(()) } else { Err(HeadError::Syntax) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the head ends.
    type Found = Result<Option<usize>, HeadError>;

    fn scan(bytes: &[u8], step: usize) -> Found {
        let mut scanner = HeadScanner::default();
        for mut piece in bytes.chunks(step) {
            if scanner.push(&mut piece)? {
                return Ok(Some(scanner.bytes().len()));
            }
        }
        Ok(None)
    }

    // spec: EV-10
    #[test]
    fn a_head_ends_at_its_empty_line_and_nothing_else_is_taken() {
        let one = b"GET / HTTP/1.1\r\na: b\r\n\r\nmore";
        let too_many = [b"G\r\n".to_vec(), b"a:b\r\n".repeat(101), b"\r\n".to_vec()].concat();
        let full = [b"G\r\n".to_vec(), b"a:b\r\n".repeat(100), b"\r\n".to_vec()].concat();
        let endless = vec![b'x'; MAX_HEAD_BYTES + 1];
        let largest = [b"G\r\n".to_vec(), vec![b'x'; MAX_HEAD_BYTES - 7], b"\r\n\r\n".to_vec()].concat();
        let cases: [(&[u8], Found); 9] = [
            (one, Ok(Some(one.len() - 4))),
            (b"GET / HTTP/1.1\r\na: b\r\n", Ok(None)),
            (b"\x16\x03\x01", Err(HeadError::Syntax)),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", Err(HeadError::Syntax)),
            (b"GET / HTTP/1.1\na: b\n\n", Err(HeadError::Syntax)),
            (&full, Ok(Some(full.len()))),
            (&too_many, Err(HeadError::TooLarge)),
            (&largest, Ok(Some(MAX_HEAD_BYTES))),
            (&endless, Err(HeadError::TooLarge)),
        ];
        for (bytes, expected) in cases {
            for step in [1, 2, 7, bytes.len()] {
                assert_eq!(scan(bytes, step), expected, "{} bytes by {step}", bytes.len());
            }
        }
    }
}
