//! Finds the end of an HTTP/1 head in bytes that arrive in any split, and holds no more than the head. spec: EV-10

use crate::protocol::envoy::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS};

/// Why bytes are not a head. Decided at the first byte that makes it so, hence the same for every split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    /// They are not HTTP/1.
    Syntax,
    /// Too many bytes or fields.
    TooLarge,
}

/// A head as far as it has arrived. Looks at each byte once, however slowly they come.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    bytes: Vec<u8>,
    /// Where the current line starts.
    line: usize,
    /// Lines that are complete, the first one included.
    lines: usize,
}

impl HeadScanner {
    /// Takes from `input` what belongs to the head; whether the head is complete.
    pub(super) fn push(&mut self, input: &mut &[u8]) -> Result<bool, HeadError> {
        while !input.is_empty() {
            let feed = input.iter().position(|&byte| byte == b'\n');
            let (piece, rest) = input.split_at(feed.map_or(input.len(), |at| at + 1));
            self.take(piece)?;
            *input = rest;
            if feed.is_some() && self.end_line()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The head, once it is complete; the empty line at its end included.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Tells TLS and other binary protocols by the first line, without waiting for a line feed that may never come.
    fn take(&mut self, piece: &[u8]) -> Result<(), HeadError> {
        let fits = &piece[..piece.len().min(MAX_HEAD_BYTES - self.bytes.len())];
        if self.lines == 0 && fits.iter().any(|byte| byte.is_ascii_control() && !b"\r\n".contains(byte)) {
            return Err(HeadError::Syntax);
        }
        self.bytes.extend_from_slice(fits);
        if fits.len() == piece.len() { Ok(()) } else { Err(HeadError::TooLarge) }
    }

    /// Whether the line that just ended is the empty one after the fields.
    fn end_line(&mut self) -> Result<bool, HeadError> {
        let line = &self.bytes[self.line..];
        if !line.ends_with(b"\r\n") {
            return Err(HeadError::Syntax);
        }
        let is_empty = line.len() == 2;
        self.line = self.bytes.len();
        match (is_empty, self.lines) {
            (true, 0) => Err(HeadError::Syntax),
            (true, _) => Ok(true),
            (false, lines) if lines > MAX_HEAD_FIELDS => Err(HeadError::TooLarge),
            (false, _) => {
                self.lines += 1;
                Ok(false)
            }
        }
    }
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
