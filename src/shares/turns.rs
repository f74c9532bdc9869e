//! Whose turn it is while several tenants want a busy responder.
//!
//! What is contended is the thread that moves everything: whatever is ready on it is done in the order in which it became
//! ready. A tenant that makes a thousand things ready at once has everybody else wait behind them. So in each *pass*, which
//! is one round of the thread through all that is ready, a tenant begins and moves no more than its *slice*; the rest waits
//! for the next pass. Nobody waits while there is nothing else to do: the passes follow each other at once then. A tenant that
//! wants less than its slice never waits.
//!
//! The slices of those who wait are in proportion to their weights. Sans-IO: whoever drives it says when a pass begins.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The slice of the heaviest tenant, in bytes: a fraction of a millisecond of one core.
pub(super) const SLICE: u64 = 64 << 10;
/// What it costs to begin an exchange, in bytes that could be moved instead.
pub(super) const BEGIN_COST: u64 = 8 << 10;
/// What it costs to read one more request and to see what it asks for.
pub(super) const READ_COST: u64 = 4 << 10;
/// What moving a piece costs at least, however few bytes it has: a wake-up of its task, and a write.
pub(super) const LEAST_COST: u64 = 4 << 10;

/// The tenants that have taken turns, each with who waits for one. `T` is what a waiter is told by.
#[derive(Debug)]
pub(super) struct Turns<T> {
    lanes: BTreeMap<u64, Lane<T>>,
    /// Those in which somebody waits. There may be many more lanes, which nobody looks at for it.
    waiting: BTreeSet<u64>,
    pass: u64,
    /// The weight of the heaviest tenant that waited at the begin of the pass.
    heaviest: u32,
    /// Somebody has used up a slice in this pass.
    is_used_up: bool,
}

/// One tenant.
#[derive(Debug)]
struct Lane<T> {
    weight: u32,
    /// What is left of its slice. Below nothing after something large, which the next slices pay for.
    left: i64,
    /// The pass in which it was counted last.
    pass: u64,
    waiting: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    told: T,
    cost: u64,
}

/// What came of a wish for a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is now.
    Now,
    /// It comes in one of the next passes.
    Later,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), waiting: BTreeSet::new(), pass: 0, heaviest: 1, is_used_up: false }
    }
}

impl<T> Turns<T> {
    /// A tenant of this weight wants a turn for so many bytes, or what is like them. Where it has to wait, `told` is kept.
    pub(super) fn take(&mut self, tenant: u64, weight: u32, cost: u64, told: impl FnOnce() -> T) -> Turn {
        let (pass, heaviest) = (self.pass, self.heaviest.max(weight));
        let lane = self.lanes.entry(tenant).or_insert_with(|| Lane::new(pass));
        lane.weight = weight;
        lane.refill(pass, heaviest);
        let turn = if lane.waiting.is_empty() && lane.left > 0 {
            lane.spend(cost);
            Turn::Now
        } else {
            lane.waiting.push_back(Waiting { told: told(), cost });
            self.waiting.insert(tenant);
            Turn::Later
        };
        self.is_used_up |= lane.left <= 0;
        turn
    }

    /// Whether another pass is to begin: somebody waits, or would have to.
    pub(super) fn needs_pass(&self) -> bool {
        self.is_used_up || !self.waiting.is_empty()
    }

    /// The next pass begins. `give` tells a waiter that its turn has come, and says whether there still was one.
    pub(super) fn begin_pass(&mut self, mut give: impl FnMut(T) -> bool) {
        self.pass += 1;
        self.is_used_up = false;
        let lanes = std::mem::take(&mut self.waiting).into_iter();
        let mut waiting: Vec<_> = lanes.filter_map(|tenant| self.lanes.remove_entry(&tenant)).collect();
        // Whoever has little to do is not kept waiting for those who have much.
        waiting.sort_by_key(|(_, lane)| lane.waiting.len());
        self.heaviest = waiting.iter().map(|(_, lane)| lane.weight).max().unwrap_or(1);
        for (tenant, mut lane) in waiting {
            lane.refill(self.pass, self.heaviest);
            while lane.left > 0 {
                let Some(Waiting { told, cost }) = lane.waiting.pop_front() else { break };
                if give(told) {
                    lane.spend(cost);
                }
            }
            self.is_used_up |= lane.left <= 0;
            if !lane.waiting.is_empty() {
                self.waiting.insert(tenant);
            }
            self.lanes.insert(tenant, lane);
        }
    }

    /// Nobody remembers the tenant any more.
    pub(super) fn forget(&mut self, tenant: u64) {
        self.lanes.remove(&tenant);
        self.waiting.remove(&tenant);
    }

    /// Nobody drives it any more: whoever waits is let go.
    pub(super) fn abandon(&mut self) {
        self.lanes.clear();
        self.waiting.clear();
        self.is_used_up = false;
    }
}

impl<T> Lane<T> {
    fn new(pass: u64) -> Self {
        Self { weight: 1, left: SLICE.cast_signed(), pass, waiting: VecDeque::new() }
    }

    /// Counts the slices of the passes since it was looked at last, of which it hoards none.
    fn refill(&mut self, pass: u64, heaviest: u32) {
        let slice = (SLICE * u64::from(self.weight) / u64::from(heaviest)).max(1).cast_signed();
        let passes = (pass - self.pass).cast_signed();
        self.pass = pass;
        if passes > 0 {
            self.left = self.left.saturating_add(slice.saturating_mul(passes)).min(slice);
        }
    }

    fn spend(&mut self, cost: u64) {
        self.left = self.left.saturating_sub_unsigned(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;

    /// Tenants that always want more, each in pieces of one size: what each moves in so many passes.
    fn moved(tenants: &[(u64, u32, u64)], passes: usize) -> Vec<u64> {
        let mut turns = Turns::default();
        let mut moved = vec![0; tenants.len()];
        let mut ready: Vec<usize> = (0..tenants.len()).flat_map(|index| [index; 100]).collect();
        for _ in 0..passes {
            while let Some(index) = ready.pop() {
                let (tenant, weight, cost) = tenants[index];
                if turns.take(tenant, weight, cost, || index) == Turn::Now {
                    moved[index] += cost;
                    ready.push(index);
                }
            }
            turns.begin_pass(|index| {
                moved[index] += tenants[index].2;
                ready.push(index);
                true
            });
        }
        moved
    }

    #[test]
    fn tenants_that_want_all_get_what_is_in_proportion_to_their_weights() {
        for (weights, pieces) in [([1, 1], [4096, 4096]), ([3, 1], [16_384, 1_000]), ([1, 100], [8_192, 65_536])] {
            let got = moved(&[(A, weights[0], pieces[0]), (B, weights[1], pieces[1])], 20_000);
            let expected = f64::from(weights[0]) / f64::from(weights[1]);
            let ratio = got[0] as f64 / got[1] as f64;
            assert!((0.95..1.05).contains(&(ratio / expected)), "{weights:?}: {got:?}");
        }
    }

    #[test]
    fn one_that_wants_little_never_waits_beside_one_that_wants_all() {
        let mut turns = Turns::default();
        for _ in 0..1_000 {
            turns.take(A, 1, BEGIN_COST, || A);
        }
        for _ in 0..100 {
            assert_eq!(turns.take(B, 1, BEGIN_COST, || B), Turn::Now);
            assert_eq!(turns.take(B, 1, 1_000, || B), Turn::Now);
            let mut given = 0;
            turns.begin_pass(|_| {
                given += 1;
                true
            });
            assert_eq!(given, SLICE / BEGIN_COST, "and the other one gets no more than a slice in between");
        }
    }

    #[test]
    fn something_large_goes_at_once_and_is_paid_for_later() {
        let mut turns = Turns::default();
        assert_eq!(turns.take(A, 1, 4 * SLICE, || ()), Turn::Now);
        assert_eq!(turns.take(A, 1, 1, || ()), Turn::Later);
        let mut passes = 0;
        let mut given = false;
        while !given {
            assert!(turns.needs_pass());
            turns.begin_pass(|()| {
                given = true;
                true
            });
            passes += 1;
        }
        assert_eq!(passes, 4);
        assert!(!turns.needs_pass());
    }

    #[test]
    fn who_has_gone_costs_nothing_and_who_waits_keeps_the_order() {
        let mut turns = Turns::default();
        turns.take(A, 1, SLICE, || 0);
        for number in 1..=20 {
            assert_eq!(turns.take(A, 1, SLICE / 4, || number), Turn::Later);
        }
        let mut told = Vec::new();
        turns.begin_pass(|number| {
            told.push(number);
            number % 2 == 0
        });
        assert_eq!(told, [1, 2, 3, 4, 5, 6, 7, 8]);
        turns.abandon();
        assert!(!turns.needs_pass());
        assert_eq!(turns.take(A, 1, 1, || 0), Turn::Now);
        turns.forget(A);
        assert!(!turns.needs_pass());
    }
}
