//! The header of a frame. RFC 9114 section 7.1

use bytes::{Buf, Bytes, BytesMut};

pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const CANCEL_PUSH: u64 = 0x3;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const PUSH_PROMISE: u64 = 0x5;
pub(super) const GOAWAY: u64 = 0x7;
pub(super) const MAX_PUSH_ID: u64 = 0xd;
/// Those of HTTP/2 that HTTP/3 has no use for: a peer that sends one has mistaken the protocol.
pub(super) const RESERVED: [u64; 4] = [0x2, 0x6, 0x8, 0x9];

/// What a reader of HTTP/3 refuses wherever it stands, with H3_FRAME_UNEXPECTED: a frame of HTTP/2, without payload. It takes
/// the place of one that must not be where it is, whose payload nobody should keep.
pub(super) const UNEXPECTED: &[u8] = &[0x6, 0x0];

/// Two variable-length integers.
const MAX_HEADER: usize = 16;

/// Type and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u64,
    pub(super) length: u64,
}

/// Collects variable-length integers, however they are split.
#[derive(Debug, Default)]
pub(super) struct Collector {
    bytes: [u8; MAX_HEADER],
    held: usize,
}

impl Collector {
    /// Nothing of the next header is here.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes bytes from the front until a header is complete; it comes with its bytes.
    pub(super) fn header(&mut self, bytes: &mut Bytes) -> Option<(Header, Bytes)> {
        self.collect(bytes, |held| {
            let (kind, used) = varint(held)?;
            let (length, more) = varint(&held[used..])?;
            Some((Header { kind, length }, used + more))
        })
    }

    /// The same for a single integer.
    pub(super) fn integer(&mut self, bytes: &mut Bytes) -> Option<(u64, Bytes)> {
        self.collect(bytes, varint)
    }

    fn collect<T>(&mut self, bytes: &mut Bytes, read: impl Fn(&[u8]) -> Option<(T, usize)>) -> Option<(T, Bytes)> {
        while let Some(byte) = bytes.first().copied() {
            bytes.advance(1);
            self.bytes[self.held] = byte;
            self.held += 1;
            if let Some((found, _)) = read(&self.bytes[..self.held]) {
                let header = Bytes::copy_from_slice(&self.bytes[..self.held]);
                self.held = 0;
                return Some((found, header));
            }
        }
        None
    }
}

/// A frame with this payload, which is shorter than 2^30.
pub(super) fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 5);
    frame.extend_from_slice(&[kind]);
    frame.extend_from_slice(&(payload.len() as u32 | 0x8000_0000).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// The integer at the front and how many bytes it takes. RFC 9000 section 16
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_however_it_is_split() {
        let whole = [0x40, 0x41, 0x80, 0, 0, 7, 0xff];
        for split in 1..6 {
            let mut collector = Collector::default();
            let mut first = Bytes::copy_from_slice(&whole[..split]);
            assert_eq!(collector.header(&mut first), None);
            assert!(!collector.is_empty());
            let mut second = Bytes::copy_from_slice(&whole[split..]);
            let (header, bytes) = collector.header(&mut second).unwrap();
            assert_eq!((header, &bytes[..], second.len()), (Header { kind: 0x41, length: 7 }, &whole[..6], 1));
            assert!(collector.is_empty());
        }
    }

    #[test]
    fn integers_have_the_lengths_of_the_standard() {
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(varint(&eight), Some((151_288_809_941_952_652, 8)));
        assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(varint(&[0x7b, 0xbd, 0]), Some((15_293, 2)));
        assert_eq!((varint(&[0x25]), varint(&eight[..7]), varint(&[])), (Some((37, 1)), None, None));
    }

    #[test]
    fn a_frame_has_its_length_in_front() {
        assert_eq!(&frame(1, b"ab")[..], [1, 0x80, 0, 0, 2, b'a', b'b']);
    }
}
