//! What all connections of a listener hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::telemetry::{Limit, LimitMetrics};

/// Bytes that connections may have read ahead of those who are to take them, all together. See [`ListenerBudget::read_ahead`].
pub(super) const MAX_AHEAD: usize = 64 * 1024 * 1024;

/// The bytes that the connections of a listener hold.
#[derive(Debug, Default)]
pub(super) struct ListenerBudget {
    /// What waits to be written over HTTP/2.
    pub(super) waiting: AtomicUsize,
    /// What may be sent over HTTP/3 and not be acknowledged.
    pub(super) unacknowledged: AtomicUsize,
    ahead: AtomicUsize,
    connections: AtomicUsize,
    /// One of them has ended.
    left: Notify,
    limits: Option<LimitMetrics>,
}

impl ListenerBudget {
    /// One that counts what its listener comes to.
    pub(super) fn counting(limits: LimitMetrics) -> Self {
        Self { limits: Some(limits), ..Self::default() }
    }

    /// A connection came to this limit.
    pub(super) fn count(&self, limit: Limit) {
        if let Some(limits) = &self.limits {
            limits.hit(limit);
        }
    }

    /// Counts a connection as open while what is returned lives.
    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::AcqRel);
        Connected(Arc::clone(self))
    }

    /// How many connections are open, over TCP and QUIC together.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Done when a connection has ended since this was called.
    pub(super) fn left(&self) -> Notified<'_> {
        self.left.notified()
    }

    /// Takes room for bytes that are read ahead; whether there was any.
    pub(super) fn read_ahead(&self, bytes: usize) -> bool {
        let before = self.ahead.fetch_add(bytes, Ordering::Relaxed);
        let has_room = before + bytes <= MAX_AHEAD;
        if !has_room {
            self.ahead.fetch_sub(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Gives room back that was taken for bytes that are read ahead.
    pub(super) fn release_ahead(&self, bytes: usize) {
        self.ahead.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A connection of a listener.
#[derive(Debug)]
pub(super) struct Connected(Arc<ListenerBudget>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_bounded_and_room_comes_back() {
        let budget = ListenerBudget::default();
        assert!(budget.read_ahead(MAX_AHEAD) && !budget.read_ahead(1));
        budget.release_ahead(1);
        assert!(budget.read_ahead(1) && !budget.read_ahead(1));
    }
}
