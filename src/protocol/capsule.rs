//! Capsules (RFC 9297) with the datagrams of CONNECT-UDP (RFC 9298) in them: what a client of an egress listener and the
//! responder say to each other on the stream of a request. spec: ST-79
//!
//! A capsule is a type, a length and a value. Those of type DATAGRAM hold a Context ID and a payload; Context ID 0 is a UDP
//! datagram. Nothing else is defined for us: other contexts are dropped, other types are skipped, however long they are.
//! Without I/O; of what is not whole no more is kept than the longest datagram.

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::limits::MAX_DATAGRAM_BYTES;
use crate::protocol::varint;

/// The type of a capsule with a datagram. RFC 9297 section 3.5
const DATAGRAM: u64 = 0;
/// The context of plain UDP datagrams. RFC 9298 section 4
const UDP: u64 = 0;
/// The longest value of such a capsule: a Context ID of any size, and a datagram.
const MAX_DATAGRAM_CAPSULE: u64 = 8 + MAX_DATAGRAM_BYTES as u64;

/// Why the stream has to be aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// A datagram beyond what UDP can carry. RFC 9298 section 5
    #[error("a datagram has at most 65,527 bytes")]
    TooLong,
    /// A capsule for a datagram has no whole Context ID.
    #[error("a datagram has no Context ID")]
    NoContext,
    /// The stream ended inside a capsule. RFC 9297 section 3.3
    #[error("the stream ended inside a capsule")]
    Truncated,
}

/// Reads capsules, whatever pieces they come in.
#[derive(Debug, Default)]
pub struct CapsuleReader {
    buffer: BytesMut,
    state: State,
    /// Datagrams that were dropped because nobody knows their context.
    unknown_contexts: u64,
}

#[derive(Debug, Default)]
enum State {
    /// At the begin of a capsule.
    #[default]
    Head,
    /// So many bytes of a datagram's capsule are to come.
    Datagram(usize),
    /// So many bytes of another one.
    Skip(u64),
}

impl CapsuleReader {
    /// More bytes of the stream. [`Self::read`] is to be asked until it has nothing more before there are others.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next datagram; `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`CapsuleError`]: the stream has to be aborted, and nothing more can be read of it.
    pub fn read(&mut self) -> Result<Option<Bytes>, CapsuleError> {
        loop {
            match self.state {
                State::Head => {
                    let Some((kind, length)) = self.take_head() else { return Ok(None) };
                    self.state = match kind {
                        DATAGRAM if length > MAX_DATAGRAM_CAPSULE => return Err(CapsuleError::TooLong),
                        DATAGRAM => State::Datagram(usize::try_from(length).unwrap_or(usize::MAX)),
                        _ => State::Skip(length),
                    };
                }
                State::Skip(left) => {
                    let here = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.buffer.advance(here);
                    let left = left - here as u64;
                    self.state = if left == 0 { State::Head } else { State::Skip(left) };
                    if left > 0 {
                        return Ok(None);
                    }
                }
                State::Datagram(length) => {
                    if self.buffer.len() < length {
                        return Ok(None);
                    }
                    self.state = State::Head;
                    let mut value = self.buffer.split_to(length).freeze();
                    let (context, size) = varint::decode_any(&value).ok_or(CapsuleError::NoContext)?;
                    value.advance(size);
                    if context != UDP {
                        self.unknown_contexts += 1;
                    } else if value.len() > MAX_DATAGRAM_BYTES {
                        return Err(CapsuleError::TooLong);
                    } else {
                        return Ok(Some(value));
                    }
                }
            }
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`CapsuleError::Truncated`]: inside a capsule.
    pub fn finish(&self) -> Result<(), CapsuleError> {
        match self.state {
            State::Head if self.buffer.is_empty() => Ok(()),
            _ => Err(CapsuleError::Truncated),
        }
    }

    /// How many datagrams were dropped because nobody knows their context, since this was asked last.
    pub fn take_unknown_contexts(&mut self) -> u64 {
        std::mem::take(&mut self.unknown_contexts)
    }

    /// Type and length of a capsule, if they are there whole.
    fn take_head(&mut self) -> Option<(u64, u64)> {
        let (kind, first) = varint::decode_any(&self.buffer)?;
        let (length, second) = varint::decode_any(&self.buffer[first..])?;
        self.buffer.advance(first + second);
        Some((kind, length))
    }
}

/// Where capsules begin and end in a stream that somebody else reads: between two of them another one may be put.
#[derive(Debug, Default)]
pub struct Boundary {
    /// The first bytes of a capsule whose length is not known yet.
    head: BytesMut,
    /// So many bytes of its value are to come.
    left: u64,
}

impl Boundary {
    /// These bytes of the stream come next.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                bytes.advance(here);
                self.left -= here as u64;
                continue;
            }
            self.head.extend_from_slice(&bytes[..1]);
            bytes.advance(1);
            let length = varint::decode_any(&self.head).and_then(|(_, kind)| varint::decode_any(&self.head[kind..]));
            if let Some((length, _)) = length {
                self.left = length;
                self.head.clear();
            }
        }
    }

    /// Whether a capsule has ended, or none has begun.
    pub fn is_between(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }
}

/// A UDP datagram in its capsule.
pub fn encode_datagram(payload: &[u8], out: &mut BytesMut) {
    let length = varint::size(UDP) as u64 + payload.len() as u64;
    out.reserve(16 + payload.len());
    varint::encode(out, DATAGRAM);
    varint::encode(out, length);
    encode_value(payload, out);
}

/// A UDP datagram as the payload of an HTTP Datagram: behind its Context ID.
pub fn encode_value(payload: &[u8], out: &mut BytesMut) {
    varint::encode(out, UDP);
    out.extend_from_slice(payload);
}

/// The payload of an HTTP Datagram, its Context ID included, in a capsule.
pub fn encode_capsule(value: &[u8], out: &mut BytesMut) {
    out.reserve(16 + value.len());
    varint::encode(out, DATAGRAM);
    varint::encode(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capsule(payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode_datagram(payload, &mut out);
        out.to_vec()
    }

    /// What is read of the bytes, pushed in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, CapsuleError> {
        let (mut reader, mut found) = (CapsuleReader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(datagram) = reader.read()? {
                found.push(datagram.to_vec());
            }
        }
        reader.finish()?;
        Ok(found)
    }

    // spec: ST-79
    #[test]
    fn datagrams_are_read_whatever_pieces_they_come_in() {
        let long = vec![7; 70_000 - 4_473];
        let sent: [&[u8]; 4] = [b"", b"dns", &[1; 1200], &long];
        let bytes: Vec<u8> = sent.iter().flat_map(|payload| capsule(payload)).collect();
        assert_eq!(&bytes[..2], b"\0\x01", "type, length");
        for piece in [1, 2, 3, 1000, bytes.len()] {
            assert_eq!(read(&bytes, piece).unwrap(), sent, "pieces of {piece}");
        }
    }

    // spec: ST-79
    #[test]
    fn another_capsule_may_be_put_between_two_and_nowhere_else() {
        let capsules = [capsule(b"one"), b"\x29\x00".to_vec(), b"\x40\x00\x80\x00\x00\x04\x40\x00ab".to_vec()];
        let ends: Vec<usize> = capsules
            .iter()
            .scan(0, |at, capsule| {
                *at += capsule.len();
                Some(*at)
            })
            .collect();
        let bytes = capsules.concat();
        for piece in [1, 3, bytes.len()] {
            let (mut boundary, mut at) = (Boundary::default(), 0);
            assert!(boundary.is_between());
            for piece in bytes.chunks(piece) {
                boundary.push(piece);
                at += piece.len();
                assert_eq!(boundary.is_between(), ends.contains(&at), "{at}");
            }
        }
        let mut put = BytesMut::new();
        encode_capsule(b"\0two", &mut put);
        assert_eq!(put, capsule(b"two"));
    }

    // spec: ST-79
    #[test]
    fn what_nobody_knows_is_passed_over_and_what_is_around_it_is_not() {
        let mut bytes = capsule(b"one");
        bytes.extend(b"\x29\x03abc");
        bytes.extend(b"\0\x04\x02ctx");
        // Types and lengths in longer forms than needed; a capsule with nothing in it.
        bytes.extend(b"\x40\x00\x80\x00\x00\x04\x40\x00ab");
        bytes.extend(b"\x7f\xff\0");
        // Far longer than anything that is kept.
        bytes.extend(b"\x29\x80\x10\x00\x00");
        bytes.extend(vec![0; 1 << 20]);
        bytes.extend(capsule(b"two"));
        for piece in [1, 5, 4096] {
            assert_eq!(read(&bytes, piece).unwrap(), [&b"one"[..], b"ab", b"two"], "pieces of {piece}");
        }
        let mut reader = CapsuleReader::default();
        reader.push(&bytes);
        while reader.read().unwrap().is_some() {}
        assert_eq!((reader.take_unknown_contexts(), reader.take_unknown_contexts()), (1, 0));
    }

    // spec: ST-79
    #[test]
    fn what_cannot_be_a_datagram_aborts_the_stream_before_it_is_kept() {
        let too_long = [&b"\0\x80\x01\x00\x01"[..], &vec![0; 65_537]].concat();
        assert_eq!(read(&too_long, 4096), Err(CapsuleError::TooLong));
        assert_eq!(read(b"\0\x80\x01\x00\x08", 1), Err(CapsuleError::TooLong), "by its head alone");
        assert_eq!(read(b"\0\0", 1), Err(CapsuleError::NoContext));
        assert_eq!(read(b"\0\x01\x40", 1), Err(CapsuleError::NoContext));
        assert_eq!(read(b"\0\x03\0a", 1), Err(CapsuleError::Truncated));
        assert_eq!(read(b"\x29\x03a", 1), Err(CapsuleError::Truncated));
        assert_eq!(read(b"\x40", 1), Err(CapsuleError::Truncated));
    }
}
