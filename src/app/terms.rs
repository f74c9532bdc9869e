//! From settings to the terms of each role: the same for one that starts and for one that runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::app::error::AppError;
use crate::app::load::{Loaded, token};
use crate::app::upstreams::KnownUpstreams;
use crate::config::{Checked, EgressConfig, HttpEgress, InitiatorConfig, ResponderConfig, TcpEgress};
use crate::egress::{self, Http3Settings, Pace};
use crate::initiator::serve::Services;
use crate::initiator::{self, Destination};
use crate::net;
use crate::responder;
use crate::tls::EgressTls;
use crate::transport::TunnelSettings;
use crate::transport::quic::QuicSettings;
use crate::transport::tcp::TcpSettings;

/// How many connections one egress listener may have, so that enough descriptors stay for everything else: an initiator in
/// the same process needs as many for its targets.
pub(super) fn most_connections(config: &Checked) -> usize {
    let parts = config.egress.len() * if config.initiator.is_some() { 2 } else { 1 };
    (net::for_clients(net::descriptors()) / parts.max(1)).max(1)
}

/// What an egress listener goes by; `known`: the servers that are there already to which its rules forward.
pub(super) fn egress(
    settings: &EgressConfig,
    tls: Option<&Arc<EgressTls>>,
    most: usize,
    known: &KnownUpstreams,
) -> Result<egress::Terms, AppError> {
    match settings {
        EgressConfig::Http(settings) => http(settings, tls, most, known),
        EgressConfig::Tcp(settings) => bytes(settings, most),
    }
}

/// As many as are wanted, and there may be.
fn connections(listener: SocketAddr, wanted: u32, most: usize) -> usize {
    let wanted = wanted as usize;
    if wanted > most {
        info!(%listener, wanted, most, "fewer connections than configured: file descriptors are short");
    }
    wanted.min(most)
}

fn bytes(settings: &TcpEgress, most: usize) -> Result<egress::Terms, AppError> {
    let pace = Pace { connect_idle: settings.limits.idle.unwrap_or(Duration::MAX), ..Pace::default() };
    let max_connections = connections(settings.tcp, settings.limits.connections, most);
    Ok(egress::Terms {
        tcp: Some(settings.terms()),
        proxies: settings.proxy_protocol.clone(),
        settings: egress::Settings { max_connections, pace, ..egress::Settings::default() },
        access_log: settings.access_log,
        policies: settings.rules()?,
        ..egress::Terms::new(settings.router.clone())
    })
}

fn http(
    settings: &HttpEgress,
    tls: Option<&Arc<EgressTls>>,
    most: usize,
    known: &KnownUpstreams,
) -> Result<egress::Terms, AppError> {
    Ok(egress::Terms {
        tls: tls.cloned(),
        proxies: settings.proxy_protocol.clone(),
        settings: egress::Settings {
            max_head_bytes: settings.limits.head_bytes,
            max_head_fields: settings.limits.head_fields,
            max_connections: connections(settings.http, settings.limits.connections, most),
            half_close: settings.half_close,
            pace: Pace {
                body_idle: settings.limits.body_idle,
                body_rate: settings.limits.body_rate.into(),
                exchange_idle: settings.limits.exchange_idle,
                connect_idle: settings.limits.connect_idle.unwrap_or(Duration::MAX),
                ..Pace::default()
            },
            http3: Http3Settings {
                enabled: settings.http3.enabled,
                early_data: settings.http3.early_data,
                public_port: settings.http3.port,
                ..Http3Settings::default()
            },
            ..egress::Settings::default()
        },
        access_log: settings.access_log,
        trust: settings.trust.clone(),
        forwarded: settings.forwarded,
        rewrite: settings.steps(),
        policies: settings.rules_after(|priority| known.get(&priority).cloned())?,
        ..egress::Terms::new(settings.router.clone())
    })
}

/// Of each tunnel of a responder.
pub(super) fn accepted(settings: &ResponderConfig, config: &Checked) -> TunnelSettings {
    TunnelSettings { drain_timeout: config.drain_timeout, ..settings.tunnel() }
}

/// What only QUIC knows of them.
pub(super) fn quic(settings: &ResponderConfig) -> QuicSettings {
    QuicSettings { congestion: settings.congestion, ..QuicSettings::default() }
}

/// What only TCP knows of them.
pub(super) fn tcp(settings: &ResponderConfig) -> TcpSettings {
    TcpSettings { congestion: settings.congestion, ..TcpSettings::default() }
}

/// Puts in the terms of a responder that runs what the settings say.
pub(super) fn responder(loaded: &Loaded, terms: &mut responder::Terms) {
    let (Some(settings), Some(own)) = (&loaded.checked.responder, &loaded.responder) else { return };
    terms.name.clone_from(&settings.name);
    terms.rules = own.rules.clone();
    terms.envoy.clone_from(&own.envoy);
    terms.tunnel = accepted(settings, &loaded.checked);
    terms.quic = quic(settings);
    terms.tcp = tcp(settings);
    terms.shares = settings.shares.clone();
}

/// Whom an initiator dials.
pub(super) fn destinations(settings: &InitiatorConfig) -> Vec<Destination> {
    let destinations = settings.tunnels.iter().map(|tunnel| {
        let server_name = settings.tls.server_name.clone();
        Destination {
            server_name,
            transport: tunnel.transport.clone(),
            siblings: tunnel.siblings,
            region: tunnel.region.clone(),
            rebalance: tunnel.rebalance,
            ..Destination::new(&tunnel.to, tunnel.count)
        }
    });
    destinations.collect()
}

/// Of each tunnel of an initiator.
pub(super) fn dialled(settings: &InitiatorConfig, config: &Checked) -> TunnelSettings {
    TunnelSettings { drain_timeout: config.drain_timeout, ..settings.tunnel() }
}

/// Puts in the terms of an initiator that runs what the settings say.
pub(super) fn initiator(loaded: &Loaded, services: &Services, terms: &mut initiator::Terms<Services>) {
    let Some(settings) = &loaded.checked.initiator else { return };
    terms.token = token(settings);
    terms.destinations = destinations(settings);
    terms.services = services.exported();
    terms.health = services.health();
    terms.accept = services.clone();
    terms.probe_interval = settings.probe_interval;
    terms.tunnel = dialled(settings, &loaded.checked);
    terms.quic = QuicSettings { congestion: settings.congestion, ..QuicSettings::default() };
    terms.tcp = TcpSettings { congestion: settings.congestion, ..TcpSettings::default() };
}
