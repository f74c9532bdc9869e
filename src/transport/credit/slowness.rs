//! For how long, and how slowly, the consumer of one stream has been behind.

use std::time::{Duration, Instant};

use crate::protocol::budgets::{FAIR_RATE, HELD_GRACE, HELD_LOOKS, LEAST_RATE, SLOW_GRACE, STEADY_GRACE};

/// A second is long enough to tell a rate.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// The memory of one stream's slow time. It ends when the consumer takes all there is, or takes it at a fair rate.
#[derive(Debug)]
pub(super) struct Slowness {
    patience: Duration,
    /// When it became slow, and how much its consumer had taken by then.
    since: Option<(Instant, u64)>,
    taken: u64,
    /// The looks since then.
    looks: u32,
    /// When something was taken last, as far as looks can tell, and the looks since then.
    moved: Option<Instant>,
    still: u32,
    /// It has taken a fair rate for a while, and not in one bite.
    proven: bool,
}

impl Slowness {
    pub(super) const fn new(patience: Duration) -> Self {
        Self { patience, since: None, taken: 0, looks: 0, moved: None, still: 0, proven: false }
    }

    /// What is known of the stream now: whether it is held back, and how much its consumer has taken in all.
    pub(super) fn note(&mut self, now: Instant, is_held: bool, taken: u64) {
        if !is_held || self.taken != taken || self.moved.is_none() {
            (self.moved, self.still) = (Some(now), 0);
        } else {
            self.still += 1;
        }
        self.taken = taken;
        self.looks += 1;
        let Some((since, _)) = self.since.filter(|_| is_held) else {
            self.since = is_held.then_some((now, taken));
            self.looks = 0;
            return;
        };
        let elapsed = now.saturating_duration_since(since);
        let keeps_least = elapsed >= self.patience && self.takes(LEAST_RATE, elapsed);
        let is_fair = elapsed >= RATE_PERIOD && self.takes(FAIR_RATE, elapsed);
        if is_fair && self.still < HELD_LOOKS {
            self.proven = true;
        }
        if keeps_least || is_fair {
            self.since = Some((now, taken));
            self.looks = 0;
        }
    }

    /// Whether the consumer has taken so many bytes a second since it became slow.
    fn takes(&self, rate: u64, elapsed: Duration) -> bool {
        let got = self.since.map_or(0, |(_, before)| self.taken.saturating_sub(before));
        u128::from(got) * 1000 >= u128::from(rate) * elapsed.as_millis()
    }

    /// Since when it takes less than so many bytes a second, if that is so long already.
    fn is_below(&self, rate: u64, patience: Duration, now: Instant) -> Option<Instant> {
        let (since, _) = self.since?;
        let elapsed = now.saturating_duration_since(since);
        (elapsed >= patience && !self.takes(rate, elapsed)).then_some(since)
    }

    /// It took less than the least rate for its whole patience. spec: SE-12
    pub(super) fn is_below_least(&self, now: Instant) -> bool {
        self.is_below(LEAST_RATE, self.patience, now).is_some()
    }

    /// Since when it has stood still, or was slow, if that is long enough to be ended for the sake of others. spec: SE-11
    pub(super) fn starves_since(&self, now: Instant) -> Option<Instant> {
        let (still, slow) = if self.proven { (STEADY_GRACE, STEADY_GRACE) } else { (HELD_GRACE, SLOW_GRACE) };
        let moved = self.moved.filter(|moved| now.saturating_duration_since(*moved) >= still);
        if self.still >= HELD_LOOKS && moved.is_some() {
            return moved;
        }
        // It may take a byte now and then.
        self.is_below(FAIR_RATE, slow, now).filter(|_| self.looks >= HELD_LOOKS)
    }

    /// Whether its consumer is one that takes a fair rate, however little at a time. spec: SE-9
    pub(super) fn is_steady(&self, now: Instant) -> bool {
        self.proven && self.starves_since(now).is_none()
    }
}
