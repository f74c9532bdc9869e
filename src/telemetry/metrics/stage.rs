//! Counting connections that are not open yet.

use metrics::Gauge;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::HANDSHAKES_OPEN;

/// The stages of a handshake, as SE-21 names them: connected and silent, begun, in TLS, waiting for a claim or a decision.
const STAGES: [&str; 4] = ["silent", "hello", "tls", "claim"];

/// What a listener is for and what carries its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeListener {
    /// Tunnels over QUIC.
    Quic,
    /// Tunnels over TCP.
    Tcp,
    /// Clients over HTTP/3.
    Http3,
}

impl HandshakeListener {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Http3 => "http3",
        }
    }
}

/// How many connections of one listener are in each stage of their handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StageMetrics([Gauge; STAGES.len()]);

impl StageMetrics {
    pub(super) fn new(metrics: &Metrics, listener: HandshakeListener) -> Self {
        Self(STAGES.map(|stage| metrics.gauge(&HANDSHAKES_OPEN, &[listener.label(), stage])))
    }

    /// The stage, by its place in the order in which they are passed, has so many connections more.
    ///
    /// # Panics
    /// Where there is no such stage.
    pub fn moved(&self, stage: usize, more: f64) {
        self.0[stage].increment(more);
    }
}
