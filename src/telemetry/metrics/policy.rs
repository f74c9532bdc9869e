//! Counting what rules decide.

use metrics::{Counter, Key, Label, Recorder as _};

use crate::telemetry::metrics::table::POLICY_DECISIONS;
use crate::telemetry::metrics::{METADATA, Metrics};

/// Makes the counters of the rules of one side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    metrics: Metrics,
    side: &'static str,
}

/// Counts the decisions of one rule.
#[derive(Debug, Clone)]
pub struct RuleCounter(Counter);

impl PolicyMetrics {
    pub(super) fn new(metrics: &Metrics, side: &'static str) -> Self {
        Self { metrics: metrics.clone(), side }
    }

    /// The counter of a rule. Its label is a name out of the file, so there are as many as its author wrote.
    pub fn rule(&self, rule: String, action: &'static str) -> RuleCounter {
        let [side, rule_label, action_label] = *POLICY_DECISIONS.labels else { unreachable!("three labels") };
        let labels = vec![
            Label::from_static_parts(side, self.side),
            Label::new(rule_label, rule),
            Label::from_static_parts(action_label, action),
        ];
        let key = Key::from_parts(POLICY_DECISIONS.name, labels);
        RuleCounter(self.metrics.recorder.register_counter(&key, &METADATA))
    }
}

impl RuleCounter {
    /// The rule has decided once more.
    pub fn decided(&self) {
        self.0.increment(1);
    }
}
