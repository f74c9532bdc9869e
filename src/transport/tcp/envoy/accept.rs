//! The responder's way to a tunnel that an Envoy dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant as TokioInstant, timeout, timeout_at};
use tokio_rustls::{TlsConnector, TlsStream};
use tracing::debug;

use crate::id::{InstanceId, Place, SpkiPin};
use crate::protocol::code::CloseCode;
use crate::protocol::envoy::{Pinger, Rejection, Request, RequestReader};
use crate::protocol::handshake::{Hello, PeerLimits, Refusal, Welcome};
use crate::tls::{self, InitiatorTls, Trust};
use crate::transport::accept::{AcceptError, Claimant, Missing};
use crate::transport::control::{COMMANDS, Command};
use crate::transport::kind::Dialect;
use crate::transport::link::{Claimed, Unwelcomed};
use crate::transport::state::{CloseReason, Phase, TunnelState};
use crate::transport::tcp::connection::{Connection, Requests, Starter};
use crate::transport::tcp::envoy::http2::Responder;
use crate::transport::tcp::envoy::idle::{Idle, reason};
use crate::transport::tcp::envoy::{AcceptSettings, Accepted, Security, entropy};
use crate::transport::tcp::handshake::lost;
use crate::transport::tcp::raw::Raw;
use crate::transport::tcp::settings::Settings;
use crate::transport::tcp::wire::{Meter, Wire};
use crate::transport::tunnel::Tunnel;

/// Every tunnel of an Envoy is a place of its own: its handshake names no slot, and none of them replaces another.
static NEXT_SLOT: AtomicU32 = AtomicU32::new(0);
/// How long a rejection may take to be read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the TLS inside a tunnel may take to come up.
const INNER_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4 * 1024;

/// A connection whose request was read: policy decides what becomes of it.
#[derive(Debug)]
pub(crate) struct Pending {
    wire: Wire,
    remote: SocketAddr,
    accept: Arc<AcceptSettings>,
    settings: Settings,
    /// The key of the certificate that was shown in the handshake.
    key: Option<SpkiPin>,
    /// What the initiator calls this responder.
    named: Option<String>,
}

/// A tunnel whose initiator has no answer yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    pending: Pending,
    state: Arc<TunnelState>,
    commands: mpsc::Receiver<Command>,
    starter: Starter,
    meter: Arc<Meter>,
}

/// Reads the request of whoever is behind `wire`; what is no request is answered.
pub(in crate::transport::tcp) async fn greet(
    mut wire: Wire,
    remote: SocketAddr,
    certificates: Vec<rustls::pki_types::CertificateDer<'static>>,
    accept: Arc<AcceptSettings>,
    settings: Settings,
    deadline: TokioInstant,
) -> Result<(Claimant, Pending), AcceptError> {
    let reading = read_request(&mut wire, &accept);
    let limit = accept.handshake_timeout.min(settings.tunnel.timing.handshake_timeout);
    let request = match timeout_at(deadline, reading).await {
        // Closed without an answer. spec: EV-16
        Err(_) => return Err(AcceptError::Timeout { missing: Missing::EnvoyRequest, limit }),
        Ok(Err(error)) => return Err(AcceptError::Connection(error.text)),
        Ok(Ok(Err(rejection))) => {
            reject(wire, &rejection).await;
            return Err(AcceptError::Rejected(rejection));
        }
        Ok(Ok(Ok(request))) => request,
    };
    debug!(
        %remote, worker = request.worker, connection = request.connection, upstream_cluster = request.upstream_cluster,
        "a reverse tunnel request"
    );
    let key = certificates.first().and_then(|own| tls::spki_pin(own).ok());
    let claimant = Claimant { hello: hello(&request), certificates, remote };
    let (wire, named) = (wire.unread(request.leftover), request.upstream_cluster);
    Ok((claimant, Pending { wire, remote, accept, settings, key, named }))
}

async fn read_request(wire: &mut Wire, accept: &AcceptSettings) -> Result<Result<Request, Rejection>, CloseReason> {
    let mut reader = RequestReader::new(accept.rules.clone());
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        bytes.clear();
        if wire.read_buf(&mut bytes).await.map_err(|error| lost(&error))? == 0 {
            return Err(reason(CloseCode::Internal, "it ended before its request was complete"));
        }
        match reader.push(&bytes) {
            Ok(None) => {}
            Ok(Some(request)) => return Ok(Ok(request)),
            Err(rejection) => return Ok(Err(rejection)),
        }
    }
}

/// What HELLO would have said.
fn hello(request: &Request) -> Hello {
    // Starts over after four thousand million handshakes: no tunnel of a node is that old.
    let slot = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
    Hello {
        versions: (1, 1),
        place: Place { claim: request.claim.clone(), instance: InstanceId::OF_ENVOYS, slot, generation: 0 },
        token: request.token.clone(),
        services: Vec::new(),
        limits: PeerLimits::default(),
        build: "envoy".to_owned(),
    }
}

async fn reject(mut wire: Wire, rejection: &Rejection) {
    let farewell = async {
        wire.write_all(&rejection.encode()).await?;
        wire.shutdown().await?;
        // An end that closes over unread bytes resets, and a reset destroys what the peer has not read yet.
        let mut rest = [0; 256];
        while wire.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // A peer that does not listen is not waited for.
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
}

impl Claimed for Pending {
    type Unwelcomed = Prepared;

    fn prepare(self, state: Arc<TunnelState>) -> (Tunnel, Prepared) {
        // Not to be preferred before it is proven. spec: EV-21
        state.advance(Phase::Unproven);
        state.open();
        state.heads().replace_takes(self.settings.tunnel.limits.into());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (requests, starter) = Requests::new();
        let meter: Arc<Meter> = Arc::default();
        let connection = Connection {
            state: Arc::clone(&state),
            commands: sender,
            remote: self.remote,
            meter: Arc::clone(&meter),
            requests,
            dialect: Dialect::Envoy,
            secured: None,
            accepted: Some(Accepted::new(&self.accept, self.named.clone())),
        };
        (Tunnel::tcp(connection), Prepared { pending: self, state, commands, starter, meter })
    }

    async fn refuse(self, refusal: &Refusal) {
        reject(self.wire, &Rejection::from(refusal.clone())).await;
    }
}

impl Unwelcomed for Prepared {
    async fn refuse(self, refusal: &Refusal) {
        self.pending.refuse(refusal).await;
    }

    async fn welcome(self, _: &Welcome) -> CloseReason {
        let state = Arc::clone(&self.state);
        let reason = self.drive().await.unwrap_or_else(|reason| reason);
        state.advance(Phase::Closed(reason.clone()));
        reason
    }
}

impl Prepared {
    async fn drive(self) -> Result<CloseReason, CloseReason> {
        let Self { pending, state, mut commands, starter, meter } = self;
        let Pending { mut wire, accept, settings, key, .. } = pending;
        let accepted = async {
            // Alone in its segment: the first ping follows after a pause. spec: EV-15
            wire.write_all(accept.rules.accept_bytes()).await?;
            wire.flush().await
        };
        accepted.await.map_err(|error| lost(&error))?;
        let raw = wire.into_raw();
        let pinger = Pinger::new(Instant::now(), accept.ping, entropy());
        let idle = Idle { raw, pinger, state: &state, starter: &starter, commands: &mut commands };
        let (raw, awake) = idle.run().await?;
        let wire = match accept.security {
            Security::InnerTls => inner(raw, &accept, key).await?,
            Security::HandshakeTls | Security::None => Wire::tcp(raw),
        };
        let responder = Responder { state: &state, starter, commands, meter, settings, ping: accept.ping };
        Ok(responder.run(wire, awake).await)
    }
}

/// Opens TLS inside the tunnel. spec: EV-42
async fn inner(raw: Raw, accept: &AcceptSettings, key: Option<SpkiPin>) -> Result<Wire, CloseReason> {
    let failed = |text: String| reason(CloseCode::Protocol, &format!("TLS inside the tunnel: {text}"));
    let (name, trust) = match (&accept.inner.expected, key) {
        (Some((name, trust)), _) => (name.clone(), trust.clone()),
        // With pins alone no name is looked at.
        (None, Some(key)) => {
            let name = tls::server_name("initiator.invalid").map_err(|error| failed(error.to_string()))?;
            (name, Trust { pins: vec![key], ..Trust::default() })
        }
        (None, None) => return Err(failed("the initiator showed no certificate that could be expected again".into())),
    };
    let settings = InitiatorTls { credentials: accept.inner.credentials.clone(), responder: trust };
    let config = tls::envoy_client_config(&settings).map_err(|error| failed(error.to_string()))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, raw);
    match timeout(INNER_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(Wire::tls(bytes::Bytes::new(), TlsStream::Client(stream))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("not up within {INNER_TIMEOUT:?}"))),
    }
}
