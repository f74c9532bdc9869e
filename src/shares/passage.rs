//! What goes on through one sibling, to wherever: of that no node or cluster there has so much that others get nothing. spec: FL-53

use std::sync::atomic::{AtomicU32, Ordering};

use crate::id::{HostId, ResponderId, TenantId};
use crate::protocol::budgets::{PART_OF_SIBLING, SIBLING_FLOWS, SIBLING_STREAMS};
use crate::telemetry::ShareLimit;

/// A way to a node or cluster of a tenant: through this sibling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) sibling: ResponderId,
    pub(super) tenant: TenantId,
    pub(super) host_id: HostId,
}

/// All that is under way through one sibling.
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// Each flow has one, too.
    streams: AtomicU32,
    flows: AtomicU32,
}

impl Passage {
    /// Whether one that has so many already may have another one: less than its part of what is free, and one at least. Who asks
    /// at the same time as others may get one more than that.
    pub(super) fn check(&self, is_flow: bool, own: u32) -> Result<(), (ShareLimit, u32)> {
        let (taken, most, limit) = match is_flow {
            false => (&self.streams, SIBLING_STREAMS, ShareLimit::InFlight),
            true => (&self.flows, SIBLING_FLOWS, ShareLimit::Flows),
        };
        let part = (most.saturating_sub(taken.load(Ordering::Relaxed)) / PART_OF_SIBLING).max(1);
        if own < part { Ok(()) } else { Err((limit, own)) }
    }

    /// What counts it here.
    pub(super) const fn counts(&self, is_flow: bool) -> [Option<&AtomicU32>; 2] {
        [Some(&self.streams), if is_flow { Some(&self.flows) } else { None }]
    }
}
