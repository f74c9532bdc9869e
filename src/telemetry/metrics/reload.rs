//! Which settings are in force, and since when.

use std::time::SystemTime;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{CONFIG_LOADED, RELOADS};

/// What came of asking for other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// They are in force.
    Applied,
    /// They are what those before were.
    Unchanged,
    /// They cannot be used; those before are in force.
    Failed,
}

impl ReloadResult {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Failed];

    const fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Settings were read: the first ones (`None`), or others, with what came of it.
    pub fn reloaded(&self, result: Option<ReloadResult>) {
        for known in ReloadResult::ALL {
            self.counter(&RELOADS, &[known.label()]).increment(u64::from(result == Some(known)));
        }
        if result != Some(ReloadResult::Failed) {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.gauge(&CONFIG_LOADED, &[]).set(now.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_counted_and_failures_leave_the_time_alone() {
        let metrics = Metrics::new();
        metrics.reloaded(Some(ReloadResult::Failed));
        let text = metrics.render();
        assert!(text.contains("adit_reloads_total{result=\"failed\"} 1"), "{text}");
        assert!(text.contains("adit_reloads_total{result=\"applied\"} 0"), "{text}");
        assert!(!text.contains("adit_config_loaded_timestamp_seconds 1"), "{text}");
        metrics.reloaded(None);
        assert!(metrics.render().contains("adit_config_loaded_timestamp_seconds 1"));
    }
}
