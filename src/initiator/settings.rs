//! What an initiator is told: who it is, where to, and how.

use std::time::Duration;

use crate::id::{Claim, HostPort};
use crate::protocol::handshake::{Service, Token};
use crate::tls::{InitiatorTls, TlsError};
use crate::transport::tcp::{TcpSettings, envoy};
use crate::transport::{Dialer, TransportChoice, TunnelSettings};

/// How long a tunnel that fell back to TCP waits before QUIC is probed, unless the settings say otherwise.
pub const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// A responder to keep tunnels to.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `host:port` as configured; every address it resolves to is dialled.
    pub target: String,
    /// Tunnels per address, at least 1.
    pub count: u32,
    /// The name that the responder's certificate must have; by default the host of `target`.
    pub server_name: Option<String>,
    /// What carries its tunnels.
    pub transport: TransportChoice,
}

/// Everything an initiator needs.
#[derive(Debug, Clone)]
pub struct InitiatorSettings {
    /// Who it claims to be.
    pub claim: Claim,
    /// A credential beside TLS.
    pub token: Option<Token>,
    /// What it shows to Envoy responders, and which of them are genuine. Adit's own transports have theirs in the dialer.
    pub tls: InitiatorTls,
    /// What it exports.
    pub services: Vec<Service>,
    /// Where to.
    pub destinations: Vec<Destination>,
    /// How long a tunnel that fell back to TCP waits before QUIC is probed; up to three times that while probes fail.
    /// [`DEFAULT_PROBE_INTERVAL`] suits most. spec: TB-25
    pub probe_interval: Duration,
    /// How tunnels are drained, and what this end accepts.
    pub tunnel: TunnelSettings,
    /// What only TCP knows of a tunnel to an Envoy.
    pub tcp: TcpSettings,
}

impl InitiatorSettings {
    /// `dialer`, which can dial an Envoy as well where `destination` is one.
    pub(super) fn dialer_for(&self, destination: &Destination, dialer: Dialer) -> Result<Dialer, TlsError> {
        let TransportChoice::Envoy(dial) = &destination.transport else { return Ok(dialer) };
        let envoy = envoy::Dialer::new(&self.tls, dial.as_ref().clone(), self.tunnel, self.tcp.clone())?;
        Ok(dialer.with_envoy(envoy))
    }
}

impl Destination {
    /// This many tunnels to each address of a responder, over the best transport that works.
    pub fn new(responder: &HostPort, count: u32) -> Self {
        let transport = TransportChoice::default();
        Self { target: responder.to_string(), count, server_name: None, transport }
    }

    /// The name to verify: the configured one, else the host part of the target.
    pub(super) fn server_name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| {
            let host = self.target.rsplit_once(':').map_or(self.target.as_str(), |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        })
    }
}
