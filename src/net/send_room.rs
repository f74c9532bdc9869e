//! What a connection of QUIC keeps until it is acknowledged, shared by its streams in turn.
//!
//! quinn bounds what all streams of a connection have under way, and wakes all that wait for room at once, the one that asked last
//! first. Where streams always have something to send, those in the middle never find any: of hundreds of downloads over a slow
//! link most got nothing. So pieces take a part of that room first, in the order in which they asked. The first of each stream have
//! a part of their own, so that a short answer never waits behind long ones, and what is small uses the rest. spec: SE-20

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::WriteError;
use tokio::sync::Semaphore;

use crate::message::pieces::kept_with;

/// A piece below this takes no room.
const SMALL: usize = 1024;
/// The same among the first of a stream: to count it is a twentieth of all the work for a short answer.
const SMALL_AT_FIRST: usize = 4 * 1024;
/// So many bytes of a stream count as its first.
const FIRST_BYTES: u16 = 16 * 1024;
/// The most that is written at a turn.
const LARGEST_TURN: usize = 64 * 1024;
/// There are at least so many turns at a time.
const LEAST_TURNS: usize = 2;
/// What a connection keeps is divided into so many parts, of which these have so many: what is small has the rest.
const PARTS: usize = 16;
const OF_FIRST: usize = 3;
const OF_LATER: usize = 11;

/// The room of one connection.
#[derive(Debug)]
pub(crate) struct SendRoom {
    first: Arc<Share>,
    later: Arc<Share>,
}

/// A part of it, in which each waits for its turn.
#[derive(Debug)]
struct Share {
    /// So many parts of [`PARTS`].
    parts: usize,
    free: Semaphore,
    bound: Mutex<Bound>,
    /// How many wait for their turn.
    waiting: AtomicUsize,
    /// Pieces that QUIC needs no more.
    gone: AtomicU64,
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
    /// What it has sent of its first bytes.
    sent_first: u16,
    /// See [`Turn::alone`].
    is_alone: bool,
    waiting: Option<Box<Waiting>>,
}

/// A stream that waits for its turn.
struct Waiting {
    /// In which share, and when it has room there: for how many bytes.
    share: Arc<Share>,
    turn: Pin<Box<dyn Future<Output = usize> + Send + Sync>>,
    /// Resolves when the peer wants no more of the stream, or the connection is gone: room may never be free then. `None`: somebody
    /// else looks at that.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl SendRoom {
    /// That of a connection that may keep so many bytes.
    pub(crate) fn new(window: u64) -> Arc<Self> {
        let share = |parts| Arc::new(Share::new(parts, window));
        Arc::new(Self { first: share(OF_FIRST), later: share(OF_LATER) })
    }

    /// Rises with each piece that had room and that QUIC needs no more: the peer has it, or its stream is gone.
    pub(crate) fn gone(&self) -> u64 {
        self.first.gone.load(Ordering::Relaxed) + self.later.gone.load(Ordering::Relaxed)
    }

    /// The connection may keep so many bytes from now on. Where somebody waits, who may wait for more than that, there is no less room
    /// than before.
    pub(crate) fn resize(&self, window: u64) {
        self.first.resize(window);
        self.later.resize(window);
    }
}

impl Share {
    fn new(parts: usize, window: u64) -> Self {
        let bytes = part(parts, window);
        let bound = Mutex::new(Bound { bytes, owed: 0 });
        Self { parts, free: Semaphore::new(bytes), bound, waiting: AtomicUsize::new(0), gone: AtomicU64::new(0) }
    }

    /// The most that is written at a turn, bytes.
    fn turn(&self) -> usize {
        (self.bound().bytes / LEAST_TURNS).clamp(1, LARGEST_TURN)
    }

    fn resize(&self, window: u64) {
        let bytes = part(self.parts, window);
        let mut bound = self.bound();
        if let Some(more) = bytes.checked_sub(bound.bytes) {
            let settled = more.min(bound.owed);
            bound.owed -= settled;
            self.free.add_permits(more - settled);
        } else if self.waiting.load(Ordering::Acquire) > 0 {
            return;
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

    /// Resolves when room for so many bytes is taken, or for as many as there may be at a turn. Cancel safe.
    async fn take(self: Arc<Self>, bytes: usize) -> usize {
        let _waits = Waits::new(&self.waiting);
        // There may be less than a moment ago. From here on there will not be: somebody waits.
        let bytes = bytes.min(self.turn());
        // It is never closed.
        if let Ok(permit) = self.free.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).await {
            permit.forget();
        }
        bytes
    }
}

/// One who waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// So many parts of what a connection keeps, bytes; never none.
fn part(parts: usize, window: u64) -> usize {
    let window = usize::try_from(window).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    (window / PARTS * parts).max(1)
}

/// The room of a piece, until QUIC needs that no more.
struct Held {
    bytes: usize,
    share: Arc<Share>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.gone.fetch_add(1, Ordering::Relaxed);
        self.share.give_back(self.bytes);
    }
}

impl Turn {
    /// That of a stream whose user has another way to learn that its connection is gone, and gives it up then.
    ///
    /// What waits for the peer's word about a stream is kept by quinn until the peer has stopped it, or has all of it: of one that
    /// this end resets it stays for the life of the connection.
    pub(crate) fn alone() -> Self {
        Self { is_alone: true, ..Self::default() }
    }

    /// Whether the stream waits for its turn, behind others of its connection.
    pub(crate) const fn is_in_line(&self) -> bool {
        self.waiting.is_some()
    }

    /// Writes all of `pieces`; what is written leaves them. Ready once nothing is left. Cancel safe.
    ///
    /// # Errors
    /// As those of [`quinn::SendStream::write_chunks`].
    pub(crate) fn poll_write_all(
        &mut self,
        stream: &mut quinn::SendStream,
        room: &SendRoom,
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
        room: &SendRoom,
        pieces: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, WriteError>> {
        let first = usize::from(FIRST_BYTES - self.sent_first);
        let (share, small) = match first {
            0 => (&room.later, SMALL),
            _ => (&room.first, SMALL_AT_FIRST),
        };
        let written = match pieces.iter().position(|piece| piece.len() >= small) {
            None => write(stream, pieces, cx),
            Some(large) => {
                let most = if first == 0 { share.turn() } else { share.turn().min(first) };
                self.poll_write_large(stream, share, (&mut pieces[..=large], most), cx)
            }
        };
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent_first += u16::try_from(bytes.min(first)).unwrap_or(FIRST_BYTES);
        }
        written
    }

    /// The same, where the last of the pieces takes room: at most so much of it.
    fn poll_write_large(
        &mut self,
        stream: &mut quinn::SendStream,
        share: &Arc<Share>,
        (pieces, most): (&mut [Bytes], usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, WriteError>> {
        let large = pieces.len() - 1;
        let mut part = pieces[large].slice(..pieces[large].len().min(most));
        // Where it is over, the stream says why.
        if let Some((granted, share)) = ready!(self.poll_turn(stream, share, part.len(), cx)) {
            // It may have waited with another piece.
            share.give_back(granted.saturating_sub(part.len()));
            part.truncate(granted);
            let held = Held { bytes: part.len(), share };
            part = kept_with(part, held);
        }
        let length = part.len();
        // Where the stream itself has no room, the piece gives back what it has taken: what nobody reads keeps nothing from others.
        let whole = std::mem::replace(&mut pieces[large], part);
        let written = write(stream, pieces, cx);
        let taken = length - pieces[large].len();
        pieces[large] = whole.slice(taken..);
        written
    }

    /// Ready with the bytes for which there is room, and where, or with `None` when the stream is over.
    fn poll_turn(
        &mut self,
        stream: &quinn::SendStream,
        share: &Arc<Share>,
        bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(usize, Arc<Share>)>> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            None if share.try_take(bytes) => return Poll::Ready(Some((bytes, Arc::clone(share)))),
            None => {
                let over = (!self.is_alone).then(|| {
                    let stopped = stream.stopped();
                    Box::pin(async move { drop(stopped.await) }) as _
                });
                let turn = Box::pin(Arc::clone(share).take(bytes));
                self.waiting.insert(Box::new(Waiting { share: Arc::clone(share), turn, over }))
            }
        };
        let granted = match waiting.turn.as_mut().poll(cx) {
            Poll::Ready(bytes) => Some((bytes, Arc::clone(&waiting.share))),
            Poll::Pending => {
                let Some(over) = &mut waiting.over else { return Poll::Pending };
                ready!(over.as_mut().poll(cx));
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
    const ALL: usize = 11 * 1024;

    fn taken(share: &Arc<Share>, bytes: usize) -> Option<Bytes> {
        let data = Bytes::from(vec![0; bytes]);
        share.try_take(bytes).then(|| kept_with(data, Held { bytes, share: Arc::clone(share) }))
    }

    #[test]
    fn pieces_leave_a_part_to_small_ones_and_give_back_what_they_took_with_their_last_copy() {
        let room = SendRoom::new(WINDOW);
        let piece = taken(&room.later, ALL).unwrap();
        assert!(taken(&room.later, 1).is_none());
        let first = taken(&room.first, 3 * 1024).unwrap();
        assert!(taken(&room.first, 1).is_none());
        let mut copy = piece.clone();
        drop((piece, first, copy.split_to(100)));
        assert!(taken(&room.later, 1).is_none() && taken(&room.first, 1).is_some());
        drop(copy);
        assert!(taken(&room.later, ALL).is_some());
    }

    #[test]
    fn a_turn_is_never_larger_than_the_room() {
        for window in [0, 16, 100, WINDOW, 1 << 20, 1 << 40, u64::MAX] {
            let room = SendRoom::new(u64::MAX);
            room.resize(window);
            for share in [&room.first, &room.later] {
                assert!(taken(share, share.turn()).is_some(), "{window}");
            }
        }
    }

    #[test]
    fn who_waits_for_much_is_served_though_the_window_becomes_narrower() {
        let room = SendRoom::new(8 * WINDOW);
        let all = taken(&room.later, 8 * ALL).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = Box::pin(Arc::clone(&room.later).take(room.later.turn()));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        room.resize(WINDOW);
        drop(all);
        assert!(waits.as_mut().poll(&mut cx).is_ready());
        drop(waits);
        room.resize(WINDOW);
        assert_eq!(room.later.bound().bytes, ALL);
    }

    #[test]
    fn what_a_narrower_window_has_too_much_under_way_is_not_given_out_again() {
        let room = SendRoom::new(2 * WINDOW);
        let pieces: Vec<_> = std::iter::from_fn(|| taken(&room.later, 1024)).collect();
        room.resize(WINDOW);
        let mut left = pieces.len();
        for piece in pieces {
            drop(piece);
            left -= 1;
            assert_eq!(taken(&room.later, 1024).is_some(), left * 1024 < ALL, "{left}");
        }
        room.resize(2 * WINDOW);
        assert!(taken(&room.later, 2 * ALL).is_some());
        assert_eq!(room.later.bound().owed, 0);
    }

    #[test]
    fn whoever_waits_is_next_and_whoever_gives_up_leaves_its_place() {
        let room = SendRoom::new(WINDOW);
        let all = taken(&room.later, ALL).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let [mut first, mut gone, mut last] =
            [(); 3].map(|()| Box::pin(Arc::clone(&room.later).take(room.later.turn())));
        for waits in [&mut first, &mut gone, &mut last] {
            assert!(waits.as_mut().poll(&mut cx).is_pending());
        }
        drop(all);
        assert!(taken(&room.later, 1).is_none(), "nobody passes those who wait");
        assert!(first.as_mut().poll(&mut cx).is_ready());
        drop(gone);
        assert!(last.as_mut().poll(&mut cx).is_ready());
    }
}
