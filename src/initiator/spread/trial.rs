//! An attempt to have a tunnel elsewhere, beside what the seat has.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::condition::{Condition, Why};
use crate::id::ResponderId;

/// The most addresses of one responder that are tried in a row.
const MAX_ADDRESSES: usize = 8;

/// Which one; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::initiator) struct TrialId(pub(in crate::initiator) u64);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its addresses are asked for.
    Resolving,
    /// There are some, none of them dialled yet.
    Resolved,
    Dialling,
}

/// An attempt to have a tunnel elsewhere.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) id: TrialId,
    /// At whom; `None`: whoever is at the destination's own address.
    pub(super) to: Option<ResponderId>,
    /// The seat is well where it is.
    pub(super) is_move: bool,
    pub(super) stage: Stage,
    begun: Instant,
    /// Since when this stage, or this address, is tried.
    since: Instant,
    /// How long a stage, or an address, may take.
    patience: Duration,
    /// How long all of it may.
    whole: Duration,
    /// Until when the next address has to wait.
    held_until: Instant,
    addresses: VecDeque<SocketAddr>,
    pub(super) condition: Condition,
}

impl Trial {
    /// `patience` for each stage and address, and `whole` for all of them.
    pub(super) fn new(
        id: TrialId,
        (to, is_move): (Option<ResponderId>, bool),
        now: Instant,
        (patience, whole): (Duration, Duration),
    ) -> Self {
        let stage = if to.is_none() { Stage::Dialling } else { Stage::Resolving };
        let condition = Condition::Down { since: now, why: Why::Dialled };
        Self {
            id,
            to,
            is_move,
            stage,
            begun: now,
            since: now,
            patience,
            whole,
            held_until: now,
            addresses: VecDeque::new(),
            condition,
        }
    }

    pub(super) fn found(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        self.stage = Stage::Resolved;
    }

    /// Whether it is tried for a while only. For who has nothing, the destination's own address is tried for as long as it takes.
    const fn ends(&self) -> bool {
        self.to.is_some() || self.is_move
    }

    /// Whether nothing comes of the present stage any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let has_failed = matches!(self.condition, Condition::Down { why: Why::Failed | Why::Drained, .. });
        match self.stage {
            _ if !self.ends() => false,
            _ if now >= self.begun + self.whole => true,
            _ if now < self.held_until => false,
            Stage::Resolved => true,
            Stage::Dialling if has_failed => true,
            Stage::Resolving | Stage::Dialling => now >= self.since + self.patience,
        }
    }

    /// Whether it waits at the destination's own address, for one that has nothing, for as long as any address gets.
    pub(super) fn has_waited_at_home(&self, now: Instant) -> bool {
        !self.ends() && now >= self.begun + self.patience
    }

    /// The next address is not dialled before this time.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = until;
    }

    /// Whether there is another address, and time for it.
    pub(super) fn has_another(&self, now: Instant) -> bool {
        !self.addresses.is_empty() && now < self.begun + self.whole
    }

    /// The next address, which is dialled from now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        let next = self.addresses.pop_front()?;
        (self.stage, self.since) = (Stage::Dialling, now);
        self.condition = Condition::Down { since: now, why: Why::Dialled };
        Some(next)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let next = (self.since + self.patience).max(self.held_until);
        self.ends().then(|| next.min(self.begun + self.whole))
    }
}
