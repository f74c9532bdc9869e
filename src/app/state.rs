//! What the admin listener shows of a running app.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admin::{AcceptedTunnel, AdminState, DialledTunnel, GoneNode, Readiness, TransportPath, TunnelsReport};
use crate::app::certificates::Certificates;
use crate::app::named;
use crate::config::Checked;
use crate::initiator::auto::PathReport;
use crate::initiator::{SlotStatus, StatusBoard, UnresolvedStatus};
use crate::lifecycle::Ready;
use crate::registry::{Handle as _, Health, LiveTunnel};
use crate::responder::{Gone, GoneNodes, Responder};
use crate::routing::Directory;
use crate::telemetry::{DestinationState, Entrance, Limit, LimitMetrics, Metrics};
use crate::transport::Tunnel;

/// What is known of an app when it is built.
pub(super) struct Parts<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) ready: Ready,
    pub(super) responder: Option<&'a Responder>,
    pub(super) board: Option<StatusBoard>,
    pub(super) config: &'a Checked,
}

/// Handles on everything that can be shown, and on the one thing that can be asked for.
pub(super) struct State {
    metrics: Metrics,
    limits: LimitMetrics,
    ready: Ready,
    directory: Arc<Directory<Tunnel>>,
    gone: GoneNodes,
    certificates: Certificates,
    /// Whether there are series that bear names.
    names: bool,
    board: Option<StatusBoard>,
    config: serde_json::Value,
    drain_requested: CancellationToken,
    draining: CancellationToken,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// Reads the certificates of the file, and warns of what is wrong with them.
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let Parts { metrics, ready, responder, board, config } = parts;
        Self {
            metrics: metrics.clone(),
            limits: metrics.limits(Entrance::Admin),
            ready,
            directory: responder.map(Responder::directory).unwrap_or_default(),
            gone: responder.map(Responder::gone).unwrap_or_default(),
            certificates: Certificates::of(config),
            names: config.metrics.names,
            board,
            config: serde_json::to_value(config).unwrap_or_default(),
            drain_requested: CancellationToken::new(),
            draining: CancellationToken::new(),
        }
    }

    /// Resolves when an operator asked for a drain. Cancel safe.
    pub(super) async fn drain_requested(&self) {
        self.drain_requested.cancelled().await;
    }

    /// What the file names.
    pub(super) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// From here on the process is not ready.
    pub(super) fn begin_drain(&self) {
        self.draining.cancel();
    }
}

impl AdminState for State {
    fn metrics(&self) -> String {
        self.metrics.process();
        self.certificates.measure(&self.metrics);
        if self.names {
            return self.metrics.render() + &named::render(&self.tunnels(), &self.gone.past_exchanges());
        }
        self.metrics.render()
    }

    fn readiness(&self) -> Readiness {
        let mut missing: Vec<_> = self.ready.missing().into_iter().map(str::to_owned).collect();
        if self.draining.is_cancelled() {
            missing.push("draining".to_owned());
        }
        Readiness { missing }
    }

    fn tunnels(&self) -> TunnelsReport {
        let mut live: Vec<_> = self.directory.registry().snapshot().collect();
        live.sort_by(|a, b| key(a).cmp(&key(b)));
        let accepted = live.iter().map(|live| accepted(&live.handle)).collect();
        let nowhere = self.board.iter().flat_map(StatusBoard::unresolved).map(unresolved);
        let dialled = nowhere.chain(self.board.iter().flat_map(StatusBoard::slots).map(dialled)).collect();
        // One that just came back may still be in the list.
        let registry = self.directory.registry();
        let gone =
            self.gone.list().into_iter().filter(|gone| registry.counts(&gone.claim).node == 0).map(gone).collect();
        TunnelsReport { accepted, dialled, gone }
    }

    fn tunnels_up(&self) -> usize {
        self.directory.registry().len() + self.board.as_ref().map_or(0, StatusBoard::connected)
    }

    fn config(&self) -> serde_json::Value {
        self.config.clone()
    }

    fn limited(&self, limit: Limit) {
        self.limits.hit(limit);
    }

    fn drain(&self) {
        self.drain_requested.cancel();
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
        age_seconds: tunnel.age_seconds,
        rtt_ms: tunnel.rtt_ms,
        in_flight: tunnel.in_flight,
        exchanges: tunnel.exchanges,
        lost_packets: tunnel.path.map_or(0, |path| path.lost_packets),
        sent_bytes: tunnel.bytes_sent,
        received_bytes: tunnel.bytes_received,
    }
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
