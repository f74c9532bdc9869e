//! How much QUIC keeps of responses until the client has acknowledged it: bounded per connection and per listener.
//!
//! A client may open every window and acknowledge nothing. A connection gets its window when it begins to send, and gives it
//! back when all that it sent was acknowledged: an eighth of what its listener has left, at most its own bound, and never less
//! than a little.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::egress::budget::ListenerBudget;
use crate::egress::lock;

/// What a connection gets on a listener that has nothing left, bytes.
const LEAST: usize = 16 * 1024;
/// The part of what its listener has left that one connection may take.
const SHARE: usize = 8;

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
            state.taken = self.share();
            self.listener.unacknowledged.fetch_add(state.taken, Ordering::Relaxed);
            set(state.taken as u64);
        }
        state.responses += 1;
        Sends(Arc::clone(self))
    }

    fn share(&self) -> usize {
        let left = self.bounds.listener.saturating_sub(self.listener.unacknowledged.load(Ordering::Relaxed));
        (left / SHARE).clamp(LEAST, self.bounds.connection.max(LEAST))
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.responses -= 1;
        if state.responses == 0 {
            self.0.listener.unacknowledged.fetch_sub(state.taken, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connection: 1 << 20, listener: 64 << 20 };

    #[test]
    fn a_connection_has_one_window_for_all_its_responses_and_gives_it_back() {
        let listener = Arc::<ListenerBudget>::default();
        let window = Window::new(BOUNDS, Arc::clone(&listener));
        let mut set = Vec::new();
        let first = window.begin(|bytes| set.push(bytes));
        let second = window.begin(|bytes| set.push(bytes));
        assert_eq!((&set[..], listener.unacknowledged.load(Ordering::Relaxed)), (&[1 << 20][..], 1 << 20));
        drop(first);
        assert_eq!(listener.unacknowledged.load(Ordering::Relaxed), 1 << 20);
        drop(second);
        assert_eq!(listener.unacknowledged.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_that_acknowledge_nothing_stay_within_the_bound_of_their_listener_and_others_go_on() {
        let listener = Arc::<ListenerBudget>::default();
        let windows = (0..500).map(|_| Window::new(BOUNDS, Arc::clone(&listener)).begin(|_| {}));
        let stalled: Vec<_> = windows.collect();
        assert!(listener.unacknowledged.load(Ordering::Relaxed) <= BOUNDS.listener + stalled.len() * LEAST);
        let mut least = 0;
        let _sends = Window::new(BOUNDS, listener).begin(|bytes| least = bytes);
        assert!(least >= LEAST as u64);
    }
}
