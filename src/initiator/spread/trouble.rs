//! Responders that could not be reached, and how long they are left alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::id::ResponderId;

/// How many times longer one is left alone at whose address another one answers.
const MISLED: u32 = 6;
/// For how long after its time a failure is remembered: the next one is then no first one.
const REMEMBERED: u32 = 2;
/// The most doublings.
const MAX_DOUBLINGS: u32 = 16;

#[derive(Debug)]
struct Trouble {
    /// When it could not be reached last.
    since: Instant,
    until: Instant,
    /// How long it is, without what is drawn.
    time: Duration,
    failures: u32,
}

impl Trouble {
    fn ends(&self, rest: Duration) -> Instant {
        self.until.min(self.since + rest)
    }
}

/// Those that are left alone.
#[derive(Debug)]
pub(super) struct Troubles {
    /// The first time, and at most.
    retry: (Duration, Duration),
    known: HashMap<ResponderId, Trouble>,
    /// When it was looked at last.
    looked_at: Instant,
}

impl Troubles {
    pub(super) fn new(now: Instant, retry: (Duration, Duration)) -> Self {
        Self { retry, known: HashMap::new(), looked_at: now }
    }

    /// It could not be reached: twice as long as the time before, and up to half as long again.
    pub(super) fn fail(&mut self, id: &ResponderId, now: Instant, entropy: u64) {
        self.note(id, now, entropy, 1);
    }

    /// Another one answers at its address.
    pub(super) fn mislead(&mut self, id: &ResponderId, now: Instant, entropy: u64) {
        self.note(id, now, entropy, MISLED);
    }

    fn note(&mut self, id: &ResponderId, now: Instant, entropy: u64, times: u32) {
        let failures = self.known.get(id).map_or(0, |trouble| trouble.failures);
        let doubled = self.retry.0.saturating_mul(times).saturating_mul(1 << failures.min(MAX_DOUBLINGS));
        let time = doubled.min(self.retry.1);
        let until = now + time + (time / 2).mul_f64(entropy as f64 / u64::MAX as f64);
        self.known.insert(id.clone(), Trouble { since: now, until, time, failures: failures + 1 });
    }

    /// It was reached.
    pub(super) fn clear(&mut self, id: &ResponderId) {
        self.known.remove(id);
    }

    /// Whatever was in vain is tried again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// How often in a row it could not be reached, as far as that is remembered.
    pub(super) fn failures(&self, id: &ResponderId) -> u32 {
        self.known.get(id).map_or(0, |trouble| trouble.failures)
    }

    /// Whether it is left alone.
    pub(super) fn has(&self, id: &ResponderId, now: Instant) -> bool {
        self.known.get(id).is_some_and(|trouble| trouble.until > now)
    }

    /// The same, if nobody is left alone for longer than this.
    pub(super) fn has_within(&self, id: &ResponderId, now: Instant, rest: Duration) -> bool {
        self.known.get(id).is_some_and(|trouble| trouble.ends(rest) > now)
    }

    /// When the next one is not left alone any more; for no longer than `rest`, where that is given.
    pub(super) fn next(&self, rest: Option<Duration>) -> Option<Instant> {
        let ends = |trouble: &Trouble| rest.map_or(trouble.until, |rest| trouble.ends(rest));
        self.known.values().map(ends).filter(|end| *end > self.looked_at).min()
    }

    /// It is looked at; what is long over is forgotten.
    pub(super) fn look(&mut self, now: Instant) {
        self.looked_at = now;
        self.known.retain(|_, trouble| trouble.until + trouble.time * REMEMBERED > now);
    }
}
