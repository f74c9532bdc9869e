//! How long a target lets a connection wait, learned from those that it closed.
//!
//! A target may close a waiting connection at the very moment a request is written to it. One that may be sent twice then
//! goes to a new connection. One that may not must not come near that moment: nothing tells whether the target has begun it.

use std::time::Duration;

/// What timers and the way to a target may differ by, at least.
const LEAST_MARGIN: Duration = Duration::from_millis(5);
/// And at most.
const MOST_MARGIN: Duration = Duration::from_secs(1);

/// What is known of one target.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The shortest time after which it closed a connection that waited.
    closes_after: Option<Duration>,
}

impl Patience {
    /// It closed a connection that had waited for so long, or spoke on it unasked.
    pub(super) fn ended(&mut self, waited: Duration) {
        self.closes_after = Some(self.closes_after.map_or(waited, |known| known.min(waited)));
    }

    /// A connection has waited for so long and is open. If it should have been closed by now, what is known came from
    /// something else, such as a restart, and is forgotten.
    pub(super) fn lasts(&mut self, waited: Duration) {
        if self.closes_after.is_some_and(|after| waited > after + margin(after)) {
            self.closes_after = None;
        }
    }

    /// Whether a connection that has waited for so long may be closed at any moment.
    pub(super) fn may_end(&self, waited: Duration) -> bool {
        self.closes_after.is_some_and(|after| waited + margin(after) >= after)
    }
}

fn margin(after: Duration) -> Duration {
    (after / 4).clamp(LEAST_MARGIN, MOST_MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_connection_that_nears_the_end_of_its_wait_is_known() {
        let mut patience = Patience::default();
        assert!(!patience.may_end(ms(10_000)), "nothing is known");
        patience.ended(ms(100));
        assert!(!patience.may_end(ms(50)));
        assert!(patience.may_end(ms(90)) && patience.may_end(ms(110)));
        patience.ended(ms(75_000));
        assert!(patience.may_end(ms(90)), "the shortest counts");
    }

    #[test]
    fn a_target_that_closes_after_each_answer_has_no_connection_that_may_wait() {
        let mut patience = Patience::default();
        patience.ended(ms(0));
        assert!(patience.may_end(ms(0)));
    }

    #[test]
    fn a_restart_is_forgotten_as_soon_as_a_connection_lasts() {
        let mut patience = Patience::default();
        patience.ended(ms(1));
        patience.lasts(ms(5));
        assert!(patience.may_end(ms(5)), "too early to tell");
        patience.lasts(ms(1_000));
        assert!(!patience.may_end(ms(1_000)));
    }
}
