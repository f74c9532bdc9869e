//! What an exchange that waits looks at from time to time: whether a sender that is not read from is still there, and
//! whether one that has to read does.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::exchange::{MAX_AHEAD, RequestState};
use super::{Connection, Stop};
use crate::egress::Socket;
use crate::egress::budget::ListenerBudget;
use crate::net::input::Input;
use crate::telemetry::Limit;

/// How often a sender from which nothing is read is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A sender that is held back for longer is read from on, to learn whether it is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far at most, bytes: what the kernels of both ends usually hold of a connection, so that its end is found behind it,
/// and as much again, since whoever is there sends on.
const MAX_FURTHER: usize = 16 * 1024 * 1024;
/// And no faster, bytes a second: or all of it was used up by a sender who leaves only then. Its kernel cannot say that it
/// has left as long as there is no room for what stands before that.
const FURTHER_RATE: usize = 2 * 1024 * 1024;
/// How much is asked for at once when reading on.
const FURTHER_READ: usize = 32 * 1024;
/// Room for so many bytes is taken at once.
const STEP: usize = 64 * 1024;

/// A response that its reader does not take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stalled {
    /// Bytes that were written at the last look.
    written: u64,
    /// When it has lasted too long.
    ends: Instant,
}

/// Reading on from a sender that is held back.
#[derive(Debug)]
pub(super) struct Ahead {
    budget: Arc<ListenerBudget>,
    /// Since when the sender is held back, and since when nothing has moved, with how much had moved then.
    since: Option<Instant>,
    rests: Option<(Instant, u64)>,
    /// Room that was taken of the listener's.
    taken: usize,
}

impl Ahead {
    pub(super) fn new(budget: Arc<ListenerBudget>) -> Self {
        Self { budget, since: None, rests: None, taken: 0 }
    }

    /// Nobody is held back any more. What was read on is with the input, until it is used: the room of so much of it as was
    /// used is given back, with the memory, once that is the half of it at least.
    pub(super) fn end(&mut self, input: &mut Input) {
        (self.since, self.rests) = (None, None);
        let needed = input.buf.len().next_multiple_of(STEP);
        if self.taken == 0 || needed > self.taken / 2 {
            return;
        }
        // A buffer keeps what was used of it as long as there is a byte behind.
        input.buf = BytesMut::from(&input.buf[..]);
        self.budget.release_ahead(self.taken - needed);
        self.taken = needed;
    }

    /// Whether bytes may be read behind the `held` ones that are here.
    fn allows(&mut self, held: usize, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let Some(waited) = now.duration_since(since).checked_sub(PATIENCE) else { return false };
        let allowed = MAX_FURTHER.min(FURTHER_RATE * (1 + waited.as_secs() as usize));
        if held >= allowed {
            return false;
        }
        if held + STEP > self.taken {
            if !self.budget.read_ahead(STEP) {
                return false;
            }
            self.taken += STEP;
        }
        true
    }
}

impl Ahead {
    /// For how long a sender that is held back has seen nothing move; `moved` rises with all that does.
    fn rests_for(&mut self, moved: u64, now: Instant) -> Duration {
        let (since, _) = *self.rests.take_if(|(_, before)| *before == moved).get_or_insert((now, moved));
        self.rests = Some((since, moved));
        now.duration_since(since)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.budget.release_ahead(self.taken);
    }
}

impl<T: Socket> Connection<T> {
    /// Ready when the connection is to end; else wakes the caller when it is time to look again.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>, state: &RequestState) -> Poll<Stop> {
        let upload = state.upload.as_ref();
        let is_blind = match upload {
            Some(upload) => upload.is_held_back(),
            None => self.input.buf.len() >= MAX_AHEAD,
        };
        if !is_blind && (self.ahead.since.is_some() || self.ahead.taken > 0) && self.input.buf.len() < MAX_AHEAD {
            self.ahead.end(&mut self.input);
        }
        if self.output.len() == 0 {
            self.stalled = None;
            if !is_blind {
                return Poll::Pending;
            }
        }
        loop {
            let now = Instant::now();
            if is_blind && self.has_left(now, cx) {
                return Poll::Ready(Stop::Gone);
            }
            if let Some(upload) = upload.filter(|_| is_blind && state.responds) {
                // Whether its sender is still there nobody can tell, and it makes no difference any more.
                let rests = self.ahead.rests_for(upload.taken() + self.output.written(), now);
                if rests >= self.settings.pace.body_idle {
                    return Poll::Ready(Stop::Reset);
                }
            }
            let look = is_blind.then_some(now + LOOK_INTERVAL);
            let stalled = self.stalls_until(now);
            if stalled.is_some_and(|ends| ends <= now) {
                self.ahead.budget.count(Limit::Unread);
                return Poll::Ready(Stop::Reset);
            }
            let Some(next) = [look, stalled].into_iter().flatten().min() else { return Poll::Pending };
            self.timer.set(next);
            ready!(self.timer.poll(cx));
        }
    }

    /// As [`Self::poll_watch`] while bytes go both ways. Nothing is read on from a sender that is held back (`is_blind`): the
    /// end of what it sends is not its leaving, and of that the kernel knows.
    pub(super) fn poll_both_ways(&mut self, is_blind: bool, cx: &mut Context<'_>) -> Poll<Stop> {
        loop {
            let now = Instant::now();
            if is_blind && self.io.has_left(true) {
                return Poll::Ready(Stop::Gone);
            }
            let stalled = self.stalls_until(now);
            if stalled.is_some_and(|ends| ends <= now) {
                self.ahead.budget.count(Limit::Unread);
                return Poll::Ready(Stop::Reset);
            }
            if stalled.is_none() {
                self.stalled = None;
            }
            let look = is_blind.then_some(now + LOOK_INTERVAL);
            let Some(next) = [look, stalled].into_iter().flatten().min() else { return Poll::Pending };
            self.timer.set(next);
            ready!(self.timer.poll(cx));
        }
    }

    /// Whether a sender that is held back is known to be gone: the kernel says so, or its end was found behind what it sent.
    fn has_left(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        while !self.input.eof && self.ahead.allows(self.input.buf.len(), now) {
            match self.input.poll_fill(&mut self.io, cx, FURTHER_READ) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => break,
            }
        }
        (self.input.eof && !self.half_close) || self.io.has_left(self.half_close)
    }

    /// The other end takes nothing now; if that lasts, it is not going to.
    fn stalls_until(&mut self, now: Instant) -> Option<Instant> {
        if self.output.len() == 0 {
            return None;
        }
        let (written, latest) = (self.output.written(), now + self.send_timeout);
        let ends = match self.stalled {
            None => latest,
            Some(stalled) => latest.min(stalled.ends + self.earned(written - stalled.written)),
        };
        self.stalled = Some(Stalled { written, ends });
        Some(ends)
    }

    /// How much longer is waited for somebody who took so many bytes: a byte now and then is as good as none.
    fn earned(&self, bytes: u64) -> Duration {
        match (bytes, self.settings.pace.body_rate) {
            (0, _) => Duration::ZERO,
            (_, 0) => self.send_timeout,
            (bytes, rate) => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::budget::MAX_AHEAD as MAX_OF_LISTENER;

    /// All of it was spent in the first second, on a sender who was there.
    #[test]
    fn the_room_for_reading_on_lasts_for_some_seconds() {
        let (mut ahead, began) = (Ahead::new(Arc::default()), Instant::now());
        assert!(!ahead.allows(0, began));
        assert!(ahead.allows(0, began + PATIENCE) && !ahead.allows(FURTHER_RATE, began + PATIENCE));
        assert!(ahead.allows(FURTHER_RATE, began + 2 * PATIENCE));
        let full_after = (MAX_FURTHER / FURTHER_RATE) as u32;
        assert!(ahead.allows(MAX_FURTHER - 1, began + full_after * PATIENCE));
        assert!(!ahead.allows(MAX_FURTHER, began + 100 * PATIENCE));
    }

    #[test]
    fn room_is_given_back_with_the_bytes_that_it_was_taken_for_and_no_sooner() {
        let budget = Arc::<ListenerBudget>::default();
        let (mut ahead, began) = (Ahead::new(Arc::clone(&budget)), Instant::now());
        assert!(!ahead.allows(0, began), "too soon");
        let mut input = Input::new(BytesMut::new());
        while ahead.allows(input.buf.len(), began + 100 * PATIENCE) {
            input.buf.extend_from_slice(&[7; STEP / 2]);
        }
        assert!(input.buf.len() >= MAX_FURTHER && ahead.taken >= MAX_FURTHER);
        let left = |budget: &ListenerBudget| {
            let room = (0..).take_while(|_| budget.read_ahead(STEP)).count() * STEP;
            budget.release_ahead(room);
            room
        };
        for used in [0, STEP, MAX_FURTHER / 4, MAX_FURTHER / 2, MAX_FURTHER / 4 - 3 * STEP] {
            let _used = input.buf.split_to(used);
            ahead.end(&mut input);
            assert!(ahead.taken >= input.buf.len() && ahead.taken <= 2 * input.buf.len() + 2 * STEP);
            assert_eq!(left(&budget), MAX_OF_LISTENER - ahead.taken);
        }
        input.clear();
        ahead.end(&mut input);
        assert_eq!(left(&budget), MAX_OF_LISTENER);
        assert!(ahead.allows(0, began) || ahead.allows(0, began + 2 * PATIENCE));
        drop(ahead);
        assert_eq!(left(&budget), MAX_OF_LISTENER);
    }
}
