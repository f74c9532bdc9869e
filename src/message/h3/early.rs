//! Which requests a packet of QUIC is about, for those that come in early data: anybody who has seen such a packet can send
//! it again. RFC 8470, RFC 9001 section 9.2

use crate::message::h3::frame::varint;

/// Bits of the type of a STREAM frame: there is an offset, there is a length. RFC 9000 section 19.8
const OFFSET: u64 = 0x4;
const LENGTH: u64 = 0x2;
/// What follows the id in NEW_CONNECTION_ID. RFC 9000 section 19.15
const RESET_TOKEN: usize = 16;
const CHALLENGE: usize = 8;
/// The bits of a stream's id that say who opened it and whether it goes both ways; none of them for a request.
const KIND: u64 = 0x3;

/// The highest id of a request in the frames of a packet of early data, decrypted; `u64::MAX` where it has a frame that no such
/// packet may have. RFC 9000 sections 12.4 and 19
///
/// Streams are opened in order, so each request with a lower id was sent in early data, too, or lost there.
pub fn last_request(payload: &[u8]) -> Option<u64> {
    let mut frames = Frames { rest: payload, last: None };
    while !frames.rest.is_empty() {
        if frames.next().is_none() {
            return Some(u64::MAX);
        }
    }
    frames.last
}

struct Frames<'a> {
    rest: &'a [u8],
    last: Option<u64>,
}

impl Frames<'_> {
    /// Reads one frame; `None` if it cannot be read.
    fn next(&mut self) -> Option<()> {
        match self.integer()? {
            // PADDING, PING
            0x00 | 0x01 => {}
            // RESET_STREAM
            0x04 => {
                self.stream()?;
                self.integers(2)?;
            }
            // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
            0x05 | 0x11 | 0x15 => {
                self.stream()?;
                self.integers(1)?;
            }
            kind @ 0x08..=0x0f => self.data(kind)?,
            // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED
            0x10 | 0x12 | 0x13 | 0x14 | 0x16 | 0x17 => self.integers(1)?,
            // NEW_CONNECTION_ID
            0x18 => {
                self.integers(2)?;
                let length = self.skip(1)?[0];
                self.skip(usize::from(length) + RESET_TOKEN)?;
            }
            // PATH_CHALLENGE
            0x1a => drop(self.skip(CHALLENGE)?),
            // DATAGRAM. RFC 9221 section 4
            0x30 => self.rest = &[],
            0x31 => self.sized()?,
            _ => return None,
        }
        Some(())
    }

    fn data(&mut self, kind: u64) -> Option<()> {
        self.stream()?;
        if kind & OFFSET != 0 {
            self.integers(1)?;
        }
        if kind & LENGTH != 0 {
            return self.sized();
        }
        self.rest = &[];
        Some(())
    }

    /// Notes the stream that a frame is about.
    fn stream(&mut self) -> Option<()> {
        let stream = self.integer()?;
        if stream & KIND == 0 {
            self.last = self.last.max(Some(stream));
        }
        Some(())
    }

    fn sized(&mut self) -> Option<()> {
        let length = usize::try_from(self.integer()?).ok()?;
        self.skip(length).map(drop)
    }

    fn integers(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.integer().map(drop))
    }

    fn integer(&mut self) -> Option<u64> {
        let (value, used) = varint(self.rest)?;
        self.rest = &self.rest[used..];
        Some(value)
    }

    fn skip(&mut self, bytes: usize) -> Option<&[u8]> {
        let (skipped, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_is_found_among_other_frames() {
        let frames: &[(&[u8], Option<u64>)] = &[
            (&[], None),
            (&[0, 0, 1], None),
            (&[0x0b, 0, 2, b'a', b'b', 0x0f, 8, 0x40, 1, 1, b'c', 0], Some(8)),
            (&[0x08, 4, b'a', 0x0b, 12], Some(4)),
            (&[0x0a, 2, 1, 0, 0x0a, 1, 1, 0, 0x0a, 3, 1, 0], None),
            (&[0x04, 12, 0, 5, 0x05, 4, 0], Some(12)),
            (&[0x10, 9, 0x11, 0, 9, 0x12, 9, 0x13, 9, 0x14, 9, 0x15, 4, 9, 0x16, 9, 0x17, 9], Some(4)),
            (&[0x1a, 1, 2, 3, 4, 5, 6, 7, 8, 0x31, 1, 9, 0x0a, 0, 0, 0x30, 9, 9], Some(0)),
            (&[[0x18, 1, 0, 1, 7].as_slice(), &[9; 16], &[0x0a, 4, 0]].concat(), Some(4)),
        ];
        for (payload, expected) in frames {
            assert_eq!(last_request(payload), *expected, "{payload:x?}");
        }
    }

    #[test]
    fn what_cannot_be_read_may_be_about_any_request() {
        for payload in
            [&[0x0a, 0, 5, 1][..], &[0x06, 0, 0], &[0x02, 0, 0, 0, 0], &[0x40], &[0x18, 1, 0, 200], &[0x7f, 0]]
        {
            assert_eq!(last_request(payload), Some(u64::MAX), "{payload:x?}");
        }
    }
}
