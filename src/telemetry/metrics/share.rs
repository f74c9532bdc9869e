//! Counting what is refused and held up because a share is used up.

use std::sync::Arc;

use metrics::Counter;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{SHARES_EXCEEDED, SHARES_WAITED};

/// Whose share it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareOwner {
    /// A tenant's.
    Tenant,
    /// A node's.
    Node,
    /// That of a node or cluster of what goes through a sibling.
    Sibling,
}

impl ShareOwner {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Node => "node",
            Self::Sibling => "sibling",
        }
    }
}

/// Which part of a share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareLimit {
    /// Exchanges under way.
    InFlight,
    /// Requests a second.
    Requests,
    /// Raw streams under way.
    Streams,
    /// Flows that are open.
    Flows,
}

impl ShareLimit {
    const ALL: [Self; 4] = [Self::InFlight, Self::Requests, Self::Streams, Self::Flows];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Flows => "flows",
        }
    }
}

/// The counters of all shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShareMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    exceeded: [[Counter; ShareLimit::ALL.len()]; 3],
    /// Nothing waits for a sibling's.
    waited_for_rate: [Counter; 2],
    waited_for_turn: Counter,
}

impl ShareMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let owners = [ShareOwner::Tenant, ShareOwner::Node].map(ShareOwner::label);
        let exceeded = |owner| ShareLimit::ALL.map(|limit| metrics.counter(&SHARES_EXCEEDED, &[owner, limit.label()]));
        Self(Arc::new(Handles {
            exceeded: [ShareOwner::Tenant, ShareOwner::Node, ShareOwner::Sibling].map(|owner| exceeded(owner.label())),
            waited_for_rate: owners.map(|owner| metrics.counter(&SHARES_WAITED, &[owner, "bytes"])),
            waited_for_turn: metrics.counter(&SHARES_WAITED, &[ShareOwner::Tenant.label(), "turn"]),
        }))
    }

    /// Something was refused.
    pub fn exceeded(&self, owner: ShareOwner, limit: ShareLimit) {
        self.0.exceeded[owner as usize][limit as usize].increment(1);
    }

    /// Bytes had to wait for their rate.
    pub fn waited_for_rate(&self, owner: ShareOwner) {
        if let Some(counter) = self.0.waited_for_rate.get(owner as usize) {
            counter.increment(1);
        }
    }

    /// A begin, or bytes, had to wait for the turn of their tenant.
    pub fn waited_for_turn(&self) {
        self.0.waited_for_turn.increment(1);
    }
}
