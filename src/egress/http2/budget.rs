//! What waits to be written to clients over HTTP/2: bounded per connection and per listener.
//!
//! A client may open every window and read nothing, and a window allows more than anybody should have to keep. So each piece
//! that is handed to HTTP/2 takes room, and gives it back when it is written. One connection has up to an eighth of what its
//! listener has left, at most its own bound and never less than a little: many that stall leave room for others.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Buf, Bytes};

use crate::egress::budget::ListenerBudget;
use crate::message::h2::line::Line;
use crate::message::h2::send::Outlet;

/// What a connection gets on a listener that has nothing left, bytes: one frame of the usual size.
const LEAST: usize = 16 * 1024;
/// The part of what its listener has left that one connection may take.
const SHARE: usize = 8;
/// A piece is not cut smaller than this for want of room, bytes.
const SMALLEST: usize = 4 * 1024;

/// What waits on one connection.
#[derive(Debug)]
pub(super) struct Budget {
    bounds: Bounds,
    held: AtomicUsize,
    line: Line,
    /// Pieces that were written, or thrown away.
    written: AtomicU64,
    listener: Arc<ListenerBudget>,
}

/// The most bytes that may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connection: usize,
    pub(super) listener: usize,
}

impl Budget {
    pub(super) fn new(bounds: Bounds, listener: Arc<ListenerBudget>) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            held: AtomicUsize::new(0),
            line: Line::default(),
            written: AtomicU64::new(0),
            listener,
        })
    }

    /// Whether anything waits to be written.
    pub(super) fn holds(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }

    /// The most that this connection may hold now.
    fn share(&self) -> usize {
        let left = self.bounds.listener.saturating_sub(self.listener.waiting.load(Ordering::Relaxed));
        (left / SHARE).clamp(LEAST, self.bounds.connection.max(LEAST))
    }

    /// Whether nothing more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.held.load(Ordering::Acquire) >= self.share()
    }

    /// For how many bytes there is room, and whether there is more.
    fn take(&self, wanted: usize) -> Option<(usize, bool)> {
        let share = self.share();
        let held = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            (held < share).then(|| held + wanted.min((share - held).max(SMALLEST)))
        });
        let held = held.ok()?;
        let taken = wanted.min((share - held).max(SMALLEST));
        self.listener.waiting.fetch_add(taken, Ordering::Relaxed);
        Some((taken, held + taken < share))
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.listener.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.line.tell();
    }

    /// A piece of this program's own, for which nobody waits.
    pub(super) fn put_at_once(self: &Arc<Self>, data: Bytes) -> Piece {
        self.held.fetch_add(data.len(), Ordering::AcqRel);
        self.listener.waiting.fetch_add(data.len(), Ordering::Relaxed);
        let length = data.len();
        self.put(data, length)
    }
}

impl Outlet for Arc<Budget> {
    type Data = Piece;

    fn try_reserve(&self, wanted: usize) -> Option<usize> {
        if self.line.is_empty() { self.take(wanted).map(|(taken, _)| taken) } else { None }
    }

    fn reserve(&self, wanted: usize) -> impl Future<Output = usize> + Send {
        self.line.turn(move || self.take(wanted))
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn put(&self, data: Bytes, reserved: usize) -> Piece {
        self.give_back(reserved - data.len());
        Piece { bytes: data.len(), data, budget: Self::clone(self) }
    }
}

/// A piece of a body that waits in HTTP/2. It gives its room back when it is dropped: written, or thrown away.
#[derive(Debug)]
pub(super) struct Piece {
    data: Bytes,
    bytes: usize,
    budget: Arc<Budget>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.budget.written.fetch_add(1, Ordering::Relaxed);
        self.budget.give_back(self.bytes);
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const BOUNDS: Bounds = Bounds { connection: 1024 * KIB, listener: 64 * 1024 * KIB };

    fn fill(budget: &Arc<Budget>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(taken) = budget.try_reserve(64 * KIB) {
            pieces.push(budget.put(vec![0; taken].into(), taken));
        }
        pieces
    }

    fn held(pieces: &[Piece]) -> usize {
        pieces.iter().map(Buf::remaining).sum()
    }

    #[tokio::test]
    async fn a_connection_holds_its_bound_and_goes_on_when_something_was_written() {
        let budget = Budget::new(BOUNDS, Arc::default());
        let mut pieces = fill(&budget);
        assert!((BOUNDS.connection..=BOUNDS.connection + SMALLEST).contains(&held(&pieces)));
        let waits = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve(KIB).await }
        });
        pieces.pop();
        assert_eq!(waits.await.unwrap(), KIB);
        drop(pieces);
        assert_eq!((budget.held.load(Ordering::Relaxed), budget.listener.waiting.load(Ordering::Relaxed)), (KIB, KIB));
    }

    #[test]
    fn many_connections_that_stall_stay_within_the_bound_of_their_listener_and_others_go_on() {
        let listener = Arc::<ListenerBudget>::default();
        let stalled: Vec<_> = (0..200).map(|_| fill(&Budget::new(BOUNDS, Arc::clone(&listener)))).collect();
        let all: usize = stalled.iter().map(|pieces| held(pieces)).sum();
        assert!(all <= BOUNDS.listener + 200 * LEAST, "{} MiB", all >> 20);
        let other = fill(&Budget::new(BOUNDS, listener));
        assert!(held(&other) >= LEAST);
    }

    #[test]
    fn all_who_wait_are_served_in_the_end() {
        let budget = Budget::new(BOUNDS, Arc::default());
        let mut pieces = fill(&budget);
        let (ready, mut cx) = (std::task::Poll::Ready(KIB), std::task::Context::from_waker(std::task::Waker::noop()));
        let mut waits: Vec<_> = (0..10).map(|_| Box::pin(budget.reserve(KIB))).collect();
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut cx).is_pending()));
        pieces.clear();
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut cx) == ready));
    }
}
