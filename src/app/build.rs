//! From checked settings to bound listeners and prepared roles.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::admin;
use crate::app::App;
use crate::app::folder;
use crate::app::memory::Memory;
use crate::app::state::{Parts, State};
use crate::config::{AdminAddress, Checked, EgressConfig, HeadLimits, InitiatorConfig, ResponderConfig, ServiceConfig};
use crate::egress::{self, Egress, Http3Settings, Pace, Settings as EgressSettings};
use crate::initiator::serve::{ServiceError, ServiceSettings, Services};
use crate::initiator::targets::TargetSettings;
use crate::initiator::{self, Destination, Initiator};
use crate::lifecycle::Ready;
use crate::net;
use crate::policy::RuleError;
use crate::protocol::handshake::Token;
use crate::proxy::Recorder;
use crate::responder::{self, Responder};
use crate::routing::Directory;
use crate::telemetry::{Metrics, Side};
use crate::tls::TlsError;
use crate::tls::secret::{self, SecretError};
use crate::transport::quic::{Keys, QuicSettings};
use crate::transport::tcp::TcpSettings;
use crate::transport::{TransportChoice, Tunnel, TunnelSettings};

/// The file in `state_dir` that holds the endpoint's keys.
const KEYS_FILE: &str = "quic.key";
/// What a responder waits for before it is ready, at most as long as its grace.
const BACK: &str = "tunnels";

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
    /// The responder.
    #[error(transparent)]
    Responder(responder::BuildError),
    /// The initiator.
    #[error(transparent)]
    Initiator(#[from] initiator::BuildError),
    /// A responder without an address; no checked configuration has one.
    #[error("responder.listen: expected quic, tcp or both")]
    Nowhere,
    /// The services.
    #[error(transparent)]
    Services(#[from] ServiceError),
    /// The persisted keys.
    #[error("responder.state_dir")]
    Keys(#[from] SecretError),
    /// The admin listener, or the one for metrics.
    #[error("{key}: cannot listen on {address}")]
    Admin {
        /// Which one.
        key: &'static str,
        /// What was asked for.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An egress listener.
    #[error(transparent)]
    Egress(#[from] egress::BuildError),
}

impl From<responder::BuildError> for AppError {
    fn from(error: responder::BuildError) -> Self {
        match error {
            responder::BuildError::Rules(errors) => Self::Rules(errors),
            error => Self::Responder(error),
        }
    }
}

pub(super) async fn build(config: Checked) -> Result<App, AppError> {
    let metrics = Metrics::new();
    let ready = Ready::new();
    let (mut responder, mut memory) = (None, None);
    if let Some(settings) = &config.responder {
        let state_dir = folder::state_dir(settings);
        let built = self::responder(settings, &config, &metrics, state_dir.as_deref())?;
        let known = (built.directory(), built.gone());
        memory = Some(Memory::load(known, state_dir, settings.grace, ready.guard(BACK)));
        responder = Some(built);
    }
    let directory = responder.as_ref().map(Responder::directory).unwrap_or_default();
    let most = most_connections(&config);
    let egress = config.egress.iter().map(|settings| egress(settings, most, &directory, &metrics));
    let egress = egress.collect::<Result<Vec<_>, _>>()?;
    let initiator = match &config.initiator {
        Some(settings) => Some((initiator(settings, &config, &metrics)?, ready.guard("first tunnel"))),
        None => None,
    };
    let admin = listener(config.admin.as_ref(), "admin").await?;
    let metrics_address = config.metrics.listen.map(AdminAddress::Tcp);
    let metrics_listener = listener(metrics_address.as_ref(), "metrics.listen").await?.map(admin::Listener::read_only);
    let board = initiator.as_ref().map(|(initiator, _)| initiator.status());
    let parts = Parts { metrics: &metrics, ready, responder: responder.as_ref(), board, config: &config };
    let state = Arc::new(State::new(parts));
    Ok(App { config, metrics, state, responder, egress, initiator, memory, admin, metrics_listener })
}

async fn listener(address: Option<&AdminAddress>, key: &'static str) -> Result<Option<admin::Listener>, AppError> {
    let Some(address) = address else { return Ok(None) };
    let bound = admin::Listener::bind(address).await;
    bound.map(Some).map_err(|source| AppError::Admin { key, address: address.to_string(), source })
}

fn responder(
    settings: &ResponderConfig,
    config: &Checked,
    metrics: &Metrics,
    state_dir: Option<&Path>,
) -> Result<Responder, AppError> {
    let rules = settings.admission.settings();
    if rules.insecure_accept_any {
        warn!("responder.insecure_accept_any: whoever connects is admitted under any name; for trials only");
    }
    let mut builder = responder::Builder::new(settings.tls.credentials()?)
        .admit(rules, settings.tls.trust()?)?
        .name(&settings.name)
        .keys(keys(state_dir)?)
        .grace(settings.grace)
        .tunnel(TunnelSettings { drain_timeout: config.drain_timeout, ..settings.tunnel() })
        .quic(QuicSettings { congestion: settings.congestion, ..QuicSettings::default() })
        .tcp_settings(TcpSettings { congestion: settings.congestion, ..TcpSettings::default() })
        .metrics(metrics);
    if let Some(envoy) = &settings.envoy {
        if let Some(exposed) = envoy.security.exposes() {
            warn!("responder.envoy.security {}: {exposed}", envoy.security.label());
        }
        builder = builder.envoy(envoy.settings(&settings.tls)?);
    }
    Ok(match (settings.quic, settings.tcp) {
        (Some(quic), Some(tcp)) => builder.tcp(tcp).bind(quic)?,
        (Some(quic), None) => builder.bind(quic)?,
        (None, Some(tcp)) => builder.bind_tcp(tcp)?,
        (None, None) => return Err(AppError::Nowhere),
    })
}

/// Persisted where there is a place; else new, so that tunnels of a former process notice its end by their suspicion. A disk
/// that is full or cannot be written keeps nobody from starting; a key that is not what it should be does.
fn keys(state_dir: Option<&Path>) -> Result<Keys, AppError> {
    let Some(folder) = state_dir else { return Ok(Keys::ephemeral()) };
    let secret = match secret::load_or_create(&folder.join(KEYS_FILE), Keys::BYTES) {
        Ok(secret) => secret,
        Err(SecretError::Create { source, .. } | SecretError::Read { source, .. }) => {
            folder::without(folder, &source);
            return Ok(Keys::ephemeral());
        }
        Err(error) => return Err(error.into()),
    };
    let mut bytes = [0; Keys::BYTES];
    bytes.copy_from_slice(secret.as_bytes());
    Ok(Keys::new(&bytes))
}

/// How many connections one egress listener may have, so that enough descriptors stay for everything else: an initiator in
/// the same process needs as many for its targets.
fn most_connections(config: &Checked) -> usize {
    let parts = config.egress.len() * if config.initiator.is_some() { 2 } else { 1 };
    (net::for_clients(net::descriptors()) / parts.max(1)).max(1)
}

fn egress(
    settings: &EgressConfig,
    most: usize,
    directory: &Arc<Directory<Tunnel>>,
    metrics: &Metrics,
) -> Result<Egress, AppError> {
    let wanted = settings.limits.connections as usize;
    if wanted > most {
        info!(listener = %settings.http, wanted, most, "fewer connections than configured: file descriptors are short");
    }
    let limits = EgressSettings {
        max_head_bytes: settings.limits.head_bytes,
        max_head_fields: settings.limits.head_fields,
        max_connections: wanted.min(most),
        half_close: settings.half_close,
        pace: Pace {
            body_idle: settings.limits.body_idle,
            body_rate: settings.limits.body_rate.into(),
            exchange_idle: settings.limits.exchange_idle,
            connect_idle: settings.limits.connect_idle.unwrap_or(Duration::MAX),
        },
        http3: Http3Settings {
            enabled: settings.http3.enabled,
            early_data: settings.http3.early_data,
            public_port: settings.http3.port,
            ..Http3Settings::default()
        },
        ..EgressSettings::default()
    };
    let mut builder = egress::Builder::new(Arc::clone(directory), settings.router.clone())
        .settings(limits)
        .access_log(settings.access_log)
        .trust(settings.trust.clone())
        .forwarded(settings.forwarded)
        .rewrite(settings.steps())
        .metrics(metrics);
    if let Some(files) = &settings.tls {
        builder = builder.tls(files.egress()?);
    }
    Ok(builder.bind(settings.http)?)
}

fn initiator(settings: &InitiatorConfig, config: &Checked, metrics: &Metrics) -> Result<Initiator<Services>, AppError> {
    let recorder = Recorder::new(metrics, Side::Target, None, settings.access_log);
    for service in
        config.services.iter().filter(|service| service.tls.as_ref().is_some_and(|tls| tls.insecure_accept_any))
    {
        let (name, target) = (&service.name, &service.target);
        warn!(service = %name, %target, "tls.insecure_accept_any: whoever is between here and the target can read and change everything");
    }
    let HeadLimits { head_bytes, head_fields } = settings.limits;
    let service = |service: &ServiceConfig| {
        let settings = service.settings()?;
        let connections = TargetSettings { head_bytes, head_fields, ..settings.connections };
        Ok(ServiceSettings { connections, ..settings })
    };
    let list = config.services.iter().map(service).collect::<Result<_, TlsError>>()?;
    let services = Services::recorded(list, recorder)?;
    let tls = settings.tls.initiator()?;
    let destinations = settings.tunnels.iter().map(|tunnel| {
        if let TransportChoice::Envoy(envoy) = &tunnel.transport
            && let Some(exposed) = envoy.security.exposes()
        {
            warn!(to = %tunnel.to, "envoy.security {}: {exposed}", envoy.security.label());
        }
        let server_name = settings.tls.server_name.clone();
        Destination { server_name, transport: tunnel.transport.clone(), ..Destination::new(&tunnel.to, tunnel.count) }
    });
    let mut builder = initiator::Builder::to(settings.claim.clone(), destinations.collect(), tls.responder)
        .services(services.exported())
        .probe_interval(settings.probe_interval)
        .tunnel(TunnelSettings { drain_timeout: config.drain_timeout, ..settings.tunnel() })
        .quic(QuicSettings { congestion: settings.congestion, ..QuicSettings::default() })
        .tcp(TcpSettings { congestion: settings.congestion, ..TcpSettings::default() })
        .metrics(metrics);
    if let Some(credentials) = tls.credentials {
        builder = builder.credentials(credentials);
    }
    if let Some(token) = settings.token.as_ref().and_then(|token| Token::new(token.expose())) {
        builder = builder.token(token);
    }
    Ok(builder.accept(services)?)
}
