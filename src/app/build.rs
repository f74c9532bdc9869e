//! From settings and their files to bound listeners and prepared roles.

use std::path::Path;
use std::sync::Arc;

use crate::admin;
use crate::app::datagrams;
use crate::app::error::AppError;
use crate::app::first_view::FirstView;
use crate::app::fleet::Joining;
use crate::app::folder;
use crate::app::load::{self, Accepting, Loaded};
use crate::app::memory::Memory;
use crate::app::roles::Built;
use crate::app::terms;
use crate::app::upstreams::KnownUpstreams;
use crate::config::{AdminAddress, Checked, EgressConfig, InitiatorConfig, ResponderConfig};
use crate::egress::{self, Egress, Http3Socket};
use crate::initiator::serve::Services;
use crate::initiator::{self, Initiator};
use crate::lifecycle::Ready;
use crate::proxy::Recorder;
use crate::responder::{self, Responder};
use crate::routing::Directory;
use crate::telemetry::{Metrics, Side};
use crate::tls::EgressTls;
use crate::tls::secret::{self, SecretError};
use crate::transport::Tunnel;
use crate::transport::quic::{Keys, QuicSettings};
use crate::transport::tcp::TcpSettings;

/// The file in `state_dir` that holds the endpoint's keys.
const KEYS_FILE: &str = "quic.key";
/// What a responder waits for before it is ready, at most as long as its grace.
const BACK: &str = "tunnels";

/// Everything that the settings want, bound, and nothing begun.
pub(super) async fn build(loaded: &Loaded, metrics: &Metrics, ready: &Ready) -> Result<Built, AppError> {
    let config = &loaded.checked;
    let responder = responder(loaded, metrics, Some(ready))?;
    let directory = responder.as_ref().map(|(responder, _)| responder.directory()).unwrap_or_default();
    let most = terms::most_connections(config);
    let listeners = config.egress.iter().zip(&loaded.egress);
    let egress = listeners.map(|(settings, tls)| egress((settings, tls.as_ref()), most, &directory, metrics, &[]));
    let egress = egress.collect::<Result<Vec<_>, _>>()?;
    let udp = config.udp.iter().map(|settings| datagrams::bind(settings, &directory, metrics));
    let udp = udp.collect::<Result<Vec<_>, _>>()?;
    let initiator = initiator(loaded, metrics)?.map(|initiator| (initiator, ready.guard("first tunnel")));
    let admin = admin(config).await?;
    let fleet = fleet(loaded, &directory, metrics, Some(ready))?;
    Ok(Built { responder, fleet, egress, udp, initiator, admin, metrics: scraped(config).await? })
}

/// The admin listener.
pub(super) async fn admin(config: &Checked) -> Result<Option<admin::Listener>, AppError> {
    listener(config.admin.as_ref(), "admin").await
}

/// The listener for metrics.
pub(super) async fn scraped(config: &Checked) -> Result<Option<admin::Listener>, AppError> {
    let address = config.metrics.listen.map(AdminAddress::Tcp);
    Ok(listener(address.as_ref(), "metrics.listen").await?.map(admin::Listener::read_only))
}

async fn listener(address: Option<&AdminAddress>, key: &'static str) -> Result<Option<admin::Listener>, AppError> {
    let Some(address) = address else { return Ok(None) };
    let bound = admin::Listener::bind(address).await;
    bound.map(Some).map_err(|source| AppError::Admin { key, address: address.to_string(), source })
}

/// The responder and what it knows of former processes, if the settings want one. `ready` is told when its nodes are back.
pub(super) fn responder(
    loaded: &Loaded,
    metrics: &Metrics,
    ready: Option<&Ready>,
) -> Result<Option<(Responder, Memory)>, AppError> {
    let (Some(settings), Some(own)) = (&loaded.checked.responder, &loaded.responder) else { return Ok(None) };
    let state_dir = folder::state_dir(settings);
    let responder = bound((settings, own), &loaded.checked, metrics, keys(state_dir.as_deref())?)?;
    let known = (responder.directory(), responder.gone());
    let memory = Memory::load(known, state_dir, settings.grace, ready.map(|ready| ready.guard(BACK)));
    Ok(Some((responder, memory)))
}

fn bound(
    (settings, own): (&ResponderConfig, &Accepting),
    config: &Checked,
    metrics: &Metrics,
    keys: Keys,
) -> Result<Responder, AppError> {
    let mut builder = responder::Builder::new(own.tls.credentials.clone())
        .admit(settings.admission.settings(), own.trust.clone())?
        .name(&settings.name)
        .keys(keys)
        .grace(settings.grace)
        .shares(settings.shares.clone())
        .tunnel(terms::accepted(settings, config))
        .quic(terms::quic(settings))
        .tcp_settings(terms::tcp(settings))
        .metrics(metrics);
    if let Some(envoy) = &own.envoy {
        builder = builder.envoy(envoy.clone());
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

/// A membership in a fleet, if the settings want one. `ready` is told when it has read who else is there.
pub(super) fn fleet(
    loaded: &Loaded,
    directory: &Arc<Directory<Tunnel>>,
    metrics: &Metrics,
    ready: Option<&Ready>,
) -> Result<Option<Joining>, AppError> {
    let (Some(settings), Some(config)) = (&loaded.fleet, &loaded.checked.fleet) else { return Ok(None) };
    let hop = config.hop.as_ref().map(|hop| hop.listen).zip(loaded.hop.clone());
    // Whoever asks no siblings answers the same whether he knows them or not.
    let first = ready.filter(|_| hop.is_some()).and_then(|ready| FirstView::wanted(ready, config.ready_timeout));
    let joining = Joining::bind((settings.clone(), hop), directory, metrics)?;
    Ok(Some(joining.when_read(first)))
}

/// A listener for application traffic.
pub(super) fn egress(
    (settings, tls): (&EgressConfig, Option<&Arc<EgressTls>>),
    most: usize,
    directory: &Arc<Directory<Tunnel>>,
    metrics: &Metrics,
    left: &[Http3Socket],
) -> Result<Egress, AppError> {
    let terms = terms::egress(settings, tls, most, &KnownUpstreams::new())?;
    let builder = egress::Builder::new(Arc::clone(directory), settings.router().clone()).terms(terms).metrics(metrics);
    Ok(builder.take_back(left.to_vec()).bind(settings.address())?)
}

/// How the exchanges of an initiator are recorded.
pub(super) fn recorder(settings: &InitiatorConfig, metrics: &Metrics) -> Recorder {
    Recorder::new(metrics, Side::Target, None, settings.access_log)
}

/// An initiator that serves what the settings export, if they want one.
pub(super) fn initiator(loaded: &Loaded, metrics: &Metrics) -> Result<Option<Initiator<Services>>, AppError> {
    let (Some(settings), Some(tls)) = (&loaded.checked.initiator, &loaded.initiator) else { return Ok(None) };
    let services = Services::recorded(loaded.services.clone(), recorder(settings, metrics))?.governed(settings.rules());
    let destinations = terms::destinations(settings);
    let mut builder = initiator::Builder::to(settings.claim.clone(), destinations, tls.responder.clone())
        .services(services.exported())
        .health(services.health())
        .probe_interval(settings.probe_interval)
        .tunnel(terms::dialled(settings, &loaded.checked))
        .quic(QuicSettings { congestion: settings.congestion, ..QuicSettings::default() })
        .tcp(TcpSettings { congestion: settings.congestion, ..TcpSettings::default() })
        .metrics(metrics);
    if let Some(credentials) = &tls.credentials {
        builder = builder.credentials(credentials.clone());
    }
    if let Some(token) = load::token(settings) {
        builder = builder.token(token);
    }
    Ok(Some(builder.accept(services)?))
}
