//! The responder's way to a tunnel: accept under pressure, read HELLO in time, then welcome or refuse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::id::TunnelId;
use crate::protocol::budgets::HandshakeBudgets;
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::{Hello, Refusal, Welcome};
use crate::protocol::session::{Event, Session};
use crate::telemetry::{HandshakeListener, Metrics};
use crate::transport::accept::{AcceptError, Claimant, Missing, no_hello, send_refusal};
use crate::transport::control::{COMMANDS, Command, Control, note_illegal};
use crate::transport::error::{not_accepted_here, not_accepted_there};
use crate::transport::handshakes::{Handshakes, Seat, Stage};
use crate::transport::link::{Claimed, Unwelcomed};
use crate::transport::quic::control::{Connection, ControlStream};
use crate::transport::quic::dial::{is_tls, tls_reason};
use crate::transport::quic::settings::{Datagrams, Either, QuicSettings, Settings};
use crate::transport::quic::streams::lost;
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;

/// Accepts connections on one endpoint.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    accepting: ArcSwap<Accepting>,
    handshakes: Handshakes,
}

/// What a connection is accepted with.
#[derive(Debug, Clone)]
struct Accepting {
    config: ServerConfig,
    settings: Settings,
    generation: u64,
}

/// The server half of an endpoint's configuration, for each kind of link.
#[derive(Debug, Clone)]
pub struct ServerConfig(Either<Arc<quinn::ServerConfig>>);

impl ServerConfig {
    /// For [`bind`](super::bind).
    pub fn endpoint(&self) -> quinn::ServerConfig {
        quinn::ServerConfig::clone(self.0.ordinary())
    }
}

/// A connection that says it wants to be a tunnel; nothing is known of it yet but an address.
#[derive(Debug)]
pub struct Incoming {
    pub(super) incoming: quinn::Incoming,
    pub(super) config: Arc<quinn::ServerConfig>,
    pub(super) settings: Settings,
    generation: u64,
    pub(super) seat: Seat,
}

/// A connection whose TLS is done and whose HELLO was read: policy decides what becomes of it.
#[derive(Debug)]
pub(crate) struct Pending {
    quic: quinn::Connection,
    control: Control<ControlStream>,
    settings: Settings,
}

/// A tunnel that the initiator has not heard of yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    state: Arc<TunnelState>,
    control: Control<ControlStream>,
    commands: mpsc::Receiver<Command>,
}

/// Builds the server half of an endpoint's configuration from a TLS 1.3 config with ALPN `adit/1`.
fn server_config(
    tls: rustls::ServerConfig,
    settings: &Settings,
    transport: impl Fn(Datagrams) -> Arc<quinn::TransportConfig>,
) -> Result<ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        // More than there is room for here, so that it is this end that decides who gives way.
        .max_incoming(2 * budgets(&settings.tunnel).hello.all)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(16 << 20);
    Ok(ServerConfig(Either::new(|datagrams| {
        let mut config = config.clone();
        config.transport_config(transport(datagrams));
        Arc::new(config)
    })))
}

impl Listener {
    /// Listens on an endpoint that was bound with this configuration, which is from [`Listener::server_config`].
    pub fn new(endpoint: quinn::Endpoint, config: ServerConfig, tunnel: TunnelSettings, quic: QuicSettings) -> Self {
        let accepting = Accepting { config, settings: Settings { tunnel, quic }, generation: 0 };
        let handshakes = Handshakes::new(budgets(&tunnel));
        Self { endpoint, accepting: ArcSwap::from_pointee(accepting), handshakes }
    }

    /// The same, which counts connections in handshake.
    pub fn counting(self, metrics: &Metrics) -> Self {
        Self { handshakes: self.handshakes.counting(&metrics.stages(HandshakeListener::Quic)), ..self }
    }

    /// The server half of the endpoint's configuration; `tls` must be TLS 1.3 with ALPN `adit/1`.
    pub fn server_config(
        tls: rustls::ServerConfig,
        tunnel: &TunnelSettings,
        quic: &QuicSettings,
    ) -> Result<ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
        let settings = Settings { tunnel: *tunnel, quic: quic.clone() };
        server_config(tls, &settings, |datagrams| settings.responder_transport(datagrams))
    }

    /// The same for siblings of a fleet, who ask where initiators are asked; `tls` must have the ALPN `adit-fleet/1`.
    pub(crate) fn sibling_config(
        tls: rustls::ServerConfig,
        tunnel: &TunnelSettings,
        quic: &QuicSettings,
    ) -> Result<ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
        let settings = Settings { tunnel: *tunnel, quic: quic.clone() };
        server_config(tls, &settings, |datagrams| settings.asked_transport(datagrams))
    }

    /// Uses other credentials, rules of verification and settings for connections from now on; those are of this
    /// generation, see [`Incoming::generation`]. `config` is from [`Listener::server_config`].
    pub fn reconfigure(&self, config: ServerConfig, (tunnel, quic): (TunnelSettings, QuicSettings), generation: u64) {
        let settings = Settings { tunnel, quic };
        self.handshakes.resize(budgets(&tunnel));
        self.endpoint.set_server_config(Some(config.endpoint()));
        self.accepting.store(Arc::new(Accepting { config, settings, generation }));
    }

    /// The next connection, or `None` once the endpoint is closed. Cancel safe.
    ///
    /// With many handshakes under way an address must prove by Retry that it is not forged (RFC 9000 section 8.1.2), and
    /// where there is no room the oldest that waits is refused. spec: SE-21
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            if self.handshakes.is_under_pressure() && incoming.may_retry() && !incoming.remote_address_validated() {
                // Fails only when a retry is not possible, which was just asked.
                let _ = incoming.retry();
                continue;
            }
            let remote = incoming.remote_address();
            let accepting = self.accepting.load();
            let config = Arc::clone(accepting.config.0.towards(remote));
            let (settings, generation) = (accepting.settings.clone(), accepting.generation);
            let seat = self.handshakes.enter(Stage::Hello, remote.ip());
            return Some(Incoming { incoming, config, settings, generation, seat });
        }
    }
}

impl Incoming {
    /// Which configuration of the listener it is accepted with, or an earlier one: 0, or what
    /// [`Listener::reconfigure`] was told.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where it says it comes from.
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Finishes TLS and reads HELLO, both within one handshake timeout. Cancel safe: dropping it drops the connection.
    pub(in crate::transport) async fn handshake(self) -> Result<(Claimant, Pending, Seat), AcceptError> {
        let limit = self.settings.tunnel.timing.handshake_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let Self { incoming, config, settings, mut seat, .. } = self;
        let remote = incoming.remote_address();
        let quic = secure((incoming, config), &mut seat, limit, deadline).await?;
        let claimed = async {
            seat.advance(Stage::Claim).await.map_err(|_| AcceptError::GaveWay(Missing::Hello))?;
            let hearing = seat.hold(hear(&quic, &settings, limit, deadline));
            hearing.await.map_err(|_| AcceptError::GaveWay(Missing::Hello))?
        };
        match claimed.await {
            Ok((hello, control)) => {
                let claimant = Claimant { hello, certificates: peer_certificates(&quic), remote };
                Ok((claimant, Pending { quic, control, settings }, seat))
            }
            Err(error) => {
                if let AcceptError::GaveWay(_) = error {
                    close(&quic, b"gave way to a newer connection before HELLO");
                }
                Err(error)
            }
        }
    }
}

/// Waits for its turn and finishes TLS.
pub(super) async fn secure(
    (incoming, config): (quinn::Incoming, Arc<quinn::ServerConfig>),
    seat: &mut Seat,
    limit: Duration,
    deadline: tokio::time::Instant,
) -> Result<quinn::Connection, AcceptError> {
    let late = |_| AcceptError::Timeout { missing: Missing::Tls, limit };
    let gave_way = |_| AcceptError::GaveWay(Missing::Tls);
    let turn = tokio::time::timeout_at(deadline, seat.advance(Stage::Tls)).await;
    turn.map_err(late)?.map_err(gave_way)?;
    let connecting = incoming.accept_with(config).map_err(|error| connection_error(&error))?;
    let connected = seat.hold(tokio::time::timeout_at(deadline, connecting)).await.map_err(gave_way)?;
    connected.map_err(late)?.map_err(|error| connection_error(&error))
}

/// Reads HELLO.
async fn hear(
    quic: &quinn::Connection,
    settings: &Settings,
    limit: Duration,
    deadline: tokio::time::Instant,
) -> Result<(Hello, Control<ControlStream>), AcceptError> {
    let late = |missing| AcceptError::Timeout { missing, limit };
    let Ok(stream) = tokio::time::timeout_at(deadline, quic.accept_bi()).await else {
        close(quic, b"no control stream within the handshake timeout");
        return Err(late(Missing::ControlStream));
    };
    let (send, recv) = stream.map_err(|error| connection_error(&error))?;
    let session = Session::responder(Instant::now(), settings.tunnel.timing);
    let mut control = Control::new(ControlStream::new(quic.clone(), (send, recv), settings.credit()), session);
    // The session has a handshake timer of its own; this one bounds the sum.
    match tokio::time::timeout_at(deadline + Duration::from_millis(100), control.event()).await {
        Ok(Ok(Event::Hello(hello))) => Ok((*hello, control)),
        Ok(Ok(other)) => Err(AcceptError::Hello(format!("expected HELLO, got {other:?}"))),
        Ok(Err(reason)) => Err(no_hello(reason, control.fault(), limit)),
        Err(_) => Err(late(Missing::Hello)),
    }
}

/// Ends a connection that did not become a tunnel in time.
fn close(quic: &quinn::Connection, reason: &[u8]) {
    quic.close(quinn::VarInt::from_u32(CloseCode::HandshakeTimeout.number()), reason);
}

/// What there is room for over QUIC.
const fn budgets(tunnel: &TunnelSettings) -> HandshakeBudgets {
    HandshakeBudgets::over_quic(tunnel.max_handshakes)
}

impl Claimed for Pending {
    type Unwelcomed = Prepared;

    fn prepare(self, state: Arc<TunnelState>) -> (Tunnel, Prepared) {
        let Self { quic, control, settings } = self;
        state.note_rtt(quic.rtt());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let connection = Connection {
            quic,
            state: Arc::clone(&state),
            commands: sender,
            flows: Arc::default(),
            send_room: settings.send_room(),
            says_here: false,
            via: None,
        };
        (Tunnel::quic(connection), Prepared { state, control, commands })
    }

    async fn refuse(self, refusal: &Refusal) {
        send_refusal(self.control, refusal).await;
    }
}

impl Unwelcomed for Prepared {
    async fn welcome(self, welcome: &Welcome) -> CloseReason {
        let Self { state, mut control, mut commands } = self;
        state.heads().replace_takes(welcome.limits);
        note_illegal(control.session().welcome(Instant::now(), welcome));
        control.run(&state, &mut commands, true).await
    }

    async fn refuse(self, refusal: &Refusal) {
        send_refusal(self.control, refusal).await;
    }
}

/// What the peer showed in its handshake.
pub(crate) fn peer_certificates(quic: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    quic.peer_identity().and_then(|identity| identity.downcast().ok()).map_or_else(Vec::new, |chain| *chain)
}

pub(super) fn connection_error(error: &quinn::ConnectionError) -> AcceptError {
    match error {
        quinn::ConnectionError::TransportError(error) if is_tls(error.code) => {
            AcceptError::Tls(not_accepted_here("initiator", &error.reason))
        }
        quinn::ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
            AcceptError::Tls(not_accepted_there("initiator", &tls_reason(close)))
        }
        // What an application says before its handshake is done travels as this code (RFC 9000 section 10.2.3).
        quinn::ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::APPLICATION_ERROR =>
        {
            AcceptError::GivenUp
        }
        quinn::ConnectionError::ApplicationClosed(close)
            if close.error_code == quinn::VarInt::from_u32(CloseCode::Done.number()) =>
        {
            AcceptError::GivenUp
        }
        other => AcceptError::Connection(lost(other).to_string()),
    }
}

/// A name for a new tunnel; random, so that ids of a restarted responder do not collide with what logs know.
pub(crate) fn new_tunnel_id() -> TunnelId {
    TunnelId(rand::random())
}
