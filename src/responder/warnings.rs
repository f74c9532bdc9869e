//! How often a responder complains about handshakes that failed: strangers must not fill its log.

use std::time::{Duration, Instant};

use crate::telemetry::{HandshakeFailure, Limiter};

/// Lines a minute about one kind of failure, each of which names an address to look after.
const MAX_LINES: u32 = 10;
/// The same about those that gave way, of whom one line says all. spec: SE-21
const MAX_GAVE_WAY_LINES: u32 = 1;
const PERIOD: Duration = Duration::from_secs(60);

/// One limit per kind of failure.
#[derive(Debug)]
pub(super) struct Warnings([(HandshakeFailure, Limiter); HandshakeFailure::ALL.len()]);

impl Warnings {
    pub(super) fn new() -> Self {
        Self(HandshakeFailure::ALL.map(|failure| {
            let lines = if failure == HandshakeFailure::GaveWay { MAX_GAVE_WAY_LINES } else { MAX_LINES };
            (failure, Limiter::new(lines, PERIOD))
        }))
    }

    /// Whether to write a line: `Some` of how many were left out since the last one of its kind.
    pub(super) fn pass(&self, failure: HandshakeFailure, now: Instant) -> Option<u64> {
        self.0.iter().find(|(kind, _)| *kind == failure).and_then(|(_, limiter)| limiter.pass(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_one_line_a_minute_with_its_count_and_hides_no_other_failure() {
        let (warnings, start) = (Warnings::new(), Instant::now());
        let passed = |failure, after| warnings.pass(failure, start + Duration::from_secs(after));
        assert_eq!(passed(HandshakeFailure::GaveWay, 0), Some(0));
        assert!((0..1000).all(|_| passed(HandshakeFailure::GaveWay, 1).is_none()));
        assert_eq!(passed(HandshakeFailure::Tls, 2), Some(0));
        assert_eq!(passed(HandshakeFailure::GaveWay, 60), Some(1000));
    }
}
