//! Counting flows of datagrams.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::exchange::{Direction, Side};
use crate::telemetry::metrics::table::{DATAGRAMS, DATAGRAMS_DROPPED, FLOWS_OPEN, FLOWS_REFUSED};

/// What there was no room for a flow in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowLimit {
    /// The flows of one address prefix of sources.
    Prefix,
    /// The flows of a listener.
    Listener,
    /// A flow ended because another one took its place.
    GaveWay,
    /// The sockets towards the target of one service.
    Service,
    /// The sockets of the process.
    Process,
}

impl FlowLimit {
    const ALL: [Self; 5] = [Self::Prefix, Self::Listener, Self::GaveWay, Self::Service, Self::Process];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Listener => "listener",
            Self::GaveWay => "gave_way",
            Self::Service => "service",
            Self::Process => "process",
        }
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramDrop {
    /// There was no room for a flow of its source.
    NoFlow,
    /// A flow of its source could not be opened just before.
    Barred,
    /// Too many wait already.
    Queue,
    /// Its tenant or node has moved as much as its rate allows.
    Rate,
    /// The system did not take it: it is too large for the way, or its buffers are full.
    Socket,
    /// What should have held it is malformed.
    Malformed,
}

impl DatagramDrop {
    const ALL: [Self; 6] = [Self::NoFlow, Self::Barred, Self::Queue, Self::Rate, Self::Socket, Self::Malformed];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoFlow => "no_flow",
            Self::Barred => "barred",
            Self::Queue => "queue",
            Self::Rate => "rate",
            Self::Socket => "socket",
            Self::Malformed => "malformed",
        }
    }
}

/// The counters of one side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FlowMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    side: Side,
    open: Gauge,
    refused: [Counter; FlowLimit::ALL.len()],
    requests: Counter,
    responses: Counter,
    dropped: [Counter; DatagramDrop::ALL.len()],
}

impl FlowMetrics {
    pub(super) fn new(metrics: &Metrics, side: Side) -> Self {
        let of = side;
        let side = side.label();
        Self(Arc::new(Handles {
            side: of,
            open: metrics.gauge(&FLOWS_OPEN, &[side]),
            refused: FlowLimit::ALL.map(|limit| metrics.counter(&FLOWS_REFUSED, &[side, limit.label()])),
            requests: metrics.counter(&DATAGRAMS, &[side, "request"]),
            responses: metrics.counter(&DATAGRAMS, &[side, "response"]),
            dropped: DatagramDrop::ALL.map(|reason| metrics.counter(&DATAGRAMS_DROPPED, &[side, reason.label()])),
        }))
    }

    /// Where the flows are seen.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// A flow is open from now until the returned value is dropped.
    pub fn open(&self) -> OpenFlow {
        self.0.open.increment(1.0);
        OpenFlow(self.clone())
    }

    /// There was no room for a flow.
    pub fn refused(&self, limit: FlowLimit) {
        self.0.refused[limit as usize].increment(1);
    }

    /// A datagram was passed on.
    pub fn passed(&self, direction: Direction) {
        match direction {
            Direction::Request => self.0.requests.increment(1),
            Direction::Response => self.0.responses.increment(1),
        }
    }

    /// A datagram was dropped.
    pub fn dropped(&self, reason: DatagramDrop) {
        self.0.dropped[reason as usize].increment(1);
    }
}

/// Counts as an open flow while it lives.
#[derive(Debug)]
#[must_use = "the flow counts as open while this lives"]
pub struct OpenFlow(FlowMetrics);

impl Drop for OpenFlow {
    fn drop(&mut self) {
        self.0.0.open.decrement(1.0);
    }
}
