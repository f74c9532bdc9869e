//! How much QUIC keeps of responses until the client has acknowledged it: bounded per connection and per listener.
//!
//! A client may open every window and acknowledge nothing. A connection has a little from when it begins to send. Once that is not
//! enough it gets more: an eighth of what its listener has left, at most its own bound. That goes back when all that it sent was
//! acknowledged, or when it has sent nothing for a while: what many connections could send and do not keeps nobody waiting.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::egress::budget::ListenerBudget;
use crate::egress::lock;

/// What a connection has in any case, bytes.
const LEAST: usize = 16 * 1024;
/// The part of what its listener has left that one connection may take.
const SHARE: usize = 8;
/// Who had enough for so long needs no more than a little.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// The most bytes that may be unacknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connection: usize,
    pub(super) listener: usize,
}

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Window {
    bounds: Bounds,
    listener: Arc<ListenerBudget>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Responses that are being sent.
    responses: usize,
    taken: usize,
    /// When it was last not enough; `None`: it has a little, and no more.
    short_at: Option<Instant>,
}

/// A response is being sent, or waits to be acknowledged, while this lives.
#[derive(Debug)]
pub(super) struct Sends(Arc<Window>);

impl Window {
    pub(super) fn new(bounds: Bounds, listener: Arc<ListenerBudget>) -> Arc<Self> {
        Arc::new(Self { bounds, listener, state: Mutex::default() })
    }

    /// A response begins; `set` is given the window if it is the only one.
    pub(super) fn begin(self: &Arc<Self>, set: impl FnOnce(u64)) -> Sends {
        let mut state = lock(&self.state);
        if state.responses == 0 {
            self.take(&mut state, LEAST, None, set);
        }
        state.responses += 1;
        Sends(Arc::clone(self))
    }

    /// Something waits to be taken; `set` is given a wider window if there is one. Whether there is.
    pub(super) fn widen(&self, now: Instant, set: impl FnOnce(u64)) -> bool {
        let mut state = lock(&self.state);
        if state.responses == 0 {
            return false;
        }
        if let Some(short_at) = &mut state.short_at {
            *short_at = now;
        }
        let wider = self.share(state.taken);
        let is_wider = wider > state.taken;
        if is_wider {
            self.take(&mut state, wider, Some(now), set);
        }
        is_wider
    }

    /// Whether there is something to give back in [`Self::rest`].
    pub(super) fn is_wide(&self) -> bool {
        lock(&self.state).short_at.is_some()
    }

    /// Nothing was to be sent for [`QUIET`]; `set` is given the window of who has had enough for as long.
    pub(super) fn rest(&self, now: Instant, set: impl FnOnce(u64)) {
        let mut state = lock(&self.state);
        if state.responses > 0 && state.short_at.is_some_and(|short_at| now.duration_since(short_at) >= QUIET) {
            self.take(&mut state, LEAST, None, set);
        }
    }

    fn take(&self, state: &mut State, bytes: usize, short_at: Option<Instant>, set: impl FnOnce(u64)) {
        self.listener.unacknowledged.fetch_add(bytes, Ordering::Relaxed);
        self.listener.unacknowledged.fetch_sub(state.taken, Ordering::Relaxed);
        (state.taken, state.short_at) = (bytes, short_at);
        set(bytes as u64);
    }

    /// What who has `taken` may have in its place.
    fn share(&self, taken: usize) -> usize {
        let others = self.listener.unacknowledged.load(Ordering::Relaxed).saturating_sub(taken);
        let left = self.bounds.listener.saturating_sub(others);
        (left / SHARE).clamp(LEAST, self.bounds.connection.max(LEAST))
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.responses -= 1;
        if state.responses == 0 {
            self.0.listener.unacknowledged.fetch_sub(state.taken, Ordering::Relaxed);
            (state.taken, state.short_at) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connection: 1 << 20, listener: 64 << 20 };

    fn unacknowledged(listener: &ListenerBudget) -> usize {
        listener.unacknowledged.load(Ordering::Relaxed)
    }

    #[test]
    fn a_connection_has_one_window_for_all_its_responses_and_gives_it_back() {
        let (listener, now) = (Arc::<ListenerBudget>::default(), Instant::now());
        let window = Window::new(BOUNDS, Arc::clone(&listener));
        let mut set = Vec::new();
        let first = window.begin(|bytes| set.push(bytes));
        let second = window.begin(|bytes| set.push(bytes));
        assert!(window.widen(now, |bytes| set.push(bytes)));
        assert!(!window.widen(now, |bytes| set.push(bytes)), "it has all");
        assert_eq!((&set[..], unacknowledged(&listener)), (&[LEAST as u64, 1 << 20][..], 1 << 20));
        drop(first);
        assert_eq!(unacknowledged(&listener), 1 << 20);
        drop(second);
        assert_eq!((unacknowledged(&listener), window.is_wide()), (0, false));
    }

    #[test]
    fn many_that_acknowledge_nothing_stay_within_the_bound_of_their_listener_and_others_go_on() {
        let (listener, now) = (Arc::<ListenerBudget>::default(), Instant::now());
        let stalled: Vec<_> = std::iter::repeat_with(|| {
            let window = Window::new(BOUNDS, Arc::clone(&listener));
            let sends = window.begin(|_| {});
            window.widen(now, |_| {});
            sends
        })
        .take(500)
        .collect();
        assert!(unacknowledged(&listener) <= BOUNDS.listener + stalled.len() * LEAST);
        let mut least = 0;
        let _sends = Window::new(BOUNDS, listener).begin(|bytes| least = bytes);
        assert!(least >= LEAST as u64);
    }

    #[test]
    fn responses_that_send_little_keep_none_from_a_wide_window() {
        let (listener, now) = (Arc::<ListenerBudget>::default(), Instant::now());
        let _quiet: Vec<_> =
            std::iter::repeat_with(|| Window::new(BOUNDS, Arc::clone(&listener)).begin(|_| {})).take(1_000).collect();
        let window = Window::new(BOUNDS, listener);
        let _sends = window.begin(|_| {});
        let mut set = 0;
        assert!(window.widen(now, |bytes| set = bytes));
        assert_eq!(set, 1 << 20);
    }

    #[test]
    fn a_window_goes_back_when_it_was_enough_for_a_while_and_comes_again() {
        let (listener, now) = (Arc::<ListenerBudget>::default(), Instant::now());
        let window = Window::new(BOUNDS, Arc::clone(&listener));
        let _sends = window.begin(|_| {});
        assert!(window.widen(now, |_| {}));
        assert!(!window.widen(now + QUIET, |_| {}));
        window.rest(now + QUIET * 2 - Duration::from_millis(1), |_| panic!("it was short a moment ago"));
        let mut set = 0;
        window.rest(now + QUIET * 2, |bytes| set = bytes);
        assert_eq!((set, unacknowledged(&listener), window.is_wide()), (LEAST as u64, LEAST, false));
        assert!(window.widen(now + QUIET * 3, |bytes| set = bytes));
        assert_eq!((set, unacknowledged(&listener)), (1 << 20, 1 << 20));
    }

    #[test]
    fn who_began_when_the_listener_had_nothing_left_gets_more_once_it_has() {
        let (listener, now) = (Arc::<ListenerBudget>::default(), Instant::now());
        listener.unacknowledged.store(BOUNDS.listener, Ordering::Relaxed);
        let window = Window::new(BOUNDS, Arc::clone(&listener));
        let _sends = window.begin(|_| {});
        assert!(!window.widen(now, |_| {}));
        listener.unacknowledged.store(LEAST, Ordering::Relaxed);
        assert!(window.widen(now, |_| {}));
    }
}
