//! The slots of one tunnel that is wanted: the one that keeps it, and at times one that tries another responder beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::initiator::sight::{Sight, Watched};
use crate::initiator::snapshot::Prepared;
use crate::initiator::spread::{SeatId, TrialId};
use crate::initiator::supervisor::{Outdated, Shared, Slot, Until, keep};
use crate::transport::Accept;

/// Starts slots. Cheap to clone.
#[derive(Debug)]
pub(super) struct Starter<A> {
    pub(super) shared: Shared<A>,
    next_slot: Arc<AtomicU32>,
}

impl<A> Clone for Starter<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), next_slot: Arc::clone(&self.next_slot) }
    }
}

/// What the slots of one destination have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) until: Until,
    /// Told of each failure, so that the name is resolved again.
    pub(super) failed: Arc<Notify>,
    /// Told when a slot is outdated.
    pub(super) outdated: Arc<Notify>,
    /// Where slots say what they do.
    pub(super) sight: Arc<Sight>,
}

/// A slot that was started, as whoever may stop it knows it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) number: u32,
    pub(super) address: SocketAddr,
    /// Of its destination when it was started.
    since: u64,
    /// Whether another one is to take over for another reason.
    outdated: Arc<Outdated>,
    pub(super) watched: Arc<Watched>,
    /// Drains its tunnel.
    stop: CancellationToken,
    /// The slots that it takes over from.
    replaces: Vec<CancellationToken>,
}

impl Started {
    pub(super) fn end(self) {
        for stop in self.with_replaced() {
            stop.cancel();
        }
    }

    /// What stops it and those that it takes over from.
    fn with_replaced(self) -> Vec<CancellationToken> {
        self.replaces.into_iter().filter(|stop| !stop.is_cancelled()).chain([self.stop]).collect()
    }

    /// Whether it is dialled as the terms want it.
    fn may_stay(&self, prepared: &Prepared) -> bool {
        self.since == prepared.since && !self.outdated.is()
    }
}

impl<A: Accept> Starter<A> {
    pub(super) fn new(shared: Shared<A>) -> Self {
        Self { shared, next_slot: Arc::default() }
    }

    /// Begins a slot that dials this address; a trial is kept only once it has been adopted.
    pub(super) fn start(
        &self,
        common: &Common,
        (prepared, address): (&Arc<Prepared>, SocketAddr),
        is_trial: bool,
        replaces: Vec<CancellationToken>,
    ) -> Started {
        let numbers = Slot::numbers(&prepared.destination.transport);
        let outdated = Outdated::new(Arc::clone(&common.outdated));
        let watched = Watched::new(&common.sight, is_trial);
        let slot = Slot {
            number: self.next_slot.fetch_add(numbers, Ordering::Relaxed),
            address,
            prepared: Arc::clone(prepared),
            failed: Arc::clone(&common.failed),
            outdated: Arc::clone(&outdated),
            watched: Arc::clone(&watched),
            replaces: replaces.clone(),
        };
        let (number, since, stop) = (slot.number, prepared.since, common.until.stop.child_token());
        let until = Until { stop: stop.clone(), drain: common.until.drain.clone() };
        self.shared.tasks.spawn(keep(self.shared.clone(), slot, until));
        Started { number, address, since, outdated, watched, stop, replaces }
    }
}

/// The slots of one tunnel that is wanted.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) id: SeatId,
    /// Keeps the tunnel.
    pub(super) own: Started,
    /// Tries another responder.
    pub(super) trial: Option<(TrialId, Started)>,
    /// Kept it before, and goes on for a while.
    pub(super) former: Vec<Started>,
}

impl Seat {
    pub(super) fn end(self) {
        self.own.end();
        let trial = self.trial.map(|(_, trial)| trial);
        trial.into_iter().chain(self.former).for_each(Started::end);
    }

    /// The trial keeps the tunnel from now on.
    pub(super) fn adopt(&mut self) -> Option<&Started> {
        let (_, trial) = self.trial.take()?;
        trial.watched.keep();
        let former = std::mem::replace(&mut self.own, trial);
        former.watched.replace();
        self.former.push(former);
        Some(&self.own)
    }

    /// Begins the slot anew if the terms want it dialled otherwise. Returns whether it did; a trial is then over.
    pub(super) fn renewed<A: Accept>(
        self,
        starter: &Starter<A>,
        common: &Common,
        prepared: &Arc<Prepared>,
    ) -> (Self, bool) {
        let Self { id, own, trial, former } = self;
        let (trial, over): (Option<_>, Option<_>) = match trial {
            Some((number, trial)) if own.may_stay(prepared) && trial.may_stay(prepared) => {
                (Some((number, trial)), None)
            }
            Some((_, trial)) => (None, Some(trial)),
            None => (None, None),
        };
        let was_dropped = over.is_some();
        over.into_iter().for_each(Started::end);
        if own.may_stay(prepared) {
            return (Self { id, own, trial, former }, was_dropped);
        }
        let address = own.address;
        let own = starter.start(common, (prepared, address), false, own.with_replaced());
        (Self { id, own, trial, former }, true)
    }
}
