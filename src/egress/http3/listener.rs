//! From UDP packets to connections that speak HTTP/3.

use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use h3::error::Code;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::early::{Early, Told};
use super::link::varint;
use super::transport::handshake_budgets;
use crate::egress::budget::{Connected, ListenerBudget};
use crate::egress::standing::{Source, Standing};
use crate::egress::{ConnectionDetails, ConnectionInfo, End, ExchangeService, Serving, Settings};
use crate::egress::{failed_early, lock};
use crate::telemetry::{AcceptWatch, HandshakeListener, Limit, Metrics};
use crate::tls::peer_identity;
use crate::transport::handshakes::{Handshakes, Seat, Stage};
use crate::transport::quic::{BindError, Keys, bind};

/// How long the last packets of a listener may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// A bound UDP socket.
#[derive(Debug)]
pub(in crate::egress) struct Endpoint {
    seat: Seated,
    /// Of a socket that was taken back: what it accepts under from now on.
    config: Option<quinn::ServerConfig>,
    handshakes: Handshakes,
    local: SocketAddr,
}

/// What those share who have a socket one after the other: connections of the former ones go on.
#[derive(Debug)]
struct Socket {
    endpoint: quinn::Endpoint,
    state: Mutex<SocketState>,
}

#[derive(Debug, Default)]
struct SocketState {
    /// How many have had it.
    seats: u32,
    /// Who accepts there.
    accepts: u32,
    /// How many of them have not left yet. Without any it is closed.
    seated: u32,
}

/// One of those who have a socket; dropped, it leaves, and closes the socket as the last one.
#[derive(Debug)]
struct Seated {
    socket: Arc<Socket>,
    number: u32,
}

impl Socket {
    fn new(endpoint: quinn::Endpoint) -> Arc<Self> {
        Arc::new(Self { endpoint, state: Mutex::default() })
    }

    /// `None` if it is closed.
    fn seat(self: &Arc<Self>) -> Option<Seated> {
        let mut state = lock(&self.state);
        if state.seats > 0 && state.seated == 0 {
            return None;
        }
        state.seats += 1;
        state.seated += 1;
        Some(Seated { socket: Arc::clone(self), number: state.seats })
    }
}

impl Seated {
    /// Accepts from now on, and nobody else does.
    fn accept_under(&self, config: Option<quinn::ServerConfig>) {
        let mut state = lock(&self.socket.state);
        state.accepts = self.number;
        if config.is_some() {
            self.socket.endpoint.set_server_config(config);
        }
    }

    /// Accepts no more, unless somebody else does by now.
    fn close_door(&self) {
        let state = lock(&self.socket.state);
        if state.accepts == self.number {
            self.socket.endpoint.set_server_config(None);
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut state = lock(&self.socket.state);
        state.seated -= 1;
        if state.seated == 0 {
            self.socket.endpoint.close(varint(Code::H3_NO_ERROR), b"");
        }
    }
}

/// The UDP socket of a listener for HTTP/3, for as long as the listener has it or a connection is left of it.
#[derive(Debug, Clone)]
pub struct Http3Socket {
    local: SocketAddr,
    socket: Weak<Socket>,
}

impl Http3Socket {
    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.local
    }

    /// Whether it can be taken back: it has not been closed.
    pub fn is_there(&self) -> bool {
        self.socket.upgrade().is_some_and(|socket| lock(&socket.state).seated > 0)
    }

    /// The same socket for another listener. Connections that there are go on where they are.
    pub(in crate::egress) fn take_back(&self, config: quinn::ServerConfig) -> Option<Endpoint> {
        let seat = self.socket.upgrade()?.seat()?;
        let (local, handshakes) = (self.local, Handshakes::new(handshake_budgets()));
        Some(Endpoint { seat, config: Some(config), handshakes, local })
    }
}

/// What connections are accepted with beside what their listener says at the time.
pub(in crate::egress) struct Accept<S> {
    pub(in crate::egress) service: S,
    pub(in crate::egress) end: End,
    pub(in crate::egress) budget: Arc<ListenerBudget>,
    pub(in crate::egress) watch: AcceptWatch,
    /// What holds now.
    pub(in crate::egress) source: Source,
}

impl Endpoint {
    /// Serves `socket`; `config` is for what comes before a connection. Needs a tokio runtime.
    pub(in crate::egress) fn new(socket: UdpSocket, config: quinn::ServerConfig) -> Result<Self, BindError> {
        // What a restarted process gets of its former connections it cannot answer: their clients wait for their own time.
        let endpoint = bind(socket, &Keys::ephemeral(), Some(config))?;
        let local = endpoint.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let (socket, handshakes) = (Socket::new(endpoint), Handshakes::new(handshake_budgets()));
        let seat = socket.seat().expect("nobody has closed it");
        Ok(Self { seat, config: None, handshakes, local })
    }

    /// What it may be taken back by when its listener has left.
    pub(in crate::egress) fn socket(&self) -> Http3Socket {
        Http3Socket { local: self.local, socket: Arc::downgrade(&self.seat.socket) }
    }

    /// The same, which counts connections in handshake.
    pub(in crate::egress) fn counting(self, metrics: &Metrics) -> Self {
        Self { handshakes: self.handshakes.counting(&metrics.stages(HandshakeListener::Http3)), ..self }
    }

    /// Where it listens, with its real port.
    #[cfg(test)]
    pub(in crate::egress) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts and serves until the drain is cancelled; returns when the last connection is done.
    ///
    /// Cancel safety: dropping the future drops every connection.
    pub(in crate::egress) async fn run<S: ExchangeService>(self, accept: Accept<S>) {
        let (mut connections, endpoint) = (JoinSet::new(), self.seat.socket.endpoint.clone());
        self.seat.accept_under(self.config.clone());
        loop {
            tokio::select! {
                biased;
                () = accept.end.drain.cancelled() => break,
                _ = connections.join_next(), if !connections.is_empty() => {}
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.take(incoming, &accept, &mut connections),
                    None => break,
                },
            }
        }
        self.seat.close_door();
        while connections.join_next().await.is_some() {}
        // Its own are over. Those of others are not waited for.
        drop(self);
        // Late is as good as done: what is left are goodbyes.
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    }

    fn take<S>(&self, incoming: quinn::Incoming, accept: &Accept<S>, connections: &mut JoinSet<()>)
    where
        S: ExchangeService,
    {
        let accepting = accept.source.accepting();
        let (settings, Some(config)) = (Arc::clone(&accepting.settings), accepting.http3.clone()) else {
            return incoming.refuse();
        };
        let open = accept.budget.connections().max(connections.len());
        if open >= settings.max_connections {
            accept.watch.is_full(open);
            return incoming.refuse();
        }
        if self.handshakes.is_under_pressure() && incoming.may_retry() && !incoming.remote_address_validated() {
            // Fails only when a retry is not possible, which was just asked.
            let _ = incoming.retry();
            return;
        }
        let remote = incoming.remote_address();
        let seat = self.handshakes.enter(Stage::Hello, remote.ip());
        let standing = Standing::new(remote, accept.source.clone(), &accepting, &accept.end);
        let (service, budget) = (accept.service.clone(), Arc::clone(&accept.budget));
        let arrived = Arrived { incoming, config, settings, standing, seat, local: self.local };
        connections.spawn(async move {
            match arrived.open(&budget).await {
                Ok(opened) => opened.serve(service, budget).await,
                Err(error) => failed_early(remote, &error),
            }
        });
    }
}

/// A connection of which nothing is known yet but an address.
struct Arrived {
    incoming: quinn::Incoming,
    config: Arc<quinn::ServerConfig>,
    settings: Arc<Settings>,
    standing: Standing,
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
    #[error("there are as many connections as there may be")]
    Full,
    #[error(transparent)]
    Quic(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

/// A connection on which requests are taken.
struct Opened {
    quic: quinn::Connection,
    info: ConnectionInfo,
    settings: Arc<Settings>,
    standing: Standing,
    early: Option<Arc<Early>>,
    /// Where the handshake is still under way.
    handshake: Option<Handshake>,
    connected: Connected,
}

/// A handshake that goes on while requests in early data are served.
struct Handshake {
    seat: Seat,
    done: quinn::ZeroRttAccepted,
}

impl Arrived {
    /// Finishes the handshake, in time and while it has its place; or waits until early data may come, if that is taken and
    /// the client has proven its address before.
    async fn open(self, budget: &Arc<ListenerBudget>) -> Result<Opened, Failed> {
        let Self { incoming, config, settings, mut standing, mut seat, local } = self;
        let within = settings.head_timeout;
        let gave_way = || {
            budget.count(Limit::GaveWay);
            Failed::GaveWay
        };
        let (remote, local_ip) = (incoming.remote_address(), incoming.local_ip());
        let serves_early = settings.http3.early_data && incoming.remote_address_validated();
        let turn = timeout(within, seat.advance(Stage::Tls)).await.map_err(|_| Failed::Late)?;
        turn.map_err(|_| gave_way())?;
        let connecting = incoming.accept_with(config)?;
        let connected = seat.hold(timeout(within, connect(connecting, serves_early))).await.map_err(|_| gave_way())?;
        let (quic, done) = connected.map_err(|_| Failed::Late)??;
        // Counted from here on: an address that may be forged takes nobody's place.
        let connected = budget.connect();
        if budget.connections() > settings.max_connections {
            quic.close(varint(Code::H3_EXCESSIVE_LOAD), b"");
            return Err(Failed::Full);
        }
        let handshake = done.map(|done| Handshake { seat, done });
        let told = quic.handshake_data().and_then(Told::read);
        let (server_name, early) = told.map_or((None, None), |told| (told.server_name, told.early));
        let certificates = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let details = ConnectionDetails {
            remote,
            local: SocketAddr::new(local_ip.unwrap_or_else(|| local.ip()), local.port()),
            tls: true,
            server_name,
            peer: certificates.as_ref().map(|chain| peer_identity(chain)).transpose()?,
        };
        standing.showed(certificates.map_or_else(Vec::new, |chain| *chain));
        let info = ConnectionInfo::paced(details, settings.pace);
        let early = early.filter(|early| early.is_taken());
        Ok(Opened { quic, info, settings, standing, early, handshake, connected })
    }
}

/// Waits for a connection, or for the handshake to be far enough for early data.
async fn connect(
    mut connecting: quinn::Connecting,
    serves_early: bool,
) -> Result<(quinn::Connection, Option<quinn::ZeroRttAccepted>), quinn::ConnectionError> {
    if serves_early {
        let early = Told::read(connecting.handshake_data().await?).and_then(|told| told.early);
        if early.is_some_and(|early| early.is_taken()) {
            match connecting.into_0rtt() {
                Ok((quic, done)) => return Ok((quic, Some(done))),
                Err(later) => connecting = later,
            }
        }
    }
    Ok((connecting.await?, None))
}

impl Opened {
    async fn serve<S: ExchangeService>(self, service: S, budget: Arc<ListenerBudget>) {
        let Self { quic, info, settings, standing, early, handshake, connected: _connected } = self;
        let within = settings.head_timeout;
        let (end, heads) = (standing.end(), Some(standing.heads()));
        let serving = Serving { info, settings, service, end, budget: Arc::clone(&budget), alternative: None, heads };
        let served = pin!(super::serve(quic.clone(), early, serving));
        let served = standing.hold(served);
        match handshake {
            None => served.await,
            Some(handshake) => drop(tokio::join!(served, handshake.finish(&quic, within, &budget))),
        }
    }
}

impl Handshake {
    /// Ends the connection whose handshake is not done in time.
    async fn finish(self, quic: &quinn::Connection, within: Duration, budget: &ListenerBudget) {
        let Self { seat, done } = self;
        let why = match seat.hold(timeout(within, done)).await {
            Ok(Ok(_)) => return,
            Ok(Err(_)) => Failed::Late,
            Err(_) => {
                budget.count(Limit::GaveWay);
                Failed::GaveWay
            }
        };
        tracing::debug!(error = %why, "a QUIC connection is ended in its handshake");
        quic.close(varint(Code::H3_EXCESSIVE_LOAD), b"");
    }
}
