//! Where the attempt over one transport stands, and the round of attempts that it belongs to.

use std::time::{Duration, Instant};

use super::event::{Attempt, ClaimPlace, PerTransport};
use crate::transport::TransportKind;

/// What is under way over one transport, beside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lane {
    #[default]
    Idle,
    Connecting(Attempt),
    /// No HELLO was sent yet.
    Connected {
        attempt: Attempt,
        at: Instant,
        /// It took no longer than a path that is up takes.
        prompt: bool,
    },
    /// HELLO is in the air.
    Claiming {
        attempt: Attempt,
        since: Instant,
        place: ClaimPlace,
    },
}

impl Lane {
    pub(super) const fn attempt(&self) -> Option<Attempt> {
        match *self {
            Self::Idle => None,
            Self::Connecting(attempt) | Self::Connected { attempt, .. } | Self::Claiming { attempt, .. } => {
                Some(attempt)
            }
        }
    }

    pub(super) const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    pub(super) const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    pub(super) const fn is_claiming(&self) -> bool {
        matches!(self, Self::Claiming { .. })
    }
}

/// The tunnel that the slot has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) attempt: Attempt,
    pub(super) since: Instant,
    /// Since when it owes a sign of life.
    pub(super) suspect: Option<Instant>,
}

impl Live {
    pub(super) const fn transport(&self) -> TransportKind {
        self.attempt.transport()
    }

    pub(super) const fn is_healthy(&self) -> bool {
        self.suspect.is_none()
    }
}

/// How a tunnel is sought.
#[derive(Debug)]
pub(super) enum Pursuit {
    /// Not at all: there is one, and it is well as far as that matters.
    Content,
    Round(Round),
    /// The next round begins at `until`, in `order` unless that depends on what is known then.
    Waiting {
        until: Instant,
        order: Option<Order>,
    },
}

/// Which transport goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// QUIC, TCP a little later. spec: TB-20
    Race,
    /// TCP, QUIC when that fails or takes long. spec: TB-22
    TcpFirst,
    /// Both at once.
    Together,
}

/// One try of each transport, until one is admitted or all have failed.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// When to connect those that have not started.
    pub(super) start: PerTransport<Option<Instant>>,
    pub(super) failed: PerTransport<bool>,
    /// What the responder said about asking again, if it refused: then nothing more starts.
    pub(super) refused: Option<Option<Duration>>,
    /// Until when a connect counts as prompt.
    pub(super) prompt_until: Option<Instant>,
}

impl Round {
    /// The responder said no: nothing more starts. spec: TB-23
    pub(super) fn refuse(&mut self, retry_after: Option<Duration>) {
        self.refused = Some(self.refused.flatten().max(retry_after));
        self.start = PerTransport::default();
    }
}
