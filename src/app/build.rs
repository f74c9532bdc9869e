//! From checked settings to bound listeners and prepared roles.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tracing::warn;

use crate::admin;
use crate::app::state::State;
use crate::app::{App, Egress};
use crate::config::{Checked, EgressConfig, InitiatorConfig, ResponderConfig};
use crate::egress::Settings as EgressSettings;
use crate::egress::gateway::Gateway;
use crate::egress::listener::Listener;
use crate::egress::observe::Observed;
use crate::initiator::serve::{DuplicateService, Services};
use crate::initiator::{Destination, Initiator, InitiatorSettings};
use crate::lifecycle::Ready;
use crate::net::{self, Granted};
use crate::policy::RuleError;
use crate::protocol::ALPN;
use crate::protocol::handshake::Token;
use crate::protocol::session::Timing;
use crate::proxy::failure::Cause;
use crate::responder::{Responder, ResponderError, ResponderSettings};
use crate::routing::{Directory, Router};
use crate::telemetry::{Metrics, Role, Side};
use crate::tls::{self, TlsError, secret};
use crate::transport::quic::{self, Dialer, Keys, QuicSettings};
use crate::transport::{DialError, Tunnel};

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
    /// The persisted keys.
    #[error("responder.state_dir: {0}")]
    Keys(#[from] secret::SecretError),
    /// The admin listener.
    #[error("admin: cannot listen on {address}: {source}")]
    Admin {
        /// What was asked for.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bound socket that does not tell its address.
    #[error("a listener does not know its address: {0}")]
    Address(std::io::Error),
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
    let tls = tls::responder_config(&settings.tls()?, &[ALPN])?;
    let (socket, granted) = net::bind_udp(settings.quic)?;
    report_buffers(metrics, Role::Responder, granted);
    let quic = QuicSettings {
        congestion: settings.congestion,
        max_incoming: settings.max_pending_handshakes as usize,
        drain_timeout: config.drain_timeout,
        timing: Timing {
            handshake_timeout: settings.handshake_timeout,
            keepalive_interval: settings.keepalive,
            idle_timeout: settings.idle_timeout,
            ..Timing::default()
        },
        ..QuicSettings::default()
    };
    let settings = ResponderSettings { name: settings.name.clone(), rules, tls, keys: keys(settings)?, quic };
    Ok(Responder::bind(socket, settings, Arc::clone(directory), metrics)?)
}

/// Persisted where the file says; else new, so that tunnels of a former process notice its end by their idle timeout.
fn keys(settings: &ResponderConfig) -> Result<Keys, AppError> {
    let Some(folder) = &settings.state_dir else { return Ok(Keys::ephemeral()) };
    let secret = secret::load_or_create(&folder.join(KEYS_FILE), Keys::BYTES)?;
    let mut bytes = [0; Keys::BYTES];
    bytes.copy_from_slice(secret.as_bytes());
    Ok(Keys::new(&bytes))
}

fn egress(settings: &EgressConfig, directory: &Arc<Directory<Tunnel>>, metrics: &Metrics) -> Result<Egress, AppError> {
    let tls = match &settings.tls {
        Some(files) => Some(Arc::new(tls::egress_config(&files.egress()?)?)),
        None => None,
    };
    let limits = EgressSettings {
        max_head_bytes: settings.limits.head_bytes,
        max_head_fields: settings.limits.head_fields,
        max_connections: settings.limits.connections as usize,
        half_close: settings.half_close,
        ..EgressSettings::default()
    };
    let listener = Listener::new(net::bind_tcp(settings.http)?, tls, limits);
    let address = listener.local_addr().map_err(AppError::Address)?;
    let causes = Cause::ALL.map(Cause::label);
    let gateway = Gateway::new(Arc::clone(directory), Router::new(settings.router.clone()));
    let service = Observed::new(gateway, metrics.exchanges(Side::Egress, &causes), settings.access_log);
    Ok(Egress { listener, address, service })
}

fn initiator(settings: &InitiatorConfig, config: &Checked, metrics: &Metrics) -> Result<Initiator<Services>, AppError> {
    let services = Services::new(config.services.iter().map(|service| service.settings()).collect())?;
    let quic = QuicSettings {
        congestion: settings.congestion,
        drain_timeout: config.drain_timeout,
        timing: Timing { keepalive_interval: settings.keepalive, ..Timing::default() },
        ..QuicSettings::default()
    };
    let tls = tls::initiator_config(&settings.tls.initiator()?, &[ALPN])?;
    let (socket, granted) = dialling_socket()?;
    report_buffers(metrics, Role::Initiator, granted);
    let endpoint = quic::bind(socket, &Keys::ephemeral(), None)?;
    let destinations = settings.tunnels.iter().map(|tunnel| Destination {
        target: tunnel.to.to_string(),
        count: tunnel.count,
        server_name: settings.tls.server_name.clone(),
    });
    let roles = InitiatorSettings {
        claim: settings.claim.clone(),
        token: settings.token.as_ref().and_then(|token| Token::new(token.expose())),
        services: services.exported(),
        destinations: destinations.collect(),
        quic: quic.clone(),
    };
    let dialer = Dialer::new(endpoint, tls, quic)?;
    Ok(Initiator::new(roles, dialer, services, metrics))
}

/// A socket that reaches IPv6 and IPv4; only IPv4 where the system has no IPv6.
fn dialling_socket() -> Result<(std::net::UdpSocket, Granted), net::BindError> {
    net::bind_udp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| net::bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

fn report_buffers(metrics: &Metrics, role: Role, granted: Granted) {
    metrics.udp_buffers(role, granted.recv, granted.send);
    if !granted.is_enough() {
        warn!(
            role = role.label(),
            asked = net::UDP_BUFFER_BYTES,
            recv = granted.recv,
            send = granted.send,
            "the kernel granted smaller UDP buffers than asked for, which costs packets under load; raise \
             net.core.rmem_max and net.core.wmem_max"
        );
    }
}
