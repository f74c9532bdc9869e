//! One cluster: its nodes in numbered seats, so that a random one is found at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::node::Node;

/// Seats that are copied together when one changes.
const CHUNK: usize = 64;

/// A live cluster: stays the same value while its nodes come and go.
pub(super) struct Cluster<H> {
    members: ArcSwap<Members<H>>,
    /// Whose turn it is, for round robin.
    turn: AtomicUsize,
}

/// The nodes at one moment: all chunks are full but the last.
pub(super) struct Members<H> {
    chunks: Vec<Arc<Vec<Seat<H>>>>,
    len: usize,
}

/// A node and what affinity needs of it.
pub(super) struct Seat<H> {
    /// The same in every responder; see [`super::pick`].
    pub(super) affinity: u64,
    pub(super) node: Arc<Node<H>>,
}

impl<H> Cluster<H> {
    pub(super) fn new() -> Self {
        let members = Members { chunks: Vec::new(), len: 0 };
        Self { members: ArcSwap::from_pointee(members), turn: AtomicUsize::new(0) }
    }

    /// The nodes as they are now. Wait-free.
    pub(super) fn members(&self) -> Guard<Arc<Members<H>>> {
        self.members.load()
    }

    /// The next number of the round; wraps around.
    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the node the last seat. Writers only.
    pub(super) fn join(&self, seat: Seat<H>) {
        let mut next = self.members().copy();
        seat.node.take_seat(next.len);
        next.push(seat);
        self.members.store(Arc::new(next));
    }

    /// Takes the node's seat away and gives it to the node of the last one; true when nobody is left. Writers only.
    pub(super) fn part(&self, node: &Node<H>) -> bool {
        let mut next = self.members().copy();
        if let Some(last) = next.pop()
            && !std::ptr::eq(Arc::as_ptr(&last.node), node)
        {
            last.node.take_seat(node.seat());
            next.replace(node.seat(), last);
        }
        let empty = next.len == 0;
        self.members.store(Arc::new(next));
        empty
    }
}

impl<H> Members<H> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The node in this seat, which must be less than [`Members::len`].
    pub(super) fn node(&self, seat: usize) -> &Node<H> {
        &self.chunks[seat / CHUNK][seat % CHUNK].node
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat<H>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Shares the chunks; a change copies those that it touches.
    fn copy(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }

    fn push(&mut self, seat: Seat<H>) {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::default());
        }
        if let Some(last) = self.chunks.last_mut() {
            Arc::make_mut(last).push(seat);
        }
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Seat<H>> {
        let last = Arc::make_mut(self.chunks.last_mut()?);
        let seat = last.pop()?;
        if last.is_empty() {
            self.chunks.pop();
        }
        self.len -= 1;
        Some(seat)
    }

    fn replace(&mut self, at: usize, seat: Seat<H>) {
        Arc::make_mut(&mut self.chunks[at / CHUNK])[at % CHUNK] = seat;
    }
}

impl<H> Clone for Seat<H> {
    fn clone(&self) -> Self {
        Self { affinity: self.affinity, node: Arc::clone(&self.node) }
    }
}
