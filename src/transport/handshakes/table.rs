//! Who is in which stage, without clock and sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::net::Prefix;
use crate::protocol::budgets::{HandshakeBudgets, StageBudget};

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Stage {
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

/// What is told that it has to give way.
pub(super) trait Evict {
    fn evict(&self);
}

impl Evict for CancellationToken {
    fn evict(&self) {
        self.cancel();
    }
}

/// The members of all stages.
#[derive(Debug)]
pub(super) struct Table<E> {
    budgets: HandshakeBudgets,
    stages: [Members<E>; Stage::ALL.len()],
    entered: u64,
}

/// The members of one stage, by when they came.
#[derive(Debug)]
struct Members<E> {
    all: BTreeMap<u64, Member<E>>,
    by_prefix: HashMap<Prefix, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Member<E> {
    prefix: Prefix,
    since: Instant,
    evict: E,
}

impl<E: Evict> Table<E> {
    pub(super) fn new(budgets: HandshakeBudgets) -> Self {
        let stages = std::array::from_fn(|_| Members { all: BTreeMap::new(), by_prefix: HashMap::new() });
        Self { budgets, stages, entered: 0 }
    }

    pub(super) const fn set_budgets(&mut self, budgets: HandshakeBudgets) {
        self.budgets = budgets;
    }

    pub(super) fn is_under_pressure(&self) -> bool {
        self.stages.iter().map(|members| members.all.len()).sum::<usize>() >= self.budgets.retry
    }

    /// A place, for which whoever is the oldest of the prefix or of all is evicted where there is no room; `None` if that
    /// one is not old enough.
    pub(super) fn enter(
        &mut self,
        stage: Stage,
        prefix: Prefix,
        now: Instant,
        evict: impl FnOnce() -> E,
    ) -> Option<u64> {
        let budget = self.budget(stage);
        let members = &mut self.stages[stage as usize];
        while let Some(oldest) = members.in_the_way(prefix, budget) {
            let member = members.all.get(&oldest)?;
            if now.saturating_duration_since(member.since) < budget.grace {
                return None;
            }
            members.evict(oldest);
        }
        Some(self.add(stage, prefix, now, evict()))
    }

    /// A place, whoever has to give way for it.
    pub(super) fn force(&mut self, stage: Stage, prefix: Prefix, now: Instant, evict: E) -> u64 {
        let budget = self.budget(stage);
        let members = &mut self.stages[stage as usize];
        while let Some(oldest) = members.in_the_way(prefix, budget) {
            members.evict(oldest);
        }
        self.add(stage, prefix, now, evict)
    }

    /// Whether it was there: one that gave way is not.
    pub(super) fn leave(&mut self, stage: Stage, key: u64) -> bool {
        self.stages[stage as usize].remove(key).is_some()
    }

    fn add(&mut self, stage: Stage, prefix: Prefix, since: Instant, evict: E) -> u64 {
        self.entered += 1;
        let (key, members) = (self.entered, &mut self.stages[stage as usize]);
        members.all.insert(key, Member { prefix, since, evict });
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
}

impl<E: Evict> Members<E> {
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

    fn evict(&mut self, key: u64) {
        if let Some(member) = self.remove(key) {
            member.evict.evict();
        }
    }

    fn remove(&mut self, key: u64) -> Option<Member<E>> {
        let member = self.all.remove(&key)?;
        if let Some(own) = self.by_prefix.get_mut(&member.prefix) {
            own.remove(&key);
            if own.is_empty() {
                self.by_prefix.remove(&member.prefix);
            }
        }
        Some(member)
    }
}
