//! Counting streams that are not read.

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{STREAMS_ENDED, STREAMS_HELD_BACK};

/// Why a stream was ended that its consumer did not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// Too many were held back, and it had been slow for the longest.
    Bound,
    /// Its consumer took less than the least rate for too long.
    Rate,
}

impl StreamEnd {
    const ALL: [Self; 2] = [Self::Bound, Self::Rate];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Rate => "rate",
        }
    }
}

/// The streams of one role. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    held: Gauge,
    ended: [Counter; StreamEnd::ALL.len()],
}

impl StreamMetrics {
    pub(super) fn new(metrics: &Metrics, role: &'static str) -> Self {
        Self {
            held: metrics.gauge(&STREAMS_HELD_BACK, &[role]),
            ended: StreamEnd::ALL.map(|why| metrics.counter(&STREAMS_ENDED, &[role, why.label()])),
        }
    }

    /// So many more are held back than before.
    pub fn held(&self, more: f64) {
        self.held.increment(more);
    }

    /// One was ended.
    pub fn ended(&self, why: StreamEnd) {
        self.ended[why as usize].increment(1);
    }
}
