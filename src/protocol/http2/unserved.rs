//! What becomes of requests that nobody is given, as the frames of a connection tell who sees them pass.
//!
//! A codec of HTTP/2 refuses a malformed head by itself: it resets the stream, or answers 431, and whoever takes requests from
//! it never hears of that. So what came and was not handed out is known here, and a reset or an answer on such a stream was the
//! codec's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::http2::scan::FrameHeader;

/// The most requests that are known to wait. Beyond it the oldest are forgotten, and what becomes of them is not told.
const MAX_WAITING: usize = 1024;
/// PROTOCOL_ERROR, the code for a malformed message. RFC 9113 section 8.1.1
const MALFORMED: u32 = 1;

/// What became of a request that nobody was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// It was answered: 431, the only answer that a codec has of its own.
    Answered,
    /// Its stream was reset with this code.
    Reset(u32),
    /// The connection ended in the middle of its head.
    Cut,
}

/// The requests on a connection that have come and that nobody was given yet. Shared by whoever sees its frames and whoever
/// takes its requests.
#[derive(Debug, Default)]
pub struct Unserved {
    state: Mutex<State>,
    /// Something became of one that was not asked for yet.
    has_more: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their ids.
    waiting: VecDeque<u32>,
    /// The highest id that came.
    last: u32,
    /// How many became what; there are few kinds.
    unheard: Vec<(Unheard, u32)>,
}

impl Unserved {
    /// The client has sent HEADERS. What is on a stream that is not new is no request.
    pub fn came(&self, stream: u32) {
        let mut state = self.lock();
        if stream <= state.last {
            return;
        }
        state.last = stream;
        if state.waiting.len() == MAX_WAITING {
            state.waiting.pop_front();
        }
        state.waiting.push_back(stream);
    }

    /// Somebody was given the request on this stream.
    pub fn taken(&self, stream: u32) {
        self.lock().take(stream);
    }

    /// The head on this stream is malformed, if it is one, and its stream will be reset.
    pub fn malformed(&self, stream: u32) {
        self.becomes(stream, Unheard::Reset(MALFORMED));
    }

    /// The connection ends in the middle of a head.
    pub fn cut(&self) {
        let last = self.lock().last;
        self.becomes(last, Unheard::Cut);
    }

    /// This end sends a frame.
    pub(super) fn goes(&self, frame: FrameHeader) {
        match frame.kind {
            FrameHeader::HEADERS => self.becomes(frame.stream, Unheard::Answered),
            FrameHeader::RST_STREAM => self.becomes(frame.stream, Unheard::Reset(frame.code)),
            _ => {}
        }
    }

    /// What became of some, and of how many, since this was asked last; each kind is told by itself.
    pub fn take(&self) -> Option<(Unheard, u32)> {
        if !self.has_more.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.lock();
        let unheard = state.unheard.pop();
        self.has_more.store(!state.unheard.is_empty(), Ordering::Release);
        unheard
    }

    fn becomes(&self, stream: u32, what: Unheard) {
        let mut state = self.lock();
        if !state.take(stream) {
            return;
        }
        match state.unheard.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => state.unheard.push((what, 1)),
        }
        self.has_more.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// It waits no more; whether it did.
    fn take(&mut self, stream: u32) -> bool {
        match self.waiting.binary_search(&stream) {
            Ok(at) => self.waiting.remove(at).is_some(),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(kind: u8, stream: u32, code: u32) -> FrameHeader {
        FrameHeader { length: 4, kind, flags: 4, stream, code }
    }

    fn all(unserved: &Unserved) -> Vec<(Unheard, u32)> {
        std::iter::from_fn(|| unserved.take()).collect()
    }

    #[test]
    fn what_the_codec_answers_or_resets_itself_is_told_once_and_what_others_do_is_not() {
        let unserved = Unserved::default();
        for stream in [1, 3, 5, 7, 9] {
            unserved.came(stream);
        }
        unserved.taken(3);
        assert!(all(&unserved).is_empty());
        // An answer and a reset of a request that somebody has.
        unserved.goes(sends(FrameHeader::HEADERS, 3, 0));
        unserved.goes(sends(FrameHeader::RST_STREAM, 3, 1));
        assert!(all(&unserved).is_empty());
        unserved.goes(sends(FrameHeader::HEADERS, 1, 0));
        // Behind its answer 431 the codec resets the stream.
        unserved.goes(sends(FrameHeader::RST_STREAM, 1, 1));
        unserved.malformed(5);
        unserved.goes(sends(FrameHeader::RST_STREAM, 5, 1));
        unserved.goes(sends(FrameHeader::RST_STREAM, 7, 1));
        let mut told = all(&unserved);
        told.sort_by_key(|(_, count)| *count);
        assert_eq!(told, [(Unheard::Answered, 1), (Unheard::Reset(1), 2)]);
        unserved.cut();
        assert_eq!(all(&unserved), [(Unheard::Cut, 1)]);
    }

    #[test]
    fn trailers_are_no_request_and_what_waits_is_bounded() {
        let unserved = Unserved::default();
        unserved.came(1);
        unserved.taken(1);
        unserved.came(1);
        unserved.malformed(1);
        assert!(all(&unserved).is_empty());
        for stream in (3..).step_by(2).take(3 * MAX_WAITING) {
            unserved.came(stream);
        }
        assert_eq!(unserved.lock().waiting.len(), MAX_WAITING);
    }
}
