//! What a responder does and knows in its fleet.

use std::time::Duration;

use metrics::Counter;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{
    FLEET_IGNORED, FLEET_LOST, FLEET_OVERRULED, FLEET_RESPONDERS, FLEET_TUNNELS, FLEET_VIEW_AGE, FLEET_VIEW_STALE,
    FLEET_WRITES,
};

/// Counts what the membership of one responder does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    written: Counter,
    failed: Counter,
    lost: Counter,
    ignored: Counter,
    overruled: Counter,
}

/// The fleet as a responder sees it at the moment of a scrape.
#[derive(Debug, Clone, Copy)]
pub struct FleetSight {
    /// Responders whose lease lives, itself among them.
    pub responders: usize,
    /// Tunnels of all of them.
    pub tunnels: usize,
    /// Since etcd last said that this is all; `None` before the first time.
    pub age: Option<Duration>,
    /// Etcd is not heard.
    pub is_stale: bool,
}

impl FleetMetrics {
    /// Registers the counters.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            written: metrics.counter(&FLEET_WRITES, &["ok"]),
            failed: metrics.counter(&FLEET_WRITES, &["failed"]),
            lost: metrics.counter(&FLEET_LOST, &[]),
            ignored: metrics.counter(&FLEET_IGNORED, &[]),
            overruled: metrics.counter(&FLEET_OVERRULED, &[]),
        }
    }

    /// A transaction was answered: done or not.
    pub fn written(&self, is_done: bool) {
        if is_done { &self.written } else { &self.failed }.increment(1);
    }

    /// Etcd could not be reached, or was lost.
    pub fn lost(&self) {
        self.lost.increment(1);
    }

    /// So many keys and values were left out.
    pub fn ignored(&self, count: u64) {
        self.ignored.increment(count);
    }

    /// A tunnel was closed because its name belonged to somebody else before.
    pub fn overruled(&self) {
        self.overruled.increment(1);
    }
}

impl Metrics {
    /// Counts what the membership of a responder does.
    pub fn fleet(&self) -> FleetMetrics {
        FleetMetrics::new(self)
    }

    /// States what is known of the fleet. To be called before each scrape.
    pub fn fleet_sight(&self, sight: FleetSight) {
        let FleetSight { responders, tunnels, age, is_stale } = sight;
        self.gauge(&FLEET_RESPONDERS, &[]).set(responders as f64);
        self.gauge(&FLEET_TUNNELS, &[]).set(tunnels as f64);
        self.gauge(&FLEET_VIEW_AGE, &[]).set(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
        self.gauge(&FLEET_VIEW_STALE, &[]).set(if is_stale { 1.0 } else { 0.0 });
    }
}
