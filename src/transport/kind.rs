//! Which transport carries a tunnel.

use std::fmt;

/// What a tunnel runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// UDP.
    Quic,
    /// TLS over TCP, then HTTP/2.
    Tcp,
    /// Envoy's reverse tunnel over TCP.
    Envoy,
}

impl TransportKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Quic, Self::Tcp, Self::Envoy];

    /// The word in configuration, logs, metrics and `/tunnels`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Envoy => "envoy",
        }
    }

    /// The protocol that a firewall sees.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Quic => "UDP",
            Self::Tcp | Self::Envoy => "TCP",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
