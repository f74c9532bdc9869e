//! What an initiator goes by: one snapshot of everything that can be changed while it runs.

use std::sync::Arc;
use std::time::Duration;

use crate::initiator::health::HealthBoard;
use crate::initiator::settings::Destination;
use crate::protocol::handshake::{Service, Token};
use crate::tls::{InitiatorTls, TlsError};
use crate::transport::quic::QuicSettings;
use crate::transport::tcp::TcpSettings;
use crate::transport::{DialError, TunnelSettings};

/// What an initiator goes by. All of it can be changed while it runs, see [`Handle::update`](super::Handle::update).
#[derive(Debug, Clone)]
pub struct Terms<A> {
    /// What it shows, and which responders are genuine. Other credentials are shown on live tunnels.
    pub tls: Arc<InitiatorTls>,
    /// A credential beside TLS. Another one is shown on live tunnels.
    pub token: Option<Token>,
    /// Where to. One that stays keeps its tunnels, unless its transport or server name is another.
    pub destinations: Vec<Destination>,
    /// What it exports; a change is announced on live tunnels.
    pub services: Vec<Service>,
    /// Which of them are down; what changes there is told on live tunnels. spec: CT-60
    pub health: HealthBoard,
    /// What serves them. What arrived before a change is finished by the former one.
    pub accept: A,
    /// How long a tunnel that fell back to TCP waits before QUIC is probed; up to three times that while probes fail.
    /// [`DEFAULT_PROBE_INTERVAL`](super::DEFAULT_PROBE_INTERVAL) suits most. Holds for slots that begin from now on.
    /// spec: TB-25
    pub probe_interval: Duration,
    /// Times of tunnels that are dialled from now on, and how tunnels are drained; and what is taken of message heads, which live
    /// tunnels are told (LIMITS). spec: CT-31
    pub tunnel: TunnelSettings,
    /// What only QUIC knows, for tunnels that are dialled from now on.
    pub quic: QuicSettings,
    /// What only TCP knows, for tunnels that are dialled from now on.
    pub tcp: TcpSettings,
}

/// Why terms could not be put in force; those before are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The credentials, roots or pins; or a tunnel to an Envoy needs credentials that are not there.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS settings cannot be used for QUIC.
    #[error(transparent)]
    Dialer(#[from] DialError),
}
