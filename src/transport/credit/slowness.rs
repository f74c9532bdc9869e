//! For how long, and how slowly, the consumer of one stream has been behind.

use std::time::{Duration, Instant};

use crate::protocol::budgets::{FAIR_RATE, HELD_GRACE, LEAST_RATE};

/// A second is long enough to tell a rate.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// The memory of one stream's slow time. It ends when the consumer takes all there is, or takes it at a fair rate.
#[derive(Debug)]
pub(super) struct Slowness {
    patience: Duration,
    /// When it became slow, and how much its consumer had taken by then.
    since: Option<(Instant, u64)>,
    taken: u64,
}

impl Slowness {
    pub(super) const fn new(patience: Duration) -> Self {
        Self { patience, since: None, taken: 0 }
    }

    /// What is known of the stream now: whether it is held back, and how much its consumer has taken in all.
    pub(super) fn note(&mut self, now: Instant, is_held: bool, taken: u64) {
        self.taken = taken;
        let Some((since, _)) = self.since.filter(|_| is_held) else {
            self.since = is_held.then_some((now, taken));
            return;
        };
        let elapsed = now.saturating_duration_since(since);
        let keeps_least = elapsed >= self.patience && self.takes(LEAST_RATE, elapsed);
        if keeps_least || (elapsed >= RATE_PERIOD && self.takes(FAIR_RATE, elapsed)) {
            self.since = Some((now, taken));
        }
    }

    /// Whether the consumer has taken so many bytes a second since it became slow.
    fn takes(&self, rate: u64, elapsed: Duration) -> bool {
        let got = self.since.map_or(0, |(_, before)| self.taken.saturating_sub(before));
        u128::from(got) * 1000 >= u128::from(rate) * elapsed.as_millis()
    }

    fn elapsed(&self, now: Instant) -> Option<Duration> {
        self.since.map(|(since, _)| now.saturating_duration_since(since))
    }

    /// It took less than the least rate for its whole patience. spec: SE-12
    pub(super) fn is_below_least(&self, now: Instant) -> bool {
        self.elapsed(now).is_some_and(|elapsed| elapsed >= self.patience && !self.takes(LEAST_RATE, elapsed))
    }

    /// Since when it has been slow, if that is long enough to be ended for the sake of others. spec: SE-11
    pub(super) fn starves_since(&self, now: Instant) -> Option<Instant> {
        let (since, _) = self.since?;
        (self.elapsed(now)? >= HELD_GRACE).then_some(since)
    }
}
