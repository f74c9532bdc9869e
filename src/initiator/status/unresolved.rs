//! Destinations of which no address is known: there is nothing to dial, and operators must see it all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::telemetry::{DestinationMetrics, DestinationRecord, DestinationState};

/// A destination without an address, as operators see it. It counts as `cannot_connect`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct UnresolvedStatus {
    /// The configured destination.
    pub destination: String,
    /// Why its name has no address.
    pub reason: String,
    /// What to change.
    pub advice: &'static str,
    /// Seconds without an address.
    pub since_seconds: u64,
    /// Seconds until the name is asked again.
    pub retry_in_seconds: f64,
}

/// What can be changed about a name that has no address.
pub(in crate::initiator) const ADVICE: &str = "check the name in `to`, and the DNS server that this host asks";

/// All of them, by destination.
#[derive(Debug, Default)]
pub(super) struct Unresolved(Mutex<BTreeMap<Arc<str>, Entry>>);

#[derive(Debug)]
struct Entry {
    _record: DestinationRecord,
    since: Instant,
    reason: String,
    next: Instant,
}

impl Unresolved {
    pub(super) fn note(&self, destination: &Arc<str>, reason: String, next: Instant, metrics: &DestinationMetrics) {
        let record = || {
            let mut record = metrics.begin();
            record.set(DestinationState::CannotConnect);
            record
        };
        let mut entries = self.lock();
        let entry = entries.entry(Arc::clone(destination));
        let entry =
            entry.or_insert_with(|| Entry { _record: record(), since: Instant::now(), reason: String::new(), next });
        (entry.reason, entry.next) = (reason, next);
    }

    pub(super) fn forget(&self, destination: &str) {
        self.lock().remove(destination);
    }

    pub(super) fn view(&self) -> Vec<UnresolvedStatus> {
        let now = Instant::now();
        let status = |(destination, entry): (&Arc<str>, &Entry)| UnresolvedStatus {
            destination: destination.to_string(),
            reason: entry.reason.clone(),
            advice: ADVICE,
            since_seconds: now.saturating_duration_since(entry.since).as_secs(),
            retry_in_seconds: entry.next.saturating_duration_since(now).as_secs_f64(),
        };
        self.lock().iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_name_without_address_is_shown_and_counted_until_it_has_one() {
        let metrics = Metrics::new();
        let (unresolved, destinations) = (Unresolved::default(), metrics.destinations());
        let name: Arc<str> = "nowhere.example:7843".into();
        let next = Instant::now() + Duration::from_secs(20);
        for reason in ["no such name", "no answer"] {
            unresolved.note(&name, reason.to_owned(), next, &destinations);
        }
        let shown = unresolved.view();
        assert_eq!(shown.len(), 1);
        assert_eq!((shown[0].reason.as_str(), &*shown[0].destination), ("no answer", "nowhere.example:7843"));
        assert!(shown[0].retry_in_seconds > 1.0);
        let counted = "adit_initiator_destinations{state=\"cannot_connect\"} ";
        assert!(metrics.render().contains(&format!("{counted}1")));
        unresolved.forget(&name);
        assert!(unresolved.view().is_empty() && metrics.render().contains(&format!("{counted}0")));
    }
}
