//! Which transport carries a tunnel, and which ones may.

use std::fmt;

use crate::transport::tcp::envoy;

/// What HTTP/2 inside a tunnel over TCP is taken to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Ours: the field `adit-service` names services, raw streams and flows exist, and GOAWAY ends a tunnel.
    Adit,
    /// Envoy's: host and path decide about every request, and GOAWAY drains.
    Envoy,
}

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

/// What is configured for a tunnel: the transport that it is dialled over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TransportChoice {
    /// The best that works: QUIC, or TCP while QUIC does not get through.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// TCP only.
    Tcp,
    /// Envoy's reverse tunnel over TCP, to an Envoy responder that is dialled like this.
    Envoy(Box<envoy::DialSettings>),
}

impl TransportChoice {
    /// Whether nobody at the other end proves anything: an Envoy that is dialled without TLS.
    pub(crate) fn is_in_clear(&self) -> bool {
        matches!(self, Self::Envoy(dial) if dial.security == envoy::Security::None)
    }

    /// The transports that may carry the tunnel, the preferred first; at least one.
    pub const fn kinds(&self) -> &'static [TransportKind] {
        match self {
            Self::Auto => &[TransportKind::Quic, TransportKind::Tcp],
            Self::Quic => &[TransportKind::Quic],
            Self::Tcp => &[TransportKind::Tcp],
            Self::Envoy(_) => &[TransportKind::Envoy],
        }
    }

    /// The word in configuration.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Quic => TransportKind::Quic.label(),
            Self::Tcp => TransportKind::Tcp.label(),
            Self::Envoy(_) => TransportKind::Envoy.label(),
        }
    }
}
