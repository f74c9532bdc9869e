//! The certificates of the file while the process runs: how long they last, and a warning in time.

use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::config::{Checked, Inspected, WARN_BEFORE, inspect};
use crate::telemetry::Metrics;

/// How often what is about to end is said again.
const REMIND_INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// What the gauge tells apart.
const KINDS: [&str; 6] = ["responder", "initiator", "egress", "ca", "service", "fleet"];

/// The end of each certificate that the settings name, as it was when they were read.
#[derive(Debug, Clone, Default)]
pub(super) struct Certificates(Vec<End>);

#[derive(Debug, Clone)]
struct End {
    key: String,
    kind: &'static str,
    name: String,
    at: SystemTime,
    /// What is wrong with it, or may be.
    remarks: Vec<String>,
}

impl Certificates {
    /// Reads them. Blocks.
    pub(super) fn of(config: &Checked) -> Self {
        let end = |inspected: Inspected| {
            let Inspected { key, role: kind, summary, valid_until: at, problems, warnings, .. } = inspected;
            End { key, kind, name: summary.name, at, remarks: problems.into_iter().chain(warnings).collect() }
        };
        Self(inspect(config, SystemTime::now()).into_iter().map(end).collect())
    }

    /// Warns of what peers will not take and of what deserves a second look.
    pub(super) fn warn(&self) {
        for End { key, name, remarks, .. } in &self.0 {
            for text in remarks {
                warn!(key, certificate = name, "{text}");
            }
        }
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

    /// States of the kinds of which `before` had certificates and these have none that none of them ends.
    pub(super) fn replace(&self, before: &Self, metrics: &Metrics) {
        let has = |certificates: &Self, kind| certificates.0.iter().any(|end| end.kind == kind);
        for kind in KINDS.into_iter().filter(|kind| has(before, *kind) && !has(self, *kind)) {
            metrics.certificate(kind, f64::INFINITY);
        }
    }

    /// Says again what is about to end, or has.
    fn remind(&self) {
        let now = SystemTime::now();
        for End { key, name, at, .. } in self.0.iter().filter(|end| end.at <= now + WARN_BEFORE) {
            let days = seconds_until(*at, now) / 86_400.0;
            warn!(key, certificate = name, days = days.floor(), "this certificate ends soon, or has ended");
        }
    }
}

/// Says again and again what is about to end, or has, of the certificates that there are then. Does not return.
pub(super) async fn remind(current: impl Fn() -> Certificates) {
    loop {
        tokio::time::sleep(REMIND_INTERVAL).await;
        current().remind();
    }
}

fn seconds_until(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs() as f64,
        Err(over) => -(over.duration().as_secs() as f64),
    }
}
