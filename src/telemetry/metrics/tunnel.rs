//! Counting tunnels and the handshakes that lead to them.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::envoy::Counter as EnvoyHandshake;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::stream::StreamMetrics;
use crate::telemetry::metrics::table::{
    ENVOY_HANDSHAKES, HANDSHAKES_FAILED, HANDSHAKES_REFUSED, TRANSPORTS, TUNNELS_BY_TRANSPORT, TUNNELS_CLOSED,
    TUNNELS_OPEN, TUNNELS_OPENED,
};

/// Which end of its tunnels this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It dialled.
    Initiator,
    /// It accepted.
    Responder,
}

impl Role {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

/// Why a handshake ended in neither welcome nor refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The secure connection did not come about: certificates, versions, ALPN.
    Tls,
    /// It took too long.
    Timeout,
    /// The connection ended or its bytes made no sense before the answer.
    Protocol,
    /// It had not got on when there was no room left, and gave way to a newer one.
    GaveWay,
}

impl HandshakeFailure {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Tls, Self::Timeout, Self::Protocol, Self::GaveWay];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::GaveWay => "gave_way",
        }
    }
}

/// The label of a tunnel that ended without a close code.
const LOST: &str = "lost";

/// The counters of one role. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TunnelMetrics {
    handles: Arc<Handles>,
}

#[derive(Debug)]
struct Handles {
    open: Gauge,
    by_transport: [Gauge; TRANSPORTS.len()],
    opened: Counter,
    closed: Vec<(CloseCode, Counter)>,
    lost: Counter,
    refused: Vec<(RefusalCode, Counter)>,
    failed: Vec<(HandshakeFailure, Counter)>,
    streams: StreamMetrics,
    /// Only a responder has any.
    envoy: Vec<(EnvoyHandshake, Counter)>,
}

impl TunnelMetrics {
    pub(super) fn new(metrics: &Metrics, role: Role) -> Self {
        let kinds = if role == Role::Responder { &EnvoyHandshake::ALL[..] } else { &[] };
        let envoy = |kind: &EnvoyHandshake| (*kind, metrics.counter(&ENVOY_HANDSHAKES, &[kind.name()]));
        let role = role.label();
        let closed = |code: &CloseCode| (*code, metrics.counter(&TUNNELS_CLOSED, &[role, code.label()]));
        let refused = |code: RefusalCode| (code, metrics.counter(&HANDSHAKES_REFUSED, &[role, code.label()]));
        let failed = |why: HandshakeFailure| (why, metrics.counter(&HANDSHAKES_FAILED, &[role, why.label()]));
        Self {
            handles: Arc::new(Handles {
                open: metrics.gauge(&TUNNELS_OPEN, &[role]),
                by_transport: TRANSPORTS.map(|over| metrics.gauge(&TUNNELS_BY_TRANSPORT, &[role, over])),
                opened: metrics.counter(&TUNNELS_OPENED, &[role]),
                closed: CloseCode::ALL.iter().map(closed).collect(),
                lost: metrics.counter(&TUNNELS_CLOSED, &[role, LOST]),
                refused: RefusalCode::ALL.into_iter().map(refused).collect(),
                failed: HandshakeFailure::ALL.into_iter().map(failed).collect(),
                streams: StreamMetrics::new(metrics, role),
                envoy: kinds.iter().map(envoy).collect(),
            }),
        }
    }

    /// A tunnel opened, carried by `transport`: `quic`, `tcp` or `envoy`. It counts as open until the record is closed or
    /// dropped.
    pub fn opened(&self, transport: &str) -> TunnelRecord {
        self.handles.opened.increment(1);
        self.handles.open.increment(1.0);
        let transport = TRANSPORTS.iter().position(|&known| known == transport);
        let record = TunnelRecord { handles: Arc::clone(&self.handles), transport, code: None };
        if let Some(gauge) = record.by_transport() {
            gauge.increment(1.0);
        }
        record
    }

    /// Counts the streams of tunnels.
    pub fn streams(&self) -> StreamMetrics {
        self.handles.streams.clone()
    }

    /// A handshake ended in a refusal.
    pub fn refused(&self, code: RefusalCode) {
        increment(&self.handles.refused, code);
    }

    /// The handshake of an Envoy ended so, in addition to what is counted for all transports. An initiator counts none.
    /// spec: EV-18
    pub fn envoy_handshake(&self, kind: EnvoyHandshake) {
        increment(&self.handles.envoy, kind);
    }

    /// A handshake ended in neither welcome nor refusal.
    pub fn handshake_failed(&self, why: HandshakeFailure) {
        increment(&self.handles.failed, why);
    }
}

/// One open tunnel. Dropped without [`TunnelRecord::closed`], it counts as lost.
#[derive(Debug)]
#[must_use = "the tunnel counts as open while this lives"]
pub struct TunnelRecord {
    handles: Arc<Handles>,
    /// Its index in [`TRANSPORTS`].
    transport: Option<usize>,
    code: Option<CloseCode>,
}

impl TunnelRecord {
    fn by_transport(&self) -> Option<&Gauge> {
        self.transport.map(|transport| &self.handles.by_transport[transport])
    }

    /// The tunnel ended with `code`, sent or received.
    pub fn closed(mut self, code: CloseCode) {
        self.code = Some(code);
    }
}

impl Drop for TunnelRecord {
    fn drop(&mut self) {
        self.handles.open.decrement(1.0);
        if let Some(gauge) = self.by_transport() {
            gauge.decrement(1.0);
        }
        match self.code {
            Some(code) => increment(&self.handles.closed, code),
            None => self.handles.lost.increment(1),
        }
    }
}

fn increment<K: Copy + PartialEq>(counters: &[(K, Counter)], key: K) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == key) {
        counter.increment(1);
    }
}
