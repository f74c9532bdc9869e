//! How often something may happen: so often at once, and at a steady rate for longer.

use std::time::Instant;

/// A stock that time fills again.
#[derive(Debug)]
pub(crate) struct Allowance {
    stock: u32,
    burst: u32,
    per_second: u32,
    /// When time was last counted in.
    filled: Instant,
}

impl Allowance {
    pub(crate) const fn new(now: Instant, burst: u32, per_second: u32) -> Self {
        Self { stock: burst, burst, per_second, filled: now }
    }

    /// Allows so many more.
    pub(crate) fn earn(&mut self, more: u32) {
        self.stock = self.stock.saturating_add(more).min(self.burst);
    }

    /// Takes so many; `false`: there are not as many. The clock is read only when the stock is too small.
    pub(crate) fn spend(&mut self, taken: u32, now: impl Fn() -> Instant) -> bool {
        if self.stock < taken {
            self.fill(now());
        }
        let left = self.stock.checked_sub(taken);
        self.stock = left.unwrap_or(0);
        left.is_some()
    }

    /// Counts in the time that has passed, in whole pieces.
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_millis();
        let more = u32::try_from(passed * u128::from(self.per_second) / 1000).unwrap_or(u32::MAX);
        if more > 0 {
            self.filled = now;
            self.earn(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_at_once_and_then_as_time_allows() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now, 10, 4);
        assert!((0..10).all(|_| allowance.spend(1, || now)));
        assert!(!allowance.spend(1, || now));
        let later = now + Duration::from_millis(600);
        assert!(allowance.spend(2, || later) && !allowance.spend(1, || later));
        let much_later = now + Duration::from_secs(3600);
        assert!(!allowance.spend(11, || much_later), "no more than the burst");
    }

    #[test]
    fn a_rate_below_one_a_look_is_not_lost() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(begin, 1, 4);
        let allowed = (0..1000).filter(|&ms| allowance.spend(1, || begin + Duration::from_millis(ms))).count();
        assert!((4..=5).contains(&allowed), "{allowed} in a second");
    }
}
