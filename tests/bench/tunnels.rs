//! What may stand between the load generator and the target: two processes with a tunnel between them.

use std::net::SocketAddr;

use crate::adit_pair::{Pair, Settings};
use crate::envoy_pair::EnvoyPair;
use crate::support::envoy::Variant;
use crate::support::site::Transport;
use crate::usage::Process;

/// A responder and an initiator; both end when this is dropped.
pub(crate) trait Ends {
    /// Where requests enter.
    fn egress(&self) -> SocketAddr;

    /// Whole header lines that name the node.
    fn fields(&self) -> String;

    /// The responder, then the initiator.
    fn processes(&self) -> [Process; 2];
}

/// One kind of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Adit(Transport),
    Envoy(Variant),
}

impl Kind {
    /// All that are compared; another transport is one more entry here.
    pub(crate) const ALL: &[Self] = &[
        Self::Adit(Transport::Quic),
        Self::Adit(Transport::Tcp),
        Self::Envoy(Variant::Plaintext),
        Self::Envoy(Variant::InnerMtls),
    ];

    /// The word for `--lines`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Adit(transport) => transport.label(),
            Self::Envoy(variant) if variant.has_inner_tls() => "envoy-tls",
            Self::Envoy(_) => "envoy",
        }
    }

    /// The row in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Adit(Transport::Quic) => "adit, QUIC",
            Self::Adit(Transport::Tcp) => "adit, TCP with mTLS",
            Self::Envoy(variant) if variant.has_inner_tls() => "Envoy, TCP with inner mTLS",
            Self::Envoy(_) => "Envoy, TCP in clear",
        }
    }

    /// Starts both ends and waits until every tunnel is up. `None`: a program is missing here, and it was said which.
    pub(crate) fn start(self, tunnels: usize, target: SocketAddr) -> Option<Box<dyn Ends>> {
        match self {
            Self::Adit(transport) => Some(Box::new(Pair::start(Settings { transport, tunnels }, target))),
            Self::Envoy(variant) => Some(Box::new(EnvoyPair::start(variant, tunnels, target)?)),
        }
    }
}

impl Ends for Pair {
    fn egress(&self) -> SocketAddr {
        self.egress()
    }

    fn fields(&self) -> String {
        self.fields()
    }

    fn processes(&self) -> [Process; 2] {
        self.processes()
    }
}
