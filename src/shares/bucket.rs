//! A bucket of tokens: so many at once, and a steady rate for longer. Time comes as an argument.

use std::time::{Duration, Instant};

use super::settings::Rate;

/// What is left of a rate. It may go below nothing: what was taken on credit is filled up first.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    level: f64,
    /// When time was last counted in.
    filled: Instant,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, level: rate.burst as f64, filled: now }
    }

    /// Takes one.
    ///
    /// # Errors
    /// There is none; the time until there is.
    pub(super) fn take_one(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.level < 1.0 {
            return Err(self.until(1.0));
        }
        self.level -= 1.0;
        Ok(())
    }

    /// Takes so many, on credit where they are not there. Returns how long whoever takes them has to wait: until what was
    /// taken before has been filled up. So nobody waits longer for much than for little, and all wait in the order in which
    /// they came.
    pub(super) fn book(&mut self, count: u64, now: Instant) -> Duration {
        self.fill(now);
        let wait = if self.level > 0.0 { Duration::ZERO } else { self.until(0.0) };
        self.level -= count as f64;
        wait
    }

    /// Takes so many if there is anything, on credit where they are not all there; `false`: nothing is there, and nothing is
    /// taken.
    pub(super) fn take_some(&mut self, count: u64, now: Instant) -> bool {
        self.fill(now);
        let is_there = self.level > 0.0;
        if is_there {
            self.level -= count as f64;
        }
        is_there
    }

    /// Gives back what was taken, or booked, and came to nothing.
    pub(super) fn give_back(&mut self, count: u64) {
        self.level = (self.level + count as f64).min(self.rate.burst as f64);
    }

    /// Goes by another rate from now on. What is in the bucket stays there, as far as it has room.
    pub(super) fn change(&mut self, rate: Rate, now: Instant) {
        self.fill(now);
        self.rate = rate;
        self.level = self.level.min(rate.burst as f64);
    }

    /// Whether it is as good as a new one.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.rate.burst as f64
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        self.level = (self.level + passed.as_secs_f64() * self.rate.per_second as f64).min(self.rate.burst as f64);
    }

    /// The time until this level; at least a nanosecond, since rounding must not make somebody come in vain for ever.
    fn until(&self, level: f64) -> Duration {
        let seconds = (level - self.level) / self.rate.per_second as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).saturating_add(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn so_many_at_once_then_as_time_allows_and_whoever_comes_in_vain_hears_when_to_come() {
        let now = Instant::now();
        let mut bucket = Bucket::full(Rate { per_second: 4, burst: 10 }, now);
        assert!((0..10).all(|_| bucket.take_one(now).is_ok()));
        let wait = bucket.take_one(now).unwrap_err();
        assert!((250 * MS..251 * MS).contains(&wait), "{wait:?}");
        let wait = bucket.take_one(now + 100 * MS).unwrap_err();
        assert!((150 * MS..151 * MS).contains(&wait), "{wait:?}");
        assert!(bucket.take_one(now + 100 * MS + wait).is_ok(), "the time that was said is the right one");
        assert!(bucket.take_one(now + 100 * MS + wait).is_err());
        let later = now + Duration::from_secs(3600);
        assert!((0..10).all(|_| bucket.take_one(later).is_ok()) && bucket.take_one(later).is_err());
    }

    #[test]
    fn what_is_booked_keeps_the_rate_and_waits_in_order() {
        let now = Instant::now();
        let mut bucket = Bucket::full(Rate::new(1_000), now);
        assert_eq!([bucket.book(600, now), bucket.book(600, now)], [Duration::ZERO; 2]);
        let waits = [0; 4].map(|_| bucket.book(500, now).as_millis());
        assert_eq!(waits, [200, 700, 1_200, 1_700]);
        assert_eq!(bucket.book(1, now + 3 * Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn what_was_booked_and_did_not_move_is_owed_by_nobody() {
        let now = Instant::now();
        let mut bucket = Bucket::full(Rate::new(1_000), now);
        bucket.book(1_000, now);
        for _ in 0..1_000 {
            bucket.book(1_000, now);
            bucket.give_back(1_000);
        }
        assert!(bucket.book(1, now) < MS);
        bucket.give_back(5_000);
        assert_eq!(bucket.level, 1_000.0, "no more than there is room for");
    }

    #[test]
    fn another_rate_finds_what_was_left() {
        let now = Instant::now();
        let mut bucket = Bucket::full(Rate::new(100), now);
        bucket.book(90, now);
        bucket.change(Rate::new(1_000), now);
        assert!((0..10).all(|_| bucket.take_one(now).is_ok()) && bucket.take_one(now).is_err());
        bucket.change(Rate { per_second: 10, burst: 5 }, now + Duration::from_secs(1));
        assert!((0..5).all(|_| bucket.take_one(now + Duration::from_secs(1)).is_ok()));
        assert!(bucket.take_one(now + Duration::from_secs(1)).is_err(), "no more than there is room for");
        assert!(!bucket.is_full(now) && bucket.is_full(now + Duration::from_secs(3)));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing_away() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::full(Rate::new(1), now);
        assert!(bucket.take_one(now).is_ok());
        for earlier in [now, now - Duration::from_secs(5), now] {
            assert!(bucket.take_one(earlier).is_err());
        }
    }
}
