//! The body of a handshake in the chunked coding: empty, or the words of a refusal. The coding itself is that of
//! [`message::chunked`](crate::message::chunked).

use bytes::BytesMut;

use crate::message::chunked;
use crate::message::violation::Violation;
use crate::protocol::envoy::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS};

pub(super) use crate::message::chunked::Piece;

/// The bytes are not chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadChunk;

impl From<Violation> for BadChunk {
    fn from(_: Violation) -> Self {
        Self
    }
}

/// Reads one body; keeps at most one line, or the trailers.
#[derive(Debug)]
pub(super) struct Chunked {
    decoder: chunked::Chunked,
    /// What was taken and is not enough for a piece.
    begun: BytesMut,
}

impl Chunked {
    /// At the start of a body. Nothing of it is passed on, so that a padded size is understood.
    pub(super) fn new() -> Self {
        let decoder = chunked::Chunked::new(MAX_HEAD_BYTES, MAX_HEAD_FIELDS).with_padded_sizes();
        Self { decoder, begun: BytesMut::new() }
    }

    /// Takes the next piece from `input`; `None` when more bytes are needed first. What follows a piece stays there.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Piece>, BadChunk> {
        self.begun.extend_from_slice(input);
        let piece = self.decoder.decode(&mut self.begun)?;
        // A piece needs all that had begun before, so that what is left of both is the end of the input.
        let left = if piece.is_some() { self.begun.len().min(input.len()) } else { 0 };
        *input = &input[input.len() - left..];
        if piece.is_some() {
            self.begun.clear();
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = Result<(&'a [u8], bool, &'a [u8]), BadChunk>;

    /// The data, whether it ended, and what was left.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool, Vec<u8>), BadChunk> {
        let (mut chunked, mut data, mut ended, mut rest) = (Chunked::new(), Vec::new(), false, Vec::new());
        for mut input in bytes.chunks(step) {
            while !ended {
                match chunked.next(&mut input)? {
                    Some(Piece::Data(more)) => data.extend_from_slice(&more),
                    Some(Piece::End(_)) => ended = true,
                    None => break,
                }
            }
            rest.extend_from_slice(input);
        }
        Ok((data, ended, rest))
    }

    // spec: EV-6, EV-10
    #[test]
    fn chunks_are_read_in_any_split_and_nothing_after_them() {
        let cases: [(&[u8], Expected<'_>); 10] = [
            (b"0\r\n\r\nRPING", Ok((b"", true, b"RPING"))),
            (b"0;a=b\r\nt: 1\r\n\r\n", Ok((b"", true, b""))),
            (b"3\r\nabc\r\n2 \r\nde\r\n0\r\n\r\n", Ok((b"abcde", true, b""))),
            (b"3\r\nab", Ok((b"ab", false, b""))),
            (b"0\r\n", Ok((b"", false, b""))),
            (b"3\r\nabcd\r\n", Err(BadChunk)),
            (b"0\n\n", Err(BadChunk)),
            (b"x\r\n", Err(BadChunk)),
            (b"\r\n", Err(BadChunk)),
            (b"00000000000000000\r\n", Err(BadChunk)),
        ];
        for (bytes, expected) in cases {
            let expected = expected.map(|(data, ended, rest)| (data.to_vec(), ended, rest.to_vec()));
            for step in [1, 2, 3, bytes.len()] {
                let got = read(bytes, step);
                // What is wrong shows only once it has arrived, but then in every split.
                assert_eq!(got, expected, "{bytes:?} by {step}");
            }
        }
        assert_eq!(read(&[b'1'; 1025], 100), Err(BadChunk));
        assert_eq!(read(&[b"0\r\n".to_vec(), b"a:b\r\n".repeat(101)].concat(), 9), Err(BadChunk));
    }
}
