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

/// Pieces of the same size by and large, which wait in one line.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// The largest piece.
    most: usize,
    /// What may be held of all classes when one of these comes: the smaller it is, the more, so that large ones do not hold
    /// small ones up.
    bound: usize,
}

const CLASSES: [Class; 3] = [
    Class { most: 1024, bound: 3 * UNWRITTEN_BYTES },
    Class { most: 16 * 1024, bound: 2 * UNWRITTEN_BYTES },
    Class { most: usize::MAX, bound: UNWRITTEN_BYTES },
];

/// What a piece takes at least: so much is kept of each, however small it is.
const LEAST: usize = 256;

/// The wait for room of a stream that is polled; there while it waits.
#[derive(Default)]
pub(super) struct Waiting(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

/// The room of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    held: AtomicUsize,
    /// By class.
    lines: [Line; CLASSES.len()],
}

fn class_of(wanted: usize) -> usize {
    CLASSES.iter().position(|class| wanted <= class.most).unwrap_or(CLASSES.len() - 1)
}

impl Unwritten {
    /// Takes room for a piece, if there is any. `waited`: it was told of the room. Who was not gets none of it while others wait
    /// with pieces of about that size.
    pub(super) fn reserve(&self, wanted: usize, waited: bool) -> Option<usize> {
        let class = class_of(wanted);
        if !waited && !self.lines[class].is_empty() {
            return None;
        }
        let take = |held: usize| (held < CLASSES[class].bound).then_some(held + wanted.max(LEAST));
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        // Whoever was woken for what was freed may have left some of it.
        self.tell(class);
        Some(wanted)
    }

    /// Resolves when it is worth asking again for room for so many bytes. Whoever does not ask then has to
    /// [pass it on](Self::pass_on). Cancel safe.
    pub(super) fn freed(&self, wanted: usize) -> impl Future<Output = ()> + Send {
        self.lines[class_of(wanted)].turn()
    }

    /// Who was told of room for so many bytes does not want it any more.
    pub(super) fn pass_on(&self, wanted: usize) {
        self.tell(class_of(wanted));
    }

    /// [`Self::reserve`] for a stream that is polled.
    pub(super) fn poll_reserve(
        self: &Arc<Self>,
        waiting: &mut Waiting,
        wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<usize> {
        let mut waited = false;
        loop {
            if let Some(wait) = &mut waiting.0 {
                ready!(wait.as_mut().poll(cx));
                waiting.0 = None;
                waited = true;
            }
            if let Some(granted) = self.reserve(wanted, waited) {
                return Poll::Ready(granted);
            }
            let room = Arc::clone(self);
            waiting.0 = Some(Box::pin(async move { room.freed(wanted).await }));
        }
    }

    /// Puts a piece into the room that was taken for it.
    pub(super) fn put(self: &Arc<Self>, data: Bytes) -> Bytes {
        match data.len() {
            0 => data,
            bytes => kept_with(data, Held { bytes, room: Arc::clone(self) }),
        }
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        (0..CLASSES.len()).for_each(|class| self.tell(class));
    }

    /// Wakes the next one of a class, if there is room for it.
    fn tell(&self, class: usize) {
        if self.held.load(Ordering::Acquire) < CLASSES[class].bound {
            self.lines[class].tell();
        }
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
    room: Arc<Unwritten>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.give_back(self.bytes.max(LEAST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRUMB: usize = 1024;
    const SMALL: usize = 16 * 1024;
    const LARGE: usize = 64 * 1024;

    fn put(room: &Arc<Unwritten>, size: usize) -> Option<Bytes> {
        Some(room.put(vec![0; room.reserve(size, false)?].into()))
    }

    fn fill(room: &Arc<Unwritten>, size: usize) -> Vec<Bytes> {
        std::iter::from_fn(|| put(room, size)).collect()
    }

    // spec: SE-17
    #[test]
    fn what_waits_is_bounded_over_all_bodies_and_small_pieces_find_room_beside_large_ones() {
        let room = Arc::<Unwritten>::default();
        let all = [LARGE, SMALL, CRUMB].map(|size| {
            let pieces = fill(&room, size);
            assert_eq!(pieces.len() * size, UNWRITTEN_BYTES, "{size}");
            pieces
        });
        assert!(put(&room, 1).is_none());
        drop(all);
        assert_eq!(room.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_a_piece_was_written() {
        let room = Arc::<Unwritten>::default();
        let mut pieces = fill(&room, LARGE);
        let (waits, ()) = tokio::join!(room.freed(LARGE), async { pieces.truncate(1) });
        assert_eq!(waits, ());
        assert!(put(&room, LARGE).is_some());
    }

    #[tokio::test]
    async fn a_small_piece_does_not_wait_behind_a_large_one_that_has_no_room_yet() {
        let room = Arc::<Unwritten>::default();
        let (_large, mut small) = (fill(&room, LARGE), fill(&room, SMALL));
        let mut large_waits = Waiting::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(room.poll_reserve(&mut large_waits, LARGE, &mut cx).is_pending());
        let ((), ()) = tokio::join!(room.freed(SMALL), async { drop(small.pop()) });
        assert!(put(&room, SMALL).is_some());
    }

    #[tokio::test]
    async fn room_that_who_was_told_does_not_want_goes_to_the_next() {
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
