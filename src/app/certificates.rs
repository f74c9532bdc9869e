//! The certificates of the file while the process runs: how long they last, and a warning in time.

use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::config::{Checked, Inspected, WARN_BEFORE, inspect};
use crate::telemetry::Metrics;

/// How often what is about to end is said again.
const REMIND_INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// What the gauge tells apart.
const KINDS: [&str; 5] = ["responder", "initiator", "egress", "ca", "service"];

/// The end of each certificate that the file names, as it was read at the start.
#[derive(Debug, Clone)]
pub(super) struct Certificates(Vec<End>);

#[derive(Debug, Clone)]
struct End {
    key: String,
    kind: &'static str,
    name: String,
    at: SystemTime,
}

impl Certificates {
    /// Reads them, and warns of what peers will not take and of what deserves a second look.
    pub(super) fn of(config: &Checked) -> Self {
        let end = |inspected: Inspected| {
            let Inspected { key, role: kind, summary, valid_until: at, problems, warnings, .. } = inspected;
            for text in problems.into_iter().chain(warnings) {
                warn!(key, certificate = summary.name, "{text}");
            }
            End { key, kind, name: summary.name, at }
        };
        Self(inspect(config, SystemTime::now()).into_iter().map(end).collect())
    }

    /// States how long they last.
    pub(super) fn measure(&self, metrics: &Metrics) {
        for kind in KINDS {
            let ends = self.0.iter().filter(|end| end.kind == kind).map(|end| end.at);
            if let Some(first) = ends.min() {
                metrics.certificate(kind, seconds_until(first, SystemTime::now()));
            }
        }
    }

    /// Says again and again what is about to end, or has. Does not return.
    pub(super) async fn remind(&self) {
        loop {
            tokio::time::sleep(REMIND_INTERVAL).await;
            let now = SystemTime::now();
            for End { key, name, at, .. } in self.0.iter().filter(|end| end.at <= now + WARN_BEFORE) {
                let days = seconds_until(*at, now) / 86_400.0;
                warn!(key, certificate = name, days = days.floor(), "this certificate ends soon, or has ended");
            }
        }
    }
}

fn seconds_until(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs() as f64,
        Err(over) => -(over.duration().as_secs() as f64),
    }
}
