//! What is known of the connection to one sibling.

use std::time::{Duration, Instant};

use crate::lifecycle::Backoff;
use crate::transport::Tunnel;

/// The connection to one sibling, or why there is none.
#[derive(Debug)]
pub(super) struct Slot {
    state: State,
    backoff: Backoff,
    /// The start of the sibling that was dialled last.
    epoch: u64,
}

#[derive(Debug)]
enum State {
    /// Somebody dials.
    Dialling,
    Up(Tunnel),
    /// It could not be dialled, and is not before this.
    Failed(Instant),
}

/// What a request that wants to go through a sibling does.
#[derive(Debug)]
pub(super) enum Next {
    Use(Tunnel),
    /// Somebody dials already.
    Wait,
    /// The caller dials.
    Dial,
    /// It cannot be dialled now.
    Pass,
}

impl Slot {
    /// The first dial of this start of a sibling.
    pub(super) fn dialling(epoch: u64) -> Self {
        Self { state: State::Dialling, backoff: Backoff::default(), epoch }
    }

    /// What to do for a request now, which may dial or not; [`Next::Dial`] once, until [`Slot::up`] or [`Slot::failed`].
    pub(super) fn next(&mut self, epoch: u64, now: Instant, may_dial: bool) -> Next {
        match &self.state {
            State::Up(tunnel) => return Next::Use(tunnel.clone()),
            State::Dialling => return Next::Wait,
            // Another start of it may be better.
            State::Failed(until) if now < *until && epoch == self.epoch => return Next::Pass,
            State::Failed(_) if !may_dial => return Next::Pass,
            State::Failed(_) => {}
        }
        (self.state, self.epoch) = (State::Dialling, epoch);
        Next::Dial
    }

    /// The connection to a start of the sibling that another one has followed by now, which is taken out: the caller dials, and
    /// lets what was asked there end.
    pub(super) fn outlived(&mut self, epoch: u64) -> Option<Tunnel> {
        // It may have greeted as one that the directory did not know yet. One whose clock was set back has a lower epoch.
        let is_another = |tunnel: &&Tunnel| epoch != self.epoch && epoch != tunnel.place().generation;
        let outlived = self.tunnel().filter(is_another).cloned()?;
        (self.state, self.epoch) = (State::Dialling, epoch);
        Some(outlived)
    }

    /// It was dialled.
    pub(super) fn up(&mut self, tunnel: Tunnel) {
        self.state = State::Up(tunnel);
    }

    /// It could not be dialled, or ended before it was of any use; says for how long it is not dialled again.
    pub(super) fn failed(&mut self, now: Instant, entropy: u64) -> Duration {
        let delay = self.backoff.next_delay(entropy, None);
        self.state = State::Failed(now + delay);
        delay
    }

    /// Its connection, if there is one.
    pub(super) const fn tunnel(&self) -> Option<&Tunnel> {
        match &self.state {
            State::Up(tunnel) => Some(tunnel),
            State::Dialling | State::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FL-37
    #[test]
    fn one_dials_and_all_others_wait_and_nobody_dials_again_at_once_after_failures() {
        let (start, mut slot) = (Instant::now(), Slot::dialling(1));
        assert!(matches!(slot.next(1, start, true), Next::Wait));
        // The first failure may be repeated at once.
        assert_eq!(slot.failed(start, u64::MAX), Duration::ZERO);
        assert!(matches!(slot.next(1, start, true), Next::Dial));
        assert!(matches!(slot.next(1, start, true), Next::Wait));
        let delay = slot.failed(start, u64::MAX);
        assert!(!delay.is_zero());
        assert!(matches!(slot.next(1, start, true), Next::Pass));
        assert!(matches!(slot.next(1, start + delay, false), Next::Pass), "not by who dials others already");
        assert!(matches!(slot.next(1, start + delay, true), Next::Dial));
    }

    // spec: FL-37
    #[test]
    fn another_start_of_a_sibling_is_dialled_at_once_also_one_whose_clock_was_set_back() {
        for other in [8, 6] {
            let (start, mut slot) = (Instant::now(), Slot::dialling(7));
            slot.failed(start, u64::MAX);
            slot.next(7, start, true);
            slot.failed(start, u64::MAX);
            assert!(matches!(slot.next(7, start, true), Next::Pass));
            assert!(matches!(slot.next(other, start, true), Next::Dial));
        }
    }
}
