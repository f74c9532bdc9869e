//! When each tunnel of a responder that leaves a fleet is told, and until when it serves. No I/O; the clock is an argument.
//!
//! ```text
//! untold ── its turn ──▶ told ── its node is elsewhere, or nobody waits for it ──▶ let go
//!                          └──────────────── the time is over ─────────────────────▲
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::id::TunnelId;

/// The longest time between one that is told and the next: a few hundred handshakes a second leave the siblings most of their
/// time for requests. spec: FL-22
const PACE: Duration = Duration::from_millis(5);

/// The tunnels of a responder that leaves.
#[derive(Debug)]
pub(super) struct Departure {
    untold: VecDeque<TunnelId>,
    told: BTreeSet<TunnelId>,
    /// When the next one is told.
    turn: Instant,
    pace: Duration,
    ends: Instant,
}

impl Departure {
    /// The first is told at once, the last before half of `within` is over. Those come first whose node is nowhere else: they
    /// have the longest way.
    pub(super) fn new(now: Instant, within: Duration, nowhere_else: Vec<TunnelId>, others: Vec<TunnelId>) -> Self {
        let untold: VecDeque<_> = nowhere_else.into_iter().chain(others).collect();
        let count = u32::try_from(untold.len()).unwrap_or(u32::MAX).max(1);
        let pace = PACE.min(within / 2 / count);
        Self { untold, told: BTreeSet::new(), turn: now, pace, ends: now + within }
    }

    /// The next one whose turn has come; call until `None`.
    pub(super) fn tell(&mut self, now: Instant) -> Option<TunnelId> {
        if now < self.turn {
            return None;
        }
        let next = self.untold.pop_front()?;
        self.turn += self.pace;
        self.told.insert(next);
        Some(next)
    }

    /// It could not be told: it is the next one, when the turn comes again.
    pub(super) fn not_told(&mut self, tunnel: TunnelId) {
        if self.told.remove(&tunnel) {
            self.untold.push_front(tunnel);
        }
    }

    /// Those that are told and still serve.
    pub(super) fn serving(&self) -> impl Iterator<Item = TunnelId> {
        self.told.iter().copied()
    }

    /// Nobody waits for it any more: its node is elsewhere, or it has ended, or it is not heard.
    pub(super) fn let_go(&mut self, tunnel: TunnelId) {
        self.told.remove(&tunnel);
    }

    /// Whether all were told and let go, or the time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        (self.untold.is_empty() && self.told.is_empty()) || now >= self.ends
    }

    /// When there is something to do if nothing happens before.
    pub(super) fn deadline(&self) -> Instant {
        if self.untold.is_empty() { self.ends } else { self.turn.min(self.ends) }
    }

    /// For how long one that is told now may serve.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ids(range: std::ops::Range<u64>) -> Vec<TunnelId> {
        range.map(TunnelId).collect()
    }

    /// When each one is told, by a clock that jumps from deadline to deadline.
    fn told(departure: &mut Departure, start: Instant) -> Vec<(u64, Duration)> {
        let (mut now, mut told) = (start, Vec::new());
        while !departure.untold.is_empty() {
            while let Some(TunnelId(number)) = departure.tell(now) {
                told.push((number, now - start));
            }
            now = departure.deadline();
        }
        told
    }

    // spec: FL-22
    #[test]
    fn few_are_told_at_a_steady_pace_and_those_that_are_nowhere_else_first() {
        let start = Instant::now();
        let mut departure = Departure::new(start, 10 * SECOND, ids(7..9), ids(0..2));
        let at = |turn: u32| PACE * turn;
        assert_eq!(told(&mut departure, start), [(7, at(0)), (8, at(1)), (0, at(2)), (1, at(3))]);
    }

    // spec: FL-22
    #[test]
    fn however_many_there_are_all_are_told_in_half_of_the_time() {
        for count in [1, 100, 1000, 10_000, 1_000_000] {
            let start = Instant::now();
            let mut departure = Departure::new(start, 10 * SECOND, Vec::new(), ids(0..count));
            let told = told(&mut departure, start);
            let (_, last) = told.last().unwrap();
            assert!(told.len() as u64 == count && *last < 5 * SECOND, "{count}: {last:?}");
            assert!(*last <= PACE * u32::try_from(count).unwrap(), "{count}: {last:?}");
        }
    }

    // spec: FL-23
    #[test]
    fn it_is_over_when_the_last_one_is_let_go() {
        let start = Instant::now();
        let mut departure = Departure::new(start, 10 * SECOND, ids(0..2), Vec::new());
        assert_eq!(departure.tell(start), Some(TunnelId(0)));
        departure.let_go(TunnelId(0));
        assert!(!departure.is_over(start), "one is untold");
        let now = departure.deadline();
        assert_eq!((departure.tell(now), departure.tell(now)), (Some(TunnelId(1)), None));
        assert!(!departure.is_over(now) && departure.serving().eq([TunnelId(1)]));
        departure.let_go(TunnelId(1));
        assert!(departure.is_over(now));
    }

    // spec: FL-23
    #[test]
    fn the_time_ends_it_whoever_is_still_there() {
        let start = Instant::now();
        let mut departure = Departure::new(start, 10 * SECOND, ids(0..3), Vec::new());
        let _ = told(&mut departure, start);
        let end = departure.deadline();
        assert_eq!((end - start, departure.left(start + SECOND)), (10 * SECOND, 9 * SECOND));
        assert!(!departure.is_over(end - Duration::from_nanos(1)) && departure.is_over(end));
    }

    #[test]
    fn one_that_could_not_be_told_is_told_at_the_next_turn() {
        let start = Instant::now();
        let mut departure = Departure::new(start, 10 * SECOND, ids(0..2), Vec::new());
        assert_eq!(departure.tell(start), Some(TunnelId(0)));
        departure.not_told(TunnelId(0));
        assert_eq!(departure.tell(start), None);
        assert_eq!(departure.tell(start + PACE), Some(TunnelId(0)));
    }

    #[test]
    fn where_there_is_nobody_it_is_over_at_once_and_without_time_all_are_told_at_once() {
        let start = Instant::now();
        assert!(Departure::new(start, 10 * SECOND, Vec::new(), Vec::new()).is_over(start));
        let mut departure = Departure::new(start, Duration::ZERO, ids(0..3), Vec::new());
        assert_eq!(std::iter::from_fn(|| departure.tell(start)).count(), 3);
        assert!(departure.is_over(start));
    }
}
