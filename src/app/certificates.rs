//! The certificates of the file while the process runs: how long they last, and a warning in time.

use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::config::{Checked, Inspected, WARN_BEFORE, inspect};
use crate::telemetry::Metrics;

/// How often what is about to end is said again.
const REMIND_INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// What the gauge tells apart.
const KINDS: [&str; 6] = ["responder", "initiator", "egress", "ca", "service", "fleet"];

/// Each certificate that the settings name, as it was when they were read.
#[derive(Debug, Clone, Default)]
pub(super) struct Certificates {
    all: Vec<Inspected>,
    read_at: Option<SystemTime>,
}

impl Certificates {
    /// Reads them. Blocks.
    pub(super) fn of(config: &Checked) -> Self {
        let now = SystemTime::now();
        Self { all: inspect(config, now), read_at: Some(now) }
    }

    /// Why peers would not take these, each behind its key, in the words of `adit check`. What is in force already, and has been
    /// overtaken by the clock, is none: it would be in the way of every other change. spec: SE-40
    pub(super) fn problems_beside(&self, before: &Self) -> Vec<String> {
        let Some(now) = self.read_at else { return Vec::new() };
        let mut news = Vec::new();
        for inspected in &self.all {
            let same = before.all.iter().filter(|former| former.is_same(inspected));
            let known: Vec<String> = same.flat_map(|former| former.problems_at(now)).collect();
            let problems = inspected.problems.iter().filter(|problem| !known.contains(problem));
            news.extend(problems.map(|problem| format!("{}: {problem}", inspected.key)));
        }
        news
    }

    /// Warns of what peers will not take and of what deserves a second look.
    pub(super) fn warn(&self) {
        for Inspected { key, summary, problems, warnings, .. } in &self.all {
            for text in problems.iter().chain(warnings) {
                warn!(key, certificate = summary.name, "{text}");
            }
        }
    }

    /// States how long they last.
    pub(super) fn measure(&self, metrics: &Metrics) {
        for kind in KINDS {
            let ends =
                self.all.iter().filter(|inspected| inspected.role == kind).map(|inspected| inspected.valid_until);
            if let Some(first) = ends.min() {
                metrics.certificate(kind, seconds_until(first, SystemTime::now()));
            }
        }
    }

    /// States of the kinds of which `before` had certificates and these have none that none of them ends.
    pub(super) fn replace(&self, before: &Self, metrics: &Metrics) {
        let has = |certificates: &Self, kind| certificates.all.iter().any(|inspected| inspected.role == kind);
        for kind in KINDS.into_iter().filter(|kind| has(before, *kind) && !has(self, *kind)) {
            metrics.certificate(kind, f64::INFINITY);
        }
    }

    /// Says again what is about to end, or has.
    fn remind(&self) {
        let now = SystemTime::now();
        for Inspected { key, summary, valid_until, .. } in &self.all {
            if *valid_until > now + WARN_BEFORE {
                continue;
            }
            let days = seconds_until(*valid_until, now) / 86_400.0;
            warn!(key, certificate = summary.name, days = days.floor(), "this certificate ends soon, or has ended");
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
