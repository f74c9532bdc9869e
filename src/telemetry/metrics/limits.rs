//! Counting what listeners refuse, cut and cannot accept.

use std::sync::Arc;

use metrics::Counter;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::table::LISTENER_LIMITS;

/// Whose connections they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entrance {
    /// Application traffic.
    Egress,
    /// Operators.
    Admin,
    /// Tunnels over TCP.
    Tunnel,
}

impl Entrance {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Admin => "admin",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Which limit a listener came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// A connection could not be accepted, for want of file descriptors for one.
    NotAccepted,
    /// As many connections are open as may be; more wait in the kernel.
    Full,
    /// A connection was reset because sources of its address prefix have as many as they may.
    Prefix,
    /// A connection was cut for another one.
    GaveWay,
    /// A connection was cut because what was written to it was not read.
    Unread,
    /// A connection was cut for frames that cost work and carry nothing.
    Flood,
    /// A QUIC datagram of HTTP/3 found no room, or did not fit the path.
    Datagrams,
}

impl Limit {
    const ALL: [Self; 7] =
        [Self::NotAccepted, Self::Full, Self::Prefix, Self::GaveWay, Self::Unread, Self::Flood, Self::Datagrams];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotAccepted => "not_accepted",
            Self::Full => "full",
            Self::Prefix => "prefix",
            Self::GaveWay => "gave_way",
            Self::Unread => "unread",
            Self::Flood => "flood",
            Self::Datagrams => "datagrams",
        }
    }
}

/// The counters of one kind of listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LimitMetrics(Arc<[(Limit, Counter)]>);

impl LimitMetrics {
    pub(super) fn new(metrics: &Metrics, entrance: Entrance) -> Self {
        let counter = |limit: Limit| (limit, metrics.counter(&LISTENER_LIMITS, &[entrance.label(), limit.label()]));
        Self(Limit::ALL.map(counter).into())
    }

    /// The limit was come to once more.
    pub fn hit(&self, limit: Limit) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == limit) {
            counter.increment(1);
        }
    }
}
