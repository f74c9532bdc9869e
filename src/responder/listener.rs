//! The accept loop and what it is made of.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::id::{PeerIdentity, TunnelId};
use crate::policy::{Rules, authorize};
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::handshake::Token;
use crate::registry::LiveTunnel;
use crate::responder::admit;
use crate::routing::Directory;
use crate::telemetry::{Metrics, Role, TunnelMetrics};
use crate::transport::quic::{self, BindError, Keys, QuicSettings};
use crate::transport::tcp::envoy::AcceptSettings;
use crate::transport::tcp::{self, TcpSettings};
use crate::transport::{Incoming, Tunnel, TunnelSettings};

/// How long a drained initiator is asked to stay away, at most; each gets a random part of it, so that a restart is not
/// a stampede.
const RECONNECT_SPREAD: Duration = Duration::from_secs(2);

/// Everything a responder needs.
#[derive(Debug)]
pub struct ResponderSettings {
    /// Its name in WELCOME, 1 to 128 bytes.
    pub name: String,
    /// Who may connect.
    pub rules: Rules,
    /// TLS 1.3 with ALPN `adit/1`.
    pub tls: rustls::ServerConfig,
    /// Reset and connection-id keys, persisted so that a restart is noticed at once.
    pub keys: Keys,
    /// What holds over every transport.
    pub tunnel: TunnelSettings,
    /// What only QUIC knows.
    pub quic: QuicSettings,
    /// What only TCP knows.
    pub tcp: TcpSettings,
    /// Takes Envoy's reverse tunnels on the TCP socket; the TLS configuration is one of
    /// [`envoy_responder_config`](crate::tls::envoy_responder_config).
    pub envoy: Option<(rustls::ServerConfig, AcceptSettings)>,
}

/// What a responder listens on; at least one of the two.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For tunnels over QUIC.
    pub quic: Option<UdpSocket>,
    /// For tunnels over TCP.
    pub tcp: Option<TcpListener>,
}

/// Why a responder could not start.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    /// The endpoint could not be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The TLS configuration has no cipher suite that QUIC can start with.
    #[error("the TLS configuration cannot be used for QUIC")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The responder role: bound, and ready to run.
#[derive(Debug)]
pub struct Responder {
    listeners: Listeners,
    shared: Arc<Shared>,
}

/// Where connections come in.
#[derive(Debug)]
struct Listeners {
    quic: Option<(quic::Listener, quinn::Endpoint)>,
    tcp: Option<tcp::Listener>,
}

/// What a live tunnel showed when it was admitted.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) identity: PeerIdentity,
    pub(super) token: Option<Token>,
}

/// What every admission needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) rules: ArcSwap<Rules>,
    pub(super) directory: Arc<Directory<Tunnel>>,
    /// What each live tunnel proved, to ask policy again when the rules change.
    pub(super) proofs: Mutex<HashMap<TunnelId, Proof>>,
    pub(super) metrics: TunnelMetrics,
    pub(super) tunnel: TunnelSettings,
    pub(super) draining: CancellationToken,
    /// Handshakes under way.
    pub(super) pending: AtomicUsize,
    pub(super) tasks: TaskTracker,
}

impl Responder {
    /// Makes a listener of each bound socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ResponderError`] says what cannot be made.
    pub fn bind(
        sockets: Sockets,
        settings: ResponderSettings,
        directory: Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Result<Self, ResponderError> {
        let quic = match sockets.quic {
            Some(socket) => {
                let server = quic::Listener::server_config(settings.tls.clone(), &settings.tunnel, &settings.quic)?;
                let endpoint = quic::bind(socket, &settings.keys, Some(server))?;
                Some((quic::Listener::new(endpoint.clone(), settings.tunnel, settings.quic), endpoint))
            }
            None => None,
        };
        let tcp = sockets.tcp.map(|listener| {
            let listener = tcp::Listener::new(listener, settings.tls, settings.tunnel, settings.tcp);
            match settings.envoy {
                Some((tls, envoy)) => listener.with_envoy(tls, envoy),
                None => listener,
            }
        });
        let shared = Shared {
            name: settings.name,
            rules: ArcSwap::from_pointee(settings.rules),
            directory,
            proofs: Mutex::default(),
            metrics: metrics.tunnels(Role::Responder),
            tunnel: settings.tunnel,
            draining: CancellationToken::new(),
            pending: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
        };
        Ok(Self { listeners: Listeners { quic, tcp }, shared: Arc::new(shared) })
    }

    /// Where it listens: for tunnels over QUIC, or else over TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        let none = || std::io::Error::other("the responder has no socket");
        self.quic_addr().or_else(|| self.tcp_addr()).ok_or_else(none)
    }

    /// Where it listens for tunnels over QUIC, if it does.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.listeners.quic.as_ref().and_then(|(_, endpoint)| endpoint.local_addr().ok())
    }

    /// Where it listens for tunnels over TCP, if it does.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.listeners.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Accepts tunnels until `drain` is cancelled; then refuses new ones, drains those there are and returns when the
    /// last is gone, at the latest after the drain timeout.
    ///
    /// Not cancel safe: dropping the future closes every tunnel abruptly.
    pub async fn run(self, drain: CancellationToken) {
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                incoming = self.listeners.accept(&self.shared) => match incoming {
                    Some(incoming) => self.admit(incoming),
                    None => break,
                }
            }
        }
        self.drain().await;
    }

    fn admit(&self, incoming: Incoming) {
        let pending = admit::Handshaking::begin(&self.shared);
        self.shared.tasks.spawn(admit::admit(Arc::clone(&self.shared), incoming, pending));
    }

    async fn drain(&self) {
        self.shared.draining.cancel();
        let registry = self.shared.directory.registry();
        info!(tunnels = registry.len(), "draining: no new tunnels, and those that are up may finish");
        for LiveTunnel { handle: tunnel, .. } in registry.snapshot() {
            let reconnect_after = RECONNECT_SPREAD.mul_f64(rand::random());
            tunnel.drain(self.shared.tunnel.drain_timeout, reconnect_after);
        }
        self.shared.tasks.close();
        let refusing = async {
            // Whoever dials a draining responder is told so, rather than left to time out.
            while let Some(incoming) = self.listeners.accept(&self.shared).await {
                self.admit(incoming);
            }
        };
        tokio::select! {
            () = self.shared.tasks.wait() => {}
            () = refusing => {}
        }
        if let Some((_, endpoint)) = &self.listeners.quic {
            endpoint.close(quinn::VarInt::from_u32(CloseCode::Done.number()), b"stopped");
            endpoint.wait_idle().await;
        }
    }

    /// The tunnels that it admitted, for egress listeners to send into.
    pub fn directory(&self) -> Arc<Directory<Tunnel>> {
        Arc::clone(&self.shared.directory)
    }

    /// A handle to change the rules while it runs.
    pub fn admission(&self) -> Admission {
        Admission(Arc::clone(&self.shared))
    }
}

impl Listeners {
    /// The next connection of either kind; `None` once the QUIC endpoint is closed. Cancel safe.
    async fn accept(&self, shared: &Shared) -> Option<Incoming> {
        let pending = || shared.pending.load(Ordering::Relaxed);
        let quic = async {
            match &self.quic {
                Some((listener, _)) => listener.accept(pending).await.map(Box::new).map(Incoming::Quic),
                None => std::future::pending().await,
            }
        };
        let tcp = async {
            match &self.tcp {
                Some(listener) => Incoming::Tcp(Box::new(listener.accept(pending, shared.tunnel.max_handshakes).await)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = quic => incoming,
            incoming = tcp => Some(incoming),
        }
    }
}

/// Who may connect, as a running responder decides it.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

impl Admission {
    /// Uses other rules from now on, and closes the live tunnels that they do not admit. Returns how many.
    pub fn replace_rules(&self, rules: Rules) -> usize {
        self.0.rules.store(Arc::new(rules));
        let revoked: Vec<_> = self.0.directory.registry().snapshot().filter(|live| !self.admits(live)).collect();
        for live in &revoked {
            self.0.metrics.refused(RefusalCode::Forbidden);
            live.handle.close(CloseCode::Revoked, "the rules changed and no longer admit this tunnel");
        }
        revoked.len()
    }

    fn admits(&self, live: &LiveTunnel<Tunnel>) -> bool {
        let proofs = self.0.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(proof) = proofs.get(&live.handle.id()) else { return false };
        let token = proof.token.as_deref();
        authorize(live.place.clone(), &proof.identity, token, &self.0.rules.load()).is_ok()
    }
}
