//! The initiator's way to a tunnel over TCP: connect, TLS, say HELLO, read WELCOME or REFUSE, then serve HTTP/2.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::net;
use crate::net::{AddressWatch, Corked, Tuning};
use crate::protocol::ALPN;
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::{Hello, Welcome};
use crate::protocol::http2::Unserved;
use crate::protocol::session::{Event, Session};
use crate::tls;
use crate::transport::arrival::Accept;
use crate::transport::control::{COMMANDS, Command, Control};
use crate::transport::error::{
    DialError, alert_text, not_accepted_here, not_accepted_there, peer_text, refuses_certificate,
};
use crate::transport::kind::{Dialect, TransportKind};
use crate::transport::link::Admitted;
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::connection::{Connection, Requests};
use crate::transport::tcp::control::{Carrier, ControlStream, Moved, Receiving, ended};
use crate::transport::tcp::handshake::{BareFrames, CLOSE_LINGER};
use crate::transport::tcp::narrow::{self, NarrowPaths};
use crate::transport::tcp::raw::Raw;
use crate::transport::tcp::serve::{accept_one, hearing};
use crate::transport::tcp::settings::{Settings, TcpSettings};
use crate::transport::tcp::window::{Wanted, Window};
use crate::transport::tcp::wire::Wire;
use crate::transport::tunnel::Tunnel;

/// How long the last bytes of a connection that is not needed may take to be taken.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Dials tunnels over TCP.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
    settings: Settings,
    paths: NarrowPaths,
    addresses: AddressWatch,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A connection whose TLS is done; nothing was claimed on it yet.
#[derive(Debug)]
pub struct Connected {
    wire: Wire,
    settings: Settings,
    place: Place,
}

/// Where on this machine a connection ends.
#[derive(Debug)]
struct Place {
    local: IpAddr,
    addresses: AddressWatch,
}

/// An admitted tunnel that waits to be run.
#[derive(Debug)]
pub(crate) struct Dialed {
    state: Arc<TunnelState>,
    control: Control<BareFrames>,
    commands: mpsc::Receiver<Command>,
    settings: Settings,
    place: Place,
}

impl Dialer {
    /// `tls` must offer the ALPN `adit/1` and TLS 1.3 only.
    pub fn new(tls: rustls::ClientConfig, tunnel: TunnelSettings, tcp: TcpSettings) -> Self {
        let (tls, settings) = (TlsConnector::from(Arc::new(tls)), Settings { tunnel, tcp });
        Self { tls, settings, paths: NarrowPaths::default(), addresses: AddressWatch::default() }
    }

    /// Connects and finishes TLS, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub async fn connect(&self, address: SocketAddr, server_name: &str) -> Result<Connected, DialError> {
        let after = self.settings.tunnel.timing.handshake_timeout;
        let name = tls::server_name(server_name).map_err(|error| DialError::Address(error.to_string()))?;
        let dialling = self.paths.dial(address, |segment, up| self.secure(address, name.clone(), segment, up));
        let connected = timeout(after, dialling).await;
        connected.map_err(|_| DialError::Timeout { over: TransportKind::Tcp, after })?
    }

    async fn secure(
        &self,
        address: SocketAddr,
        name: ServerName<'static>,
        segment: Option<u32>,
        up: Arc<narrow::Connected>,
    ) -> Result<Connected, DialError> {
        let lost = |error: io::Error| DialError::Connection(error.to_string());
        let stream = net::connect_tcp(address, segment).await.map_err(lost)?;
        up.tell();
        net::tune_tcp(&stream, &self.settings.tuning());
        let local = stream.local_addr().map_err(lost)?.ip();
        let stream = self.tls.connect(name, Raw::new(stream)).await.map_err(|error| failed(&error))?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(DialError::Tls("whoever answers does not speak adit/1".into()));
        }
        let wire = Wire::tls(Bytes::new(), TlsStream::Client(stream));
        let addresses = self.addresses.clone();
        Ok(Connected { wire, settings: self.settings.clone(), place: Place { local, addresses } })
    }
}

impl Connected {
    /// Resolves when the responder has ended the connection: before HELLO it has nothing to say. Cancel safe.
    pub(crate) async fn closed(&mut self) -> DialError {
        let mut byte = [0];
        match self.wire.read(&mut byte).await {
            Ok(0) => DialError::Connection("the responder ended it".into()),
            Ok(_) => DialError::Connection("the responder spoke before it was asked".into()),
            // TLS 1.3 lets the client finish before the server has judged its certificate. spec: HS-36
            Err(error) => failed(&error),
        }
    }

    /// Ends a connection that is not needed after all, as TLS wants it.
    pub(crate) async fn give_up(mut self) {
        // A peer that does not take even this is not waited for.
        let _ = timeout(GOODBYE_TIMEOUT, self.wire.shutdown()).await;
    }

    /// Asks for admission, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub(crate) async fn claim(self, hello: &Hello) -> Result<(Tunnel, Welcome, Dialed), DialError> {
        let after = self.settings.tunnel.timing.handshake_timeout;
        // The session has the same limit, and says so to the responder. spec: CT-40
        let claimed = timeout(after + 2 * CLOSE_LINGER, self.handshake(hello)).await;
        claimed.map_err(|_| DialError::Timeout { over: TransportKind::Tcp, after })?
    }

    async fn handshake(self, hello: &Hello) -> Result<(Tunnel, Welcome, Dialed), DialError> {
        let Self { wire, settings, place } = self;
        let remote = wire.peer_addr().map_err(|error| DialError::Connection(error.to_string()))?;
        let meter = wire.meter();
        let (started, after) = (Instant::now(), settings.tunnel.timing.handshake_timeout);
        let session = Session::initiator(started, hello, settings.tunnel.timing).with_close();
        let mut control = Control::new(BareFrames::new(wire), session);
        let welcome = loop {
            match control.event().await {
                Ok(Event::Welcomed(welcome)) => break *welcome,
                Ok(Event::Refused(refusal)) => return Err(DialError::Refused(refusal)),
                Ok(_) => {}
                Err(_) if started.elapsed() >= after => {
                    return Err(DialError::Timeout { over: TransportKind::Tcp, after });
                }
                Err(reason) => return Err(closed_early(control.channel(), &reason)),
            }
        };
        let state = TunnelState::new(
            welcome.tunnel,
            hello.place.clone(),
            TransportKind::Tcp,
            welcome.limits,
            hello.services.clone(),
        );
        state.heads().replace_takes(hello.limits);
        state.heads().bound(settings.most_takes(Dialect::Adit));
        state.note_rtt(started.elapsed());
        state.count_written(meter.sent_counter());
        let (sender, commands) = mpsc::channel(COMMANDS);
        // The initiator opens no streams: nothing ever begins there.
        let (requests, _) = Requests::new();
        let connection = Connection {
            state: Arc::clone(&state),
            commands: sender,
            remote,
            meter,
            requests,
            dialect: Dialect::Adit,
            secured: control.channel().secured(),
            accepted: None,
        };
        let tunnel = Tunnel::tcp(connection);
        state.know_peer(&tunnel.peer_certificates());
        Ok((tunnel, welcome, Dialed { state, control, commands, settings, place }))
    }
}

impl Admitted for Dialed {
    async fn run<A: Accept>(self, accept: A) -> CloseReason {
        let state = Arc::clone(&self.state);
        let gone = self.place.addresses.gone(self.place.local);
        let run = async {
            match self.start(accept).await {
                Ok((mut control, mut commands)) => control.run(&state, &mut commands, false).await,
                Err(reason) => {
                    state.advance(Phase::Closed(reason.clone()));
                    reason
                }
            }
        };
        tokio::select! {
            reason = run => reason,
            // Nothing comes in any more, and nobody will say so. spec: TB-31
            () = gone => {
                let text = "this machine no longer has the address that the tunnel uses".to_owned();
                let reason = CloseReason { code: CloseCode::Internal, text };
                state.advance(Phase::Closed(reason.clone()));
                reason
            }
        }
    }
}

impl Dialed {
    async fn start<A: Accept>(
        self,
        accept: A,
    ) -> Result<(Control<ControlStream>, mpsc::Receiver<Command>), CloseReason> {
        let Self { state, control, commands, settings, .. } = self;
        let (bare, session) = control.into_parts();
        let wire = bare.into_wire();
        if settings.tcp.user_timeout.is_none() {
            // What WELCOME said, which may be longer or shorter than what was assumed while dialling.
            wire.tune(&Tuning { user_timeout: session.idle_timeout(), ..settings.tuning() });
        }
        let meter = wire.meter();
        let limit = settings.tunnel.timing.handshake_timeout;
        let (opened, control_stream) = oneshot::channel();
        let (window, wanted) = Window::new(&settings.tcp);
        let serving = Serving { settings, state, accept, wanted };
        let carrier = Carrier::run(serving.run(wire, opened));
        let gone = carrier.clone();
        let opened = tokio::select! {
            // What was said on it before the connection ended says why.
            biased;
            opened = timeout(limit, control_stream) => opened,
            reason = gone.gone() => return Err(reason),
        };
        let Ok(Ok((send, recv))) = opened else {
            carrier.abort();
            let text = "no control stream within the handshake timeout".into();
            return Err(CloseReason { code: CloseCode::HandshakeTimeout, text });
        };
        let moved = Moved { carrier, meter, window };
        Ok((Control::new(ControlStream::new(send, Receiving::Open(recv), moved), session), commands))
    }
}

/// The two halves of the control stream.
type ControlHalves = (h2::SendStream<Bytes>, h2::RecvStream);

/// What serves HTTP/2.
struct Serving<A> {
    settings: Settings,
    state: Arc<TunnelState>,
    accept: A,
    wanted: Wanted,
}

impl<A: Accept> Serving<A> {
    /// Serves until the connection is gone. The first stream is the control stream. spec: TB-5
    async fn run(mut self, wire: Wire, opened: oneshot::Sender<ControlHalves>) -> CloseReason {
        let unserved = Arc::<Unserved>::default();
        let wire = self.settings.guarded_server(wire, &self.state, &unserved);
        let (wire, cork) = Corked::new(wire);
        let mut http2 = self.settings.http2_server(Dialect::Adit);
        let mut connection = match http2.enable_connect_protocol().handshake::<_, Bytes>(wire).await {
            Ok(connection) => connection,
            Err(error) => return ended(&error),
        };
        let mut opened = Some(opened);
        loop {
            let accepted = tokio::select! {
                // A connection that is busy uses up its turn: what comes behind it would wait until it is not.
                biased;
                size = self.wanted.changed() => {
                    connection.set_target_window_size(size);
                    continue;
                }
                accepted = hearing(cork.next(connection.accept()), &unserved, &self.state, &self.accept) => accepted,
            };
            let (request, mut respond) = match accepted {
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => return ended(&error),
                None => break,
            };
            unserved.taken(respond.stream_id().into());
            let Some(opened) = opened.take() else {
                accept_one(request, respond, &self.state, &self.accept, Dialect::Adit);
                continue;
            };
            match respond.send_response(http::Response::new(()), false) {
                // Nobody waits any more: the tunnel is being given up.
                Ok(send) => drop(opened.send((send, request.into_body()))),
                Err(error) => return ended(&error),
            }
        }
        CloseReason { code: CloseCode::Internal, text: "the responder ended the connection".into() }
    }
}

/// What a failed TLS handshake means to whoever configured it.
pub(super) fn failed(error: &io::Error) -> DialError {
    use rustls::Error::{AlertReceived, InvalidMessage};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(AlertReceived(alert)) => alerted(*alert),
        Some(InvalidMessage(_)) => DialError::Tls("what answers on that port does not speak TLS".to_owned()),
        Some(error) => {
            let text = peer_text(error.to_string().as_bytes());
            DialError::Tls(not_accepted_here("responder", &text))
        }
        None => DialError::Connection(error.to_string()),
    }
}

fn alerted(alert: rustls::AlertDescription) -> DialError {
    let text = not_accepted_there("responder", &alert_text(alert.into()));
    if refuses_certificate(alert.into()) { DialError::Certificate(text) } else { DialError::Tls(text) }
}

/// TLS 1.3 lets the client finish before the server has judged its certificate. spec: HS-36
fn closed_early(bare: &BareFrames, reason: &CloseReason) -> DialError {
    match bare.alert() {
        Some(alert) => alerted(alert),
        None => DialError::Connection(format!("{}: {}", reason.code, reason.text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_tls_is_not_blamed_on_certificates() {
        let error = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let error = failed(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(error.to_string(), "TLS: what answers on that port does not speak TLS");
    }
}
