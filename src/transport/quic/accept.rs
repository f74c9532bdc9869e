//! The responder's way to a tunnel: accept under pressure, read HELLO in time, then welcome or refuse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::id::TunnelId;
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::{Refusal, Welcome};
use crate::protocol::session::{Event, Session};
use crate::transport::accept::{AcceptError, Claimant, Missing, no_hello, send_refusal};
use crate::transport::control::{COMMANDS, Command, Control, note_illegal};
use crate::transport::error::{not_accepted_here, not_accepted_there};
use crate::transport::link::{Claimed, Unwelcomed};
use crate::transport::quic::control::{Connection, ControlStream};
use crate::transport::quic::datagrams::FlowTable;
use crate::transport::quic::dial::{is_tls, tls_reason};
use crate::transport::quic::settings::{QuicSettings, Settings};
use crate::transport::quic::streams::lost;
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;

/// Accepts connections on one endpoint.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    accepting: ArcSwap<Accepting>,
}

/// What a connection is accepted with, beside the configuration of the endpoint.
#[derive(Debug, Clone)]
struct Accepting {
    settings: Settings,
    generation: u64,
}

/// A connection that says it wants to be a tunnel; nothing is known of it yet but an address.
#[derive(Debug)]
pub struct Incoming {
    incoming: quinn::Incoming,
    settings: Settings,
    generation: u64,
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
) -> Result<quinn::ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(settings.responder_transport())
        .max_incoming(settings.tunnel.max_handshakes)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(16 << 20);
    Ok(config)
}

impl Listener {
    /// Listens on an endpoint that was bound with [`Listener::server_config`].
    pub fn new(endpoint: quinn::Endpoint, tunnel: TunnelSettings, quic: QuicSettings) -> Self {
        let accepting = Accepting { settings: Settings { tunnel, quic }, generation: 0 };
        Self { endpoint, accepting: ArcSwap::from_pointee(accepting) }
    }

    /// The server half of the endpoint's configuration; `tls` must be TLS 1.3 with ALPN `adit/1`.
    pub fn server_config(
        tls: rustls::ServerConfig,
        tunnel: &TunnelSettings,
        quic: &QuicSettings,
    ) -> Result<quinn::ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
        server_config(tls, &Settings { tunnel: *tunnel, quic: quic.clone() })
    }

    /// Builds what [`Listener::reconfigure`] takes, of another TLS configuration or other settings; changes nothing.
    ///
    /// # Errors
    /// As for [`Listener::server_config`].
    pub fn prepare(
        &self,
        tls: rustls::ServerConfig,
        tunnel: &TunnelSettings,
    ) -> Result<quinn::ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
        Self::server_config(tls, tunnel, &self.accepting.load().settings.quic)
    }

    /// Uses other credentials, rules of verification and settings for connections from now on; those are of this
    /// generation, see [`Incoming::generation`].
    pub fn reconfigure(&self, config: quinn::ServerConfig, tunnel: TunnelSettings, generation: u64) {
        let settings = Settings { tunnel, ..self.accepting.load().settings.clone() };
        // In this order: whatever has the new number has the new configuration.
        self.endpoint.set_server_config(Some(config));
        self.accepting.store(Arc::new(Accepting { settings, generation }));
    }

    /// The next connection, or `None` once the endpoint is closed. Cancel safe.
    ///
    /// `pending` is how many handshakes run already: from a half of `max_handshakes` on, an address must prove by Retry
    /// that it is not forged; from all of it on, connections are refused. RFC 9000 section 8.1.2.
    pub async fn accept(&self, pending: impl Fn() -> usize) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let Accepting { settings, generation } = Accepting::clone(&self.accepting.load());
            let (pending, limit) = (pending(), settings.tunnel.max_handshakes);
            if pending >= limit {
                incoming.refuse();
            } else if pending >= limit / 2 && incoming.may_retry() && !incoming.remote_address_validated() {
                // Fails only when a retry is not possible, which was just asked.
                let _ = incoming.retry();
            } else {
                return Some(Incoming { incoming, settings, generation });
            }
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
    pub(crate) async fn handshake(self) -> Result<(Claimant, Pending), AcceptError> {
        let limit = self.settings.tunnel.timing.handshake_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let late = |missing| move |_| AcceptError::Timeout { missing, limit };
        let remote = self.remote();
        let connecting = self.incoming.accept().map_err(|error| connection_error(&error))?;
        let quic = tokio::time::timeout_at(deadline, connecting)
            .await
            .map_err(late(Missing::Tls))?
            .map_err(|error| connection_error(&error))?;
        let (send, recv) = match tokio::time::timeout_at(deadline, quic.accept_bi()).await {
            Ok(stream) => stream.map_err(|error| connection_error(&error))?,
            Err(elapsed) => {
                let code = quinn::VarInt::from_u32(CloseCode::HandshakeTimeout.number());
                quic.close(code, b"no control stream within the handshake timeout");
                return Err(late(Missing::ControlStream)(elapsed));
            }
        };
        let session = Session::responder(Instant::now(), self.settings.tunnel.timing);
        let mut control = Control::new(ControlStream::new(quic.clone(), send, recv), session);
        // The session has a handshake timer of its own; this one bounds the sum.
        let hello = match tokio::time::timeout_at(deadline + Duration::from_millis(100), control.event()).await {
            Ok(Ok(Event::Hello(hello))) => *hello,
            Ok(Ok(other)) => return Err(AcceptError::Hello(format!("expected HELLO, got {other:?}"))),
            Ok(Err(reason)) => return Err(no_hello(reason, control.fault(), limit)),
            Err(elapsed) => return Err(late(Missing::Hello)(elapsed)),
        };
        let claimant = Claimant { hello, certificates: certificates(&quic), remote };
        Ok((claimant, Pending { quic, control, settings: self.settings }))
    }
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
            limits: settings.tunnel.limits,
            commands: sender,
            flows: FlowTable::default(),
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
        note_illegal(control.session().welcome(Instant::now(), welcome));
        control.run(&state, &mut commands, true).await
    }

    async fn refuse(self, refusal: &Refusal) {
        send_refusal(self.control, refusal).await;
    }
}

fn certificates(quic: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    quic.peer_identity().and_then(|identity| identity.downcast().ok()).map_or_else(Vec::new, |chain| *chain)
}

fn connection_error(error: &quinn::ConnectionError) -> AcceptError {
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
