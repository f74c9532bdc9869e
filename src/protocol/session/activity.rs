//! When to ask for a sign of life earlier than the keepalive would: a tunnel that was in use a moment ago and is silent
//! gives a reason to doubt. spec: CT-42

use std::time::Duration;

/// How often a responder looks at a tunnel in use, and so how long it may be silent before it is asked.
pub(super) const RESPONDER_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same for an initiator, which must speak first where a NAT has forgotten its tunnel: nothing finds the way in until
/// then. With what a round trip takes on top, requests wait no longer than that and 200 ms. spec: CT-51
pub(super) const INITIATOR_LOOK_INTERVAL: Duration = Duration::from_millis(75);

/// What is known of a tunnel's use.
#[derive(Debug, Default)]
pub(super) struct Activity {
    usage: Usage,
    /// Streams begun so far.
    streams: u64,
    /// How many those were at the last look.
    looked: u64,
    /// Whether the peer was heard since.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Usage {
    /// The keepalive is enough.
    #[default]
    Idle,
    Busy,
    /// It fell silent and was asked.
    Asked,
    /// It answered; whatever is heard beyond that is use.
    Answered,
}

impl Activity {
    /// This many streams have begun in all. `true`: to be looked at within the interval of its end.
    pub(super) fn used(&mut self, streams: u64) -> bool {
        self.streams = streams;
        if self.usage == Usage::Idle && streams != self.looked {
            self.usage = Usage::Busy;
        }
        self.is_in_use()
    }

    /// The peer was heard.
    pub(super) const fn heard(&mut self) {
        self.heard = true;
    }

    /// Whether it is to be looked at again.
    pub(super) fn is_in_use(&self) -> bool {
        self.usage != Usage::Idle
    }

    /// Looks at what has changed since the last time. `true`: ask now.
    pub(super) fn look(&mut self) -> bool {
        let begun = std::mem::replace(&mut self.looked, self.streams) != self.streams;
        let heard = std::mem::take(&mut self.heard);
        self.usage = match (self.usage, begun, heard) {
            (_, true, true) | (Usage::Busy | Usage::Answered, false, true) => Usage::Busy,
            (_, true, false) | (Usage::Busy, false, false) => Usage::Asked,
            (Usage::Asked, false, true) => Usage::Answered,
            (Usage::Idle, false, _) | (Usage::Asked | Usage::Answered, false, false) => Usage::Idle,
        };
        self.usage == Usage::Asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of one look after the other.
    fn asks(looks: &[(bool, u64)]) -> Vec<bool> {
        let mut activity = Activity::default();
        let mut asks = |&(heard, streams): &(bool, u64)| {
            if heard {
                activity.heard();
            }
            activity.used(streams) && activity.look()
        };
        looks.iter().map(&mut asks).collect()
    }

    // spec: CT-42
    #[test]
    fn a_tunnel_in_use_that_falls_silent_is_asked_once() {
        let silent = [(true, 1), (true, 2), (false, 2), (false, 2), (false, 2), (false, 2)];
        assert_eq!(asks(&silent), [false, false, true, false, false, false]);
        let answered = [(true, 1), (false, 1), (true, 1), (false, 1), (false, 1)];
        assert_eq!(asks(&answered), [false, true, false, false, false], "an answer is no use");
    }

    #[test]
    fn a_request_into_silence_is_a_reason_to_ask() {
        assert_eq!(asks(&[(false, 1), (false, 2), (false, 2)]), [true, true, false]);
    }

    #[test]
    fn one_long_exchange_counts_while_it_is_heard() {
        let download = [(true, 1), (true, 1), (true, 1), (false, 1), (true, 1), (true, 1), (false, 1)];
        assert_eq!(asks(&download), [false, false, false, true, false, false, true]);
    }

    #[test]
    fn a_tunnel_without_exchanges_is_left_to_the_keepalive() {
        assert_eq!(asks(&[(true, 0), (true, 0), (false, 0)]), [false; 3]);
        assert!(!Activity::default().used(0));
    }
}
