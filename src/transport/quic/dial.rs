//! The initiator's way to a tunnel: connect, say HELLO, read WELCOME or REFUSE.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::protocol::handshake::{Hello, Welcome};
use crate::protocol::session::{Event, Session};
use crate::tls::Rejection;
use crate::transport::error::{DialError, peer_text};
use crate::transport::quic::control::{Connection, Control};
use crate::transport::quic::serve::serve_streams;
use crate::transport::quic::settings::QuicSettings;
use crate::transport::quic::streams::lost;
use crate::transport::serve::Serve;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;

/// How many commands may wait for a tunnel's driver.
const COMMANDS: usize = 16;

/// Dials tunnels from one endpoint.
#[derive(Clone)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    settings: QuicSettings,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// An admitted tunnel that waits to be run.
#[derive(Debug)]
pub struct Dialed {
    /// Its handle.
    pub tunnel: Tunnel,
    /// What the responder said.
    pub welcome: Welcome,
    control: Control,
    commands: mpsc::Receiver<super::control::Command>,
    settings: QuicSettings,
}

impl Dialer {
    /// `tls` must offer the ALPN `adit/1` and TLS 1.3.
    pub fn new(
        endpoint: quinn::Endpoint,
        tls: rustls::ClientConfig,
        settings: QuicSettings,
    ) -> Result<Self, DialError> {
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| DialError::Tls(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(settings.initiator_transport());
        Ok(Self { endpoint, config, settings })
    }

    /// Connects, authenticates and asks for admission, within the handshake timeout.
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub async fn dial(&self, address: SocketAddr, server_name: &str, hello: &Hello) -> Result<Dialed, DialError> {
        let limit = self.settings.timing.handshake_timeout;
        timeout(limit, self.handshake(address, server_name, hello)).await.map_err(|_| DialError::Timeout(limit))?
    }

    async fn handshake(&self, address: SocketAddr, name: &str, hello: &Hello) -> Result<Dialed, DialError> {
        let quic = self
            .endpoint
            .connect_with(self.config.clone(), address, name)
            .map_err(|error| DialError::Address(error.to_string()))?
            .await
            .map_err(|error| connection_error(&error))?;
        let (send, recv) = quic.open_bi().await.map_err(|error| connection_error(&error))?;
        let session = Session::initiator(Instant::now(), hello, self.settings.timing);
        let mut control = Control::new(quic.clone(), send, recv, session);
        let welcome = loop {
            match control.event().await {
                Ok(Event::Welcomed(welcome)) => break *welcome,
                Ok(Event::Refused(refusal)) => return Err(DialError::Refused(refusal)),
                Ok(_) => {}
                Err(reason) => return Err(closed_early(&quic, &reason)),
            }
        };
        let state = TunnelState::new(welcome.tunnel, hello.place.clone(), welcome.limits, hello.services.clone());
        state.note_rtt(quic.rtt());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let connection = Connection { quic, state, limits: self.settings.limits, commands: sender };
        let settings = self.settings.clone();
        Ok(Dialed { tunnel: Tunnel::quic(connection), welcome, control, commands, settings })
    }
}

impl Dialed {
    /// Serves what the responder sends until the tunnel is gone.
    ///
    /// Not cancel safe: dropping the future closes the connection abruptly. Use [`Tunnel::drain`] or [`Tunnel::close`].
    pub async fn run<S: Serve>(self, service: S) -> CloseReason {
        let Self { tunnel, control, commands, settings, .. } = self;
        let (quic, state) = tunnel.quic_parts();
        let streams = serve_streams(quic, Arc::clone(&state), settings, service);
        let driver = control.run(state, commands, false);
        tokio::pin!(streams, driver);
        tokio::select! {
            reason = &mut driver => reason,
            () = &mut streams => driver.await,
        }
    }
}

/// What a failed connection means to whoever configured it.
fn connection_error(error: &quinn::ConnectionError) -> DialError {
    match error {
        quinn::ConnectionError::TransportError(error) if is_tls(error.code) => {
            DialError::Tls(format!("this end does not accept the responder: {}", Rejection::plain(&error.reason)))
        }
        quinn::ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
            DialError::Tls(format!("the responder does not accept this end: {}", tls_reason(close)))
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
        let alert = u8::try_from(u64::from(close.error_code) & 0xff).unwrap_or_default();
        return format!("alert {:?}", rustls::AlertDescription::from(alert));
    }
    Rejection::plain(&peer_text(&close.reason)).to_owned()
}
