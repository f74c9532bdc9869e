//! Which responders of a fleet the tunnels of one destination go to. spec: FL-61 to FL-67
//!
//! A state machine without clock, randomness and sockets. Each tunnel that is wanted is a *seat*; it has a slot that keeps it, and
//! at times a *trial*: another slot at another responder, which takes over once its tunnel is up and is given up otherwise. So a
//! tunnel is replaced before it ends, always. The caller says what slots do ([`Spread::note`], [`Spread::note_trial`]), calls
//! [`Spread::advance`] after that and at [`Spread::deadline`], and then does what [`Spread::poll`] says until that is `None`.
//!
//! * A seat that has no tunnel, or a doubtful one, does not wait for its responder for long: the next one is tried beside it.
//! * A seat that is not where it should be moves at a random time, one of the initiator at a time. spec: FL-63

mod condition;
mod plan;
mod seat;
mod settings;
#[cfg(test)]
mod tests;
mod trial;
mod trouble;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::plan::{Plan, Wish};
use self::seat::Seat;
use self::trial::{Stage, Trial};
use self::trouble::Troubles;
use crate::id::{Claim, HostPort, ResponderId};
use crate::protocol::allowance::Allowance;
use crate::protocol::roster::Roster;
use crate::telemetry::Moved;

pub(super) use self::condition::{Condition, Why};
pub(super) use self::seat::SeatId;
pub(super) use self::settings::SpreadSettings;
pub(super) use self::trial::TrialId;

/// How many dials of responders that were named by others may begin at once, and each second after that. spec: FL-65
const DIAL_BURST: u32 = 8;
const DIALS_PER_SECOND: u32 = 2;
/// How often the patience with a responder doubles at most.
const MAX_DOUBLINGS: u32 = 16;
/// When a dial that had to wait for that is asked for again.
const DIAL_AGAIN: Duration = Duration::from_millis(500);
/// When a seat asks again whether it may move, where another one of the initiator does.
const MOVE_AGAIN: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Find the addresses of these names, and say them with [`Spread::resolved`].
    Resolve { seat: SeatId, trial: TrialId, addresses: Vec<HostPort> },
    /// Begin a slot beside that of the seat, in place of another one of the same trial; `None`: at the destination's own address.
    Dial { seat: SeatId, trial: TrialId, address: Option<SocketAddr> },
    /// The slot of the trial is that of the seat from now on. The former one stays beside it.
    Adopt(SeatId),
    /// A tunnel has gone to another responder: to be counted.
    Moved(Moved),
    /// What was the seat's slot before is drained.
    EndFormer(SeatId),
    /// The slot of the trial, if there is one, ends.
    GiveUp(SeatId),
}

/// What holds for all seats in one look at them.
struct Round<E> {
    /// Whether one may begin to move.
    may_move: bool,
    /// How many are at each responder.
    occupied: HashMap<ResponderId, usize>,
    entropy: E,
}

/// The choice for one destination.
#[derive(Debug)]
pub(super) struct Spread {
    claim: Claim,
    settings: SpreadSettings,
    roster: Option<Arc<Roster>>,
    /// Where other destinations have tunnels.
    taken: HashSet<ResponderId>,
    /// A responder has left its fleet: if nobody else is in one, there is none.
    left: bool,
    seats: BTreeMap<SeatId, Seat>,
    troubles: Troubles,
    dials: Allowance,
    trials: u64,
    actions: VecDeque<Action>,
    /// When something is due that was put off.
    again_at: Option<Instant>,
}

impl Spread {
    /// Nothing is wanted yet.
    pub(super) fn new(now: Instant, claim: Claim, settings: SpreadSettings) -> Self {
        Self {
            claim,
            troubles: Troubles::new(now, settings.retry),
            settings,
            roster: None,
            taken: HashSet::new(),
            left: false,
            seats: BTreeMap::new(),
            dials: Allowance::new(now, DIAL_BURST, DIALS_PER_SECOND),
            trials: 0,
            actions: VecDeque::new(),
            again_at: None,
        }
    }

    /// Goes by these from now on.
    pub(super) fn set(&mut self, settings: SpreadSettings) {
        if settings.pace != self.settings.pace {
            self.seats.values_mut().for_each(|seat| seat.move_at = None);
        }
        if settings.manner != self.settings.manner {
            self.troubles.forget();
        }
        self.settings = settings;
    }

    /// Where other destinations of the initiator have tunnels: these responders come last.
    pub(super) fn avoid(&mut self, taken: HashSet<ResponderId>) {
        self.taken = taken;
    }

    /// Where the tunnels are.
    pub(super) fn responders(&self) -> HashSet<ResponderId> {
        self.seats.values().filter_map(|seat| seat.condition.responder()).cloned().collect()
    }

    /// A responder has said who is in its fleet; `None`: that it is in none any more.
    pub(super) fn learn(&mut self, roster: Option<Arc<Roster>>) {
        match roster {
            Some(_) => (self.roster, self.left) = (roster, false),
            None => self.left = true,
        }
    }

    /// One more tunnel is wanted; its slot dials the destination's own address.
    pub(super) fn add(&mut self, now: Instant, seat: SeatId) {
        self.seats.insert(seat, Seat::new(now));
    }

    /// One is not wanted any more; the caller ends both of its slots.
    pub(super) fn remove(&mut self, seat: SeatId) {
        self.seats.remove(&seat);
    }

    /// The caller has ended the trial of a seat, as its slot was begun anew.
    pub(super) fn drop_trial(&mut self, seat: SeatId) {
        if let Some(seat) = self.seats.get_mut(&seat) {
            seat.trial = None;
        }
    }

    /// What the slot of a seat does now.
    pub(super) fn note(&mut self, id: SeatId, condition: Condition) {
        let moved = self.seats.get_mut(&id).and_then(|seat| seat.note(condition));
        self.actions.extend(moved.map(Action::Moved));
    }

    /// What the slot of its trial does now.
    pub(super) fn note_trial(&mut self, id: SeatId, condition: Condition) {
        let trial = self.seats.get_mut(&id).and_then(|seat| seat.trial.as_mut());
        if let Some(trial) = trial.filter(|trial| trial.stage == Stage::Dialling) {
            trial.condition = condition;
        }
    }

    /// The addresses of the responder that is tried; those that must not be dialled are left out by the caller.
    pub(super) fn resolved(&mut self, id: TrialId, addresses: Vec<SocketAddr>) {
        let trials = self.seats.values_mut().filter_map(|seat| seat.trial.as_mut());
        if let Some(trial) = trials.into_iter().find(|trial| trial.id == id && trial.stage == Stage::Resolving) {
            trial.found(addresses);
        }
    }

    /// Whether a seat moves that has a tunnel.
    pub(super) fn is_moving(&self) -> bool {
        self.seats.values().any(|seat| seat.trial.as_ref().is_some_and(|trial| trial.is_move))
    }

    /// The next thing to do; call until `None`.
    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Spread::advance`] if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let seats = self.seats.values().filter_map(|seat| seat.deadline(&self.settings));
        // One that is in trouble may be wanted again.
        let rest = self.is_down().then_some(self.settings.rest);
        seats.chain(self.again_at).chain(self.troubles.next(rest).filter(|_| self.roster.is_some())).min()
    }

    /// Acts on what was said, and on what is due at `now`. `may_move`: no seat of another destination moves. `entropy` gives 64
    /// fresh random bits each time.
    pub(super) fn advance(&mut self, now: Instant, may_move: bool, mut entropy: impl FnMut() -> u64) {
        self.again_at = None;
        self.troubles.look(now);
        if self.left && !self.seats.values().any(|seat| seat.condition.responder().is_some()) {
            (self.roster, self.left) = (None, false);
        }
        let ids: Vec<SeatId> = self.seats.keys().copied().collect();
        for &id in &ids {
            self.end_former(now, id);
            self.judge(now, id, &mut entropy);
        }
        for &id in &ids {
            self.blame(now, id, &mut entropy);
        }
        let plan = self.plan(now);
        let may_move = may_move && !self.is_moving();
        let mut round = Round { may_move, occupied: self.occupied(), entropy };
        for &id in &ids {
            self.place(now, id, plan.elsewhere.get(&id), &mut round);
        }
    }

    fn plan(&self, now: Instant) -> Plan {
        let roster = self.roster.as_deref().filter(|_| self.settings.follows);
        roster.map_or_else(Plan::default, |roster| {
            let wish = Wish { claim: &self.claim, region: self.settings.region.as_deref(), taken: &self.taken };
            let is_down = self.is_down();
            Plan::new(roster, wish, &self.seats, |id| match is_down {
                true => !self.troubles.has_within(id, now, self.settings.rest),
                false => !self.troubles.has(id, now),
            })
        })
    }

    /// Whether there is no tunnel at all that is well.
    fn is_down(&self) -> bool {
        !self.seats.is_empty() && !self.seats.values().any(|seat| seat.condition.is_up())
    }

    /// What became of a trial.
    fn judge(&mut self, now: Instant, id: SeatId, entropy: &mut impl FnMut() -> u64) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let Some(trial) = &mut seat.trial else { return };
        if let Condition::Up { responder: landed, .. } = &trial.condition {
            let (landed, wanted) = (landed.clone(), trial.to.clone());
            return self.arrived(now, id, (landed, wanted), entropy);
        }
        if !trial.is_move && seat.condition.is_up() {
            // What was in doubt is there.
            return self.give_up(id);
        }
        if !trial.is_over(now) {
            return;
        }
        let Some(to) = trial.to.clone() else { return self.give_up(id) };
        if trial.has_another(now) {
            return self.dial_next(now, id);
        }
        self.troubles.fail(&to, now, entropy());
        self.give_up(id);
    }

    /// A trial has a tunnel, perhaps not where it was meant to be: an address may be that of a balancer. spec: FL-66
    fn arrived(
        &mut self,
        now: Instant,
        id: SeatId,
        (landed, wanted): (Option<ResponderId>, Option<ResponderId>),
        entropy: &mut impl FnMut() -> u64,
    ) {
        let on = |responder: &Option<ResponderId>| {
            self.seats.values().filter(|seat| seat.condition.responder() == responder.as_ref()).count()
        };
        let is_right = wanted.is_none() || landed == wanted;
        let Some(seat) = self.seats.get(&id) else { return };
        let is_better = landed.is_some() && on(&landed) == 0 && on(&seat.condition.responder().cloned()) > 1;
        let is_needed = !seat.condition.is_up();
        if let Some(wanted) = &wanted {
            if is_right { self.troubles.clear(wanted) } else { self.troubles.mislead(wanted, now, entropy()) }
        }
        if !(is_right || is_better || is_needed) {
            return self.give_up(id);
        }
        if let Some(seat) = self.seats.get_mut(&id) {
            // Whoever sends requests may go on doing so until he knows of the other one.
            seat.former_until = Some(if seat.condition.is_up() { now + self.settings.overlap } else { now });
            let moved = seat.adopt();
            self.actions.push_back(Action::Adopt(id));
            self.actions.extend(moved.map(Action::Moved));
            self.end_former(now, id);
        }
    }

    fn end_former(&mut self, now: Instant, id: SeatId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if seat.former_until.take_if(|until| *until <= now).is_some() {
            self.actions.push_back(Action::EndFormer(id));
        }
    }

    /// A seat whose responder gives it no tunnel, or a doubtful one, for too long says so of that responder.
    fn blame(&mut self, now: Instant, id: SeatId, entropy: &mut impl FnMut() -> u64) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if seat.is_blamed || !seat.is_overdue(now, &self.settings) {
            return;
        }
        seat.is_blamed = true;
        for responder in seat.blamed() {
            self.troubles.fail(&responder, now, entropy());
        }
    }

    /// Sends a seat to where it should be.
    fn place(&mut self, now: Instant, id: SeatId, to: Option<&ResponderId>, round: &mut Round<impl FnMut() -> u64>) {
        let waits = |seat: &Seat| seat.trial.as_ref().is_some_and(|trial| trial.has_waited_at_home(now));
        if to.is_some() && self.seats.get(&id).is_some_and(|seat| !seat.condition.is_up() && waits(seat)) {
            // Somebody can be tried again.
            self.give_up(id);
        }
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.trial.is_none()) else { return };
        if !seat.condition.is_up() {
            seat.move_at = None;
            if seat.is_overdue(now, &self.settings) && (to.is_some() || !seat.is_home) {
                self.try_at(now, id, to.cloned(), false);
            }
            return;
        }
        // One that is to follow nobody any more goes back to where its destination's name points.
        let is_to_return = !self.settings.follows && !seat.is_home;
        if to.is_none() && !is_to_return {
            seat.move_at = None;
            return;
        }
        let at = *seat.move_at.get_or_insert_with(|| {
            let shares = seat.condition.responder().and_then(|responder| round.occupied.get(responder));
            let is_young = seat.condition.is_younger(now, self.settings.young);
            let is_soon = is_young && shares.is_some_and(|count| *count > 1);
            let within = if is_soon { self.settings.soon } else { self.settings.pace };
            now + within.mul_f64((round.entropy)() as f64 / u64::MAX as f64)
        });
        if at > now {
            return;
        }
        seat.move_at = Some(now + MOVE_AGAIN);
        if round.may_move {
            self.try_at(now, id, to.cloned(), true);
            round.may_move = !self.is_moving();
        }
    }

    /// How many seats are at each responder.
    fn occupied(&self) -> HashMap<ResponderId, usize> {
        let mut on = HashMap::new();
        for responder in self.seats.values().filter_map(|seat| seat.condition.responder()) {
            *on.entry(responder.clone()).or_default() += 1;
        }
        on
    }

    fn try_at(&mut self, now: Instant, id: SeatId, to: Option<ResponderId>, is_move: bool) {
        if !self.may_dial(now) {
            return;
        }
        let trial = TrialId(self.trials);
        let listed = to.as_ref().and_then(|to| self.roster.as_ref()?.all().find(|listed| listed.id == *to));
        let addresses = listed.map(|listed| listed.addresses.clone()).unwrap_or_default();
        let failures = to.as_ref().map_or(0, |to| self.troubles.failures(to));
        let times = (self.settings.patience.saturating_mul(1 << failures.min(MAX_DOUBLINGS)), self.settings.whole);
        let times = (times.0.min(self.settings.most_patience.max(self.settings.patience)), times.1);
        let Some(seat) = self.seats.get_mut(&id) else { return };
        self.trials += 1;
        seat.move_at = None;
        let home = to.is_none();
        seat.trial = Some(Trial::new(trial, (to, is_move), now, times));
        self.actions.push_back(match home {
            true => Action::Dial { seat: id, trial, address: None },
            false => Action::Resolve { seat: id, trial, addresses },
        });
    }

    fn dial_next(&mut self, now: Instant, id: SeatId) {
        let is_first = |trial: &Trial| trial.stage == Stage::Resolved;
        let starts = self.seats.get(&id).and_then(|seat| seat.trial.as_ref()).is_some_and(is_first);
        // What is dialled first was counted when its names were asked for.
        let may_dial = starts || self.may_dial(now);
        let Some(trial) = self.seats.get_mut(&id).and_then(|seat| seat.trial.as_mut()) else { return };
        if !may_dial {
            return trial.hold(now + DIAL_AGAIN);
        }
        if let Some(address) = trial.next(now) {
            self.actions.push_back(Action::Dial { seat: id, trial: trial.id, address: Some(address) });
        }
    }

    /// spec: FL-65
    fn may_dial(&mut self, now: Instant) -> bool {
        let may = self.dials.spend(1, || now);
        if !may {
            self.again_at = Some(now + DIAL_AGAIN);
        }
        may
    }

    fn give_up(&mut self, id: SeatId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.trial = None;
            self.actions.push_back(Action::GiveUp(id));
        }
    }
}
