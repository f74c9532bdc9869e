//! Small DATA frames that nobody reads. spec: SE-19
//!
//! `h2` keeps hundreds of bytes for each frame that waits to be read, however small. It charges the connection for them and ends
//! it when they are too many, although it is the fault of one stream: of a client that reads nothing of what trickles, or of a
//! service. It also charges for frames on streams that are given up, and never takes that back. So it is told to charge for none
//! ([`UNCHARGED`]), and a guard below it sees to it that few wait: it lets some small frames of each stream pass, and joins what
//! follows until the reader of the stream has read all that there is. The windows count what is joined, so its sender is held
//! back as by any other reader.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::{FlowControl, RecvStream};
use http::HeaderMap;

/// The `data_frame_budget` of a connection of `h2` below which small frames are joined: there is always some left.
pub const UNCHARGED: usize = usize::MAX;
/// A frame of fewer bytes is small.
pub(super) const SMALL: usize = 256;
/// So many small frames of a stream may wait for its reader as they are.
const MOST: u32 = 8;

/// What the guard of a connection and the readers of its streams know of each other.
#[derive(Debug, Default)]
pub struct SmallFrames {
    state: Mutex<State>,
    /// How many readers may find small frames; most readers need to say nothing.
    counted: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// Of each stream that has a reader: the small frames that passed since it found nothing more, [`JOINED`] among them.
    readers: HashMap<u32, u32>,
    /// Streams whose reader wants what was joined.
    wanted: Vec<u32>,
    /// Wakes the task of the connection when there are some.
    waker: Option<Waker>,
}

/// Room for so many readers is kept when the last of a crowd has gone.
const KEPT: usize = 64;

/// More passed than may: what follows them was joined.
const JOINED: u32 = MOST + 1;

/// What is to be done with a small frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Small {
    /// It goes on.
    Passes,
    /// It is joined with those behind it until its reader wants it.
    Waits,
    /// Nobody reads its stream yet, or any more: it is joined with those that came with it.
    Unread,
}

impl SmallFrames {
    /// What is to be done with a small frame of this stream.
    pub(super) fn judge(&self, stream: u32) -> Small {
        let mut state = self.state();
        let Some(passed) = state.readers.get_mut(&stream) else { return Small::Unread };
        if *passed == 0 {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
        *passed = (*passed + 1).min(JOINED);
        if *passed == JOINED { Small::Waits } else { Small::Passes }
    }

    /// The streams whose reader wants what was joined, or is gone. The task is woken when there are more.
    pub(super) fn wanted(&self, cx: &Context<'_>) -> Vec<u32> {
        let mut state = self.state();
        let before = state.waker.replace(cx.waker().clone());
        let wanted = std::mem::take(&mut state.wanted);
        // Whatever a waker does when it is dropped is done without the lock.
        drop((state, before));
        wanted
    }

    pub(super) fn begin(&self, stream: u32) {
        self.state().readers.insert(stream, 0);
    }

    /// The reader of a stream has read all that passed. Cheap where no small frames come.
    pub(super) fn has_read(&self, stream: impl FnOnce() -> u32) {
        // A frame that it has read was counted before `h2` got it.
        if self.counted.load(Ordering::Relaxed) > 0 {
            let stream = stream();
            let mut state = self.state();
            if let Some(passed) = state.readers.get_mut(&stream) {
                let passed = std::mem::take(passed);
                self.settle(state, stream, passed);
            }
        }
    }

    pub(super) fn end(&self, stream: u32) {
        let mut state = self.state();
        let passed = state.readers.remove(&stream);
        if state.readers.is_empty() && state.readers.capacity() > KEPT {
            state.readers = HashMap::new();
        }
        self.settle(state, stream, passed.unwrap_or(0));
    }

    /// So many small frames of a stream, which have passed, wait no longer.
    fn settle(&self, mut state: MutexGuard<'_, State>, stream: u32, passed: u32) {
        if passed > 0 {
            self.counted.fetch_sub(1, Ordering::Relaxed);
        }
        if passed == JOINED {
            state.wanted.push(stream);
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Plain data: a panic elsewhere cannot leave it half-changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What arrives on a stream, and its reader, of whom the guard of the connection hears.
#[derive(Debug)]
pub struct Inflow {
    stream: RecvStream,
    frames: Arc<SmallFrames>,
}

impl Inflow {
    /// What arrives on this stream of the connection whose small frames those are. It should be made as soon as the stream is
    /// there: small frames that come before are not held back.
    pub fn new(stream: RecvStream, frames: &Arc<SmallFrames>) -> Self {
        frames.begin(stream.stream_id().into());
        Self { stream, frames: Arc::clone(frames) }
    }

    /// The next bytes; `None` once all were read. Errors are those of HTTP/2: the stream was reset, or its connection ended.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let polled = self.stream.poll_data(cx);
        if polled.is_pending() {
            self.frames.has_read(|| self.stream.stream_id().into());
        }
        polled
    }

    /// The trailers behind all bytes, if there are any. Errors as of the bytes.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.stream.poll_trailers(cx)
    }

    /// Whether nothing more is to be read.
    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Gives the sender room, and tells what it has used.
    pub fn flow_control(&mut self) -> &mut FlowControl {
        self.stream.flow_control()
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        self.frames.end(self.stream.stream_id().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: SE-19
    #[test]
    fn a_reader_that_has_read_all_or_is_gone_is_let_have_what_was_joined() {
        let frames = SmallFrames::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(frames.judge(1), Small::Unread);
        frames.begin(1);
        for _ in 0..MOST {
            assert_eq!(frames.judge(1), Small::Passes);
        }
        assert_eq!([frames.judge(1), frames.judge(1)], [Small::Waits; 2]);
        assert!(frames.wanted(&cx).is_empty());
        frames.has_read(|| 1);
        frames.has_read(|| 1);
        assert_eq!(frames.wanted(&cx), [1]);
        assert_eq!(frames.judge(1), Small::Passes);
        for _ in 0..MOST {
            frames.judge(1);
        }
        frames.end(1);
        assert_eq!(frames.wanted(&cx), [1]);
        assert_eq!(frames.judge(1), Small::Unread);
        assert_eq!((frames.counted.into_inner(), frames.state.into_inner().unwrap().readers.len()), (0, 0));
    }
}
