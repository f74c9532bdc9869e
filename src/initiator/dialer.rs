//! Which addresses there are to dial: resolves every destination again and again, and keeps a set of slots per address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::id::{Claim, InstanceId};
use crate::initiator::auto::{Transport, Transports};
use crate::initiator::status::StatusBoard;
use crate::initiator::supervisor::{Slot, keep};
use crate::protocol::handshake::{Service, Token};
use crate::telemetry::{Metrics, Role, TunnelMetrics};
use crate::transport::quic::QuicSettings;
use crate::transport::tcp::envoy;
use crate::transport::{Dialer, Serve, TransportKind};

/// How often a name is asked again while all is well.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a tunnel that fell back to TCP waits before QUIC is probed, unless the settings say otherwise.
pub const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// A responder to keep tunnels to.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `host:port` as configured; every address it resolves to is dialled.
    pub target: String,
    /// Tunnels per address, at least 1.
    pub count: u32,
    /// The name that the responder's certificate must have; by default the host of `target`.
    pub server_name: Option<String>,
    /// What carries its tunnels.
    pub transport: TransportChoice,
    /// How an Envoy is dialled; needed with [`TransportChoice::Envoy`].
    pub envoy: Option<envoy::Dialer>,
}

/// Which transport a tunnel is dialled over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// The best that works: QUIC, or TCP while QUIC does not get through.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// TCP only.
    Tcp,
    /// Envoy's reverse tunnel over TCP, to an Envoy responder.
    Envoy,
}

impl TransportChoice {
    /// What the machine may use.
    pub(super) const fn transports(self) -> Transports {
        match self {
            Self::Auto => Transports::Auto,
            Self::Quic => Transports::Only(Transport::Quic),
            Self::Tcp | Self::Envoy => Transports::Only(Transport::Tcp),
        }
    }

    /// What is tried first.
    pub(super) const fn preferred(self) -> Transport {
        match self.transports() {
            Transports::Auto => Transport::Quic,
            Transports::Only(only) => only,
        }
    }

    /// What a transport of the status means for such a tunnel.
    pub const fn kind(self, transport: Transport) -> TransportKind {
        match (transport, self) {
            (Transport::Quic, _) => TransportKind::Quic,
            (Transport::Tcp, Self::Envoy) => TransportKind::Envoy,
            (Transport::Tcp, _) => TransportKind::Tcp,
        }
    }
}

/// Everything an initiator needs.
#[derive(Debug, Clone)]
pub struct InitiatorSettings {
    /// Who it claims to be.
    pub claim: Claim,
    /// A credential beside TLS.
    pub token: Option<Token>,
    /// What it exports.
    pub services: Vec<Service>,
    /// Where to.
    pub destinations: Vec<Destination>,
    /// How long a tunnel that fell back to TCP waits before QUIC is probed; up to three times that while probes fail.
    /// [`DEFAULT_PROBE_INTERVAL`] suits most. spec: TB-25
    pub probe_interval: Duration,
    /// Drain deadline and transport settings.
    pub quic: QuicSettings,
}

/// The initiator role, ready to run.
#[derive(Debug, Clone)]
pub struct Initiator<S> {
    pub(super) settings: Arc<InitiatorSettings>,
    pub(super) dialer: Dialer,
    pub(super) service: S,
    pub(super) instance: InstanceId,
    pub(super) board: StatusBoard,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: TunnelMetrics,
    next_slot: Arc<AtomicU32>,
}

impl<S: Serve + Sync> Initiator<S> {
    /// Prepares the role; nothing is dialled before [`Initiator::run`].
    pub fn new(settings: InitiatorSettings, dialer: Dialer, service: S, metrics: &Metrics) -> Self {
        Self {
            settings: Arc::new(settings),
            dialer,
            service,
            instance: InstanceId(rand::random()),
            board: StatusBoard::new(metrics.destinations()),
            tasks: TaskTracker::new(),
            metrics: metrics.tunnels(Role::Initiator),
            next_slot: Arc::default(),
        }
    }

    /// What its tunnels are doing.
    pub fn status(&self) -> StatusBoard {
        self.board.clone()
    }

    /// Keeps the tunnels up until `drain` is cancelled, then drains them all and returns.
    ///
    /// Not cancel safe: dropping the future leaves the tunnels' tasks running.
    pub async fn run(self, drain: CancellationToken) {
        for destination in &self.settings.destinations {
            self.tasks.spawn(self.clone().keep_destination(destination.clone(), drain.clone()));
        }
        drain.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn keep_destination(self, destination: Destination, drain: CancellationToken) {
        let failed = Arc::new(Notify::new());
        let mut addresses = BTreeMap::<SocketAddr, CancellationToken>::new();
        loop {
            match resolve(&destination.target).await {
                Ok(found) => self.reconcile(&destination, &found, &mut addresses, &failed, &drain),
                Err(error) => {
                    warn!(destination = destination.target, %error, "cannot resolve the responder's name; trying again");
                }
            }
            let pause = if addresses.is_empty() { Duration::from_secs(1) } else { RESOLVE_INTERVAL };
            tokio::select! {
                () = drain.cancelled() => return,
                // A failed dial may mean that the name moved. A tunnel in backoff does not ask more often than it dials.
                () = failed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts slots for new addresses and drains those of addresses that are gone.
    fn reconcile(
        &self,
        destination: &Destination,
        found: &BTreeSet<SocketAddr>,
        addresses: &mut BTreeMap<SocketAddr, CancellationToken>,
        failed: &Arc<Notify>,
        drain: &CancellationToken,
    ) {
        addresses.retain(|address, stop| {
            let keep = found.contains(address);
            if !keep {
                info!(destination = destination.target, %address, "the name no longer has this address: draining it");
                stop.cancel();
            }
            keep
        });
        for address in found {
            if addresses.contains_key(address) {
                continue;
            }
            let stop = drain.child_token();
            for _ in 0..destination.count {
                let slot = Slot {
                    number: self.next_slot.fetch_add(Slot::numbers(destination.transport), Ordering::Relaxed),
                    destination: destination.target.as_str().into(),
                    address: *address,
                    server_name: destination.server_name(),
                    transport: destination.transport,
                    dialer: match &destination.envoy {
                        Some(envoy) => self.dialer.clone().with_envoy(envoy.clone()),
                        None => self.dialer.clone(),
                    },
                    failed: Arc::clone(failed),
                };
                self.tasks.spawn(keep(self.clone(), slot, stop.clone()));
            }
            addresses.insert(*address, stop);
        }
    }
}

impl Destination {
    /// The name to verify: the configured one, else the host part of the target.
    fn server_name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| {
            let host = self.target.rsplit_once(':').map_or(self.target.as_str(), |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        })
    }
}

async fn resolve(target: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match timeout(RESOLVE_TIMEOUT, lookup_host(target)).await {
        Ok(Ok(found)) => {
            let found: BTreeSet<_> = found.map(unmapped).collect();
            if found.is_empty() { Err("the name has no address".into()) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
    }
}

/// An IPv4 address in IPv6 clothes is the same responder.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}
