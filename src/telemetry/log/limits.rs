//! So many lines of one kind a minute, and then how many there were: an operator who looks for the one line that matters
//! does not find it among ten thousand that say the same.
//!
//! A kind is a place in the code. The access log is not limited, and neither is what somebody asked for by a finer level.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The most lines of one kind in a [`PERIOD`].
pub(super) const MAX_LINES: u32 = 60;
/// How long that counts.
const PERIOD: Duration = Duration::from_secs(60);
/// The lines of these targets are one per exchange, whoever asked for them wants all, or they are about the log itself.
const UNLIMITED: [&str; 2] = ["adit::access", super::TARGET];

/// Decides about each line. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    kinds: Arc<Mutex<HashMap<Identifier, Kind>>>,
}

#[derive(Debug)]
struct Kind {
    began: Instant,
    passed: u32,
    left_out: u64,
    level: Level,
    message: String,
}

/// Lines of one kind that were not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// How severe they were.
    pub(super) level: Level,
    /// What the last one said.
    pub(super) message: String,
    /// How many they were.
    pub(super) lines: u64,
}

impl Limits {
    fn pass(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || UNLIMITED.contains(&metadata.target()) {
            return true;
        }
        let mut kinds = self.lock();
        let fresh = || Kind { began: now, passed: 0, left_out: 0, level: *metadata.level(), message: String::new() };
        let kind = kinds.entry(metadata.callsite()).or_insert_with(fresh);
        // What was left out is said first, by `ended`.
        if kind.left_out == 0 && now.saturating_duration_since(kind.began) >= PERIOD {
            (kind.began, kind.passed) = (now, 0);
        }
        if kind.passed < MAX_LINES {
            kind.passed += 1;
            return true;
        }
        if kind.left_out == 0 {
            kind.message = message(event);
        }
        kind.left_out += 1;
        false
    }

    /// The kinds of which lines were left out and whose minute is over; each is told once.
    pub(super) fn ended(&self, now: Instant) -> Vec<LeftOut> {
        let over = |kind: &&mut Kind| kind.left_out > 0 && now.saturating_duration_since(kind.began) >= PERIOD;
        let mut kinds = self.lock();
        let told = kinds.values_mut().filter(over).map(|kind| {
            (kind.began, kind.passed) = (now, 0);
            let lines = std::mem::take(&mut kind.left_out);
            LeftOut { level: kind.level, message: std::mem::take(&mut kind.message), lines }
        });
        told.collect()
    }

    /// Numbers and texts: a panic elsewhere cannot leave them half-changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Limits {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.pass(event, Instant::now())
    }
}

fn message(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;

    /// How many events come through.
    #[derive(Clone, Default)]
    struct Through(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Through {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn a_kind_that_floods_is_cut_alone_and_what_was_left_out_is_told_once() {
        let (limits, through) = (Limits::default(), Through::default());
        let start = Instant::now();
        tracing::subscriber::with_default(registry().with(limits.clone()).with(through.clone()), || {
            for tunnel in 0..100 {
                tracing::warn!(tunnel, "the tunnel is gone");
                tracing::debug!("a detail");
                tracing::info!(target: "adit::access", "exchange");
            }
            tracing::info!("something else");
        });
        let count = |level| through.0.lock().unwrap().iter().filter(|passed| **passed == level).count();
        assert_eq!(count(Level::WARN), 60);
        assert_eq!(count(Level::DEBUG), 100);
        assert_eq!(count(Level::INFO), 101);
        assert_eq!(limits.ended(start), [], "the minute is not over");
        let over = Instant::now() + PERIOD;
        let told = LeftOut { level: Level::WARN, message: "the tunnel is gone".to_owned(), lines: 40 };
        assert_eq!(limits.ended(over), [told]);
        assert_eq!(limits.ended(over + PERIOD), [], "it is told once");
    }
}
