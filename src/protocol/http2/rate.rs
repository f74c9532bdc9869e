//! The rate at which one end may send frames that are nothing but work for the other. spec: SE-13

use std::sync::Arc;
use std::time::Instant;

use crate::protocol::allowance::Allowance;
use crate::protocol::budgets::{
    ANSWER_BYTES, CONTROL_FRAME_BURST, CONTROL_FRAMES_PER_MESSAGE_FRAME, CONTROL_FRAMES_PER_SECOND, FRAMES_BEHIND,
    PADDED_BYTES, PADDED_FRAME_BURST, PADDED_FRAMES_PER_SECOND,
};
use crate::protocol::http2::scan::{FrameHeader, FrameScan};
use crate::protocol::http2::unserved::Unserved;

/// A peer sends more frames than anybody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer floods HTTP/2 with frames: far more than its messages need, or than it takes answers")]
pub struct Flood;

/// Counts the frames of both directions of a connection, as one end sees them.
///
/// A control frame is any that is neither HEADERS nor DATA with bytes or END_STREAM: WINDOW_UPDATE, RST_STREAM, PING,
/// SETTINGS, PRIORITY, CONTINUATION, empty and unknown ones. They are paid from a stock that fills with time and with
/// messages, because a busy peer has more to say.
///
/// DATA with padding that may carry next to nothing has a stock of its own: nobody joins it with others, and HTTP/2 gives back
/// the window of the padding at once, so that windows do not bound how many wait to be read.
///
/// Any frame may need an answer. One on a stream that is forgotten gets RST_STREAM, for which HTTP/2 keeps hundreds of bytes
/// until it is written. So while what this end writes is not taken, frames of all kinds are counted.
#[derive(Debug)]
pub struct FrameRate {
    received: FrameScan,
    sent: FrameScan,
    control: Allowance,
    padded: Allowance,
    /// What was to be written last was not taken.
    is_stalled: bool,
    /// Frames that came since it was, less what was taken.
    behind: u32,
    /// Who wants to know what becomes of requests that nobody is given.
    unserved: Option<Arc<Unserved>>,
    /// Whether the last frame that came was of a head, and whether another one has to come.
    is_head: bool,
    is_in_head: bool,
}

impl FrameRate {
    /// At a client: its peer is a server.
    pub const fn at_client(now: Instant) -> Self {
        Self::new(FrameScan::of_server(), FrameScan::of_client(), now)
    }

    /// At a server: its peer is a client.
    pub const fn at_server(now: Instant) -> Self {
        Self::new(FrameScan::of_client(), FrameScan::of_server(), now)
    }

    const fn new(received: FrameScan, sent: FrameScan, now: Instant) -> Self {
        let control = Allowance::new(now, CONTROL_FRAME_BURST, CONTROL_FRAMES_PER_SECOND);
        let padded = Allowance::new(now, PADDED_FRAME_BURST, PADDED_FRAMES_PER_SECOND);
        Self {
            received,
            sent,
            control,
            padded,
            is_stalled: false,
            behind: 0,
            unserved: None,
            is_in_head: false,
            is_head: false,
        }
    }

    /// The same at a server, telling what becomes of requests.
    pub fn telling(self, unserved: Arc<Unserved>) -> Self {
        Self { unserved: Some(unserved), ..self }
    }

    /// Looks at the next bytes that were read, in any split. The clock is read only when the stock is empty.
    ///
    /// # Errors
    /// [`Flood`]: the connection should be cut.
    pub fn received(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        if !self.is_stalled {
            self.behind = 0;
        }
        while let Some(frame) = self.received.next(&mut bytes) {
            self.behind += u32::from(self.is_stalled);
            if self.behind > FRAMES_BEHIND {
                return Err(Flood);
            }
            self.note(frame);
            match frame.kind {
                FrameHeader::HEADERS => self.control.earn(CONTROL_FRAMES_PER_MESSAGE_FRAME),
                FrameHeader::DATA if frame.ends_stream() => {}
                FrameHeader::DATA if frame.is_padded() && frame.length < PADDED_BYTES => {
                    if !self.padded.spend(1, &now) {
                        return Err(Flood);
                    }
                }
                FrameHeader::DATA if frame.length > 0 => {}
                _ if self.control.spend(1, &now) => {}
                _ => return Err(Flood),
            }
        }
        Ok(())
    }

    /// Nothing more will be read.
    pub fn ended(&self) {
        if let Some(unserved) = self.unserved.as_ref().filter(|_| self.is_head)
            && (self.is_in_head || self.received.is_in_payload())
        {
            unserved.cut();
        }
    }

    /// Looks at what came for what it says of heads.
    fn note(&mut self, frame: FrameHeader) {
        let Some(unserved) = &self.unserved else { return };
        self.is_head = matches!(frame.kind, FrameHeader::HEADERS | FrameHeader::CONTINUATION);
        self.is_in_head = self.is_head && !frame.ends_head();
        if frame.kind == FrameHeader::HEADERS {
            unserved.came(frame.stream);
        }
    }

    /// The peer takes no more of what is to be written, until [`FrameRate::sent`] says that it does.
    pub const fn stalls(&mut self) {
        self.is_stalled = true;
    }

    /// Looks at the next bytes that were written.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        self.is_stalled = false;
        self.behind = self.behind.saturating_sub(u32::try_from(bytes.len() / ANSWER_BYTES).unwrap_or(u32::MAX));
        while let Some(frame) = self.sent.next(&mut bytes) {
            if matches!(frame.kind, FrameHeader::HEADERS | FrameHeader::DATA) {
                self.control.earn(CONTROL_FRAMES_PER_MESSAGE_FRAME);
            }
            if let Some(unserved) = &self.unserved {
                unserved.goes(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    /// How many of these frames pass at once.
    fn passing(rate: &mut FrameRate, bytes: &[u8], now: Instant) -> u32 {
        let mut passed = 0;
        while passed < 3 * CONTROL_FRAME_BURST && rate.received(bytes, || now).is_ok() {
            passed += 1;
        }
        passed
    }

    // spec: SE-13
    #[test]
    fn control_frames_without_end_are_a_flood_whatever_their_type() {
        let now = Instant::now();
        let update = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        let (reset, ping, unknown) = (frame(3, 0, &[0; 4]), frame(6, 0, &[0; 8]), frame(0xfa, 0, &[]));
        for control in [update, reset, ping, unknown, frame(FrameHeader::DATA, 0, &[])] {
            assert_eq!(passing(&mut FrameRate::at_client(now), &control, now), CONTROL_FRAME_BURST);
            let mut rate = FrameRate::at_client(now);
            assert!(rate.control.spend(CONTROL_FRAME_BURST, || now));
            let later = now + Duration::from_secs(2);
            assert_eq!(passing(&mut rate, &control, later), 2 * CONTROL_FRAMES_PER_SECOND, "time makes room");
        }
    }

    // spec: SE-13
    #[test]
    fn data_that_is_nearly_all_padding_is_a_flood_whatever_is_sent_for_it() {
        let now = Instant::now();
        let padded = frame(FrameHeader::DATA, 8, &[15; 16]);
        let (last, large) = (frame(FrameHeader::DATA, 9, &[15; 16]), frame(FrameHeader::DATA, 8, &[255; 512]));
        let mut rate = FrameRate::at_client(now);
        for _ in 0..PADDED_FRAME_BURST {
            rate.received(&[&padded[..], &last, &large].concat(), || now).unwrap();
            rate.sent(&frame(FrameHeader::DATA, 0, b"piece"));
        }
        assert_eq!(rate.received(&padded, || now), Err(Flood));
        let mut rate = FrameRate::at_client(now);
        assert!(rate.padded.spend(PADDED_FRAME_BURST, || now));
        let later = now + Duration::from_secs(1);
        assert_eq!(passing(&mut rate, &padded, later), PADDED_FRAMES_PER_SECOND);
    }

    // spec: SE-13
    #[test]
    fn messages_pay_for_the_control_frames_that_they_cause() {
        let now = Instant::now();
        let mut rate = FrameRate::at_client(now);
        let updates = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]).repeat(2);
        let data = frame(FrameHeader::DATA, 0, b"piece");
        rate.sent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..3 * CONTROL_FRAME_BURST {
            rate.sent(&data);
            rate.received(&updates, || now).unwrap();
        }
        let request = [frame(FrameHeader::HEADERS, 5, b"head"), frame(3, 0, &[0; 4])].concat();
        assert_eq!(passing(&mut rate, &request, now), 3 * CONTROL_FRAME_BURST, "each request may be cancelled");
        assert_eq!(passing(&mut rate, &data, now), 3 * CONTROL_FRAME_BURST, "windows bound data");
    }

    // spec: SE-13
    #[test]
    fn frames_of_a_peer_that_takes_no_answers_are_a_flood_whatever_their_type() {
        let now = Instant::now();
        let data = frame(FrameHeader::DATA, 1, b"");
        for frame in [&data, &frame(FrameHeader::DATA, 0, b"x"), &frame(FrameHeader::HEADERS, 5, b"head")] {
            let mut rate = FrameRate::at_client(now);
            assert_eq!(passing(&mut rate, frame, now), 3 * CONTROL_FRAME_BURST);
            rate.stalls();
            let passed = (0..).take_while(|_| rate.received(frame, || now).is_ok()).count();
            assert_eq!(u32::try_from(passed), Ok(FRAMES_BEHIND));
        }
        let mut rate = FrameRate::at_client(now);
        for _ in 0..2 * FRAMES_BEHIND {
            rate.stalls();
            rate.received(&data, || now).unwrap();
            rate.sent(&[0; ANSWER_BYTES]);
        }
        rate.stalls();
        for _ in 0..FRAMES_BEHIND - 1 {
            rate.received(&data, || now).unwrap();
        }
        rate.sent(b"all of it");
        rate.received(&data, || now).unwrap();
        rate.stalls();
        assert_eq!(rate.behind, 0, "who takes everything begins anew");
    }

    #[test]
    fn frames_are_found_in_any_split() {
        let now = Instant::now();
        let begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        // A payload that looks like a control frame.
        let data = frame(FrameHeader::DATA, 0, &frame(WINDOW_UPDATE, 0, &[0; 4]));
        let whole = [&begun[..], &data.repeat(50), &frame(WINDOW_UPDATE, 0, &[0; 4]).repeat(7)].concat();
        for size in [1, 3, 10, 1000, whole.len()] {
            let mut rate = FrameRate::at_server(now);
            for piece in whole.chunks(size) {
                rate.received(piece, || now).unwrap();
            }
            assert!(rate.control.spend(CONTROL_FRAME_BURST - 7, || now), "{size} at a time");
            assert!(!rate.control.spend(1, || now), "{size} at a time");
        }
    }
}
