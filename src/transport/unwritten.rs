//! What waits in HTTP/2 to be written on a tunnel over TCP. spec: SE-17
//!
//! A peer may open every window of thousands of streams and read nothing. HTTP/2 would keep for each of them what its window
//! allows. So pieces take room of the tunnel, and give it back when they are written.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::message::h2::line::Line;
use crate::message::pieces::kept_with;
use crate::protocol::budgets::UNWRITTEN_BYTES;

/// The largest pieces of each class, and how much may be held of them, bytes: those of about the same size have room of their own
/// and wait in one line, so that large ones do not hold small ones up, nor small ones large ones. The smallest may be many.
const CLASSES: [(usize, usize); 3] =
    [(1024, 3 * UNWRITTEN_BYTES), (16 * 1024, UNWRITTEN_BYTES), (usize::MAX, UNWRITTEN_BYTES)];

/// What a piece takes at least: so much is kept of each, however small it is.
const LEAST: usize = 256;

/// The wait for room of a stream that is polled; there while it waits.
#[derive(Default)]
pub(super) struct Waiting(Option<Pin<Box<dyn Future<Output = usize> + Send>>>);

impl Waiting {
    pub(super) const fn is_in_line(&self) -> bool {
        self.0.is_some()
    }
}

/// The room of one tunnel, by class.
#[derive(Debug)]
pub(super) struct Unwritten([Class; CLASSES.len()]);

impl Default for Unwritten {
    fn default() -> Self {
        Self(CLASSES.map(|(_, bound)| Class { bound, held: AtomicUsize::new(0), line: Line::default() }))
    }
}

/// That of pieces of about the same size.
#[derive(Debug)]
struct Class {
    bound: usize,
    held: AtomicUsize,
    line: Line,
}

/// In which class a piece is.
fn class_of(wanted: usize) -> usize {
    CLASSES.iter().position(|&(most, _)| wanted <= most).unwrap_or(CLASSES.len() - 1)
}

/// What a piece takes.
fn taken(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.max(LEAST) }
}

impl Class {
    /// Whether there is more beside what was taken, which `None` says that there is none of.
    fn take(&self, wanted: usize) -> Option<(usize, bool)> {
        let take = |held: usize| (held < self.bound).then_some(held + taken(wanted));
        let held = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some((wanted, held + taken(wanted) < self.bound))
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::AcqRel);
            self.line.tell();
        }
    }
}

impl Unwritten {
    /// Takes room for a piece, if there is any and nobody waits with one of about that size.
    pub(super) fn try_reserve(&self, wanted: usize) -> Option<usize> {
        let class = &self.0[class_of(wanted)];
        if class.line.is_empty() { class.take(wanted).map(|(taken, _)| taken) } else { None }
    }

    /// Waits for room for a piece, behind those who wait with one of about that size. Cancel safe.
    pub(super) async fn reserve(&self, wanted: usize) -> usize {
        let class = &self.0[class_of(wanted)];
        class.line.turn(|| class.take(wanted)).await
    }

    /// [`Self::reserve`] for a stream that is polled; it may have asked with another number of bytes, and gets as many as then.
    pub(super) fn poll_reserve(
        self: &Arc<Self>,
        waiting: &mut Waiting,
        wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<usize> {
        if waiting.0.is_none()
            && let Some(reserved) = self.try_reserve(wanted)
        {
            return Poll::Ready(reserved);
        }
        let wait = waiting.0.get_or_insert_with(|| {
            let room = Arc::clone(self);
            Box::pin(async move { room.reserve(wanted).await })
        });
        let reserved = ready!(wait.as_mut().poll(cx));
        waiting.0 = None;
        Poll::Ready(reserved)
    }

    /// Puts a piece into the room that was `reserved` for it, and gives back what is left.
    pub(super) fn put(self: &Arc<Self>, data: Bytes, reserved: usize) -> Bytes {
        let (class, bytes) = (class_of(reserved), taken(data.len()));
        self.0[class].give_back(taken(reserved) - bytes);
        if bytes == 0 { data } else { kept_with(data, Held { bytes, class, room: Arc::clone(self) }) }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.is_some()).finish()
    }
}

/// The room of a piece that waits, with everything that is split off it.
struct Held {
    bytes: usize,
    class: usize,
    room: Arc<Unwritten>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.0[self.class].give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRUMB: usize = 1024;
    const SMALL: usize = 16 * 1024;
    const LARGE: usize = 64 * 1024;

    fn put(room: &Arc<Unwritten>, size: usize) -> Option<Bytes> {
        let reserved = room.try_reserve(size)?;
        Some(room.put(vec![0; size].into(), reserved))
    }

    fn fill(room: &Arc<Unwritten>, size: usize) -> Vec<Bytes> {
        std::iter::from_fn(|| put(room, size)).collect()
    }

    fn held(room: &Unwritten) -> usize {
        room.0.iter().map(|class| class.held.load(Ordering::Relaxed)).sum()
    }

    // spec: SE-17
    #[test]
    fn what_waits_is_bounded_over_all_bodies_and_small_pieces_find_room_beside_large_ones() {
        for order in [[LARGE, SMALL, CRUMB], [CRUMB, SMALL, LARGE]] {
            let room = Arc::<Unwritten>::default();
            let all = order.map(|size| {
                let pieces = fill(&room, size);
                assert_eq!(pieces.len() * size, CLASSES[class_of(size)].1, "{size}");
                pieces
            });
            assert!(put(&room, 1).is_none());
            drop(all);
            assert_eq!(held(&room), 0);
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_has_it_when_a_piece_was_written() {
        let room = Arc::<Unwritten>::default();
        let mut pieces = fill(&room, LARGE);
        let (reserved, ()) = tokio::join!(room.reserve(LARGE), async { drop(pieces.pop()) });
        assert_eq!(reserved, LARGE);
        assert!(put(&room, LARGE).is_none());
        drop(room.put(Bytes::new(), reserved));
        assert!(put(&room, LARGE).is_some());
    }

    #[test]
    fn what_is_left_of_the_room_of_a_piece_is_for_the_next_one() {
        let room = Arc::<Unwritten>::default();
        let reserved = room.try_reserve(LARGE).unwrap();
        let piece = room.put(Bytes::from_static(b"short"), reserved);
        assert_eq!(held(&room), LEAST);
        drop((piece.slice(1..), piece));
        assert_eq!(held(&room), 0);
    }

    // spec: SE-20
    #[test]
    fn neither_small_pieces_nor_large_ones_wait_for_those_of_the_other_size() {
        for (size, other) in [(LARGE, SMALL), (SMALL, LARGE), (LARGE, CRUMB)] {
            let room = Arc::<Unwritten>::default();
            let (mut pieces, _others) = (fill(&room, size), fill(&room, other));
            let (mut waits, mut other_waits) = (Waiting::default(), Waiting::default());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(room.poll_reserve(&mut other_waits, other, &mut cx).is_pending());
            assert!(room.poll_reserve(&mut waits, size, &mut cx).is_pending());
            drop(pieces.pop());
            assert!(room.poll_reserve(&mut waits, size, &mut cx).is_ready(), "{size} beside {other}");
            assert!(room.poll_reserve(&mut other_waits, other, &mut cx).is_pending());
        }
    }

    #[test]
    fn room_that_who_is_first_does_not_want_any_more_goes_to_the_next() {
        let room = Arc::<Unwritten>::default();
        let mut pieces = fill(&room, LARGE);
        let (mut gone, mut next) = (Waiting::default(), Waiting::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for waiting in [&mut gone, &mut next] {
            assert!(room.poll_reserve(waiting, LARGE, &mut cx).is_pending());
        }
        drop(pieces.pop());
        // It was told, and is dropped before it looks.
        drop(gone);
        assert!(room.poll_reserve(&mut next, LARGE, &mut cx).is_ready());
    }
}
