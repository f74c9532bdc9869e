//! What all connections of a listener hold together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::egress::lock;
use crate::net::Prefix;
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
    /// How many of them sources of each address prefix have, where that is counted.
    by_prefix: Mutex<HashMap<Prefix, usize>>,
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

    /// Counts a connection as one of the prefix of its source while what is returned lives; `None`, and counted: sources of that
    /// prefix have as many already.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr, most: usize) -> Option<OfPrefix> {
        let prefix = Prefix::of(source);
        let mut by_prefix = lock(&self.by_prefix);
        let open = by_prefix.get(&prefix).copied().unwrap_or_default();
        if open >= most {
            drop(by_prefix);
            self.count(Limit::Prefix);
            return None;
        }
        by_prefix.insert(prefix, open + 1);
        Some(OfPrefix { budget: Arc::clone(self), prefix })
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

/// A connection of a listener, as one of its prefix.
#[derive(Debug)]
pub(super) struct OfPrefix {
    budget: Arc<ListenerBudget>,
    prefix: Prefix,
}

impl Drop for OfPrefix {
    fn drop(&mut self) {
        let mut by_prefix = lock(&self.budget.by_prefix);
        if let Some(open) = by_prefix.get_mut(&self.prefix) {
            *open -= 1;
            if *open == 0 {
                by_prefix.remove(&self.prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_so_many_connections_and_no_trace_of_those_that_ended() {
        let budget = Arc::new(ListenerBudget::default());
        let enter = |source: &str, most| budget.enter(source.parse().unwrap(), most);
        let (first, second) = (enter("192.0.2.1", 2), enter("192.0.2.200", 2));
        assert!(first.is_some() && second.is_some());
        assert!(enter("::ffff:192.0.2.3", 2).is_none(), "the same prefix, in whatever clothes");
        let other = enter("192.0.3.1", 2);
        assert!(other.is_some());
        drop(first);
        assert!(enter("192.0.2.1", 1).is_none(), "a smaller limit holds at once");
        drop(enter("192.0.2.1", 2));
        drop((second, other));
        assert!(lock(&budget.by_prefix).is_empty());
    }

    #[test]
    fn what_is_read_ahead_is_bounded_and_room_comes_back() {
        let budget = ListenerBudget::default();
        assert!(budget.read_ahead(MAX_AHEAD) && !budget.read_ahead(1));
        budget.release_ahead(1);
        assert!(budget.read_ahead(1) && !budget.read_ahead(1));
    }
}
