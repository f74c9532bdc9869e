//! What a connection of QUIC keeps until it is acknowledged, shared by its streams in turn.
//!
//! quinn bounds what all streams of a connection have under way, and wakes all that wait for room at once, the one that asked last
//! first. Where streams always have something to send, those in the middle never find any: of hundreds of downloads over a slow
//! link most got nothing. So large pieces take a part of that room first, in the order in which they asked. What is small, and the
//! first of each stream, uses the rest, which large pieces leave free. spec: SE-20

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::WriteError;
use tokio::sync::Semaphore;

/// A piece below this takes no room.
const SMALL: usize = 1024;
/// So many bytes of a stream need no room: an answer that is short never waits behind long ones.
const FIRST_BYTES: u16 = 16 * 1024;
/// The most that is written at a turn.
const LARGEST_TURN: usize = 64 * 1024;
/// There are at least so many turns at a time.
const LEAST_TURNS: usize = 2;

/// The room of one connection.
#[derive(Debug)]
pub(crate) struct SendRoom {
    free: Semaphore,
    bound: Mutex<Bound>,
    /// The most that is written at a turn, bytes.
    turn: usize,
}

#[derive(Debug)]
struct Bound {
    bytes: usize,
    /// So many bytes of what is in use are not given back, as the bound is lower than it was.
    owed: usize,
}

/// How one stream stands with the room of its connection.
#[derive(Default)]
pub(crate) struct Turn {
    /// What it has sent without room.
    sent_first: u16,
    waiting: Option<Box<Waiting>>,
}

/// A stream that waits for its turn.
struct Waiting {
    /// What it waits for, bytes.
    bytes: usize,
    turn: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// Resolves when the peer wants no more of the stream, or the connection is gone: room may never be free then.
    over: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

/// The part that large pieces may use of what a connection keeps.
const fn part(window: usize) -> usize {
    window / 4 * 3
}

impl SendRoom {
    /// That of a connection that may keep so many bytes, and never fewer than `least`.
    pub(crate) fn new(window: u64, least: u64) -> Arc<Self> {
        let bytes = |window: u64| usize::try_from(window).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let bound = part(bytes(window));
        Arc::new(Self {
            free: Semaphore::new(bound),
            bound: Mutex::new(Bound { bytes: bound, owed: 0 }),
            turn: (part(bytes(least)) / LEAST_TURNS).clamp(1, LARGEST_TURN),
        })
    }

    /// The connection may keep so many bytes from now on; not fewer than the least that it began with.
    pub(crate) fn resize(&self, window: u64) {
        let bytes = part(usize::try_from(window).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS));
        let mut bound = self.bound();
        if let Some(more) = bytes.checked_sub(bound.bytes) {
            let settled = more.min(bound.owed);
            bound.owed -= settled;
            self.free.add_permits(more - settled);
        } else {
            let less = bound.bytes - bytes;
            bound.owed += less - self.free.forget_permits(less);
        }
        bound.bytes = bytes;
    }

    fn give_back(&self, bytes: usize) {
        let mut bound = self.bound();
        let settled = bytes.min(bound.owed);
        bound.owed -= settled;
        drop(bound);
        self.free.add_permits(bytes - settled);
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for so many bytes, at once or never.
    fn try_take(&self, bytes: usize) -> bool {
        let taken = u32::try_from(bytes).ok().and_then(|bytes| self.free.try_acquire_many(bytes).ok());
        taken.map(tokio::sync::SemaphorePermit::forget).is_some()
    }

    /// Resolves when room for so many bytes is taken. Cancel safe.
    async fn take(self: Arc<Self>, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // It is never closed.
        if let Ok(permit) = self.free.acquire_many(bytes).await {
            permit.forget();
        }
    }
}

/// A piece that has room, until QUIC needs it no more.
struct Piece {
    data: Bytes,
    room: Arc<SendRoom>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.room.give_back(self.data.len());
    }
}

impl Turn {
    /// Writes all of `pieces`; what is written leaves them. Ready once nothing is left. Cancel safe.
    ///
    /// # Errors
    /// As those of [`quinn::SendStream::write_chunks`].
    pub(crate) fn poll_write_all(
        &mut self,
        stream: &mut quinn::SendStream,
        room: &Arc<SendRoom>,
        pieces: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        while pieces.iter().any(|piece| !piece.is_empty()) {
            ready!(self.poll_write(stream, room, pieces, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a part of `pieces`, which leaves them: at most one large piece, or a part of it. How many bytes. Cancel safe.
    ///
    /// # Errors
    /// As those of [`quinn::SendStream::write_chunks`].
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut quinn::SendStream,
        room: &Arc<SendRoom>,
        pieces: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, WriteError>> {
        let large = pieces.iter().position(|piece| piece.len() >= SMALL);
        let Some(large) = large else { return write(stream, pieces, cx) };
        let first = usize::from(FIRST_BYTES - self.sent_first);
        let turn = if first == 0 { room.turn } else { first };
        let mut part = pieces[large].slice(..pieces[large].len().min(turn));
        if first == 0 {
            match ready!(self.poll_turn(stream, room, part.len(), cx)) {
                // The stream says why.
                None => {}
                Some(granted) => {
                    // It may have waited with another piece.
                    room.give_back(granted.saturating_sub(part.len()));
                    part.truncate(granted);
                    part = Bytes::from_owner(Piece { data: part, room: Arc::clone(room) });
                }
            }
        }
        let length = part.len();
        // Where the stream itself has no room, the piece gives back what it has taken: what nobody reads keeps nothing from others.
        let whole = std::mem::replace(&mut pieces[large], part);
        let written = write(stream, &mut pieces[..=large], cx);
        let taken = length - pieces[large].len();
        pieces[large] = whole.slice(taken..);
        if first > 0 {
            self.sent_first += u16::try_from(taken).unwrap_or(FIRST_BYTES).min(FIRST_BYTES - self.sent_first);
        }
        written
    }

    /// Ready with the bytes for which there is room, or with `None` when the stream is over.
    fn poll_turn(
        &mut self,
        stream: &quinn::SendStream,
        room: &Arc<SendRoom>,
        bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<usize>> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            None if room.try_take(bytes) => return Poll::Ready(Some(bytes)),
            None => {
                let stopped = stream.stopped();
                self.waiting.insert(Box::new(Waiting {
                    bytes,
                    turn: Box::pin(Arc::clone(room).take(bytes)),
                    over: Box::pin(async move { drop(stopped.await) }),
                }))
            }
        };
        let granted = match waiting.turn.as_mut().poll(cx) {
            Poll::Ready(()) => Some(waiting.bytes),
            Poll::Pending => {
                ready!(waiting.over.as_mut().poll(cx));
                None
            }
        };
        self.waiting = None;
        Poll::Ready(granted)
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("sent_first", &self.sent_first).field("waits", &self.waiting.is_some()).finish()
    }
}

/// As [`quinn::SendStream::write_chunks`]; how many bytes. quinn keeps the waker with the stream: a future per poll loses nothing.
fn write(
    stream: &mut quinn::SendStream,
    pieces: &mut [Bytes],
    cx: &mut Context<'_>,
) -> Poll<Result<usize, WriteError>> {
    pin!(stream.write_chunks(pieces)).poll(cx).map_ok(|written| written.bytes)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const WINDOW: u64 = 16 * 1024;

    fn taken(room: &Arc<SendRoom>, bytes: usize) -> Option<Bytes> {
        let data = Bytes::from(vec![0; bytes]);
        room.try_take(bytes).then(|| Bytes::from_owner(Piece { data, room: Arc::clone(room) }))
    }

    #[test]
    fn large_pieces_leave_a_part_to_small_ones_and_give_back_what_they_took_with_their_last_copy() {
        let room = SendRoom::new(WINDOW, WINDOW);
        let piece = taken(&room, part(WINDOW as usize)).unwrap();
        assert!(taken(&room, 1).is_none());
        let mut copy = piece.clone();
        drop((piece, copy.split_to(100)));
        assert!(taken(&room, 1).is_none());
        drop(copy);
        assert!(taken(&room, part(WINDOW as usize)).is_some());
    }

    #[test]
    fn a_turn_is_never_larger_than_the_least_room_there_will_be() {
        for window in [4, 100, WINDOW, 1 << 20, 1 << 40, u64::MAX] {
            let room = SendRoom::new(u64::MAX, window);
            room.resize(window);
            assert!(taken(&room, room.turn).is_some(), "{window}");
        }
    }

    #[test]
    fn what_a_narrower_window_has_too_much_under_way_is_not_given_out_again() {
        let room = SendRoom::new(2 * WINDOW, WINDOW);
        let pieces: Vec<_> = std::iter::from_fn(|| taken(&room, 1024)).collect();
        room.resize(WINDOW);
        let mut left = pieces.len();
        for piece in pieces {
            drop(piece);
            left -= 1;
            let room_is_free = left * 1024 < part(WINDOW as usize);
            assert_eq!(taken(&room, 1024).is_some(), room_is_free, "{left}");
        }
        room.resize(2 * WINDOW);
        assert!(taken(&room, part(2 * WINDOW as usize)).is_some());
        assert_eq!(room.bound().owed, 0);
    }

    #[test]
    fn whoever_waits_is_next_and_whoever_gives_up_leaves_its_place() {
        let room = SendRoom::new(WINDOW, WINDOW);
        let all = taken(&room, part(WINDOW as usize)).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let [mut first, mut gone, mut last] = [(); 3].map(|()| Box::pin(Arc::clone(&room).take(room.turn)));
        for waits in [&mut first, &mut gone, &mut last] {
            assert!(waits.as_mut().poll(&mut cx).is_pending());
        }
        drop(all);
        assert!(taken(&room, 1).is_none(), "nobody passes those who wait");
        assert!(first.as_mut().poll(&mut cx).is_ready());
        drop(gone);
        assert!(last.as_mut().poll(&mut cx).is_ready());
    }
}
