//! The tunnels of one destination: resolves its name again and again, keeps as many as are wanted for each address, and has them at
//! distinct responders where these are of a fleet.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::names::{resolve, resolve_named};
use super::others::Others;
use super::seat::{Common, Seat, Started, Starter};
use crate::initiator::snapshot::{Key, Prepared};
use crate::initiator::spread::{Action, SeatId, Spread, SpreadSettings, TrialId};
use crate::initiator::status::UNRESOLVED_ADVICE;
use crate::initiator::supervisor::Until;
use crate::lifecycle::Backoff;
use crate::transport::Accept;

/// How often a name is asked again while all is well.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// The shortest pause after a name could not be resolved.
const MIN_RESOLVE_PAUSE: Duration = Duration::from_secs(1);
/// How many answers to questions for names of others may wait.
const ANSWERS: usize = 8;

/// What names of others stand for.
type Answer = (TrialId, Vec<SocketAddr>);

/// The slots of one destination.
pub(super) struct Slots<A> {
    starter: Starter<A>,
    common: Common,
    by_address: BTreeMap<SocketAddr, Vec<Seat>>,
    spread: Spread,
    next_seat: u64,
    /// What other destinations do.
    others: Arc<Others>,
    key: Key,
    /// Held while one of these tunnels moves.
    permit: Option<OwnedSemaphorePermit>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
}

impl<A: Accept> Slots<A> {
    pub(super) fn new(starter: Starter<A>, (others, key): (Arc<Others>, Key), until: Until) -> Self {
        let common = Common { until, failed: Arc::default(), outdated: Arc::default(), sight: Arc::default() };
        let claim = starter.shared.state.fixed.claim.clone();
        Self {
            starter,
            common,
            by_address: BTreeMap::new(),
            spread: Spread::new(Instant::now().into_std(), claim, SpreadSettings::default()),
            next_seat: 0,
            others,
            key,
            permit: None,
            answers: mpsc::channel(ANSWERS),
        }
    }

    /// Keeps them up until they are to stop; each then drains by itself.
    pub(super) async fn keep(mut self) {
        let key = self.key.clone();
        let shared = self.starter.shared.clone();
        let mut changes = shared.state.changes();
        let mut found = BTreeSet::new();
        let mut backoff = Backoff::default();
        let failed = Arc::clone(&self.common.failed);
        let ask = |at| ask(Arc::clone(&failed), at, Arc::clone(&key.target));
        // Whatever happens meanwhile, a question that was asked is not asked again for it.
        let mut asking = Box::pin(ask(Instant::now()));
        loop {
            changes.mark_unchanged();
            if let Some(prepared) = shared.state.current().find(&key) {
                self.reconcile(prepared, &found);
                self.place(prepared);
            }
            let deadline = self.spread.deadline();
            tokio::select! {
                () = self.common.until.stop.cancelled() => {
                    self.others.are(&key, HashSet::new());
                    return shared.board.resolved(&key.target);
                }
                _ = changes.changed() => {}
                () = self.common.outdated.notified() => {}
                () = self.common.sight.changed() => {}
                Some((trial, addresses)) = self.answers.1.recv() => self.spread.resolved(trial, addresses),
                () = due(deadline) => {}
                resolved = &mut asking => {
                    let pause = match resolved {
                        Ok(addresses) => {
                            found = addresses;
                            backoff.reset();
                            shared.board.resolved(&key.target);
                            RESOLVE_INTERVAL
                        }
                        Err(error) => self.unresolved(&key, error, &mut backoff, found.is_empty()),
                    };
                    asking.set(ask(Instant::now() + pause));
                }
            }
        }
    }

    /// Says that the name has no address, and after which pause it is asked again; addresses that it had stay.
    fn unresolved(&self, key: &Key, error: String, backoff: &mut Backoff, nothing_to_dial: bool) -> Duration {
        // Jitter must not turn a schedule for one destination into a flood of questions.
        let retry_in = backoff.next_delay(rand::random(), None).max(MIN_RESOLVE_PAUSE);
        let (destination, advice) = (&*key.target, UNRESOLVED_ADVICE);
        warn!(destination, %error, advice, ?retry_in, "cannot resolve the responder's name");
        if nothing_to_dial {
            let reason = format!("its name cannot be resolved: {error}");
            let board = &self.starter.shared.board;
            board.cannot_resolve(&key.target, reason, (Instant::now() + retry_in).into_std());
        }
        retry_in
    }

    /// Starts what is missing, drains what is too much, and replaces what was dialled otherwise.
    fn reconcile(&mut self, prepared: &Arc<Prepared>, found: &BTreeSet<SocketAddr>) {
        let mut by_address = std::mem::take(&mut self.by_address);
        for (address, seats) in by_address.extract_if(.., |address, _| !found.contains(address)) {
            let destination = &*prepared.key.target;
            info!(destination, %address, "the name no longer has this address: draining it");
            seats.into_iter().for_each(|seat| self.end(seat));
        }
        for address in found {
            let mut seats = by_address.remove(address).unwrap_or_default();
            self.shrink(&mut seats, prepared.destination.count as usize);
            seats = seats.into_iter().map(|seat| self.renewed(seat, prepared)).collect();
            while seats.len() < prepared.destination.count as usize {
                seats.push(self.begin(prepared, *address));
            }
            by_address.insert(*address, seats);
        }
        self.by_address = by_address;
    }

    fn begin(&mut self, prepared: &Arc<Prepared>, address: SocketAddr) -> Seat {
        let id = SeatId(self.next_seat);
        self.next_seat += 1;
        self.spread.add(Instant::now().into_std(), id);
        let own = self.starter.start(&self.common, (prepared, address), false, Vec::new());
        Seat { id, own, trial: None, former: Vec::new() }
    }

    fn end(&mut self, seat: Seat) {
        self.spread.remove(seat.id);
        seat.end();
    }

    /// Ends the seats beyond `count`, those without a tunnel first.
    fn shrink(&mut self, seats: &mut Vec<Seat>, count: usize) {
        while seats.len() > count {
            let board = &self.starter.shared.board;
            let idle = seats.iter().rposition(|seat| !board.is_connected(seat.own.number));
            let seat = seats.remove(idle.unwrap_or(seats.len() - 1));
            self.end(seat);
        }
    }

    fn renewed(&mut self, seat: Seat, prepared: &Arc<Prepared>) -> Seat {
        let (seat, is_anew) = seat.renewed(&self.starter, &self.common, prepared);
        if is_anew {
            self.spread.drop_trial(seat.id);
        }
        seat
    }

    /// Has the tunnels where they should be.
    fn place(&mut self, prepared: &Arc<Prepared>) {
        self.spread.set(settings(prepared));
        if let Some(roster) = self.common.sight.news() {
            self.spread.learn(roster);
        }
        for seat in self.by_address.values().flatten() {
            self.spread.note(seat.id, seat.own.watched.condition());
            if let Some((_, trial)) = &seat.trial {
                self.spread.note_trial(seat.id, trial.watched.condition());
            }
        }
        self.others.are(&self.key, self.spread.responders());
        self.spread.avoid(self.others.beside(&self.key));
        self.permit = self.permit.take().or_else(|| self.others.may_move());
        self.spread.advance(Instant::now().into_std(), self.permit.is_some(), rand::random::<u64>);
        while let Some(action) = self.spread.poll() {
            self.perform(action, prepared);
        }
        if !self.spread.is_moving() {
            self.permit = None;
        }
    }

    fn perform(&mut self, action: Action, prepared: &Arc<Prepared>) {
        let destination = &*prepared.key.target;
        match action {
            Action::Resolve { seat, trial, addresses } => {
                let Some((home, _)) = self.find(seat) else { return };
                let (answers, stop) = (self.answers.0.clone(), self.common.until.stop.clone());
                self.starter.shared.tasks.spawn(async move {
                    tokio::select! {
                        // Names that nobody answers for must not hold up the end.
                        () = stop.cancelled() => {}
                        found = resolve_named(addresses, home) => drop(answers.send((trial, found)).await),
                    }
                });
            }
            Action::Dial { seat, trial, address } => {
                let Some((home, at)) = self.find(seat) else { return };
                let address = address.unwrap_or(home);
                debug!(destination, %address, "trying another responder of the fleet");
                let started = self.starter.start(&self.common, (prepared, address), true, Vec::new());
                let former = self.seat(home, at).and_then(|seat| seat.trial.replace((trial, started)));
                former.into_iter().for_each(|(_, former)| former.end());
            }
            Action::Adopt(seat) => {
                let Some(seat) = self.find(seat).and_then(|(home, at)| self.seat(home, at)) else { return };
                if let Some(Started { address, number, .. }) = seat.adopt() {
                    info!(destination, %address, slot = number, "a tunnel is at another responder of the fleet now");
                }
            }
            Action::Moved(moved) => self.starter.shared.board.moved(moved),
            Action::EndFormer(seat) => {
                let Some(seat) = self.find(seat).and_then(|(home, at)| self.seat(home, at)) else { return };
                seat.former.drain(..).for_each(Started::end);
            }
            Action::GiveUp(seat) => {
                let Some(seat) = self.find(seat).and_then(|(home, at)| self.seat(home, at)) else { return };
                seat.trial.take().into_iter().for_each(|(_, trial)| trial.end());
            }
        }
    }

    /// The destination's own address for a seat, and which one it is there.
    fn find(&self, id: SeatId) -> Option<(SocketAddr, usize)> {
        let place = |(home, seats): (&SocketAddr, &Vec<Seat>)| {
            seats.iter().position(|seat| seat.id == id).map(|at| (*home, at))
        };
        self.by_address.iter().find_map(place)
    }

    fn seat(&mut self, home: SocketAddr, at: usize) -> Option<&mut Seat> {
        self.by_address.get_mut(&home)?.get_mut(at)
    }
}

/// The addresses of the name, not before `at` while nothing fails.
async fn ask(failed: Arc<Notify>, at: Instant, target: Arc<str>) -> Result<BTreeSet<SocketAddr>, String> {
    tokio::select! {
        // A failed dial may mean that the name moved. A tunnel in backoff does not ask more often than it dials.
        () = failed.notified() => {}
        () = sleep_until(at) => {}
    }
    resolve(&target).await
}

fn settings(Prepared { destination, since, standing, .. }: &Prepared) -> SpreadSettings {
    SpreadSettings {
        follows: destination.siblings,
        // What differs has the generation that holds now.
        manner: standing.shows.max(standing.trusts).max(*since),
        region: destination.region.clone(),
        pace: destination.rebalance,
        ..SpreadSettings::default()
    }
}

async fn due(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
