//! What waits in HTTP/2 to be written on a tunnel over TCP. spec: SE-17
//!
//! A peer may open every window of thousands of streams and read nothing. HTTP/2 would keep for each of them what its window
//! allows. So pieces take room of the tunnel, and give it back when they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::protocol::budgets::UNWRITTEN_BYTES;

/// Pieces up to this size are not counted, because to count costs: how many of them a peer can ask for by small steps of its
/// windows is bounded by SE-13.
const FREE: usize = 1024;
/// Pieces up to this size have as much room again, so that large ones do not hold them up.
const SMALL: usize = 16 * 1024;

/// The room of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    held: AtomicUsize,
    freed: Notify,
}

impl Unwritten {
    fn take(&self, wanted: usize) -> bool {
        let bound = if wanted <= SMALL { 2 * UNWRITTEN_BYTES } else { UNWRITTEN_BYTES };
        let take = |held: usize| (held < bound).then_some(held + wanted);
        let taken = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        if taken.is_ok_and(|held| held + wanted < UNWRITTEN_BYTES) {
            // Whoever was woken for what was freed may have left some of it.
            self.freed.notify_one();
        }
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_one();
    }
}

impl Unwritten {
    /// Takes room for a piece, if there is any; a crumb needs none.
    pub(super) fn reserve(&self, wanted: usize) -> Option<usize> {
        (wanted <= FREE || self.take(wanted)).then_some(wanted)
    }

    /// Resolves when it is worth asking for room again. Cancel safe.
    pub(super) fn freed(&self) -> impl Future<Output = ()> + Send {
        self.freed.notified()
    }

    /// Puts a piece into the room that was taken for it.
    pub(super) fn put(self: &Arc<Self>, data: Bytes) -> Bytes {
        match data.len() {
            ..=FREE => data,
            _ => Bytes::from_owner(Piece { data, room: Arc::clone(self) }),
        }
    }
}

/// A piece that waits, with everything that is split off it.
struct Piece {
    data: Bytes,
    room: Arc<Unwritten>,
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

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 64 * 1024;

    fn put(room: &Arc<Unwritten>, size: usize) -> Option<Bytes> {
        Some(room.put(vec![0; room.reserve(size)?].into()))
    }

    // spec: SE-17
    #[test]
    fn what_waits_is_bounded_over_all_bodies_and_small_pieces_find_room_beside_large_ones() {
        let room = Arc::<Unwritten>::default();
        let mut large = Vec::new();
        while let Some(piece) = put(&room, LARGE) {
            large.push(piece);
        }
        assert_eq!(large.len() * LARGE, UNWRITTEN_BYTES);
        let mut small = Vec::new();
        while let Some(piece) = put(&room, SMALL) {
            small.push(piece);
        }
        assert_eq!(small.len() * SMALL, UNWRITTEN_BYTES);
        assert!(put(&room, FREE).is_some(), "a crumb");
        drop((large, small));
        assert_eq!(room.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_a_piece_was_written() {
        let room = Arc::<Unwritten>::default();
        let mut pieces: Vec<Bytes> = std::iter::from_fn(|| put(&room, LARGE)).collect();
        let (waits, ()) = tokio::join!(room.freed(), async { pieces.truncate(1) });
        assert_eq!(waits, ());
        assert!(put(&room, LARGE).is_some());
    }
}
