//! Counting what goes between the responders of a fleet.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{HOP_CONNECTIONS, HOP_DIALS_FAILED, HOPS};

/// The counters of one responder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HopMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    asked: Gauge,
    served: Gauge,
    dials_failed: Counter,
    through: Counter,
    not_here: Counter,
}

/// A connection that counts as open until this drops.
#[derive(Debug)]
pub struct HopConnection(Gauge);

impl HopMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Handles {
            asked: metrics.gauge(&HOP_CONNECTIONS, &["out"]),
            served: metrics.gauge(&HOP_CONNECTIONS, &["in"]),
            dials_failed: metrics.counter(&HOP_DIALS_FAILED, &[]),
            through: metrics.counter(&HOPS, &["through"]),
            not_here: metrics.counter(&HOPS, &["not_here"]),
        }))
    }

    /// A sibling was dialled and greets.
    pub fn asks(&self) -> HopConnection {
        HopConnection::open(&self.0.asked)
    }

    /// A sibling that has dialled is served.
    pub fn serves(&self) -> HopConnection {
        HopConnection::open(&self.0.served)
    }

    /// A sibling could not be dialled.
    pub fn dial_failed(&self) {
        self.0.dials_failed.increment(1);
    }

    /// Something goes through a sibling.
    pub fn through(&self) {
        self.0.through.increment(1);
    }

    /// A sibling had no tunnel to where something should have gone.
    pub fn not_here(&self) {
        self.0.not_here.increment(1);
    }
}

impl HopConnection {
    fn open(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for HopConnection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
