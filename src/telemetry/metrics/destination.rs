//! The states of what an initiator dials; names and meaning as in Envoy's reverse tunnels.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::{DESTINATIONS, SWITCHES, TUNNELS_MOVED, WAYS};

/// Where one tunnel that an initiator is configured to keep stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// The first attempt runs.
    Connecting,
    /// Its tunnel is open, and was never lost.
    Connected,
    /// An attempt just failed, or the tunnel was just lost.
    Failed,
    /// Its tunnel is open again after a failure.
    Recovered,
    /// It waits before the next attempt.
    Backoff,
    /// It is not retried as it is: the name does not resolve, or the responder refused for good.
    CannotConnect,
}

impl DestinationState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Connecting, Self::Connected, Self::Failed, Self::Recovered, Self::Backoff, Self::CannotConnect];

    /// The metric label and the word in logs and in `adit status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::Recovered => "recovered",
            Self::Backoff => "backoff",
            Self::CannotConnect => "cannot_connect",
        }
    }
}

/// Why a tunnel has gone to another responder of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moved {
    /// It was well, and the other one should have it.
    Planned,
    /// The responder that it was at drains it.
    Drained,
    /// It is not heard there.
    Suspect,
    /// It has ended there.
    Lost,
}

impl Moved {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Planned, Self::Drained, Self::Suspect, Self::Lost];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Drained => "drained",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
        }
    }
}

/// The gauges by state, and the counters of switches and moves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DestinationMetrics {
    gauges: Arc<[Gauge; DestinationState::ALL.len()]>,
    switches: Arc<[Counter; WAYS.len()]>,
    moves: Arc<[Counter; Moved::ALL.len()]>,
}

impl DestinationMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            gauges: Arc::new(DestinationState::ALL.map(|state| metrics.gauge(&DESTINATIONS, &[state.label()]))),
            switches: Arc::new(WAYS.map(|way| metrics.counter(&SWITCHES, &way))),
            moves: Arc::new(Moved::ALL.map(|moved| metrics.counter(&TUNNELS_MOVED, &[moved.label()]))),
        }
    }

    /// A tunnel came up on another transport than the one before it had; the words are those of the label.
    pub fn switched(&self, from: &str, to: &str) {
        if let Some(way) = WAYS.iter().position(|way| *way == [from, to]) {
            self.switches[way].increment(1);
        }
    }

    /// A tunnel has gone to another responder of the fleet.
    pub fn moved(&self, moved: Moved) {
        self.moves[moved as usize].increment(1);
    }

    /// One more destination, connecting. It leaves the gauges when the record is dropped.
    pub fn begin(&self) -> DestinationRecord {
        let state = DestinationState::Connecting;
        self.gauge(state).increment(1.0);
        DestinationRecord { metrics: self.clone(), state }
    }

    fn gauge(&self, state: DestinationState) -> &Gauge {
        &self.gauges[state as usize]
    }
}

/// One destination, counted in the state it is in.
#[derive(Debug)]
#[must_use = "the destination is counted while this lives"]
pub struct DestinationRecord {
    metrics: DestinationMetrics,
    state: DestinationState,
}

impl DestinationRecord {
    /// It is in `state` now.
    pub fn set(&mut self, state: DestinationState) {
        self.metrics.gauge(self.state).decrement(1.0);
        self.metrics.gauge(state).increment(1.0);
        self.state = state;
    }

    /// The state it is in.
    pub const fn state(&self) -> DestinationState {
        self.state
    }
}

impl Drop for DestinationRecord {
    fn drop(&mut self) {
        self.metrics.gauge(self.state).decrement(1.0);
    }
}
