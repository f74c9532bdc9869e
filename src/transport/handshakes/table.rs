//! Who is in which stage and who waits for one, without clock and sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use rand::seq::IteratorRandom;

use crate::net::Prefix;
use crate::protocol::budgets::{EVICTION_INTERVAL, HandshakeBudgets, StageBudget};
use crate::telemetry::StageMetrics;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Over TCP: connected, and nothing was read yet.
    Silent,
    /// It has begun, and cost no computing yet.
    Hello,
    /// TLS is under way.
    Tls,
    /// TLS is done; HELLO or a decision is awaited.
    Claim,
}

impl Stage {
    pub(super) const ALL: [Self; 4] = [Self::Silent, Self::Hello, Self::Tls, Self::Claim];
}

/// A connection, as the table knows it.
pub(super) trait Handle {
    /// It has to give way.
    fn evict(&self);
    /// It has the place that it waits for, or is the newest who waits.
    fn grant(&self);
}

/// What came of asking for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It has one, by this key.
    In(u64),
    /// It waits for one, by this number.
    Waits(u64),
}

/// The members of all stages.
#[derive(Debug)]
pub(super) struct Table<H> {
    budgets: HandshakeBudgets,
    stages: [Members<H>; Stage::ALL.len()],
    entered: u64,
}

/// The members of one stage, by when they came.
#[derive(Debug)]
struct Members<H> {
    stage: Stage,
    metrics: Option<StageMetrics>,
    all: BTreeMap<u64, Member<H>>,
    by_prefix: HashMap<Prefix, BTreeSet<u64>>,
    /// Who would like to be one, by when they came.
    waiting: BTreeMap<u64, (Prefix, H)>,
    /// The same by their prefix.
    waiting_by_prefix: BTreeMap<Prefix, BTreeSet<u64>>,
    /// Who waited and got a place, and does not know yet: its key.
    granted: HashMap<u64, u64>,
    /// Whether the next place that is free goes to one who is drawn, and not to the newest.
    by_lot: bool,
    evicted_at: Option<Instant>,
}

#[derive(Debug)]
struct Member<H> {
    prefix: Prefix,
    since: Instant,
    handle: H,
}

impl<H: Handle> Table<H> {
    pub(super) fn new(budgets: HandshakeBudgets) -> Self {
        let members = |stage| Members {
            stage,
            metrics: None,
            all: BTreeMap::new(),
            by_prefix: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_by_prefix: BTreeMap::new(),
            granted: HashMap::new(),
            by_lot: false,
            evicted_at: None,
        };
        Self { budgets, stages: Stage::ALL.map(members), entered: 0 }
    }

    /// Counts the members of each stage from now on. To be called while there are none.
    pub(super) fn count_with(&mut self, metrics: &StageMetrics) {
        for members in &mut self.stages {
            members.metrics = Some(metrics.clone());
        }
    }

    pub(super) const fn set_budgets(&mut self, budgets: HandshakeBudgets) {
        self.budgets = budgets;
    }

    pub(super) fn is_under_pressure(&self) -> bool {
        self.stages.iter().map(|members| members.all.len()).sum::<usize>() >= self.budgets.retry
    }

    /// A place, whoever has to give way for it.
    pub(super) fn force(&mut self, stage: Stage, prefix: Prefix, now: Instant, handle: H) -> u64 {
        let budget = self.budget(stage);
        let members = &mut self.stages[stage as usize];
        while let Some(oldest) = members.in_the_way(prefix, budget) {
            members.evict(oldest);
        }
        self.add(stage, prefix, now, handle)
    }

    /// A place where there is room, else a place among those who wait for one.
    pub(super) fn enter(&mut self, stage: Stage, prefix: Prefix, now: Instant, handle: H) -> Entry {
        let budget = self.budget(stage);
        let members = &mut self.stages[stage as usize];
        if members.in_the_way(prefix, budget).is_none() {
            return Entry::In(self.add(stage, prefix, now, handle));
        }
        self.entered += 1;
        members.wait(self.entered, prefix, handle);
        Entry::Waits(self.entered)
    }

    /// Lets the oldest who is in the way of the newest who waits give way, if it is old enough and no other did just now: in
    /// a storm of honest ones, each of whom takes its time, most must get through.
    pub(super) fn relieve(&mut self, stage: Stage, now: Instant) {
        let budget = self.budget(stage);
        let members = &mut self.stages[stage as usize];
        let is_early = |at: Instant| now.saturating_duration_since(at) < EVICTION_INTERVAL;
        if members.evicted_at.is_some_and(is_early) {
            return;
        }
        let Some((_, &(prefix, _))) = members.waiting.last_key_value() else { return };
        if let Some(oldest) = members.in_the_way(prefix, budget) {
            let old = |member: &Member<H>| now.saturating_duration_since(member.since) >= budget.grace;
            if !members.all.get(&oldest).is_some_and(old) {
                return;
            }
            members.evict(oldest);
            members.evicted_at = Some(now);
        }
        self.grant(stage, now);
    }

    /// Whether nobody has begun to wait after this one.
    pub(super) fn is_newest(&self, stage: Stage, number: u64) -> bool {
        self.stages[stage as usize].waiting.last_key_value().is_none_or(|(newest, _)| *newest == number)
    }

    /// The key of who waited by this number, once it has a place.
    pub(super) fn granted(&mut self, stage: Stage, number: u64) -> Option<u64> {
        self.stages[stage as usize].granted.remove(&number)
    }

    /// Whoever waited by this number does so no longer.
    pub(super) fn give_up(&mut self, stage: Stage, number: u64, now: Instant) {
        let members = &mut self.stages[stage as usize];
        members.stop_waiting(number);
        members.tell_newest();
        if let Some(key) = members.granted.remove(&number) {
            self.leave(stage, key, now);
        }
    }

    /// Leaves a stage; one that gave way is not there any more. The place goes to somebody who waits and may have it.
    pub(super) fn leave(&mut self, stage: Stage, key: u64, now: Instant) {
        if self.stages[stage as usize].remove(key).is_some() {
            self.grant(stage, now);
        }
    }

    fn grant(&mut self, stage: Stage, now: Instant) {
        let budget = self.budget(stage);
        let members = &mut self.stages[stage as usize];
        let Some(number) = members.next_in(budget) else { return };
        let Some((prefix, handle)) = members.stop_waiting(number) else { return };
        handle.grant();
        members.tell_newest();
        let key = self.add(stage, prefix, now, handle);
        self.stages[stage as usize].granted.insert(number, key);
    }

    fn add(&mut self, stage: Stage, prefix: Prefix, since: Instant, handle: H) -> u64 {
        self.entered += 1;
        let (key, members) = (self.entered, &mut self.stages[stage as usize]);
        members.all.insert(key, Member { prefix, since, handle });
        members.count(1.0);
        members.by_prefix.entry(prefix).or_default().insert(key);
        key
    }

    const fn budget(&self, stage: Stage) -> StageBudget {
        match stage {
            Stage::Silent => self.budgets.silent,
            Stage::Hello => self.budgets.hello,
            Stage::Tls => self.budgets.tls,
            Stage::Claim => self.budgets.claim,
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; Stage::ALL.len()] {
        std::array::from_fn(|stage| self.stages[stage].all.len())
    }

    #[cfg(test)]
    pub(super) fn is_tidy(&self) -> bool {
        self.stages.iter().all(|members| members.waiting.is_empty() && members.granted.is_empty())
    }
}

impl<H: Handle> Members<H> {
    /// Who would have to give way to one more of `prefix`: the oldest of the prefix once its share is used up, else the
    /// oldest of all once all is.
    fn in_the_way(&self, prefix: Prefix, budget: StageBudget) -> Option<u64> {
        let own = self.by_prefix.get(&prefix);
        match own.filter(|own| own.len() >= budget.share) {
            Some(own) => own.first().copied(),
            None if self.all.len() >= budget.all => self.all.keys().next().copied(),
            None => None,
        }
    }

    /// Who gets the place that is free: in turn the newest and one who is drawn, first among the prefixes and then within
    /// one. Where those who wait are more than give up, only the newest are still there when it is their turn; where they
    /// are a crowd that stays, whoever is not the newest would never have one.
    fn next_in(&mut self, budget: StageBudget) -> Option<u64> {
        let may_have_it = |prefix: &Prefix| self.in_the_way(*prefix, budget).is_none();
        let number = if self.by_lot {
            let able = self.waiting_by_prefix.iter().filter(|(prefix, _)| may_have_it(prefix));
            let numbers = able.choose(&mut rand::rng())?.1;
            *numbers.iter().choose(&mut rand::rng())?
        } else {
            *self.waiting.iter().rev().find(|(_, (prefix, _))| may_have_it(prefix))?.0
        };
        self.by_lot = !self.by_lot;
        Some(number)
    }

    fn wait(&mut self, number: u64, prefix: Prefix, handle: H) {
        self.waiting.insert(number, (prefix, handle));
        self.waiting_by_prefix.entry(prefix).or_default().insert(number);
    }

    fn stop_waiting(&mut self, number: u64) -> Option<(Prefix, H)> {
        let (prefix, handle) = self.waiting.remove(&number)?;
        if let Some(own) = self.waiting_by_prefix.get_mut(&prefix) {
            own.remove(&number);
            if own.is_empty() {
                self.waiting_by_prefix.remove(&prefix);
            }
        }
        Some((prefix, handle))
    }

    /// Whoever is the newest who waits may not have been it before, and has to look after the others from now on.
    fn tell_newest(&self) {
        if let Some((_, (_, handle))) = self.waiting.last_key_value() {
            handle.grant();
        }
    }

    fn evict(&mut self, key: u64) {
        if let Some(member) = self.remove(key) {
            member.handle.evict();
        }
    }

    fn count(&self, more: f64) {
        if let Some(metrics) = &self.metrics {
            metrics.moved(self.stage as usize, more);
        }
    }

    fn remove(&mut self, key: u64) -> Option<Member<H>> {
        let member = self.all.remove(&key)?;
        self.count(-1.0);
        if let Some(own) = self.by_prefix.get_mut(&member.prefix) {
            own.remove(&key);
            if own.is_empty() {
                self.by_prefix.remove(&member.prefix);
            }
        }
        Some(member)
    }
}
