//! The end of an exchange in which both directions count alike: that of the later one.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What is done then; it hears whether the upload came to its end.
type Then = Box<dyn FnOnce(bool) + Send>;

/// The end of an upload that may outlive its response.
#[derive(Default)]
pub(super) struct Ending(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Open,
    Waits(Then),
    Over(bool),
}

impl Ending {
    /// The upload is over; the first call counts.
    pub(super) fn over(&self, whole: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Over(_)) {
            return;
        }
        let before = std::mem::replace(&mut *state, State::Over(whole));
        drop(state);
        if let State::Waits(then) = before {
            then(whole);
        }
    }

    /// Does this when the upload is over; at once if it is.
    pub(super) fn after(&self, then: Then) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Over(whole) = *state {
            drop(state);
            return then(whole);
        }
        *state = State::Waits(then);
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_waits_is_done_once_and_hears_how_the_upload_ended() {
        for is_first in [true, false] {
            for whole in [true, false] {
                let (ending, heard) = (Ending::default(), Arc::new(Mutex::new(Vec::new())));
                let hears = Arc::clone(&heard);
                let then: Then = Box::new(move |whole| hears.lock().unwrap().push(whole));
                if is_first {
                    ending.over(whole);
                    ending.after(then);
                } else {
                    ending.after(then);
                    ending.over(whole);
                }
                ending.over(!whole);
                assert_eq!(*heard.lock().unwrap(), [whole]);
            }
        }
    }
}
