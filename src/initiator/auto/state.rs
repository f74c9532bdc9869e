//! The states of a slot, each with its data. What cannot be at the same time cannot be written: there is one HELLO in
//! the air at most, one tunnel at most, and a search only where a tunnel is missing or in doubt.

use std::time::{Duration, Instant};

use super::attempts::Attempts;
use super::event::Attempt;
use crate::transport::TransportKind;

/// Where a slot stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// No tunnel, and nothing under way before the pause is over.
    Waiting(Pause),
    /// No tunnel; the transports are tried, until one is admitted or all have failed.
    Seeking { round: Round, attempts: Attempts },
    /// A tunnel that is well. Beside it there may be a probe of QUIC, and a claim that a suspicion left behind.
    Well { tunnel: Tunnel, attempts: Attempts },
    /// A tunnel that owes a sign of life.
    Suspect { tunnel: Tunnel, since: Instant, search: Search, attempts: Attempts },
}

/// How a replacement of a suspect tunnel is sought. spec: TB-24
#[derive(Debug, Clone, Copy)]
pub(super) enum Search {
    /// Not at all: an Envoy has no use for a second tunnel.
    Nothing,
    /// The transports are tried beside it.
    Round {
        round: Round,
        /// Until when a connect is no slower than on a path that is up.
        prompt_until: Option<Instant>,
    },
    /// All have failed, or a refusal asked for silence.
    Waiting(Pause),
}

/// Until when nothing is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) until: Instant,
    /// Which transport goes first then; `None`: that depends on what is known then.
    pub(super) order: Option<Order>,
}

/// A responder that drained: its process ends, and the next one may be there any moment. spec: CT-26
#[derive(Debug, Clone, Copy)]
pub(super) struct Returning {
    /// The tunnel that it drained.
    pub(super) attempt: Attempt,
    /// When it may be dialled again if it goes on as it said.
    pub(super) not_before: Instant,
    /// How often at most it is dialled while nobody answers: the more it asked for, the more others do the same.
    pub(super) pace: Duration,
    /// Until when it is expected.
    pub(super) until: Instant,
}

/// One try of each transport. Where each stands in it is in [`Attempts`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    /// The responder said no: nothing more starts. spec: TB-23
    pub(super) refusal: Option<Refusal>,
    /// How often one that had failed was tried again in it.
    pub(super) retries: u32,
}

impl Round {
    /// Of two refusals the longer silence counts.
    pub(super) fn refuse(&mut self, retry_after: Option<Duration>) {
        let known = self.refusal.and_then(|refusal| refusal.retry_after);
        self.refusal = Some(Refusal { retry_after: known.max(retry_after) });
    }
}

/// What the responder said about asking again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) retry_after: Option<Duration>,
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

/// The tunnel that the slot has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tunnel {
    pub(super) attempt: Attempt,
    pub(super) since: Instant,
}

impl Tunnel {
    pub(super) const fn transport(&self) -> TransportKind {
        self.attempt.transport()
    }
}

impl State {
    pub(super) const fn tunnel(&self) -> Option<Tunnel> {
        match *self {
            Self::Well { tunnel, .. } | Self::Suspect { tunnel, .. } => Some(tunnel),
            Self::Waiting(_) | Self::Seeking { .. } => None,
        }
    }

    /// Since when the tunnel owes a sign of life, if it does.
    pub(super) const fn suspect_since(&self) -> Option<Instant> {
        match *self {
            Self::Suspect { since, .. } => Some(since),
            Self::Waiting(_) | Self::Seeking { .. } | Self::Well { .. } => None,
        }
    }

    /// The pause that a round follows on.
    pub(super) const fn pause(&self) -> Option<Pause> {
        match *self {
            Self::Waiting(pause) | Self::Suspect { search: Search::Waiting(pause), .. } => Some(pause),
            Self::Seeking { .. } | Self::Well { .. } | Self::Suspect { .. } => None,
        }
    }

    /// The round that goes on, with or without a suspect tunnel.
    pub(super) const fn round(&self) -> Option<Round> {
        match *self {
            Self::Seeking { round, .. } | Self::Suspect { search: Search::Round { round, .. }, .. } => Some(round),
            Self::Waiting(_) | Self::Well { .. } | Self::Suspect { .. } => None,
        }
    }

    pub(super) const fn round_mut(&mut self) -> Option<&mut Round> {
        match self {
            Self::Seeking { round, .. } | Self::Suspect { search: Search::Round { round, .. }, .. } => Some(round),
            Self::Waiting(_) | Self::Well { .. } | Self::Suspect { .. } => None,
        }
    }

    /// What is under way, beside the tunnel; none while the slot waits.
    pub(super) fn attempts(&self) -> Attempts {
        match *self {
            Self::Waiting(_) => Attempts::default(),
            Self::Seeking { attempts, .. } | Self::Well { attempts, .. } | Self::Suspect { attempts, .. } => attempts,
        }
    }

    pub(super) const fn attempts_mut(&mut self) -> Option<&mut Attempts> {
        match self {
            Self::Waiting(_) => None,
            Self::Seeking { attempts, .. } | Self::Well { attempts, .. } | Self::Suspect { attempts, .. } => {
                Some(attempts)
            }
        }
    }
}
