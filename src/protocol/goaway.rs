//! Sees a GOAWAY pass in a direction of HTTP/2, without taking part in it. spec: EV-46
//!
//! The library that speaks HTTP/2 tells of a GOAWAY only when the last stream has ended; whoever wants to open a
//! replacement first must know when it arrives. A frame's header is all there is to look at (RFC 9113 section 4.1).

use crate::protocol::http2::{FrameHeader, FrameScan};

/// Watches the bytes of one direction.
#[derive(Debug)]
pub struct GoawayWatch {
    scan: FrameScan,
    seen: bool,
}

impl GoawayWatch {
    /// Watches what a client sends, which begins with its preface.
    pub const fn of_client() -> Self {
        Self { scan: FrameScan::of_client(), seen: false }
    }

    /// Watches what a server sends.
    pub const fn of_server() -> Self {
        Self { scan: FrameScan::of_server(), seen: false }
    }

    /// Looks at the next bytes, in any split; `true` once a GOAWAY has begun in them or before.
    pub fn see(&mut self, mut bytes: &[u8]) -> bool {
        while !self.seen
            && let Some(frame) = self.scan.next(&mut bytes)
        {
            self.seen = frame.kind == FrameHeader::GOAWAY;
        }
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOAWAY: u8 = FrameHeader::GOAWAY;
    const HEADER_BYTES: usize = 9;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    // spec: EV-46
    #[test]
    fn a_goaway_is_seen_in_any_split_and_nothing_else_is_taken_for_one() {
        // A payload that looks like the header of a GOAWAY.
        let before = [frame(4, &[]), frame(0, &frame(GOAWAY, &[0; 8])), frame(6, &[7; 8])].concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let whole = [&preface[..], &before, &frame(GOAWAY, &[0; 8])].concat();
        let begun = preface.len() + before.len() + HEADER_BYTES;
        for size in [1, 2, 7, 64, whole.len()] {
            let mut watch = GoawayWatch::of_client();
            let mut passed = 0;
            for piece in whole.chunks(size) {
                passed += piece.len();
                assert_eq!(watch.see(piece), passed >= begun, "after {passed} bytes, {size} at a time");
            }
        }
    }

    #[test]
    fn a_server_has_no_preface() {
        assert!(GoawayWatch::of_server().see(&frame(GOAWAY, &[0; 8])));
        assert!(!GoawayWatch::of_client().see(&frame(GOAWAY, &[0; 8])));
    }
}
