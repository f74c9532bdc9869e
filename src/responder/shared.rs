//! The sockets of a responder and what its tasks share.

use std::net::UdpSocket;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::responder::admission::Admission;
use crate::responder::gone::GoneNodes;
use crate::responder::terms::{Configured, Terms, UpdateError};
use crate::responder::warnings::Warnings;
use crate::telemetry::{Metrics, TunnelMetrics};
use crate::transport::quic::{self, BindError, Keys, QuicSettings};
use crate::transport::tcp::{self, TcpSettings};
use crate::transport::{Incoming, Tunnel};

/// Why a responder could not start on sockets that are bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its terms cannot be put in force.
    #[error(transparent)]
    Terms(#[from] UpdateError),
    /// The endpoint could not be made.
    #[error(transparent)]
    Endpoint(#[from] BindError),
}

/// What a responder listens on; at least one of the two.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// For tunnels over QUIC.
    pub(super) quic: Option<UdpSocket>,
    /// For tunnels over TCP.
    pub(super) tcp: Option<TcpListener>,
}

/// What stays as it was at the start.
#[derive(Debug)]
pub(super) struct Fixed {
    /// Reset and connection-id keys, persisted so that a restart is noticed at once.
    pub(super) keys: Keys,
    pub(super) quic: QuicSettings,
    pub(super) tcp: TcpSettings,
    /// For how long after the start requests wait for nodes that nobody knows.
    pub(super) grace: Duration,
}

/// Where connections come in.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) quic: Option<(quic::Listener, quinn::Endpoint)>,
    pub(super) tcp: Option<tcp::Listener>,
}

/// What every admission needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) listeners: Listeners,
    pub(super) admission: Admission<Tunnel>,
    pub(super) metrics: TunnelMetrics,
    /// Who was here and is gone.
    pub(super) gone: GoneNodes,
    pub(super) tasks: TaskTracker,
    pub(super) warnings: Warnings,
}

impl Listeners {
    /// Makes a listener of each bound socket. Needs a tokio runtime.
    pub(super) fn new(sockets: Sockets, fixed: Fixed, terms: &Terms, metrics: &Metrics) -> Result<Self, StartError> {
        let Configured { adit, envoy } = terms.configured().map_err(UpdateError::Tls)?;
        let quic = match sockets.quic {
            Some(socket) => {
                let server = quic::Listener::server_config(adit.clone(), &terms.tunnel, &fixed.quic);
                let endpoint = quic::bind(socket, &fixed.keys, Some(server.map_err(UpdateError::Quic)?))?;
                let listener = quic::Listener::new(endpoint.clone(), terms.tunnel, fixed.quic).counting(metrics);
                Some((listener, endpoint))
            }
            None => None,
        };
        let tcp = sockets.tcp.map(|listener| {
            let listener = tcp::Listener::new(listener, adit, terms.tunnel, fixed.tcp).counting(metrics);
            match envoy {
                Some((tls, envoy)) => listener.with_envoy(tls, envoy),
                None => listener,
            }
        });
        Ok(Self { quic, tcp })
    }

    /// Takes connections under other terms from now on; nothing has changed when it fails.
    pub(super) fn reconfigure(&self, terms: &Terms) -> Result<(), UpdateError> {
        let (Configured { adit, envoy }, generation) = (terms.configured()?, terms.rules.generation());
        if let Some((listener, _)) = &self.quic {
            listener.reconfigure(listener.prepare(adit.clone(), &terms.tunnel)?, terms.tunnel, generation);
        }
        if let Some(listener) = &self.tcp {
            listener.reconfigure(adit, envoy, terms.tunnel, generation);
        }
        Ok(())
    }
}

impl Shared {
    /// The next connection of either kind; `None` once the QUIC endpoint is closed. Cancel safe.
    pub(super) async fn accept(&self) -> Option<Incoming> {
        let quic = async {
            match &self.listeners.quic {
                Some((listener, _)) => listener.accept().await.map(Box::new).map(Incoming::Quic),
                None => std::future::pending().await,
            }
        };
        let tcp = async {
            match &self.listeners.tcp {
                Some(listener) => Incoming::Tcp(Box::new(listener.accept().await)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = quic => incoming,
            incoming = tcp => Some(incoming),
        }
    }
}
