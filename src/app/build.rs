//! From checked settings to bound listeners and prepared roles.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use crate::admin;
use crate::app::App;
use crate::app::state::State;
use crate::config::{Checked, EgressConfig, InitiatorConfig, ResponderConfig};
use crate::egress::{self, Egress, Settings as EgressSettings};
use crate::initiator::serve::{DuplicateService, Services};
use crate::initiator::{Destination, Initiator, InitiatorSettings};
use crate::lifecycle::Ready;
use crate::net;
use crate::policy::RuleError;
use crate::protocol::ALPN;
use crate::protocol::handshake::Token;
use crate::proxy::Recorder;
use crate::responder::{Responder, ResponderError, ResponderSettings, Sockets};
use crate::routing::Directory;
use crate::telemetry::{Metrics, Role, Side};
use crate::tls::{self, TlsError, secret};
use crate::transport::quic::{self, Keys, QuicSettings};
use crate::transport::tcp::{self, TcpSettings};
use crate::transport::{DialError, Dialer, HttpService, TransportChoice, Tunnel, TunnelSettings};

/// The file in `state_dir` that holds the endpoint's keys.
const KEYS_FILE: &str = "quic.key";

/// Why a configuration could not be put to work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A certificate, key, CA or CRL file.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The rules of admission.
    #[error("responder: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rules(Vec<RuleError>),
    /// An address that cannot be bound.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// The QUIC endpoint of an initiator.
    #[error(transparent)]
    Endpoint(#[from] quic::BindError),
    /// The responder's endpoint.
    #[error(transparent)]
    Responder(#[from] ResponderError),
    /// The initiator's TLS settings.
    #[error(transparent)]
    Dialer(#[from] DialError),
    /// Two services of one name.
    #[error(transparent)]
    Services(#[from] DuplicateService),
    /// The folder of the persisted keys.
    #[error("responder.state_dir: cannot make {}", folder.display())]
    StateDir {
        /// Which one.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The persisted keys.
    #[error("responder.state_dir")]
    Keys(#[from] secret::SecretError),
    /// The admin listener.
    #[error("admin: cannot listen on {address}")]
    Admin {
        /// What was asked for.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An egress listener.
    #[error(transparent)]
    Egress(#[from] egress::BuildError),
}

pub(super) async fn build(config: Checked) -> Result<App, AppError> {
    let metrics = Metrics::new();
    let ready = Ready::new();
    let directory = Arc::new(Directory::new());
    let responder = match &config.responder {
        Some(settings) => Some(responder(settings, &config, &directory, &metrics)?),
        None => None,
    };
    let egress = config.egress.iter().map(|settings| egress(settings, &directory, &metrics));
    let egress = egress.collect::<Result<Vec<_>, _>>()?;
    let initiator = match &config.initiator {
        Some(settings) => Some((initiator(settings, &config, &metrics)?, ready.guard("first tunnel"))),
        None => None,
    };
    let admin = match &config.admin {
        Some(address) => Some(
            admin::Listener::bind(address)
                .await
                .map_err(|source| AppError::Admin { address: address.to_string(), source })?,
        ),
        None => None,
    };
    let board = initiator.as_ref().map(|(initiator, _)| initiator.status());
    let shown = serde_json::to_value(&config).unwrap_or_default();
    let state = Arc::new(State::new(metrics.clone(), ready, directory, board, shown));
    Ok(App { config, metrics, state, responder, egress, initiator, admin })
}

fn responder(
    settings: &ResponderConfig,
    config: &Checked,
    directory: &Arc<Directory<Tunnel>>,
    metrics: &Metrics,
) -> Result<Responder, AppError> {
    let rules = settings.admission.rules().map_err(AppError::Rules)?;
    if rules.insecure_accept_any() {
        warn!("responder.insecure_accept_any: whoever connects is admitted under any name; for trials only");
    }
    let shown = settings.tls(&rules)?;
    let tls = tls::responder_config(&shown, &[ALPN])?;
    let envoy = match &settings.envoy {
        Some(envoy) => {
            if let Some(exposed) = envoy.security.exposes() {
                warn!("responder.envoy.security {}: {exposed}", envoy.security.label());
            }
            Some((tls::envoy_responder_config(&shown)?, envoy.settings(&settings.tls)?))
        }
        None => None,
    };
    let sockets = sockets(settings, metrics)?;
    let settings = ResponderSettings {
        name: settings.name.clone(),
        rules,
        tls,
        keys: keys(settings)?,
        tunnel: TunnelSettings { drain_timeout: config.drain_timeout, ..settings.tunnel() },
        quic: QuicSettings { congestion: settings.congestion, ..QuicSettings::default() },
        tcp: TcpSettings::default(),
        envoy,
    };
    Ok(Responder::bind(sockets, settings, Arc::clone(directory), metrics)?)
}

/// How often a free UDP port is tried whose TCP port turns out to be taken.
const PORT_PAIRS: usize = 16;

/// Binds what the file asks for. Two free ports on one address are the same number, as `listen` promises.
fn sockets(settings: &ResponderConfig, metrics: &Metrics) -> Result<Sockets, net::BindError> {
    let is_free = |address: SocketAddr| address.port() == 0;
    let pair = matches!((settings.quic, settings.tcp), (Some(quic), Some(tcp)) if quic == tcp && is_free(tcp));
    let mut tries = if pair { PORT_PAIRS } else { 1 };
    loop {
        tries -= 1;
        let quic =
            settings.quic.map(|address| quic::listening_socket(address, Role::Responder, metrics)).transpose()?;
        let port = quic.as_ref().filter(|_| pair).and_then(|socket| socket.local_addr().ok());
        match settings.tcp.map(|address| net::bind_tcp(port.unwrap_or(address))).transpose() {
            Ok(tcp) => return Ok(Sockets { quic, tcp }),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// Persisted where the file says; else new, so that tunnels of a former process notice its end by their idle timeout.
fn keys(settings: &ResponderConfig) -> Result<Keys, AppError> {
    let Some(folder) = &settings.state_dir else { return Ok(Keys::ephemeral()) };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| AppError::StateDir { folder: folder.clone(), source })?;
    let secret = secret::load_or_create(&folder.join(KEYS_FILE), Keys::BYTES)?;
    let mut bytes = [0; Keys::BYTES];
    bytes.copy_from_slice(secret.as_bytes());
    Ok(Keys::new(&bytes))
}

fn egress(settings: &EgressConfig, directory: &Arc<Directory<Tunnel>>, metrics: &Metrics) -> Result<Egress, AppError> {
    let limits = EgressSettings {
        max_head_bytes: settings.limits.head_bytes,
        max_head_fields: settings.limits.head_fields,
        max_connections: settings.limits.connections as usize,
        half_close: settings.half_close,
        ..EgressSettings::default()
    };
    let mut builder = egress::Builder::new(Arc::clone(directory), settings.router.clone())
        .settings(limits)
        .access_log(settings.access_log)
        .metrics(metrics);
    if let Some(files) = &settings.tls {
        builder = builder.tls(files.egress()?);
    }
    Ok(builder.bind(settings.http)?)
}

fn initiator(
    settings: &InitiatorConfig,
    config: &Checked,
    metrics: &Metrics,
) -> Result<Initiator<HttpService<Services>>, AppError> {
    let recorder = Recorder::new(metrics, Side::Target, None, settings.access_log);
    let list = config.services.iter().map(|service| service.settings()).collect();
    let services = Services::recorded(list, recorder)?;
    let tunnel = TunnelSettings { drain_timeout: config.drain_timeout, ..settings.tunnel() };
    let quic = QuicSettings { congestion: settings.congestion, ..QuicSettings::default() };
    let tcp = TcpSettings::default();
    let shown = settings.tls.initiator()?;
    let tls = tls::initiator_config(&shown, &[ALPN])?;
    let socket = quic::dialling_socket(metrics)?;
    let endpoint = quic::bind(socket, &Keys::ephemeral(), None)?;
    let destinations = settings.tunnels.iter().map(|to| {
        if let TransportChoice::Envoy(envoy) = &to.transport
            && let Some(exposed) = envoy.security.exposes()
        {
            warn!(to = %to.to, "envoy.security {}: {exposed}", envoy.security.label());
        }
        Destination {
            target: to.to.to_string(),
            count: to.count,
            server_name: settings.tls.server_name.clone(),
            transport: to.transport.clone(),
        }
    });
    let roles = InitiatorSettings {
        claim: settings.claim.clone(),
        token: settings.token.as_ref().and_then(|token| Token::new(token.expose())),
        tls: shown,
        services: services.exported(),
        destinations: destinations.collect(),
        probe_interval: settings.probe_interval,
        tunnel,
        tcp: tcp.clone(),
    };
    let tcp = tcp::Dialer::new(tls.clone(), tunnel, tcp);
    let dialer = Dialer::new(Some(quic::Dialer::new(endpoint, tls, tunnel, quic)?), Some(tcp));
    Ok(Initiator::new(roles, dialer, HttpService(services), metrics)?)
}
