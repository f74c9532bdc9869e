//! What rules decide, as it is counted and recorded.

use std::sync::OnceLock;

use crate::policy::traffic::{Decision, Rules};
use crate::proxy::record::{Record, Recorder};
use crate::telemetry::RuleCounter;

/// The counters of the rules of one listener or initiator, made when a rule first decides.
#[derive(Debug)]
pub struct RuleCounters(Box<[OnceLock<RuleCounter>]>);

impl RuleCounters {
    /// One for each rule but the last, whose decisions are all that are left.
    pub fn new<F>(rules: &Rules<F>) -> Self {
        Self(rules.iter().map(|_| OnceLock::new()).collect())
    }

    /// Counts a decision, and notes it in the record of what was decided on.
    pub fn note<F>(&self, decision: &Decision<'_, F>, recorder: &Recorder, record: &mut Record) {
        let Some(rule) = decision.rule else { return };
        record.ruled(rule);
        if let Some(counter) = self.0.get(decision.place) {
            counter.get_or_init(|| recorder.of_rule(rule.label(), rule.action.label())).decided();
        }
    }
}
