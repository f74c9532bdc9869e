//! What is under way over each transport, beside the tunnel: the steps up to HELLO, and the one claim.

use std::time::Instant;

use super::event::{Attempt, ClaimPlace, PerTransport};
use crate::transport::TransportKind;

/// What is under way. There is no way to write down two claims. spec: TB-20
#[derive(Debug, Clone, Copy)]
pub(super) enum Attempts {
    /// No HELLO is in the air.
    Unclaimed(PerTransport<Lane>),
    /// One is.
    Claimed {
        claim: Claim,
        /// The transport that the claim does not use.
        other: Lane,
    },
}

/// How far one transport is, before HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lane {
    #[default]
    Idle,
    /// It is to be connected then: in a round, or as a probe.
    Due(Instant),
    Connecting {
        attempt: Attempt,
        /// It began before the round did: if it fails, the round connects anew, not before this.
        again: Option<Instant>,
    },
    /// It waits for its turn to send HELLO.
    Connected {
        attempt: Attempt,
        at: Instant,
        /// It took no longer than a path that is up takes.
        prompt: bool,
    },
    /// It failed in this round, which connects it once more at `again` if at all.
    Failed { again: Option<Instant> },
    /// It failed in this round, while the other one has no answer yet: it is connected again then, if the round lasts so long.
    Retrying(Instant),
}

/// HELLO is in the air.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) attempt: Attempt,
    pub(super) since: Instant,
    pub(super) place: ClaimPlace,
    /// As in [`Lane::Connecting`].
    pub(super) again: Option<Instant>,
}

impl Claim {
    pub(super) const fn transport(&self) -> TransportKind {
        self.attempt.transport()
    }
}

impl Lane {
    pub(super) const fn attempt(&self) -> Option<Attempt> {
        match *self {
            Self::Connecting { attempt, .. } | Self::Connected { attempt, .. } => Some(attempt),
            Self::Idle | Self::Due(_) | Self::Failed { .. } | Self::Retrying(_) => None,
        }
    }

    /// When it is to be connected.
    pub(super) const fn start(&self) -> Option<Instant> {
        match *self {
            Self::Due(at) | Self::Retrying(at) => Some(at),
            Self::Failed { again } => again,
            Self::Idle | Self::Connecting { .. } | Self::Connected { .. } => None,
        }
    }

    /// The same with this as the time of the next connect.
    const fn scheduled(self, start: Option<Instant>) -> Self {
        match (self, start) {
            (Self::Connecting { attempt, .. }, again) => Self::Connecting { attempt, again },
            (Self::Connected { .. }, _) => self,
            (Self::Idle | Self::Due(_) | Self::Failed { .. } | Self::Retrying(_), Some(at)) => Self::Due(at),
            (Self::Idle | Self::Due(_) | Self::Failed { .. } | Self::Retrying(_), None) => Self::Idle,
        }
    }

    /// The same without another connect, which keeps the failure.
    const fn stopped(self) -> Self {
        match self {
            Self::Failed { .. } | Self::Retrying(_) => Self::Failed { again: None },
            _ => self.scheduled(None),
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self::Unclaimed(PerTransport::default())
    }
}

impl Attempts {
    pub(super) const fn claim(&self) -> Option<Claim> {
        match *self {
            Self::Unclaimed(_) => None,
            Self::Claimed { claim, .. } => Some(claim),
        }
    }

    /// The claim that this attempt has in the air.
    pub(super) fn claim_of(&self, attempt: Attempt) -> Option<Claim> {
        self.claim().filter(|claim| claim.attempt == attempt)
    }

    pub(super) fn is_claiming(&self, transport: TransportKind) -> bool {
        self.claim().is_some_and(|claim| claim.transport() == transport)
    }

    /// How far a transport is; `None` while HELLO is in the air over it.
    pub(super) fn lane(&self, transport: TransportKind) -> Option<Lane> {
        match self {
            Self::Unclaimed(lanes) => Some(lanes[transport]),
            Self::Claimed { claim, other } => (claim.transport() != transport).then_some(*other),
        }
    }

    /// The attempt under way over a transport.
    pub(super) fn attempt(&self, transport: TransportKind) -> Option<Attempt> {
        match (self.lane(transport), self.claim()) {
            (Some(lane), _) => lane.attempt(),
            (None, claim) => claim.map(|claim| claim.attempt),
        }
    }

    pub(super) fn is_busy(&self, transport: TransportKind) -> bool {
        self.attempt(transport).is_some()
    }

    pub(super) fn is_connected(&self, transport: TransportKind) -> bool {
        matches!(self.lane(transport), Some(Lane::Connected { .. }))
    }

    /// When a transport is to be connected.
    pub(super) fn start(&self, transport: TransportKind) -> Option<Instant> {
        self.lane(transport).and_then(|lane| lane.start())
    }

    /// Whether a transport has failed in this round, and is to be tried once more in it.
    pub(super) fn is_retrying(&self, transport: TransportKind) -> bool {
        matches!(self.lane(transport), Some(Lane::Retrying(_)))
    }

    /// Moves a transport on, or back; a claim over it is then over.
    pub(super) fn set(&mut self, transport: TransportKind, lane: Lane) {
        match self {
            Self::Unclaimed(lanes) => lanes[transport] = lane,
            Self::Claimed { claim, other } if claim.transport() != transport => *other = lane,
            Self::Claimed { other, .. } => {
                let mut lanes = PerTransport::new(*other, *other);
                lanes[transport] = lane;
                *self = Self::Unclaimed(lanes);
            }
        }
    }

    /// HELLO goes out on a connection that waited for it; nothing while another is in the air.
    pub(super) fn send_hello(&mut self, claim: Claim) {
        if let Self::Unclaimed(lanes) = self {
            *self = Self::Claimed { claim, other: lanes[other_than(claim.transport())] };
        }
    }

    /// What is under way over a transport has failed, in a round.
    pub(super) fn fail(&mut self, transport: TransportKind) {
        let again = match self.lane(transport) {
            Some(Lane::Connecting { again, .. } | Lane::Failed { again }) => again,
            Some(lane) => lane.start(),
            None => self.claim().and_then(|claim| claim.again),
        };
        self.set(transport, Lane::Failed { again });
    }

    /// A round begins: when each transport is to be connected, those under way once that has failed.
    pub(super) fn schedule(&mut self, start: PerTransport<Option<Instant>>) {
        let (quic, tcp) = (TransportKind::Quic, TransportKind::Tcp);
        match self {
            Self::Unclaimed(lanes) => {
                *lanes = PerTransport::new(lanes[quic].scheduled(start[quic]), lanes[tcp].scheduled(start[tcp]));
            }
            Self::Claimed { claim, other } => {
                claim.again = start[claim.transport()];
                *other = other.scheduled(start[other_than(claim.transport())]);
            }
        }
    }

    /// The round is over, or there is none: nothing is scheduled, and no failure counts any more.
    pub(super) fn unschedule(&mut self) {
        self.schedule(PerTransport::default());
    }

    /// Within a round: nothing more is connected.
    pub(super) fn stop(&mut self) {
        match self {
            Self::Unclaimed(lanes) => {
                let (quic, tcp) = (lanes[TransportKind::Quic], lanes[TransportKind::Tcp]);
                *lanes = PerTransport::new(quic.stopped(), tcp.stopped());
            }
            Self::Claimed { claim, other } => {
                claim.again = None;
                *other = other.stopped();
            }
        }
    }
}

/// The transport in the other place of [`PerTransport`].
const fn other_than(transport: TransportKind) -> TransportKind {
    match transport {
        TransportKind::Quic => TransportKind::Tcp,
        TransportKind::Tcp | TransportKind::Envoy => TransportKind::Quic,
    }
}
