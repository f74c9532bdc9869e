//! What the admin listener shows of a running app.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{
    AcceptedTunnel, AdminState, DialledTunnel, DrainOutcome, DrainReport, Draining, FleetReport, GoneNode, Readiness,
    ReloadFault, Reloading, ServiceReport, TransportPath, TunnelsReport,
};
use crate::app::certificates::Certificates;
use crate::app::fleet;
use crate::app::named;
use crate::fleet::{Member, now_epoch};
use crate::initiator::auto::PathReport;
use crate::initiator::serve::{ServiceStatus, Services};
use crate::initiator::{SlotStatus, StatusBoard, UnresolvedStatus};
use crate::lifecycle::Ready;
use crate::registry::{Handle as _, Health, LiveTunnel};
use crate::responder::{Gone, GoneNodes};
use crate::routing::Directory;
use crate::telemetry::{DestinationState, Entrance, Limit, LimitMetrics, Metrics};
use crate::transport::Tunnel;

/// How many nodes are named that are nowhere else.
const MOST_NAMED: usize = 100;

/// Handles on everything that can be shown, and on what can be asked for.
pub(super) struct State {
    metrics: Metrics,
    limits: LimitMetrics,
    ready: Ready,
    view: ArcSwap<View>,
    reload: OnceLock<Box<dyn Fn() -> Reloading + Send + Sync>>,
    drain_requested: CancellationToken,
    draining: CancellationToken,
    /// When the process was started, in milliseconds since 1970.
    started: u64,
    /// When what still runs is cut, once it drains.
    ends: OnceLock<Instant>,
    /// How the drain has ended.
    outcome: watch::Sender<Option<DrainOutcome>>,
}

/// What follows from the settings that are in force.
#[derive(Default)]
pub(super) struct View {
    pub(super) directory: Arc<Directory<Tunnel>>,
    pub(super) gone: GoneNodes,
    pub(super) certificates: Certificates,
    /// Its membership in a fleet.
    pub(super) fleet: Option<Member>,
    /// Whether there are series that bear names.
    pub(super) names: bool,
    pub(super) board: Option<StatusBoard>,
    /// What the initiator serves.
    pub(super) services: Option<Services>,
    pub(super) config: serde_json::Value,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// Nothing is in force yet.
    pub(super) fn new(metrics: &Metrics, ready: Ready) -> Self {
        Self {
            metrics: metrics.clone(),
            limits: metrics.limits(Entrance::Admin),
            ready,
            view: ArcSwap::default(),
            reload: OnceLock::new(),
            drain_requested: CancellationToken::new(),
            draining: CancellationToken::new(),
            started: now_epoch(),
            ends: OnceLock::new(),
            outcome: watch::Sender::new(None),
        }
    }

    /// Shows this from now on.
    pub(super) fn show(&self, view: View) {
        self.view.store(Arc::new(view));
    }

    /// What an operator's wish to reload begins; the first one counts.
    pub(super) fn reload_by(&self, reload: impl Fn() -> Reloading + Send + Sync + 'static) {
        let _ = self.reload.set(Box::new(reload));
    }

    /// Resolves when an operator asked for a drain. Cancel safe.
    pub(super) async fn drain_requested(&self) {
        self.drain_requested.cancelled().await;
    }

    /// The certificates that the settings name.
    pub(super) fn certificates(&self) -> Certificates {
        self.view.load().certificates.clone()
    }

    /// From here on the process is not ready, and no settings are applied.
    pub(super) fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// What still runs after so long is cut.
    pub(super) fn ends_within(&self, limit: Duration) {
        let _ = self.ends.set(Instant::now() + limit);
    }

    /// The drain is over.
    pub(super) fn has_drained(&self, outcome: DrainOutcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Cancelled when the process begins to drain.
    pub(super) fn draining(&self) -> &CancellationToken {
        &self.draining
    }
}

impl AdminState for State {
    fn metrics(&self) -> String {
        self.metrics.process();
        let view = self.view.load();
        view.certificates.measure(&self.metrics);
        if let Some(member) = &view.fleet {
            fleet::measure(member, &self.metrics);
        }
        let mut text = self.metrics.render();
        if let Some(services) = &view.services {
            text += &named::services(&services.status());
        }
        if view.names {
            text += &named::render(&self.tunnels(), &view.gone.past_exchanges());
        }
        text
    }

    fn readiness(&self) -> Readiness {
        let mut missing: Vec<_> = self.ready.missing().into_iter().map(str::to_owned).collect();
        if self.draining.is_cancelled() {
            missing.push("draining".to_owned());
        }
        Readiness { missing }
    }

    fn tunnels(&self) -> TunnelsReport {
        let view = self.view.load();
        let registry = view.directory.registry();
        let mut live: Vec<_> = registry.snapshot().collect();
        live.sort_by(|a, b| key(a).cmp(&key(b)));
        let accepted = live.iter().map(|live| accepted(&live.handle)).collect();
        let nowhere = view.board.iter().flat_map(StatusBoard::unresolved).map(unresolved);
        let dialled = nowhere.chain(view.board.iter().flat_map(StatusBoard::slots).map(dialled)).collect();
        // One that just came back may still be in the list.
        let gone =
            view.gone.list().into_iter().filter(|gone| registry.counts(&gone.claim).node == 0).map(gone).collect();
        let services = view.services.iter().flat_map(Services::status).map(service).collect();
        TunnelsReport { accepted, dialled, services, gone }
    }

    fn fleet(&self) -> Option<FleetReport> {
        self.view.load().fleet.as_ref().map(fleet::report)
    }

    fn tunnels_up(&self) -> usize {
        let view = self.view.load();
        view.directory.registry().len() + view.board.as_ref().map_or(0, StatusBoard::connected)
    }

    fn config(&self) -> serde_json::Value {
        self.view.load().config.clone()
    }

    fn limited(&self, limit: Limit) {
        self.limits.hit(limit);
    }

    fn drain(&self) {
        self.drain_requested.cancel();
    }

    fn drain_report(&self) -> DrainReport {
        let view = self.view.load();
        let nowhere_else = match &view.fleet {
            Some(member) => fleet::nowhere_else(member, &view.directory),
            None => Vec::new(),
        };
        let left = self.ends.get().map_or(Duration::ZERO, |ends| ends.saturating_duration_since(Instant::now()));
        DrainReport {
            started: self.started,
            draining: self.draining.is_cancelled(),
            seconds_left: left.as_secs_f64(),
            tunnels: self.tunnels_up(),
            running: self.metrics.exchanges_in_flight(),
            nowhere_else_count: nowhere_else.len(),
            nowhere_else: nowhere_else.into_iter().take(MOST_NAMED).collect(),
            outcome: None,
        }
    }

    fn drained(&self) -> Draining {
        let (mut outcome, started) = (self.outcome.subscribe(), self.started);
        Box::pin(async move {
            let outcome = match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => *outcome,
                Err(_) => None,
            };
            DrainReport { started, draining: true, outcome, ..DrainReport::default() }
        })
    }

    fn reload(&self) -> Reloading {
        match self.reload.get() {
            Some(reload) => reload(),
            None => Box::pin(std::future::ready(Err(ReloadFault::NotNow))),
        }
    }
}

fn key(live: &LiveTunnel<Tunnel>) -> (&str, &str, u32) {
    (live.place.claim.tenant.as_str(), live.place.claim.node.as_str(), live.place.slot)
}

/// The word for it in `/tunnels` and `adit status`.
fn health(tunnel: &Tunnel) -> &'static str {
    match tunnel.health() {
        Health::Healthy => "healthy",
        Health::Unproven | Health::Suspect => "suspect",
        Health::Opening => "opening",
        Health::Draining => "draining",
    }
}

fn accepted(tunnel: &Tunnel) -> AcceptedTunnel {
    let health = health(tunnel).to_owned();
    let tunnel = tunnel.snapshot();
    AcceptedTunnel {
        id: tunnel.id,
        node: tunnel.node,
        cluster: tunnel.cluster,
        tenant: tunnel.tenant,
        slot: tunnel.slot,
        generation: tunnel.generation,
        transport: tunnel.transport.label().to_owned(),
        remote: tunnel.remote.to_string(),
        health,
        down: tunnel.down.into_iter().map(|down| format!("{}: {}", down.service, down.cause)).collect(),
        age_seconds: tunnel.age_seconds,
        rtt_ms: tunnel.rtt_ms,
        in_flight: tunnel.in_flight,
        exchanges: tunnel.exchanges,
        lost_packets: tunnel.path.map_or(0, |path| path.lost_packets),
        sent_bytes: tunnel.bytes_sent,
        received_bytes: tunnel.bytes_received,
    }
}

fn service(status: ServiceStatus) -> ServiceReport {
    let ServiceStatus { name, target, standing, since_seconds, refused } = status;
    let cause = standing.down().map(|cause| cause.label().to_owned());
    ServiceReport { name, target, state: standing.label().to_owned(), cause, since_seconds, refused }
}

fn gone(node: Gone) -> GoneNode {
    GoneNode {
        node: node.claim.node.to_string(),
        cluster: node.claim.cluster.to_string(),
        tenant: node.claim.tenant.to_string(),
        since_seconds: node.since.elapsed().unwrap_or_default().as_secs(),
        reason: node.reason,
    }
}

fn dialled(slot: SlotStatus) -> DialledTunnel {
    let reason = match (slot.reason, slot.advice) {
        (Some(reason), Some(advice)) => Some(format!("{reason}; {advice}")),
        (reason, _) => reason,
    };
    let paths = slot.paths.paths.into_iter().map(path).collect();
    DialledTunnel {
        to: slot.destination,
        remote: Some(slot.address.to_string()),
        slot: slot.slot,
        generation: slot.tunnel.as_ref().map_or(0, |tunnel| tunnel.generation),
        state: slot.state.label().to_owned(),
        transport: slot.transport.label().to_owned(),
        since_seconds: slot.since_seconds,
        reason,
        retry_in_seconds: slot.retry_in_seconds.map(|seconds| seconds.ceil() as u64),
        id: slot.tunnel.as_ref().map(|tunnel| tunnel.id.clone()),
        responder: slot.responder,
        rtt_ms: slot.tunnel.as_ref().map(|tunnel| tunnel.rtt_ms),
        switches: slot.paths.switches,
        switch_reason: slot.paths.switch_reason,
        paths,
    }
}

/// A destination without an address, which has no slot yet.
fn unresolved(status: UnresolvedStatus) -> DialledTunnel {
    DialledTunnel {
        to: status.destination,
        state: DestinationState::CannotConnect.label().to_owned(),
        since_seconds: status.since_seconds,
        reason: Some(format!("{}; {}", status.reason, status.advice)),
        retry_in_seconds: Some(status.retry_in_seconds.ceil() as u64),
        ..DialledTunnel::default()
    }
}

fn path(report: PathReport) -> TransportPath {
    TransportPath {
        transport: report.transport.label().to_owned(),
        state: report.state.label().to_owned(),
        suspect: report.suspect,
        since_seconds: report.since_seconds,
        up_seconds: report.up_seconds,
        reason: report.reason,
        probe_in_seconds: report.probe_in_seconds.map(|seconds| seconds.ceil() as u64),
    }
}
