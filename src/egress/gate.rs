//! How fast one connection of HTTP/2 or HTTP/3 begins exchanges: as fast as it takes what they bring.
//!
//! A response fills the window of its stream in a tunnel before anybody can know whether its client reads. So a connection
//! begins some exchanges at once, two for each that is over, and beyond that, when those have had time to be answered, a
//! hundred a second, for the sake of those that wait for slow services. As long as it takes nothing of what waits for it
//! already, it begins no other.
//!
//! What its client gives up before it is answered earns nothing, and slows down what begins by time alone: each such exchange
//! has been work for everybody on its way, and none for the client.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};

/// Requests that a client may give up before their response begins, at once and a second: the bound on rapid reset. Beyond it
/// the connection ends.
pub(super) const RESETS_BURST: u32 = 512;
pub(super) const RESETS_PER_SECOND: u32 = 128;
/// Exchanges that begin at once on a new connection.
const BURST: u32 = 32;
/// The most that begin at once on one whose exchanges come to their ends.
const MOST: u32 = 1_024;
/// How soon another one begins although none is over.
const PACE: Duration = Duration::from_millis(10);
/// How long nothing begins by time alone after the last one that began at once: what those bring shows then whether their
/// client takes it.
const SETTLE: Duration = Duration::from_millis(250);
/// So many exchanges that were given up make the wait for another one longer by [`PACE`].
const GIVEN_UP_EACH: u32 = 8;
/// The most of them that count: where nothing is ever waited for, ten begin in a second.
const GIVEN_UP_MOST: u32 = 9 * GIVEN_UP_EACH;

/// What the exchanges of one connection pass before they begin.
#[derive(Debug)]
pub(super) struct Gate {
    /// How many may begin at once.
    free: AtomicU32,
    /// How many that may be at most.
    most: AtomicU32,
    freed: Notify,
    /// When the last of those began that a new connection may begin at once.
    spent: std::sync::Mutex<Option<Instant>>,
    /// How many were given up, less what was answered since.
    given_up: AtomicU32,
    /// How many wait for their turn, whom nobody who comes later passes by.
    queued: AtomicU32,
    /// Held by the one whose turn is next.
    queue: Mutex<()>,
}

/// An exchange that has begun and is not over. It earns something if it was answered.
#[derive(Debug)]
pub(super) struct Passed<'a> {
    gate: &'a Gate,
    is_answered: bool,
}

impl Passed<'_> {
    /// Its response has begun.
    pub(super) fn answer(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let Gate { free, most, freed, given_up, .. } = self.gate;
        let counted = |given_up: u32| match self.is_answered {
            true => given_up.checked_sub(1),
            false => (given_up < GIVEN_UP_MOST).then_some(given_up + 1),
        };
        let _ = given_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
        if !self.is_answered {
            return;
        }
        let raised = most.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |most| Some(MOST.min(most + 1)));
        let most = MOST.min(raised.unwrap_or(MOST) + 1);
        let _ = free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| Some(most.min(free + 2)));
        freed.notify_one();
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        let (free, most) = (AtomicU32::new(BURST), AtomicU32::new(BURST));
        let (spent, queued) = (std::sync::Mutex::default(), AtomicU32::new(0));
        let given_up = AtomicU32::new(0);
        Self { free, most, freed: Notify::new(), spent, given_up, queued, queue: Mutex::new(()) }
    }

    /// Begins an exchange at once, if that may be.
    pub(super) fn try_pass(&self) -> Option<Passed<'_>> {
        if self.queued.load(Ordering::Acquire) > 0 { None } else { self.take() }
    }

    fn take(&self) -> Option<Passed<'_>> {
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        if taken.ok()? == 1 {
            self.spent.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
        Some(self.passed())
    }

    const fn passed(&self) -> Passed<'_> {
        Passed { gate: self, is_answered: false }
    }

    /// When one may begin by time alone.
    fn next(&self) -> Instant {
        let settled = self.spent.lock().unwrap_or_else(PoisonError::into_inner).map(|spent| spent + SETTLE);
        let soonest = Instant::now() + PACE * (1 + self.given_up.load(Ordering::Relaxed) / GIVEN_UP_EACH);
        settled.map_or(soonest, |settled| settled.max(soonest))
    }

    /// Begins an exchange when its turn has come; `is_full` says whether too much waits already to be taken. Cancel safe: it
    /// loses its place among those who wait.
    pub(super) async fn pass(&self, is_full: impl Fn() -> bool) -> Passed<'_> {
        let _queued = Queued::at(&self.queued);
        let _turn = self.queue.lock().await;
        loop {
            if let Some(passed) = self.take() {
                return passed;
            }
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep_until(self.next()) => if !is_full() {
                    return self.passed();
                }
            }
        }
    }
}

/// One who waits.
struct Queued<'a>(&'a AtomicU32);

impl<'a> Queued<'a> {
    fn at(queued: &'a AtomicU32) -> Self {
        queued.fetch_add(1, Ordering::AcqRel);
        Self(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn some_begin_at_once_and_others_as_time_passes_or_one_is_over() {
        let (gate, began) = (Gate::new(), Instant::now());
        let mut passed: Vec<_> = std::iter::from_fn(|| gate.try_pass()).collect();
        assert_eq!(passed.len(), BURST as usize);
        for _ in 0..100 {
            passed.push(gate.pass(|| false).await);
        }
        let settled = SETTLE.as_millis() + 990;
        assert!((settled..=settled + 200).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        let answered = |passed: Passed<'_>| {
            let mut passed = passed;
            passed.answer();
        };
        answered(passed.pop().unwrap());
        let next = [gate.try_pass(), gate.try_pass(), gate.try_pass()];
        assert_eq!(next.iter().flatten().count(), 2, "one is over");
        passed.into_iter().chain(next.into_iter().flatten()).for_each(answered);
        passed = std::iter::from_fn(|| gate.try_pass()).collect();
        assert!((BURST as usize + 100..BURST as usize + 150).contains(&passed.len()), "{}: no hoard", passed.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_before_it_is_answered_earns_nothing_and_slows_down_what_begins_by_time() {
        let gate = Gate::new();
        std::iter::from_fn(|| gate.try_pass()).for_each(drop);
        for _ in 0..GIVEN_UP_MOST {
            drop(gate.pass(|| false).await);
        }
        let slow = Instant::now();
        for _ in 0..10 {
            drop(gate.pass(|| false).await);
        }
        assert!((900..=1100).contains(&slow.elapsed().as_millis()), "{:?}", slow.elapsed());
        for _ in 0..GIVEN_UP_MOST {
            gate.pass(|| false).await.answer();
        }
        assert!(gate.try_pass().is_some() && gate.given_up.load(Ordering::Relaxed) <= 1, "it is forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn none_begins_while_nothing_is_taken() {
        let (gate, is_full) = (Gate::new(), AtomicBool::new(true));
        let passed: Vec<_> = std::iter::from_fn(|| gate.try_pass()).collect();
        assert!(timeout(Duration::from_secs(600), gate.pass(|| is_full.load(Ordering::Relaxed))).await.is_err());
        is_full.store(false, Ordering::Relaxed);
        gate.pass(|| is_full.load(Ordering::Relaxed)).await;
        drop(passed);
    }
}
