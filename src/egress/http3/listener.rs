//! From UDP packets to connections that speak HTTP/3.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use h3::error::Code;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::link::varint;
use super::transport::handshake_budgets;
use crate::egress::budget::ListenerBudget;
use crate::egress::terms::Accepting;
use crate::egress::{ConnectionDetails, ConnectionInfo, End, ExchangeService, Serving, Settings};
use crate::telemetry::{AcceptWatch, Limit, Metrics, Threshold};
use crate::tls::peer_identity;
use crate::transport::handshakes::{Handshakes, Seat, Stage};
use crate::transport::quic::{BindError, Keys, bind};

/// How long the last packets of a listener may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// A bound UDP socket.
#[derive(Debug)]
pub(in crate::egress) struct Endpoint {
    endpoint: quinn::Endpoint,
    handshakes: Handshakes,
    local: SocketAddr,
}

/// What connections are accepted with beside what their listener says at the time.
pub(in crate::egress) struct Accept<S, F> {
    pub(in crate::egress) service: S,
    pub(in crate::egress) end: End,
    pub(in crate::egress) budget: Arc<ListenerBudget>,
    pub(in crate::egress) watch: AcceptWatch,
    /// What holds now.
    pub(in crate::egress) accepting: F,
}

impl Endpoint {
    /// Serves `socket`; `config` is for what comes before a connection. Needs a tokio runtime.
    pub(in crate::egress) fn new(socket: UdpSocket, config: quinn::ServerConfig) -> Result<Self, BindError> {
        // What a restarted process gets of its former connections it cannot answer: their clients wait for their own time.
        let endpoint = bind(socket, &Keys::ephemeral(), Some(config))?;
        let local = endpoint.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(Self { endpoint, handshakes: Handshakes::new(handshake_budgets()), local })
    }

    /// The same, which counts connections in handshake.
    pub(in crate::egress) fn counting(self, metrics: &Metrics) -> Self {
        Self { handshakes: self.handshakes.counting(&metrics.stages(Threshold::Http3)), ..self }
    }

    /// Where it listens, with its real port.
    #[cfg(test)]
    pub(in crate::egress) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts and serves until the drain is cancelled; returns when the last connection is done.
    ///
    /// Cancel safety: dropping the future drops every connection.
    pub(in crate::egress) async fn run<S, F>(self, accept: Accept<S, F>)
    where
        S: ExchangeService,
        F: Fn() -> Accepting,
    {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = accept.end.drain.cancelled() => break,
                _ = connections.join_next(), if !connections.is_empty() => {}
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.take(incoming, &accept, &mut connections),
                    None => break,
                },
            }
        }
        self.endpoint.set_server_config(None);
        while connections.join_next().await.is_some() {}
        self.endpoint.close(varint(Code::H3_NO_ERROR), b"");
        // Late is as good as done: what is left are goodbyes.
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }

    fn take<S, F>(&self, incoming: quinn::Incoming, accept: &Accept<S, F>, connections: &mut JoinSet<()>)
    where
        S: ExchangeService,
        F: Fn() -> Accepting,
    {
        let Accepting { http3: Some(config), settings, .. } = (accept.accepting)() else { return incoming.refuse() };
        if connections.len() >= settings.max_connections {
            accept.watch.is_full(connections.len());
            return incoming.refuse();
        }
        if self.handshakes.is_under_pressure() && incoming.may_retry() && !incoming.remote_address_validated() {
            // Fails only when a retry is not possible, which was just asked.
            let _ = incoming.retry();
            return;
        }
        let seat = self.handshakes.enter(Stage::Hello, incoming.remote_address().ip());
        let (service, end, budget) = (accept.service.clone(), accept.end.clone(), Arc::clone(&accept.budget));
        let arrived = Arrived { incoming, config, settings, seat, local: self.local };
        connections.spawn(async move {
            match arrived.secure(&budget).await {
                Ok((quic, info, settings)) => {
                    super::serve(quic, Serving { info, settings, service, end, budget, alternative: None }).await;
                }
                Err(error) => tracing::debug!(%error, "a QUIC connection failed before its first request"),
            }
        });
    }
}

/// A connection of which nothing is known yet but an address.
struct Arrived {
    incoming: quinn::Incoming,
    config: Arc<quinn::ServerConfig>,
    settings: Arc<Settings>,
    seat: Seat,
    local: SocketAddr,
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it gave way to a newer one")]
    GaveWay,
    #[error("the handshake took too long")]
    Late,
    #[error(transparent)]
    Quic(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

impl Arrived {
    /// Finishes the handshake, in time and while it has its place.
    async fn secure(
        self,
        budget: &ListenerBudget,
    ) -> Result<(quinn::Connection, ConnectionInfo, Arc<Settings>), Failed> {
        let Self { incoming, config, settings, mut seat, local } = self;
        let within = settings.head_timeout;
        let gave_way = || {
            budget.count(Limit::GaveWay);
            Failed::GaveWay
        };
        let (remote, local_ip) = (incoming.remote_address(), incoming.local_ip());
        let turn = timeout(within, seat.advance(Stage::Tls)).await.map_err(|_| Failed::Late)?;
        turn.map_err(|_| gave_way())?;
        let connecting = incoming.accept_with(config)?;
        let connected = seat.hold(timeout(within, connecting)).await.map_err(|_| gave_way())?;
        let quic = connected.map_err(|_| Failed::Late)??;
        let certificates = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let details = ConnectionDetails {
            remote,
            local: SocketAddr::new(local_ip.unwrap_or_else(|| local.ip()), local.port()),
            tls: true,
            server_name: server_name(&quic),
            peer: certificates.map(|chain| peer_identity(&chain)).transpose()?,
        };
        let info = ConnectionInfo::paced(details, settings.pace);
        Ok((quic, info, settings))
    }
}

fn server_name(quic: &quinn::Connection) -> Option<String> {
    quic.handshake_data()?.downcast::<HandshakeData>().ok()?.server_name
}
