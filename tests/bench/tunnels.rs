//! What may stand between the load generator and the target: two processes with a tunnel between them.

use std::net::SocketAddr;
use std::path::Path;

use crate::adit_pair::{Http3Egress, Pair, Settings};
use crate::envoy_pair::EnvoyPair;
use crate::support::envoy::Variant;
use crate::support::site::Transport;
use crate::usage::Process;

/// A responder and an initiator; both end when this is dropped.
pub(crate) trait Ends {
    /// Where requests enter.
    fn egress(&self) -> SocketAddr;

    /// Where bytes enter for the target, whatever they are, if there is such a listener.
    fn bytes(&self) -> Option<SocketAddr> {
        None
    }

    /// Where clients of HTTP/3 enter.
    fn http3(&self) -> Http3Egress;

    /// Whole header lines that name the node.
    fn fields(&self) -> String;

    /// The responder, then the initiator.
    fn processes(&self) -> [Process; 2];
}

/// The row of what an earlier build did in place of `line`.
pub(crate) fn before(line: &str) -> String {
    format!("{line}, before")
}

/// One kind of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Adit(Transport),
    /// The same as an earlier build of adit does it.
    Before(Transport, &'static Path),
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
            Self::Adit(transport) | Self::Before(transport, _) => transport.label(),
            Self::Envoy(variant) if variant.has_inner_tls() => "envoy-tls",
            Self::Envoy(_) => "envoy",
        }
    }

    /// The row in the table.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Adit(Transport::Quic) => "adit, QUIC".into(),
            Self::Adit(Transport::Tcp) => "adit, TCP with mTLS".into(),
            Self::Before(transport, _) => before(&Self::Adit(transport).name()),
            Self::Envoy(variant) if variant.has_inner_tls() => "Envoy, TCP with inner mTLS".into(),
            Self::Envoy(_) => "Envoy, TCP in clear".into(),
        }
    }

    /// The one to compare it with, where there is an earlier build.
    pub(crate) fn earlier(self, program: Option<&'static Path>) -> Option<Self> {
        match self {
            Self::Adit(transport) => program.map(|program| Self::Before(transport, program)),
            Self::Before(..) | Self::Envoy(_) => None,
        }
    }

    /// Starts both ends and waits until every tunnel is up. `None`: a program is missing here, and it was said which.
    pub(crate) fn start(self, tunnels: usize, target: SocketAddr) -> Option<Box<dyn Ends>> {
        match self {
            Self::Adit(transport) => {
                let settings = Settings { transport, tunnels, program: None };
                Some(Box::new(Pair::start(settings, target)))
            }
            Self::Before(transport, program) => {
                let settings = Settings { transport, tunnels, program: Some(program) };
                Some(Box::new(Pair::start(settings, target)))
            }
            Self::Envoy(variant) => Some(Box::new(EnvoyPair::start(variant, tunnels, target)?)),
        }
    }
}

impl Ends for Pair {
    fn egress(&self) -> SocketAddr {
        self.egress()
    }

    fn bytes(&self) -> Option<SocketAddr> {
        self.bytes()
    }

    fn http3(&self) -> Http3Egress {
        self.http3()
    }

    fn fields(&self) -> String {
        self.fields()
    }

    fn processes(&self) -> [Process; 2] {
        self.processes()
    }
}
