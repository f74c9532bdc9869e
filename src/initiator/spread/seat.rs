//! One tunnel that is wanted, and what is known of it.

use std::time::Instant;

use super::condition::{Condition, Why};
use super::settings::SpreadSettings;
use super::trial::Trial;
use crate::id::ResponderId;
use crate::telemetry::Moved;

/// Which one; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::initiator) struct SeatId(pub(in crate::initiator) u64);

/// One tunnel that is wanted.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) condition: Condition,
    /// Its slot dials the destination's own address.
    pub(super) is_home: bool,
    /// Whose address its slot dials, if it is not that.
    aim: Option<ResponderId>,
    /// Who had its tunnel last.
    last: Option<ResponderId>,
    pub(super) trial: Option<Trial>,
    /// When the slot that it had before ends.
    pub(super) former_until: Option<Instant>,
    /// When it moves.
    pub(super) move_at: Option<Instant>,
    /// The responder is known to give it no tunnel, since it had one.
    pub(super) is_blamed: bool,
}

impl Seat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            condition: Condition::Down { since: now, why: Why::Dialled },
            is_home: true,
            aim: None,
            last: None,
            trial: None,
            former_until: None,
            move_at: None,
            is_blamed: false,
        }
    }

    /// What its slot does now; says whether that has made its tunnel one of another responder, and why.
    pub(super) fn note(&mut self, condition: Condition) -> Option<Moved> {
        let moved = self.moves_to(condition.responder(), false);
        if condition.is_up() {
            self.is_blamed = false;
        }
        if condition.responder().is_some() {
            self.last = condition.responder().cloned();
        }
        self.condition = condition;
        moved
    }

    /// The slot of its trial is its own from now on; says as [`Seat::note`] does.
    pub(super) fn adopt(&mut self) -> Option<Moved> {
        let trial = self.trial.take()?;
        let moved = self.moves_to(trial.condition.responder(), trial.is_move);
        (self.is_home, self.aim) = (trial.to.is_none(), trial.to);
        self.move_at = None;
        self.last = None;
        self.note(trial.condition);
        moved
    }

    fn moves_to(&self, responder: Option<&ResponderId>, is_planned: bool) -> Option<Moved> {
        let is_another = responder.is_some() && self.last.is_some() && responder != self.last.as_ref();
        is_another.then_some(match self.condition {
            _ if is_planned => Moved::Planned,
            Condition::Down { why: Why::Drained, .. } => Moved::Drained,
            Condition::Doubtful { .. } => Moved::Suspect,
            Condition::Down { .. } | Condition::Up { .. } => Moved::Lost,
        })
    }

    /// Who gives it no tunnel.
    pub(super) fn blamed(&self) -> Vec<ResponderId> {
        let mut blamed: Vec<ResponderId> = self.last.iter().chain(&self.aim).cloned().collect();
        blamed.dedup();
        blamed
    }

    /// Whether it does not wait for its responder alone any more.
    pub(super) fn is_overdue(&self, now: Instant, settings: &SpreadSettings) -> bool {
        self.overdue_at(settings).is_some_and(|at| at <= now)
    }

    fn overdue_at(&self, settings: &SpreadSettings) -> Option<Instant> {
        match &self.condition {
            Condition::Down { since, why: Why::Dialled } => Some(*since + settings.patience),
            Condition::Down { since, why: Why::Failed | Why::Drained } => Some(*since),
            Condition::Doubtful { since, .. } => Some(*since + settings.doubt),
            Condition::Up { .. } => None,
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self, settings: &SpreadSettings) -> Option<Instant> {
        let overdue = self.overdue_at(settings).filter(|_| !self.is_blamed);
        let trial = self.trial.as_ref().and_then(Trial::deadline);
        [overdue, trial, self.move_at, self.former_until].into_iter().flatten().min()
    }
}
