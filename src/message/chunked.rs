//! The body of a request, taken out of the bytes that frame it.
//!
//! Sans-IO. Sizes, line ends and extensions are read strictly: a chunked body is the other half of every smuggling shape.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use crate::message::section::{SectionEnd, response_trailers, trailers};
use crate::message::violation::Violation;

/// The least and the most that is worth reading at once, bytes.
const READ_BYTES: std::ops::RangeInclusive<usize> = 8 * 1024..=64 * 1024;

/// Longest line with a chunk size; extensions are part of it.
const MAX_SIZE_LINE: usize = 512;
/// Most bytes of extensions in one body. Nobody uses them; a flood of them is work without payload.
const MAX_EXTENSIONS: usize = 4096;
/// Most digits of a chunk size.
const MAX_DIGITS: usize = 16;

/// Takes a body out of the bytes of a connection.
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// It is whole; trailers, if there are any.
    End(Option<HeaderMap>),
}

impl Decoder {
    /// The next piece in `buf`; `None` when more bytes are needed first.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, Violation> {
        match self {
            Self::Length(0) => Ok(Some(Piece::End(None))),
            Self::Length(remaining) => Ok(take(remaining, buf)),
            Self::Chunked(chunked) => chunked.decode(buf),
        }
    }

    /// The whole body has been taken.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked { state: State::Done, .. }))
    }

    /// How many bytes are worth reading at once.
    pub fn wanted(&self) -> usize {
        let remaining = match self {
            Self::Length(remaining) | Self::Chunked(Chunked { state: State::Data(remaining), .. }) => *remaining,
            Self::Chunked(_) => 0,
        };
        usize::try_from(remaining).unwrap_or(usize::MAX).clamp(*READ_BYTES.start(), *READ_BYTES.end())
    }
}

/// The chunked coding (RFC 9112 section 7.1).
#[derive(Debug)]
pub struct Chunked {
    state: State,
    padded: bool,
    is_response: bool,
    extensions: usize,
    section: SectionEnd,
    max_trailer_bytes: usize,
    max_trailer_fields: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

impl Chunked {
    /// At the start of a body whose trailers have at most so many bytes and fields.
    pub fn new(max_trailer_bytes: usize, max_trailer_fields: usize) -> Self {
        let section = SectionEnd::new(max_trailer_fields);
        Self {
            state: State::Size,
            padded: false,
            is_response: false,
            extensions: 0,
            section,
            max_trailer_bytes,
            max_trailer_fields,
        }
    }

    /// Of a response: its trailers lose what must not be in them, where those of a request would be refused.
    pub fn of_response(self) -> Self {
        Self { is_response: true, ..self }
    }

    /// Lets white space follow a size, as some old senders pad it: only where nothing is passed on that another reader
    /// might take apart differently.
    pub fn with_padded_sizes(self) -> Self {
        Self { padded: true, ..self }
    }

    /// The next piece in `buf`; `None` when more bytes are needed first. Nothing is taken after the end.
    ///
    /// # Errors
    ///
    /// The bytes are not the chunked coding, or a limit is broken; told as early as it is certain.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, Violation> {
        loop {
            let ready = match &mut self.state {
                State::Size => self.size(buf)?,
                State::Data(0) => self.enter(State::DataEnd),
                State::Data(remaining) => return Ok(take(remaining, buf)),
                State::DataEnd => self.data_end(buf)?,
                State::Trailers => return self.trailers(buf),
                State::Done => return Ok(Some(Piece::End(None))),
            };
            if !ready {
                return Ok(None);
            }
        }
    }

    fn enter(&mut self, state: State) -> bool {
        self.state = state;
        true
    }

    fn size(&mut self, buf: &mut BytesMut) -> Result<bool, Violation> {
        let window = &buf[..buf.len().min(MAX_SIZE_LINE)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if window.len() == MAX_SIZE_LINE { Err(Violation::ChunkExtensions) } else { Ok(false) };
        };
        let line = window[..end].strip_suffix(b"\r").ok_or(Violation::BareLineFeed)?;
        let (size, extensions) = size_line(line, self.padded)?;
        self.extensions += extensions;
        if self.extensions > MAX_EXTENSIONS {
            return Err(Violation::ChunkExtensions);
        }
        buf.advance(end + 1);
        Ok(self.enter(if size == 0 { State::Trailers } else { State::Data(size) }))
    }

    fn data_end(&mut self, buf: &mut BytesMut) -> Result<bool, Violation> {
        if !b"\r\n".starts_with(&buf[..buf.len().min(2)]) {
            return Err(Violation::ChunkEnd);
        }
        if buf.len() < 2 {
            return Ok(false);
        }
        buf.advance(2);
        Ok(self.enter(State::Size))
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, Violation> {
        let end = self.section.find(buf)?;
        if end.unwrap_or(buf.len()) > self.max_trailer_bytes {
            return Err(Violation::HeadTooLarge);
        }
        let Some(end) = end else { return Ok(None) };
        let read = if self.is_response { response_trailers } else { trailers };
        let fields = read(buf.split_to(end).freeze(), self.max_trailer_fields)?;
        self.state = State::Done;
        Ok(Some(Piece::End(Some(fields).filter(|fields| !fields.is_empty()))))
    }
}

fn take(remaining: &mut u64, buf: &mut BytesMut) -> Option<Piece> {
    if buf.is_empty() {
        return None;
    }
    let length = usize::try_from(*remaining).unwrap_or(usize::MAX).min(buf.len());
    *remaining -= length as u64;
    Some(Piece::Data(buf.split_to(length).freeze()))
}

/// The size, and how many bytes of extensions follow it. White space around the size, which the grammar does not
/// have, is not accepted unless `padded`.
fn size_line(line: &[u8], padded: bool) -> Result<(u64, usize), Violation> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let extensions = if padded { rest.trim_ascii_start() } else { rest };
    if digits == 0 || digits > MAX_DIGITS || !matches!(extensions.first(), None | Some(b';')) {
        return Err(Violation::ChunkSize);
    }
    if extensions.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Violation::ChunkSize);
    }
    let size = size.iter().fold(0, |size, digit| size << 4 | u64::from(hex(*digit)));
    Ok((size, extensions.len()))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> Decoder {
        Decoder::Chunked(Chunked::new(256, 4))
    }

    type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// Feeds `step` bytes at a time; the body, the trailers and what is left over.
    fn decode(wire: &[u8], step: usize) -> Result<Option<Decoded>, Violation> {
        let (mut decoder, mut buf, mut body) = (chunked(), BytesMut::new(), Vec::new());
        let mut rest = wire;
        loop {
            match decoder.decode(&mut buf)? {
                Some(Piece::Data(data)) => body.extend_from_slice(&data),
                Some(Piece::End(trailers)) => {
                    assert!(decoder.is_done());
                    return Ok(Some((body, trailers, [&buf[..], rest].concat())));
                }
                None if rest.is_empty() => return Ok(None),
                None => {
                    let (now, later) = rest.split_at(step.min(rest.len()));
                    buf.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    #[test]
    fn a_body_split_anywhere_decodes_the_same() {
        let wire = b"5\r\nhello\r\n00A;n=v\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nnext";
        for step in 1..wire.len() {
            let (body, trailers, rest) = decode(wire, step).unwrap().unwrap();
            assert_eq!(body, b"hello0123456789", "{step}");
            assert_eq!(trailers.unwrap()["x-sum"], "1");
            assert_eq!(rest, b"next");
        }
    }

    #[test]
    fn a_body_without_its_last_chunk_never_ends() {
        let wire = b"5\r\nhello\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            assert_eq!(decode(&wire[..cut], cut.max(1)), Ok(None), "{cut}");
        }
    }

    #[test]
    fn malformed_chunks_are_rejected() {
        let table: [(&[u8], Violation); 17] = [
            (b"\r\n", Violation::ChunkSize),
            (b"x\r\n", Violation::ChunkSize),
            (b"-1\r\n", Violation::ChunkSize),
            (b"+1\r\n", Violation::ChunkSize),
            (b"0x1\r\n", Violation::ChunkSize),
            (b" 1\r\n", Violation::ChunkSize),
            (b"1 \r\na", Violation::ChunkSize),
            (b"1 ;a\r\na", Violation::ChunkSize),
            (b"1_0\r\n", Violation::ChunkSize),
            (b"10000000000000000\r\n", Violation::ChunkSize),
            (b"00000000000000001\r\n", Violation::ChunkSize),
            (b"1\na\r\n", Violation::BareLineFeed),
            (b"1;a\rb\r\n", Violation::ChunkSize),
            (b"1;\0\r\n", Violation::ChunkSize),
            (b"1\r\nab\r\n", Violation::ChunkEnd),
            (b"1\r\na\n", Violation::ChunkEnd),
            (b"0\r\nhost: h\r\n\r\n", Violation::Trailers),
        ];
        for (wire, expected) in table {
            for step in [1, wire.len()] {
                assert_eq!(decode(wire, step), Err(expected), "{}", wire.escape_ascii());
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = [b"1;".to_vec(), vec![b'a'; MAX_SIZE_LINE]].concat();
        assert_eq!(decode(&long, 100), Err(Violation::ChunkExtensions));
        let flood = b"1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(MAX_EXTENSIONS / 16);
        assert_eq!(decode(&flood, 100), Err(Violation::ChunkExtensions));
        let endless = [b"0\r\nx: ".to_vec(), vec![b'a'; 256]].concat();
        assert_eq!(decode(&endless, 100), Err(Violation::HeadTooLarge));
        let many = b"0\r\na: b\r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n";
        assert_eq!(decode(many, 100), Err(Violation::TooManyFields));
    }

    #[test]
    fn a_length_takes_exactly_its_bytes() {
        let (mut decoder, mut buf) = (Decoder::Length(5), BytesMut::from("hellonext"));
        assert_eq!(decoder.decode(&mut buf), Ok(Some(Piece::Data(Bytes::from("hello")))));
        assert_eq!(decoder.decode(&mut buf), Ok(Some(Piece::End(None))));
        assert_eq!(&buf[..], b"next");
    }
}
