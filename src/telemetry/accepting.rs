//! Connections that cannot be accepted: counted each time, and told now and then.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::{Entrance, Limit, LimitMetrics, Limiter, Metrics};

/// How many lines about one listener are written in a minute.
const MAX_LINES: u32 = 1;
const MINUTE: Duration = Duration::from_secs(60);

/// What one listener could not accept, or had to let wait. Clones share everything.
#[derive(Debug, Clone)]
pub struct AcceptWatch {
    entrance: Entrance,
    metrics: LimitMetrics,
    failures: Arc<Limiter>,
    waits: Arc<Limiter>,
}

impl AcceptWatch {
    /// For a listener of this kind.
    pub fn new(metrics: &Metrics, entrance: Entrance) -> Self {
        let limiter = || Arc::new(Limiter::new(MAX_LINES, MINUTE));
        Self { entrance, metrics: metrics.limits(entrance), failures: limiter(), waits: limiter() }
    }

    /// The listener could not accept a connection.
    pub fn failed(&self, error: &io::Error) {
        self.metrics.hit(Limit::NotAccepted);
        if let Some(left_out) = self.failures.pass(Instant::now()) {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(listener = self.entrance.label(), %error, left_out, "a connection cannot be accepted");
        }
    }

    /// The listener has as many connections as it may: more wait in the kernel.
    pub fn is_full(&self, connections: usize) {
        self.metrics.hit(Limit::Full);
        if let Some(left_out) = self.waits.pass(Instant::now()) {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(listener = self.entrance.label(), connections, left_out, "a listener is full; others wait");
        }
    }
}
