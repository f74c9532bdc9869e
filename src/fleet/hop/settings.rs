//! What one responder needs to speak with its siblings.

use std::time::Duration;

use crate::fleet::hop::SiblingIdentity;
use crate::id::ResponderId;
use crate::net;
use crate::protocol::budgets::SIBLING_STREAMS;
use crate::protocol::fleet::Greeting;
use crate::tls::{SiblingTls, TlsError};
use crate::transport::quic::{BindError, QuicSettings};
use crate::transport::{DialError, TunnelSettings};

/// After how long without a stream a connection to a sibling is closed.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// What one responder needs to speak with its siblings.
#[derive(Debug, Clone)]
pub struct HopSettings {
    /// Its name in the fleet.
    pub id: ResponderId,
    /// Rises with each start of it; at most 2^62 - 1.
    pub epoch: u64,
    /// What it shows, and which siblings are genuine.
    pub tls: SiblingTls,
    /// Which name proves that one of these is a certain responder.
    pub identity: SiblingIdentity,
    /// Times and limits of the connections.
    pub tunnel: TunnelSettings,
    /// What only QUIC knows of them.
    pub quic: QuicSettings,
    /// After how long without a stream a connection to a sibling is closed. Default [`DEFAULT_IDLE`].
    pub idle: Duration,
}

impl HopSettings {
    /// All defaults.
    pub fn new(id: ResponderId, epoch: u64, tls: SiblingTls, identity: SiblingIdentity) -> Self {
        // It leads to many nodes. spec: FL-53
        let quic = QuicSettings { max_streams: SIBLING_STREAMS, ..QuicSettings::default() };
        let tunnel = TunnelSettings::default();
        Self { id, epoch, tls, identity, tunnel, quic, idle: DEFAULT_IDLE }
    }

    /// What it says of itself.
    pub(super) fn greeting(&self) -> Greeting {
        Greeting { responder: self.id.clone(), epoch: self.epoch, limits: self.tunnel.limits.into(), here: true }
    }
}

/// Why a responder cannot speak with its siblings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HopError {
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// The endpoint could not be made.
    #[error(transparent)]
    Endpoint(#[from] BindError),
    /// The credentials, or what is trusted, cannot be used.
    #[error("TLS between siblings")]
    Tls(#[from] TlsError),
    /// The same, as QUIC says it.
    #[error("TLS between siblings: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The same, of what dials.
    #[error(transparent)]
    Dial(#[from] DialError),
}
