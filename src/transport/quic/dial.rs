//! The initiator's way to a tunnel: connect, say HELLO, read WELCOME or REFUSE.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::VarInt;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::protocol::code::CloseCode;
use crate::protocol::handshake::{Hello, Welcome};
use crate::protocol::session::{Event, Session};
use crate::tls::Rejection;
use crate::transport::arrival::Accept;
use crate::transport::control::{COMMANDS, Command, Control};
use crate::transport::error::{
    DialError, alert_text, not_accepted_here, not_accepted_there, peer_text, refuses_certificate,
};
use crate::transport::kind::TransportKind;
use crate::transport::link::Admitted;
use crate::transport::quic::control::{Connection, ControlStream};
use crate::transport::quic::serve::serve_streams;
use crate::transport::quic::settings::{Either, QuicSettings, Settings};
use crate::transport::quic::siblings::{Sibling, Siblings};
use crate::transport::quic::streams::lost;
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;

/// How often the path of a connection that waits for its claim is asked for a sign of life.
const ASK_INTERVAL: Duration = Duration::from_millis(300);
/// How long such a path may be silent, or three round trips if that is longer. Shorter than the trial of a probe (TB-25),
/// or that would show nothing.
const MAX_SILENCE: Duration = Duration::from_millis(1200);

/// The shortest round trip that a dial expects: a third of the time until its first packet is sent again. Shorter would only
/// burden a responder on which many dial at once.
const MIN_EXPECTED_RTT: Duration = Duration::from_millis(25);

/// Dials tunnels from one endpoint.
#[derive(Clone)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
    config: Either<quinn::ClientConfig>,
    settings: Settings,
    siblings: Siblings,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A connection whose TLS is done; nothing was claimed on it yet.
#[derive(Debug)]
pub struct Connected {
    quic: quinn::Connection,
    settings: Settings,
    /// The connection's credit by now, bytes.
    credit: u32,
    siblings: Siblings,
}

/// An admitted tunnel that waits to be run.
#[derive(Debug)]
pub(crate) struct Dialed {
    state: Arc<TunnelState>,
    control: Control<ControlStream>,
    commands: mpsc::Receiver<Command>,
    settings: Settings,
    siblings: Siblings,
    /// A way to the driver that does not keep the tunnel open.
    probes: mpsc::WeakSender<Command>,
}

impl Dialer {
    /// `tls` must offer the ALPN `adit/1` and TLS 1.3.
    pub fn new(
        endpoint: quinn::Endpoint,
        tls: rustls::ClientConfig,
        tunnel: TunnelSettings,
        quic: QuicSettings,
    ) -> Result<Self, DialError> {
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| DialError::Tls(error.to_string()))?;
        let settings = Settings { tunnel, quic };
        let config = configured(&quinn::ClientConfig::new(Arc::new(crypto)), &settings);
        Ok(Self { endpoint, config, settings, siblings: Siblings::new() })
    }

    /// The same, for a path whose round trip was measured a moment ago. RFC 9002 section 6.2.2
    pub fn expecting(&self, rtt: Duration) -> Self {
        let mut settings = self.settings.clone();
        settings.quic.initial_rtt =
            (rtt * 2).clamp(MIN_EXPECTED_RTT, self.settings.quic.initial_rtt.max(MIN_EXPECTED_RTT));
        let config = configured(self.config.ordinary(), &settings);
        Self { endpoint: self.endpoint.clone(), config, settings, siblings: self.siblings.clone() }
    }

    /// Connects and finishes TLS, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub async fn connect(&self, address: SocketAddr, server_name: &str) -> Result<Connected, DialError> {
        let after = self.settings.tunnel.timing.handshake_timeout;
        let connecting = self
            .endpoint
            .connect_with(self.config.towards(address).clone(), address, server_name)
            .map_err(|error| DialError::Address(error.to_string()))?;
        let quic = timeout(after, connecting)
            .await
            .map_err(|_| DialError::Timeout { over: TransportKind::Quic, after })?
            .map_err(|error| connection_error(&error))?;
        let (settings, siblings) = (self.settings.clone(), self.siblings.clone());
        Ok(Connected { quic, credit: settings.quic.receive_window, settings, siblings })
    }
}

fn configured(tls: &quinn::ClientConfig, settings: &Settings) -> Either<quinn::ClientConfig> {
    Either::new(|datagrams| {
        let mut config = tls.clone();
        config.transport_config(settings.initiator_transport(datagrams));
        config
    })
}

impl Connected {
    /// Asks for admission, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub(crate) async fn claim(self, hello: &Hello) -> Result<(Tunnel, Welcome, Dialed), DialError> {
        let after = self.settings.tunnel.timing.handshake_timeout;
        let claimed = timeout(after, self.handshake(hello)).await;
        claimed.map_err(|_| DialError::Timeout { over: TransportKind::Quic, after })?
    }

    /// Resolves when the connection has ended, or when nothing comes back on its path any more. Cancel safe.
    ///
    /// The responder has no reason to send anything before HELLO, so it is asked: each raise of the connection's credit
    /// is a frame that must be acknowledged.
    pub(crate) async fn closed(&mut self) -> DialError {
        let quic = self.quic.clone();
        tokio::select! {
            error = quic.closed() => connection_error(&error),
            silence = self.silence() => DialError::Connection(format!("nothing came back for {silence:.1?}")),
        }
    }

    /// Resolves when nothing was heard for too long.
    async fn silence(&mut self) -> Duration {
        let received = |quic: &quinn::Connection| quic.stats().udp_rx.datagrams;
        let (mut heard, mut heard_at) = (received(&self.quic), Instant::now());
        loop {
            self.credit = self.credit.saturating_add(1);
            self.quic.set_receive_window(VarInt::from_u32(self.credit));
            sleep(ASK_INTERVAL).await;
            let (now, silence) = (received(&self.quic), heard_at.elapsed());
            if now > heard {
                (heard, heard_at) = (now, Instant::now());
            } else if silence > MAX_SILENCE.max(3 * self.quic.rtt()) {
                return silence;
            }
        }
    }

    /// Ends a connection that is not needed after all.
    pub(crate) fn give_up(self) {
        self.quic.close(VarInt::from_u32(CloseCode::Done.number()), b"not needed");
    }

    async fn handshake(self, hello: &Hello) -> Result<(Tunnel, Welcome, Dialed), DialError> {
        let Self { quic, settings, siblings, .. } = self;
        let (send, recv) = quic.open_bi().await.map_err(|error| connection_error(&error))?;
        let session = Session::initiator(Instant::now(), hello, settings.tunnel.timing);
        let mut control = Control::new(ControlStream::new(quic.clone(), (send, recv), settings.credit()), session);
        let welcome = loop {
            match control.event().await {
                Ok(Event::Welcomed(welcome)) => break *welcome,
                Ok(Event::Refused(refusal)) => return Err(DialError::Refused(refusal)),
                Ok(_) => {}
                Err(reason) => return Err(closed_early(&quic, &reason)),
            }
        };
        let state = TunnelState::new(
            welcome.tunnel,
            hello.place.clone(),
            TransportKind::Quic,
            welcome.limits,
            hello.services.clone(),
        );
        state.heads().replace_takes(hello.limits);
        state.note_rtt(quic.rtt());
        control.session().spread_keepalive(Instant::now(), rand::random());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let probes = sender.downgrade();
        let connection = Connection {
            quic,
            state: Arc::clone(&state),
            commands: sender,
            flows: Arc::default(),
            send_room: settings.send_room(),
            says_here: false,
            via: None,
        };
        let dialed = Dialed { state, control, commands, settings, siblings, probes };
        let tunnel = Tunnel::quic(connection);
        dialed.state.know_peer(&tunnel.peer_certificates());
        Ok((tunnel, welcome, dialed))
    }
}

impl Admitted for Dialed {
    async fn run<A: Accept>(self, accept: A) -> CloseReason {
        let Self { state, mut control, mut commands, settings, siblings, probes } = self;
        let quic = control.channel().connection();
        let streams = serve_streams(quic.clone(), Arc::clone(&state), settings, accept);
        let driver = control.run(&state, &mut commands, false);
        tokio::pin!(streams, driver);
        let ended = async {
            tokio::select! {
                reason = &mut driver => reason,
                () = &mut streams => driver.await,
            }
        };
        let responder = quic.remote_address();
        let reason = tokio::select! {
            reason = ended => reason,
            never = probe_when_doubted(siblings.join(responder), probes) => match never {},
        };
        // Only a responder that has lost every tunnel has lost this one. spec: CT-50
        if let Some(quinn::ConnectionError::Reset) = quic.close_reason() {
            siblings.doubt(responder, Instant::now());
        }
        reason
    }
}

/// Asks for a sign of life whenever another tunnel to the same responder was reset: if this one is gone too, the answer is
/// a reset. spec: CT-50
async fn probe_when_doubted(mut sibling: Sibling, probes: mpsc::WeakSender<Command>) -> Infallible {
    loop {
        sibling.doubted().await;
        if let Some(probes) = probes.upgrade() {
            // A driver that is behind with so much else is heard by the peer soon enough.
            let _ = probes.try_send(Command::Probe);
        }
    }
}

/// What a failed connection means to whoever configured it.
pub(super) fn connection_error(error: &quinn::ConnectionError) -> DialError {
    match error {
        quinn::ConnectionError::TransportError(error) if is_tls(error.code) => {
            DialError::Tls(not_accepted_here("responder", &error.reason))
        }
        quinn::ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
            let text = not_accepted_there("responder", &tls_reason(close));
            if refuses_certificate(alert(close)) { DialError::Certificate(text) } else { DialError::Tls(text) }
        }
        quinn::ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            DialError::Busy
        }
        other => DialError::Connection(lost(other).to_string()),
    }
}

fn closed_early(quic: &quinn::Connection, reason: &CloseReason) -> DialError {
    match quic.close_reason() {
        // TLS 1.3 lets the client finish before the server has judged its certificate.
        Some(error @ quinn::ConnectionError::ConnectionClosed(_)) => connection_error(&error),
        Some(error @ quinn::ConnectionError::TransportError(_)) => connection_error(&error),
        _ => DialError::Connection(format!("{}: {}", reason.code, reason.text)),
    }
}

/// TLS alerts travel as transport error codes 0x100 to 0x1ff (RFC 9001 section 4.8).
pub(super) fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// The peer's words about a TLS failure, or else the name of its alert (RFC 8446 section 6).
pub(super) fn tls_reason(close: &quinn::ConnectionClose) -> String {
    if close.reason.is_empty() {
        return alert_text(alert(close));
    }
    Rejection::plain(&peer_text(&close.reason)).to_owned()
}

/// The alert in a close for which [`is_tls`] holds.
fn alert(close: &quinn::ConnectionClose) -> u8 {
    u8::try_from(u64::from(close.error_code) & 0xff).unwrap_or_default()
}
