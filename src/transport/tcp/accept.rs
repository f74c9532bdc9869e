//! The responder's way to a tunnel over TCP: TLS, HELLO in time, then WELCOME and HTTP/2, or REFUSE.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use h2::client;
use http::{Method, Request};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsStream, server};

use crate::net;
use crate::net::Corked;
use crate::protocol::ALPN;
use crate::protocol::budgets::{CLIENT_HELLO_TIMEOUT, HandshakeBudgets};
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::control::FrameType;
use crate::protocol::handshake::{Hello, Refusal, Welcome};
use crate::protocol::session::{Event, Session};
use crate::protocol::tcp::CONTROL_URI;
use crate::telemetry::{AcceptWatch, Entrance, HandshakeListener, Metrics};
use crate::transport::accept::{AcceptError, Claimant, Missing, no_hello, send_refusal};
use crate::transport::control::{COMMANDS, Command, Control, note_illegal};
use crate::transport::error::{alert_text, not_accepted_here, not_accepted_there, peer_text};
use crate::transport::handshakes::{Handshakes, Seat, Stage};
use crate::transport::kind::Dialect;
use crate::transport::link::{Claimed, Unwelcomed};
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::connection::{Connection, Requests, Starter};
use crate::transport::tcp::control::{Carrier, ControlStream, Moved, Receiving, ended};
use crate::transport::tcp::envoy::{self, AcceptSettings, Security, greet};
use crate::transport::tcp::handshake::BareFrames;
use crate::transport::tcp::hidden::Hidden;
use crate::transport::tcp::raw::Raw;
use crate::transport::tcp::settings::{Settings, TcpSettings};
use crate::transport::tcp::window::{Window, drive};
use crate::transport::tcp::wire::Wire;
use crate::transport::tunnel::Tunnel;

/// The first byte of a TLS record that begins a handshake. RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;

const NO_ALPN: &str = "the initiator does not offer the ALPN adit/1";

/// Accepts connections on one TCP port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    accepting: ArcSwap<Accepting>,
    handshakes: Handshakes,
    watch: Option<AcceptWatch>,
}

/// What a connection is accepted with.
#[derive(Debug, Clone)]
struct Accepting {
    tls: Hidden<rustls::ServerConfig>,
    envoy: Option<Envoys>,
    settings: Settings,
    generation: u64,
}

/// What Envoys are taken with.
#[derive(Debug, Clone)]
struct Envoys {
    tls: Hidden<rustls::ServerConfig>,
    settings: Arc<AcceptSettings>,
}

/// A connection that says it wants to be a tunnel; nothing is known of it yet but an address.
#[derive(Debug)]
pub struct Incoming {
    stream: TcpStream,
    remote: SocketAddr,
    tls: Hidden<rustls::ServerConfig>,
    envoy: Option<Envoys>,
    settings: Settings,
    generation: u64,
    seat: Seat,
}

/// Whose claim was heard.
#[derive(Debug)]
pub(crate) enum TcpClaim {
    Adit(Box<Pending>),
    Envoy(Box<envoy::Pending>),
}

/// A connection whose HELLO was read: policy decides what becomes of it.
#[derive(Debug)]
pub(crate) struct Pending {
    remote: SocketAddr,
    control: Control<BareFrames>,
    settings: Settings,
}

/// A tunnel that the initiator has not heard of yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    state: Arc<TunnelState>,
    control: Control<BareFrames>,
    commands: mpsc::Receiver<Command>,
    starter: Starter,
    settings: Settings,
}

impl Listener {
    /// Listens on a bound socket; `tls` must be TLS 1.3 with ALPN `adit/1`.
    pub fn new(listener: TcpListener, tls: rustls::ServerConfig, tunnel: TunnelSettings, tcp: TcpSettings) -> Self {
        let settings = Settings { tunnel, tcp };
        let accepting = Accepting { tls: Hidden(Arc::new(tls)), envoy: None, settings, generation: 0 };
        let handshakes = Handshakes::new(budgets(&tunnel));
        Self { listener, accepting: ArcSwap::from_pointee(accepting), handshakes, watch: None }
    }

    /// The same, which counts and tells what it cannot accept.
    pub fn counting(self, metrics: &Metrics) -> Self {
        let handshakes = self.handshakes.counting(&metrics.stages(HandshakeListener::Tcp));
        Self { watch: Some(AcceptWatch::new(metrics, Entrance::Tunnel)), handshakes, ..self }
    }

    /// The same, which takes Envoy's reverse tunnels as well: from whoever does not offer `adit/1`. `tls` is from
    /// [`envoy_responder_config`](crate::tls::envoy_responder_config).
    pub fn with_envoy(self, tls: rustls::ServerConfig, settings: AcceptSettings) -> Self {
        let envoy = Some(Envoys { tls: Hidden(Arc::new(tls)), settings: Arc::new(settings) });
        let accepting = Accepting { envoy, ..Accepting::clone(&self.accepting.load()) };
        self.accepting.store(Arc::new(accepting));
        self
    }

    /// Uses other credentials, rules of verification and settings for connections from now on; those are of this
    /// generation, see [`Incoming::generation`]. `envoy` is as for [`Listener::with_envoy`]; without it no Envoy is taken
    /// any more.
    pub fn reconfigure(
        &self,
        tls: rustls::ServerConfig,
        envoy: Option<(rustls::ServerConfig, AcceptSettings)>,
        (tunnel, tcp): (TunnelSettings, TcpSettings),
        generation: u64,
    ) {
        let settings = Settings { tunnel, tcp };
        self.handshakes.resize(budgets(&tunnel));
        let envoy = envoy.map(|(tls, accept)| Envoys { tls: Hidden(Arc::new(tls)), settings: Arc::new(accept) });
        self.accepting.store(Arc::new(Accepting { tls: Hidden(Arc::new(tls)), envoy, settings, generation }));
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. Cancel safe. Where there is no room the oldest that has said nothing is closed. spec: SE-21
    pub async fn accept(&self) -> Incoming {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    let Accepting { tls, envoy, settings, generation } = Accepting::clone(&self.accepting.load());
                    let seat = self.handshakes.enter(Stage::Silent, remote.ip());
                    return Incoming { stream, remote, tls, envoy, settings, generation, seat };
                }
                Err(error) => {
                    if let Some(watch) = &self.watch {
                        watch.failed(&error);
                    }
                    tokio::time::sleep(net::accept_pause(&error)).await;
                }
            }
        }
    }
}

impl Incoming {
    /// Which configuration of the listener it is accepted with: 0, or what [`Listener::reconfigure`] was told.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where it comes from.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Finishes TLS and reads HELLO, both within one handshake timeout. Cancel safe: dropping it drops the connection.
    pub(in crate::transport) async fn handshake(self) -> Result<(Claimant, TcpClaim, Seat), AcceptError> {
        let limit = self.settings.tunnel.timing.handshake_timeout;
        let started = Instant::now();
        let clock = Clock { started, limit, deadline: (started + limit).into() };
        let Self { stream, remote, tls, envoy, settings, mut seat, .. } = self;
        net::tune_tcp(&stream, &settings.tuning());
        let first = clock.first_byte(&stream, &seat).await?;
        let mut raw = Raw::new(stream);
        if first != TLS_HANDSHAKE {
            let Some(envoy) = envoy.filter(|envoy| envoy.settings.security == Security::None) else {
                return Err(AcceptError::Tls("the connection does not begin with TLS; expected TLS".into()));
            };
            advance(&mut seat, Stage::Claim, Missing::EnvoyRequest).await?;
            let origin = Origin { remote, certificates: Vec::new() };
            return clock.envoy(Wire::tcp(raw), origin, envoy, settings, seat).await;
        }
        raw.read_records(true);
        let hello = clock.client_hello(raw, &mut seat).await?;
        let speaks_adit = hello.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN));
        let envoy = envoy.filter(|envoy| !speaks_adit && envoy.settings.security != Security::None);
        let config = envoy.as_ref().map_or(&tls.0, |envoy| &envoy.tls.0);
        let stream = clock.secure(hello, Arc::clone(config), &mut seat).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        if let Some(envoy) = envoy {
            advance(&mut seat, Stage::Claim, Missing::EnvoyRequest).await?;
            let wire = Wire::tls(Bytes::new(), TlsStream::Server(stream));
            return clock.envoy(wire, Origin { remote, certificates }, envoy, settings, seat).await;
        }
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(AcceptError::Tls(NO_ALPN.into()));
        }
        advance(&mut seat, Stage::Claim, Missing::Hello).await?;
        let gave_way = |_| AcceptError::GaveWay(Missing::Hello);
        let (hello, control) = seat.hold(clock.hear(stream, &settings)).await.map_err(gave_way)??;
        let pending = Pending { remote, control, settings };
        Ok((Claimant { hello, certificates, remote }, TcpClaim::Adit(Box::new(pending)), seat))
    }
}

/// A place in the next stage, which `missing` has to leave again.
async fn advance(seat: &mut Seat, stage: Stage, missing: Missing) -> Result<(), AcceptError> {
    seat.advance(stage).await.map_err(|_| AcceptError::GaveWay(missing))
}

/// Who is behind a connection, as far as it and TLS say.
struct Origin {
    remote: SocketAddr,
    certificates: Vec<CertificateDer<'static>>,
}

/// When a handshake must be where.
#[derive(Clone, Copy)]
struct Clock {
    started: Instant,
    limit: Duration,
    deadline: tokio::time::Instant,
}

impl Clock {
    /// Reads the first byte without taking it.
    async fn first_byte(self, stream: &TcpStream, seat: &Seat) -> Result<u8, AcceptError> {
        let limit = self.limit.min(CLIENT_HELLO_TIMEOUT);
        let mut first = [0];
        let peeked = seat.hold(timeout(limit, stream.peek(&mut first))).await;
        let peeked = peeked.map_err(|_| AcceptError::GaveWay(Missing::FirstByte))?;
        let peeked = peeked.map_err(|_| AcceptError::Timeout { missing: Missing::FirstByte, limit })?;
        peeked.map_err(|error| AcceptError::Connection(error.to_string()))?;
        Ok(first[0])
    }

    /// Reads a whole ClientHello, which costs no computing yet. spec: SE-21
    async fn client_hello(self, raw: Raw, seat: &mut Seat) -> Result<StartHandshake<Raw>, AcceptError> {
        let limit = self.limit.min(CLIENT_HELLO_TIMEOUT);
        advance(seat, Stage::Hello, Missing::Tls).await?;
        let hello = timeout(limit, LazyConfigAcceptor::new(rustls::server::Acceptor::default(), raw));
        let hello = seat.hold(hello).await.map_err(|_| AcceptError::GaveWay(Missing::Tls))?;
        let hello = hello.map_err(|_| AcceptError::Timeout { missing: Missing::Tls, limit })?;
        hello.map_err(|error| tls_error(&error))
    }

    /// Waits for its turn and finishes TLS.
    async fn secure(
        self,
        hello: StartHandshake<Raw>,
        config: Arc<rustls::ServerConfig>,
        seat: &mut Seat,
    ) -> Result<server::TlsStream<Raw>, AcceptError> {
        let late = |_| AcceptError::Timeout { missing: Missing::Tls, limit: self.limit };
        timeout_at(self.deadline, advance(seat, Stage::Tls, Missing::Tls)).await.map_err(late)??;
        let secured = seat.hold(timeout_at(self.deadline, hello.into_stream(config))).await;
        let secured = secured.map_err(|_| AcceptError::GaveWay(Missing::Tls))?;
        secured.map_err(late)?.map_err(|error| tls_error(&error))
    }

    /// Reads the request of an Envoy.
    async fn envoy(
        self,
        wire: Wire,
        from: Origin,
        envoy: Envoys,
        settings: Settings,
        seat: Seat,
    ) -> Result<(Claimant, TcpClaim, Seat), AcceptError> {
        let deadline = self.deadline.min(tokio::time::Instant::now() + envoy.settings.handshake_timeout);
        let greeted = greet(wire, from.remote, from.certificates, envoy.settings, settings, deadline);
        let greeted = seat.hold(greeted).await.map_err(|_| AcceptError::GaveWay(Missing::EnvoyRequest))?;
        greeted.map(|(claimant, pending)| (claimant, TcpClaim::Envoy(Box::new(pending)), seat))
    }

    /// Reads HELLO.
    async fn hear(
        self,
        mut stream: server::TlsStream<Raw>,
        settings: &Settings,
    ) -> Result<(Hello, Control<BareFrames>), AcceptError> {
        stream.get_mut().0.read_records(false);
        let wire = Wire::tls(Bytes::new(), TlsStream::Server(stream));
        // The session has the same deadline, and bounds what it says at the end. spec: CT-40
        let session = Session::responder(self.started, settings.tunnel.timing).with_close();
        let mut control = Control::new(BareFrames::new(wire), session);
        let hello = match control.event().await {
            Ok(Event::Hello(hello)) => *hello,
            Ok(other) => return Err(AcceptError::Hello(format!("expected HELLO, got {other:?}"))),
            Err(_) if control.channel().was_given_up() => return Err(AcceptError::GivenUp),
            Err(reason) => return Err(no_hello(reason, control.fault(), self.limit)),
        };
        if !control.channel().unread().is_empty() {
            return Err(too_early(control, self.limit).await);
        }
        Ok((hello, control))
    }
}

/// What there is room for over TCP.
const fn budgets(tunnel: &TunnelSettings) -> HandshakeBudgets {
    HandshakeBudgets::over_tcp(tunnel.max_handshakes)
}

impl Claimed for Pending {
    type Unwelcomed = Prepared;

    fn prepare(self, state: Arc<TunnelState>) -> (Tunnel, Prepared) {
        let Self { remote, control, settings } = self;
        state.heads().bound(settings.most_takes(Dialect::Adit));
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (requests, starter) = Requests::new();
        let connection = Connection {
            state: Arc::clone(&state),
            commands: sender,
            remote,
            meter: control.channel().meter(),
            requests,
            dialect: Dialect::Adit,
            secured: control.channel().secured(),
            accepted: None,
        };
        (Tunnel::tcp(connection), Prepared { state, control, commands, starter, settings })
    }

    async fn refuse(self, refusal: &Refusal) {
        send_refusal(self.control, refusal).await;
    }
}

impl Unwelcomed for Prepared {
    async fn welcome(self, welcome: &Welcome) -> CloseReason {
        let state = Arc::clone(&self.state);
        match self.start(welcome).await {
            Ok((mut control, mut commands)) => control.run(&state, &mut commands, true).await,
            Err(reason) => {
                state.advance(Phase::Closed(reason.clone()));
                reason
            }
        }
    }

    async fn refuse(self, refusal: &Refusal) {
        send_refusal(self.control, refusal).await;
    }
}

impl Prepared {
    async fn start(self, welcome: &Welcome) -> Result<(Control<ControlStream>, mpsc::Receiver<Command>), CloseReason> {
        let Self { state, mut control, commands, starter, settings } = self;
        state.heads().replace_takes(welcome.limits);
        note_illegal(control.session().welcome(Instant::now(), welcome));
        // Nothing but WELCOME is due: an event can only follow what the peer sends.
        control.flush().await?;
        let (bare, session) = control.into_parts();
        let wire = bare.into_wire();
        let meter = wire.meter();
        let (wire, cork) = Corked::new(settings.guarded(wire, &state));
        let (sender, connection) =
            settings.http2_client(Dialect::Adit).handshake(wire).await.map_err(|error| ended(&error))?;
        let (window, wanted) = Window::new(&settings.tcp);
        let carrier = Carrier::run(async move {
            match drive(connection, cork, wanted).await {
                Ok(()) => CloseReason { code: CloseCode::Done, text: "the connection ended".into() },
                Err(error) => ended(&error),
            }
        });
        let (send, recv) = open_control(sender.clone()).await.map_err(|error| ended(&error))?;
        let channel = ControlStream::new(send, recv, Moved { carrier, meter, window }).settling(starter.settles());
        starter.begin(sender);
        Ok((Control::new(channel, session), commands))
    }
}

/// Opens the control stream, the first of the connection; requests need not wait for its answer. spec: TB-5
async fn open_control(sender: client::SendRequest<Bytes>) -> Result<(h2::SendStream<Bytes>, Receiving), h2::Error> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = CONTROL_URI.parse().expect("a constant URI");
    let (response, send) = sender.ready().await?.send_request(request, false)?;
    Ok((send, Receiving::Unanswered(response)))
}

/// What becomes of an initiator that does not wait for the answer to its HELLO: it may only close. spec: HS-33, CT-34
async fn too_early(mut control: Control<BareFrames>, limit: Duration) -> AcceptError {
    if control.channel().unread().first().copied().map(u64::from) == Some(FrameType::Close.number()) {
        return match control.event().await {
            Err(reason) => no_hello(reason, control.fault(), limit),
            Ok(event) => AcceptError::Hello(format!("expected CLOSE, got {event:?}")),
        };
    }
    let reason = "bytes follow HELLO; expected none before WELCOME".to_owned();
    let refusal = Refusal { code: RefusalCode::Malformed, reason, retry_after: None };
    send_refusal(control, &refusal).await;
    AcceptError::Refused(refusal)
}

fn tls_error(error: &io::Error) -> AcceptError {
    use rustls::Error::AlertReceived;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(AlertReceived(alert)) => AcceptError::Tls(not_accepted_there("initiator", &alert_text((*alert).into()))),
        Some(rustls::Error::NoApplicationProtocol) => AcceptError::Tls(NO_ALPN.into()),
        Some(error) => {
            let text = peer_text(error.to_string().as_bytes());
            AcceptError::Tls(not_accepted_here("initiator", &text))
        }
        None => AcceptError::Connection(error.to_string()),
    }
}
