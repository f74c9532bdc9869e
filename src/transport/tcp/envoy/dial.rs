//! The initiator's way to a tunnel of an Envoy responder.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::id::TunnelId;
use crate::net;
use crate::protocol::code::CloseCode;
use crate::protocol::envoy::{EchoOutput, Echoer, HandshakeError, PING, RequestHead, ResponseReader, encode_request};
use crate::protocol::handshake::{Hello, PeerLimits, Refusal, Token, Welcome};
use crate::tls::{self, InitiatorTls, TlsError};
use crate::transport::arrival::Accept;
use crate::transport::control::{COMMANDS, Command};
use crate::transport::error::DialError;
use crate::transport::kind::{Dialect, TransportKind};
use crate::transport::link::Admitted;
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::connection::{Connection, Requests};
use crate::transport::tcp::dial::failed;
use crate::transport::tcp::envoy::http2::Initiator;
use crate::transport::tcp::envoy::idle::reason;
use crate::transport::tcp::envoy::retained::{Hold, RetainedSockets};
use crate::transport::tcp::envoy::{DialSettings, Security};
use crate::transport::tcp::handshake::lost;
use crate::transport::tcp::hidden::Hidden;
use crate::transport::tcp::raw::Raw;
use crate::transport::tcp::settings::{Settings, TcpSettings};
use crate::transport::tcp::wire::{Meter, Wire};
use crate::transport::tunnel::Tunnel;

/// The first byte of a TLS record that begins a handshake. RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long the TLS inside a tunnel may take to come up.
const INNER_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4 * 1024;

/// Dials one Envoy responder.
#[derive(Clone)]
pub struct Dialer {
    outer: Option<Hidden<ClientConfig>>,
    inner: Option<Hidden<ServerConfig>>,
    dial: Arc<DialSettings>,
    settings: Settings,
    retained: RetainedSockets,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("dial", &self.dial).finish_non_exhaustive()
    }
}

/// A connection whose TLS is done, if it has any; nothing was claimed on it yet.
#[derive(Debug)]
pub struct Connected {
    wire: Wire,
    address: SocketAddr,
    inner: Option<Hidden<ServerConfig>>,
    dial: Arc<DialSettings>,
    settings: Settings,
    retained: RetainedSockets,
}

/// An admitted tunnel that waits to be run.
#[derive(Debug)]
pub(crate) struct Dialed {
    raw: Raw,
    reader: ResponseReader,
    state: Arc<TunnelState>,
    commands: mpsc::Receiver<Command>,
    meter: Arc<Meter>,
    inner: Option<Hidden<ServerConfig>>,
    dial: Arc<DialSettings>,
    settings: Settings,
    retained: RetainedSockets,
}

impl Dialer {
    /// Makes the TLS configurations that `dial.security` asks for.
    ///
    /// # Errors
    /// [`TlsError`]: credentials, roots or pins that cannot be used; inner TLS needs credentials.
    pub fn new(
        tls: &InitiatorTls,
        dial: DialSettings,
        tunnel: TunnelSettings,
        tcp: TcpSettings,
    ) -> Result<Self, TlsError> {
        let outer = match dial.security {
            Security::None => None,
            Security::InnerTls | Security::HandshakeTls => Some(Hidden(Arc::new(tls::envoy_client_config(tls)?))),
        };
        let inner = match dial.security {
            Security::InnerTls => Some(Hidden(Arc::new(tls::envoy_inner_config(tls)?))),
            Security::HandshakeTls | Security::None => None,
        };
        Ok(Self {
            outer,
            inner,
            dial: Arc::new(dial),
            settings: Settings { tunnel, tcp },
            retained: RetainedSockets::default(),
        })
    }

    /// Connects and finishes TLS, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub async fn connect(&self, address: SocketAddr, server_name: &str) -> Result<Connected, DialError> {
        let after = self.dial.handshake_timeout;
        let connected = timeout(after, self.secure(address, server_name)).await;
        let wire = connected.map_err(|_| DialError::Timeout { over: TransportKind::Envoy, after })??;
        let (inner, dial, settings) = (self.inner.clone(), Arc::clone(&self.dial), self.settings.clone());
        Ok(Connected { wire, address, inner, dial, settings, retained: self.retained.clone() })
    }

    async fn secure(&self, address: SocketAddr, server_name: &str) -> Result<Wire, DialError> {
        let stream = net::connect_tcp(address, None).await;
        let stream = stream.map_err(|error| DialError::Connection(error.to_string()))?;
        net::tune_tcp(&stream, &self.settings.tuning());
        let mut raw = Raw::new(stream);
        let Some(outer) = &self.outer else { return Ok(Wire::tcp(raw)) };
        let name = tls::server_name(server_name).map_err(|error| DialError::Address(error.to_string()))?;
        // TLS ends with the answer, which what follows may share a segment with.
        raw.read_records(true);
        let stream =
            TlsConnector::from(Arc::clone(&outer.0)).connect(name, raw).await.map_err(|error| failed(&error))?;
        Ok(Wire::tls(Bytes::new(), TlsStream::Client(stream)))
    }
}

impl Connected {
    /// Resolves when the responder has ended the connection: before the request it has nothing to say. Cancel safe.
    pub(crate) async fn closed(&mut self) -> DialError {
        let mut byte = [0];
        match self.wire.read(&mut byte).await {
            Ok(0) => DialError::Connection("the responder ended it".into()),
            Ok(_) => DialError::Connection("the responder spoke before it was asked".into()),
            // TLS 1.3 lets the client finish before the server has judged its certificate.
            Err(error) => failed(&error),
        }
    }

    /// Asks for admission, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub(crate) async fn claim(mut self, hello: &Hello) -> Result<(Tunnel, Welcome, Dialed), DialError> {
        let after = self.dial.handshake_timeout;
        let asked = timeout(after, self.ask(hello)).await;
        // Also after a refusal: they may be what there is no room beside.
        self.retained.close();
        let (reader, leftover) = asked.map_err(|_| DialError::Timeout { over: TransportKind::Envoy, after })??;
        let Self { wire, address, inner, dial, settings, retained } = self;
        let mut raw = wire.into_raw();
        raw.unread(leftover);
        let welcome = welcome(&settings);
        let state =
            TunnelState::new(welcome.tunnel, hello.place.clone(), TransportKind::Envoy, welcome.limits, Vec::new());
        state.open();
        state.heads().replace_takes(settings.tunnel.limits.into());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (requests, _) = Requests::new();
        let meter: Arc<Meter> = Arc::default();
        state.count_written(meter.sent_counter());
        let connection = Connection {
            state: Arc::clone(&state),
            commands: sender,
            remote: address,
            meter: Arc::clone(&meter),
            requests,
            dialect: Dialect::Envoy,
            secured: None,
            accepted: None,
        };
        let dialed = Dialed { raw, reader, state, commands, meter, inner, dial, settings, retained };
        Ok((Tunnel::tcp(connection), welcome, dialed))
    }

    async fn ask(&mut self, hello: &Hello) -> Result<(ResponseReader, Bytes), DialError> {
        let broken = |error: io::Error| DialError::Connection(error.to_string());
        self.wire.write_all(&encode_request(&self.head(hello))).await.map_err(broken)?;
        self.wire.flush().await.map_err(broken)?;
        let mut reader = ResponseReader::new(self.dial.upgrade);
        let mut bytes = BytesMut::with_capacity(READ_BYTES);
        loop {
            bytes.clear();
            match self.wire.read_buf(&mut bytes).await {
                Ok(1..) => {}
                // TLS 1.3 lets the client finish before the server has judged its certificate. spec: HS-36
                Err(error) if is_of_tls(&error) => return Err(failed(&error)),
                // A connection that breaks off says as much as one that ends.
                Ok(0) | Err(_) => return Err(refused(reader.closed())),
            }
            match reader.push(&bytes) {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok((reader, accepted.leftover)),
                Err(error) => return Err(refused(error)),
            }
        }
    }

    fn head(&self, hello: &Hello) -> RequestHead {
        let host = HeaderValue::try_from(self.address.to_string()).expect("an address is visible ASCII");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        RequestHead {
            path: self.dial.path.clone(),
            upgrade: self.dial.upgrade,
            host,
            claim: hello.place.claim.clone(),
            upstream_cluster: self.dial.upstream_cluster.clone(),
            initiated_at_ms: u64::try_from(now.as_millis()).unwrap_or_default(),
            worker: 0,
            connection: hello.place.slot.into(),
            additional: hello.token.as_ref().and_then(bearer).map(|value| (AUTHORIZATION, value)).into_iter().collect(),
        }
    }
}

/// A token as a field, if it can stand in one. spec: EV-19
fn bearer(token: &Token) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", &token[..]].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What WELCOME would have said.
fn welcome(settings: &Settings) -> Welcome {
    Welcome {
        version: 1,
        tunnel: TunnelId(rand::random()),
        responder: "envoy".to_owned(),
        observed: None,
        limits: PeerLimits::default(),
        keepalive: settings.tunnel.timing.keepalive_interval,
        idle: settings.tunnel.timing.idle_timeout,
        reauth: None,
        roster: None,
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn refused(error: HandshakeError) -> DialError {
    match error.refusal() {
        Some(code) => DialError::Refused(Refusal { code, reason: error.to_string(), retry_after: error.retry_after() }),
        None => DialError::Envoy(error),
    }
}

impl Admitted for Dialed {
    async fn run<A: Accept>(self, accept: A) -> CloseReason {
        let (state, retained, hold) = (Arc::clone(&self.state), self.retained.clone(), Hold::on(&self.raw));
        let reason = self.serve(accept).await.unwrap_or_else(|reason| reason);
        match reason.code {
            CloseCode::Idle => retained.keep(hold),
            _ => drop(hold),
        }
        state.advance(Phase::Closed(reason.clone()));
        reason
    }
}

impl Dialed {
    async fn serve<A: Accept>(self, accept: A) -> Result<CloseReason, CloseReason> {
        let Self { mut raw, reader, state, mut commands, meter, inner, dial, settings, retained: _ } = self;
        let rest = idle(&mut raw, &reader, &dial, &mut commands, &state).await?;
        let begins_tls = rest.first() == Some(&TLS_HANDSHAKE);
        raw.unread(rest);
        let wire = match (inner, begins_tls) {
            (Some(config), true) => open_inner(raw, config).await?,
            (None, false) => Wire::tcp(raw),
            (Some(_), false) => {
                let text = "the responder sends requests in clear; expected TLS inside the tunnel";
                return Err(reason(CloseCode::Protocol, text));
            }
            (None, true) => {
                let text = "the responder opens TLS inside the tunnel; expected requests in clear, as security says";
                return Err(reason(CloseCode::Protocol, text));
            }
        };
        let initiator = Initiator { state: &state, commands: &mut commands, meter, settings, ping: dial.ping, accept };
        Ok(initiator.run(wire).await)
    }
}

/// Echoes pings until something else begins; the first bytes of that.
async fn idle(
    raw: &mut Raw,
    reader: &ResponseReader,
    dial: &DialSettings,
    commands: &mut mpsc::Receiver<Command>,
    state: &TunnelState,
) -> Result<Bytes, CloseReason> {
    let mut echoer = Echoer::new(Instant::now(), dial.echo);
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    let mut pinged = false;
    loop {
        while let Some(output) = echoer.poll() {
            match output {
                EchoOutput::Echo => {
                    pinged = true;
                    // Five bytes fit into any socket that is not stuck, so this is one write. spec: EV-31
                    raw.write_all(PING).await.map_err(|error| lost(&error))?;
                }
                EchoOutput::Rest(rest) => return Ok(rest),
                EchoOutput::Dead => return Err(reason(CloseCode::Idle, "the responder no longer pings")),
            }
        }
        let patience = async {
            match echoer.deadline() {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            length = raw.read_buf(&mut bytes) => match length {
                Ok(0) if !pinged => return Err(reason(CloseCode::Refused, &reader.closed().to_string())),
                Ok(0) => return Err(reason(CloseCode::Done, "the responder ended the connection")),
                Ok(_) => echoer.receive(Instant::now(), bytes.split().freeze()),
                Err(error) => return Err(lost(&error)),
            },
            () = patience => echoer.timeout(Instant::now()),
            command = commands.recv() => obey(command, state)?,
        }
    }
}

/// # Errors
/// What ends the tunnel.
fn obey(command: Option<Command>, state: &TunnelState) -> Result<(), CloseReason> {
    match command {
        // Nothing runs, and an Envoy takes the end of the connection for the whole message.
        Some(Command::Drain(drain) | Command::Retire(drain)) => {
            state.advance(Phase::Draining { reconnect_after: drain.reconnect_after });
            Err(reason(CloseCode::Done, "drained"))
        }
        // An Envoy knows none of it.
        Some(
            Command::Leave(_)
            | Command::Services(_)
            | Command::Health(_)
            | Command::Probe
            | Command::Reauth(_)
            | Command::Reauthed(_)
            | Command::Roster(_),
        ) => Ok(()),
        Some(Command::Close(closed)) => Err(closed),
        None => Err(reason(CloseCode::Done, "released")),
    }
}

/// Takes TLS inside the tunnel. spec: EV-42
async fn open_inner(raw: Raw, config: Hidden<ServerConfig>) -> Result<Wire, CloseReason> {
    let failed = |text: String| reason(CloseCode::Protocol, &format!("TLS inside the tunnel: {text}"));
    match timeout(INNER_TIMEOUT, TlsAcceptor::from(config.0).accept(raw)).await {
        Ok(Ok(stream)) => Ok(Wire::tls(Bytes::new(), TlsStream::Server(stream))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("not up within {INNER_TIMEOUT:?}"))),
    }
}
