//! What the real Envoy does by itself: that the harness sets it up as it says. Nothing here runs adit.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::certificates::Node;
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Folder, NODE, TO_NODE};
use crate::support::targets::Target;

/// Another node of the same tenant.
pub(super) const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };

/// A missing tunnel is noticed at once.
pub(super) fn attentive() -> InitiatorOptions {
    let second = Duration::from_secs(1);
    let maintain_interval = Some(Duration::from_millis(200));
    InitiatorOptions { maintain_interval, max_reconnect_backoff: Some(second), ..InitiatorOptions::default() }
}

pub(super) async fn status(egress: SocketAddr, field: &str) -> u16 {
    get(egress, "/", &[field]).await.unwrap().status()
}

/// Two ends and a target, with as many tunnels as the initiator was asked for.
pub(super) struct Pair {
    pub(super) responder: EnvoyResponder,
    pub(super) initiator: EnvoyInitiator,
    pub(super) target: Target,
}

impl Pair {
    /// `None`: the test was recorded as skipped.
    pub(super) async fn start(
        variant: Variant,
        responder: ResponderOptions,
        initiator: InitiatorOptions,
    ) -> Option<Self> {
        let target = Target::http1().await;
        let tunnels = initiator.tunnels * initiator.concurrency;
        let responder = EnvoyResponder::start(variant, responder).await?;
        let initiator = EnvoyInitiator::start(variant, responder.tunnel_address(), target.address(), initiator).await?;
        let pair = Self { responder, initiator, target };
        pair.up(tunnels).await;
        Some(pair)
    }

    /// Waits until both ends know of this many tunnels.
    pub(super) async fn up(&self, tunnels: usize) {
        self.responder.registered(tunnels).await;
        self.initiator.connected(tunnels).await;
    }

    pub(super) async fn plaintext(responder: ResponderOptions, initiator: InitiatorOptions) -> Option<Self> {
        Self::start(Variant::Plaintext, responder, initiator).await
    }

    pub(super) async fn status(&self, field: &str) -> u16 {
        status(self.responder.egress(), field).await
    }
}

#[tokio::test]
async fn every_worker_of_an_initiator_dials_its_tunnels() {
    let options = InitiatorOptions { concurrency: 2, tunnels: 3, ..InitiatorOptions::default() };
    let Some(pair) = Pair::plaintext(ResponderOptions::default(), options).await else { return };
    assert_eq!(pair.responder.stat("reverse_tunnel.handshake.accepted").await, 6);
    assert_eq!(pair.status(TO_NODE).await, 200);
}

#[tokio::test]
async fn an_initiator_dials_every_responder() {
    let Some(first) = EnvoyResponder::start(Variant::Plaintext, ResponderOptions::default()).await else { return };
    let second = EnvoyResponder::start(Variant::Plaintext, ResponderOptions::default()).await.unwrap();
    let target = Target::http1().await;
    let options = InitiatorOptions { more_responders: vec![second.tunnel_address()], ..InitiatorOptions::default() };
    let to = first.tunnel_address();
    let initiator = EnvoyInitiator::start(Variant::Plaintext, to, target.address(), options).await.unwrap();
    initiator.connected(2).await;
    for responder in [first, second] {
        responder.registered(1).await;
        assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    }
}

#[tokio::test]
async fn a_handshake_may_be_an_upgrade() {
    let responder = ResponderOptions { use_http_upgrade: true, ..ResponderOptions::default() };
    let initiator = InitiatorOptions { use_http_upgrade: true, ..InitiatorOptions::default() };
    let Some(pair) = Pair::plaintext(responder, initiator).await else { return };
    assert_eq!(pair.status(TO_NODE).await, 200);
}

#[tokio::test]
async fn a_claim_that_the_certificate_does_not_prove_is_403() {
    let folder = Folder::new();
    let node_id_format = Some("%DOWNSTREAM_PEER_DNS_SAN%");
    let tls = Some(Tls::responder(&folder, NODE));
    let responder = ResponderOptions { tls, node_id_format, ..ResponderOptions::default() };
    let shown = Some(Tls::initiator(&folder, NODE));
    let honest = InitiatorOptions { tls: shown.clone(), ..attentive() };
    let Some(pair) = Pair::start(Variant::Mtls, responder, honest).await else { return };
    assert_eq!(pair.status(TO_NODE).await, 200);

    let liar = InitiatorOptions { claim: OTHER, tls: shown, ..attentive() };
    let to = pair.responder.tunnel_address();
    let liar = EnvoyInitiator::start(Variant::Mtls, to, pair.target.address(), liar).await.unwrap();
    let refused = "tunnels.handshake.worker.worker_0.cluster.responder.result.failed.failure_reason.http.403";
    eventually("a refusal", async || (liar.stat(refused).await > 0).then_some(())).await;
    assert!(pair.responder.stat("reverse_tunnel.handshake.validation_failed").await > 0);
    assert_eq!(pair.status("x-node-id: edge-2").await, 503);
}

#[tokio::test]
async fn too_many_tunnels_of_a_node_are_429() {
    let options = ResponderOptions { max_connections_per_node: Some(1), ..ResponderOptions::default() };
    let Some(pair) = Pair::plaintext(options, attentive()).await else { return };
    // Two that come at once would both be let in.
    let to = pair.responder.tunnel_address();
    let late = EnvoyInitiator::start(Variant::Plaintext, to, pair.target.address(), attentive()).await.unwrap();
    let rejected = "tunnels.handshake.worker.worker_0.cluster.responder.result.failed.failure_reason.http.429";
    eventually("a rejection", async || (late.stat(rejected).await > 0).then_some(())).await;
    assert_eq!(pair.responder.tunnels().await, 1);
}

#[tokio::test]
async fn tenants_are_apart_where_the_file_says_so() {
    let tenant_id_format = Some("%REQ(x-tenant)%");
    let options = ResponderOptions { tenant_id_format, ..ResponderOptions::default() };
    let Some(pair) = Pair::plaintext(options, InitiatorOptions::default()).await else { return };
    for (tenant, expected) in [(NODE.tenant, 200), ("other", 503)] {
        let fields = [TO_NODE, &format!("x-tenant: {tenant}")];
        assert_eq!(get(pair.responder.egress(), "/", &fields).await.unwrap().status(), expected, "{tenant}");
    }
}

#[tokio::test]
async fn a_frozen_initiator_is_dropped_and_comes_back() {
    let ping_interval = Some(Duration::from_secs(2));
    let responder = ResponderOptions { ping_interval, ping_failure_threshold: Some(1), ..ResponderOptions::default() };
    let Some(pair) = Pair::plaintext(responder, attentive()).await else { return };
    pair.initiator.freeze();
    pair.responder.registered(0).await;
    assert_eq!(pair.status(TO_NODE).await, 503);
    pair.initiator.thaw();
    pair.up(1).await;
    assert_eq!(pair.status(TO_NODE).await, 200);
}

#[tokio::test]
async fn a_responder_comes_back_on_the_same_addresses() {
    let Some(pair) = Pair::plaintext(ResponderOptions::default(), attentive()).await else { return };
    let Pair { responder, initiator, target: _target } = pair;
    let addresses = [responder.tunnel_address(), responder.egress(), responder.admin()];
    let responder = responder.kill().restart().await;
    assert_eq!([responder.tunnel_address(), responder.egress(), responder.admin()], addresses);
    responder.registered(1).await;
    initiator.connected(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);

    initiator.kill();
    responder.registered(0).await;
}

#[tokio::test]
async fn a_terminated_initiator_leaves_at_once() {
    let Some(mut pair) = Pair::plaintext(ResponderOptions::default(), attentive()).await else { return };
    pair.initiator.terminate();
    assert!(pair.initiator.exit().await.success());
    pair.responder.registered(0).await;
}

#[tokio::test]
async fn a_drain_is_announced_and_the_tunnel_replaced() {
    let (responder, initiator) = (ResponderOptions::default(), attentive());
    let Some(pair) = Pair::start(Variant::DrainAware, responder, initiator).await else { return };
    // Only a tunnel in use can be told.
    assert_eq!(pair.status(TO_NODE).await, 200);
    let drain = pair.responder.ask("POST", "/reverse_tunnel/drain_clusters?drain_time_ms=100").await.unwrap();
    assert_eq!(drain.status(), 200, "{}", drain.text());
    let succeeded = "tunnels.handshake.worker.worker_0.cluster.responder.result.success";
    eventually("a second tunnel", async || (pair.initiator.stat(succeeded).await >= 2).then_some(())).await;
    assert_eq!(pair.status(TO_NODE).await, 200);
}

#[tokio::test]
async fn a_handshake_says_who_dials_and_what_the_file_adds() {
    let responder = RawTarget::new().await;
    let additional_headers = vec![("authorization", "Bearer secret".to_owned())];
    let options = InitiatorOptions { additional_headers, ..InitiatorOptions::default() };
    let to = responder.address();
    let Some(_initiator) = EnvoyInitiator::start(Variant::Plaintext, to, to, options).await else { return };
    let (_peer, head) = responder.accept().await;
    assert!(head.starts_with("get /reverse_connections/request http/1.1\r\n"), "{head}");
    for field in [
        format!("x-envoy-reverse-tunnel-node-id: {}", NODE.node),
        format!("x-envoy-reverse-tunnel-cluster-id: {}", NODE.cluster),
        format!("x-envoy-reverse-tunnel-tenant-id: {}", NODE.tenant),
        "authorization: bearer secret".to_owned(),
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
    }
}

#[tokio::test]
async fn an_initiator_gives_up_a_handshake_without_an_answer() {
    let responder = RawTarget::new().await;
    let options = InitiatorOptions { handshake_timeout: Some(Duration::from_millis(300)), ..attentive() };
    let to = responder.address();
    let Some(initiator) = EnvoyInitiator::start(Variant::Plaintext, to, to, options).await else { return };
    let (mut peer, _) = responder.accept().await;
    peer.gone().await;
    let failed = "tunnels.handshake.worker.worker_0.cluster.responder.result.failed.failure_reason.timeout";
    eventually("a failure", async || (initiator.stat(failed).await > 0).then_some(())).await;
}

#[tokio::test]
async fn a_responder_gives_up_a_handshake_that_does_not_come() {
    let options =
        ResponderOptions { handshake_timeout: Some(Duration::from_millis(300)), ..ResponderOptions::default() };
    let Some(responder) = EnvoyResponder::start(Variant::Plaintext, options).await else { return };
    let mut silent = RawHttp::connect(responder.tunnel_address()).await.unwrap();
    assert!(silent.read_to_end().await.unwrap().is_empty());
    let counted = async || (responder.stat("reverse_tunnel.handshake.timeout").await == 1).then_some(());
    eventually("the time-out counted", counted).await;
}

#[tokio::test]
async fn a_frozen_initiator_in_use_is_dropped_where_http2_probes_it() {
    let keepalive = Some([Duration::from_millis(500), Duration::from_millis(500)]);
    let options = ResponderOptions { keepalive, ..ResponderOptions::default() };
    let Some(pair) = Pair::plaintext(options, attentive()).await else { return };
    assert_eq!(pair.status(TO_NODE).await, 200);
    pair.initiator.freeze();
    pair.responder.registered(0).await;
    pair.initiator.thaw();
    pair.up(1).await;
    assert_eq!(pair.status(TO_NODE).await, 200);
}
