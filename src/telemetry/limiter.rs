//! Keeps a log from being flooded by one thing that goes wrong again and again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets so many lines through per period, and counts those that it leaves out. One per thing that is logged about, such
/// as a target.
#[derive(Debug)]
pub struct Limiter {
    limit: u32,
    period: Duration,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    passed: u32,
    left_out: u64,
}

impl Limiter {
    /// At most `limit` lines in each `period`, which begins with a line.
    pub fn new(limit: u32, period: Duration) -> Self {
        Self { limit, period, window: Mutex::default() }
    }

    /// Whether a line may be written now: `Some` of how many were left out since the last one, or `None`.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        // Plain numbers: a panic elsewhere cannot leave them half-changed in a way that matters.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= self.period) {
            window.began = Some(now);
            window.passed = 0;
        }
        if window.passed == self.limit {
            window.left_out += 1;
            return None;
        }
        window.passed += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_told_with_the_next_line() {
        let limiter = Limiter::new(2, PERIOD);
        let start = Instant::now();
        let passed: Vec<_> = (0..5).map(|second| limiter.pass(start + Duration::from_secs(second))).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        assert_eq!(limiter.pass(start + PERIOD), Some(3));
        assert_eq!(limiter.pass(start + PERIOD), Some(0), "what was told is not told again");
        assert_eq!(limiter.pass(start + PERIOD), None);
    }

    #[test]
    fn what_goes_wrong_rarely_is_always_told() {
        let limiter = Limiter::new(1, PERIOD);
        let start = Instant::now();
        assert!((0..10).all(|minute| limiter.pass(start + PERIOD * minute) == Some(0)));
    }
}
