//! What a slot does, as whoever decides where it goes sees it.

use std::time::{Duration, Instant};

use crate::id::ResponderId;

/// What a slot does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::initiator) enum Condition {
    /// It has no tunnel.
    Down { since: Instant, why: Why },
    /// It has one.
    Up {
        /// Of a fleet.
        responder: Option<ResponderId>,
        since: Instant,
    },
    /// It has one that owes a sign of life.
    Doubtful { responder: Option<ResponderId>, since: Instant },
}

/// Why a slot has no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::initiator) enum Why {
    /// It is dialled.
    Dialled,
    /// Everything was tried, and nothing more is for a while.
    Failed,
    /// Its responder drained it.
    Drained,
}

impl Condition {
    pub(super) const fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Who has its tunnel, if that is one of a fleet.
    pub(super) const fn responder(&self) -> Option<&ResponderId> {
        match self {
            Self::Up { responder, .. } | Self::Doubtful { responder, .. } => responder.as_ref(),
            Self::Down { .. } => None,
        }
    }

    pub(super) const fn since(&self) -> Instant {
        match self {
            Self::Down { since, .. } | Self::Up { since, .. } | Self::Doubtful { since, .. } => *since,
        }
    }

    pub(super) fn is_younger(&self, now: Instant, than: Duration) -> bool {
        now.saturating_duration_since(self.since()) < than
    }
}
