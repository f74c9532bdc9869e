//! When to try again: at once, then 0.5 s doubling to 30 s, with full jitter. A value without clock and randomness.

use std::time::Duration;

/// The longest hint to come back later that is followed. A peer cannot silence this end for longer.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Bounds of the delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    initial: Duration,
    max: Duration,
}

/// Bounds that make no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a retry schedule from {initial:?} to {max:?} is not possible; expected 0 < initial <= max <= 1 day")]
pub struct ScheduleError {
    /// The first bound.
    pub initial: Duration,
    /// The last bound.
    pub max: Duration,
}

impl Schedule {
    /// Delays are below `initial` after the first failure, doubling to below `max`.
    ///
    /// # Errors
    /// [`ScheduleError`] unless 0 < `initial` <= `max` <= 1 day.
    pub const fn new(initial: Duration, max: Duration) -> Result<Self, ScheduleError> {
        let day = 24 * 3600 * 1000;
        if initial.is_zero() || initial.as_nanos() > max.as_nanos() || max.as_millis() > day {
            return Err(ScheduleError { initial, max });
        }
        Ok(Self { initial, max })
    }

    /// The longest delay after `failures` failures in a row; none before the first.
    pub fn bound(self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
                self.initial.saturating_mul(factor).min(self.max)
            }
        }
    }
}

impl Default for Schedule {
    /// 0.5 s doubling to 30 s.
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

/// Where one thing that is retried stands in its schedule.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    schedule: Schedule,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    pub const fn new(schedule: Schedule) -> Self {
        Self { schedule, failures: 0 }
    }

    /// How long to wait before the next attempt. The first call after [`Backoff::reset`] gives zero.
    ///
    /// `entropy` is 64 fresh random bits: the delay is uniform below the bound (full jitter), so that those who
    /// failed together do not come back together. `retry_after` is what the peer asked for: the delay is never below
    /// it (as far as [`MAX_RETRY_AFTER`]), and the jitter comes on top for the same reason.
    pub fn next_delay(&mut self, entropy: u64, retry_after: Option<Duration>) -> Duration {
        let floor = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        let spread = if floor.is_zero() { self.failures } else { self.failures.max(1) };
        self.failures = self.failures.saturating_add(1);
        floor + fraction(self.schedule.bound(spread), entropy)
    }

    /// It worked: the next failure starts from the beginning.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many delays were asked for since it last worked.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// `ceiling` times `entropy` / 2^64: below `ceiling` unless that is zero.
fn fraction(ceiling: Duration, entropy: u64) -> Duration {
    let nanos = (ceiling.as_nanos() * u128::from(entropy)) >> 64;
    // One day, the most a ceiling can be, has 8.64e13 ns.
    Duration::from_nanos(u64::try_from(nanos).expect("a delay of at most a day fits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedules() -> impl Strategy<Value = Schedule> {
        (1_u64..100_000_000, 1_u64..1000)
            .prop_map(|(micros, factor)| (Duration::from_micros(micros), factor))
            .prop_map(|(initial, factor)| (initial, (initial * factor as u32).min(Duration::from_secs(86_400))))
            .prop_filter_map("in bounds", |(initial, max)| Schedule::new(initial, max).ok())
    }

    proptest! {
        #[test]
        fn a_delay_stays_below_its_bound(schedule in schedules(), entropy: Vec<u64>) {
            let mut backoff = Backoff::new(schedule);
            for (failures, entropy) in entropy.into_iter().enumerate() {
                let delay = backoff.next_delay(entropy, None);
                prop_assert!(delay < schedule.max);
                let bound = u32::try_from(failures).ok()
                    .and_then(|failures| 2_u32.checked_pow(failures.checked_sub(1)?))
                    .map_or(if failures == 0 { Duration::ZERO } else { schedule.max }, |f| schedule.initial * f);
                prop_assert!(delay <= bound);
            }
        }

        #[test]
        fn nobody_comes_back_before_they_were_told_to(
            schedule in schedules(), failures in 0_u32..100, entropy: u64, asked in 0_u64..1_000_000,
        ) {
            let mut backoff = Backoff { schedule, failures };
            let asked = Duration::from_millis(asked);
            let delay = backoff.next_delay(entropy, Some(asked));
            prop_assert!(delay >= asked.min(MAX_RETRY_AFTER));
            prop_assert!(delay <= MAX_RETRY_AFTER + schedule.max);
        }

        #[test]
        fn jitter_is_full_and_even(failures in 1_u32..40, parts in 2_u64..50) {
            // Entropy cut in equal parts cuts the delays in equal parts: uniform from zero to the bound.
            let schedule = Schedule::default();
            let ceiling = schedule.bound(failures);
            for part in 0..parts {
                let delay = fraction(ceiling, u64::MAX / parts * part);
                let expected = ceiling.mul_f64(part as f64 / parts as f64);
                prop_assert!(delay.abs_diff(expected) < Duration::from_micros(1));
            }
        }
    }

    #[test]
    fn the_bounds_double_from_half_a_second_to_thirty() {
        let bounds: Vec<u128> = (0..10).map(|failures| Schedule::default().bound(failures).as_millis()).collect();
        assert_eq!(bounds, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(Schedule::default().bound(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn the_first_attempt_after_a_success_is_at_once() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_delay(u64::MAX, None), Duration::ZERO);
        assert!(backoff.next_delay(u64::MAX, None) > Duration::from_millis(499));
        backoff.reset();
        assert_eq!((backoff.failures(), backoff.next_delay(u64::MAX, None)), (0, Duration::ZERO));
    }

    #[test]
    fn those_told_to_come_back_together_are_spread() {
        let asked = Some(Duration::from_secs(5));
        let earliest = Backoff::default().next_delay(0, asked);
        let latest = Backoff::default().next_delay(u64::MAX, asked);
        assert_eq!(earliest, Duration::from_secs(5));
        assert!(latest > Duration::from_millis(5499), "{latest:?}");
    }

    #[test]
    fn impossible_schedules_are_refused() {
        let second = Duration::from_secs(1);
        assert!(Schedule::new(Duration::ZERO, second).is_err());
        assert!(Schedule::new(second * 2, second).is_err());
        assert!(Schedule::new(second, Duration::MAX).is_err());
        assert_eq!(Schedule::new(Duration::from_millis(500), second * 30), Ok(Schedule::default()));
    }
}
