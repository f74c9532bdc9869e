//! Names that were just lost, so that a request for them is worth a short wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::{HostId, TenantId};

/// How long after its last tunnel was lost a name counts as reconnecting.
pub const RECONNECT_WINDOW: Duration = Duration::from_secs(30);
/// How many lost names are remembered; beyond, the one that was lost first is forgotten.
pub const MAX_DEPARTED: usize = 16_384;

/// The lost names in the order of their loss. A name that came back stays until its time, and is then no longer lost.
#[derive(Default)]
pub(super) struct Departed(VecDeque<Departure>);

/// One name and when it was lost.
pub(super) struct Departure {
    pub(super) at: Instant,
    pub(super) tenant: TenantId,
    pub(super) name: HostId,
}

impl Departed {
    pub(super) fn push(&mut self, departure: Departure) {
        self.0.push_back(departure);
    }

    /// The next name to forget, if one is too old or there are too many.
    pub(super) fn pop_forgotten(&mut self, now: Instant) -> Option<Departure> {
        let too_many = self.0.len() > MAX_DEPARTED;
        self.0.pop_front_if(|first| too_many || !is_recent(first.at, now))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whether a name lost at `at` still counts as reconnecting.
pub(super) fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < RECONNECT_WINDOW
}
