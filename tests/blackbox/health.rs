//! Targets that come and go: who is told, and where requests go meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use adit::admin::ServiceReport;
use tokio::task::JoinSet;

use crate::support::certificates::Node;
use crate::support::eventually::{eventually, standstill};
use crate::support::http1::{RawHttp, Response, get};
use crate::support::site::{Cloud, Edge, NODE, Running, Site, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    a_cluster_of_three_loses_only_what_is_in_flight_when_a_target_dies_and_uses_it_again_when_it_is_back,
    a_node_is_asked_by_its_name_and_a_cluster_that_has_no_other_whatever_was_said,
    a_responder_that_was_away_is_told_again,
    raw_streams_of_a_cluster_avoid_a_node_whose_target_is_down,
    checks_come_change_and_go_with_the_file,
);

const SECOND: Node<'static> = Node { node: "edge-2", ..NODE };
const THIRD: Node<'static> = Node { node: "edge-3", ..NODE };

const TO_CLUSTER: &str = "x-cluster-id: stores";

/// A POST with a body, which is for one node only once it was sent.
async fn post(site: &Site, to: &str) -> Response {
    let mut client = site.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{to}\r\ncontent-length: 4\r\n\r\nbody");
    client.send(head.as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

/// Waits until the responder has heard just this of what is down.
async fn told(site: &Site, expected: &[(&str, &str)]) {
    eventually(&format!("{expected:?} at the responder"), async || {
        let report = site.responder.0.tunnels().await;
        let down = report
            .accepted
            .iter()
            .flat_map(|tunnel| tunnel.down.iter().map(|down| (tunnel.node.clone(), down.clone())).collect::<Vec<_>>());
        let mut down: Vec<_> = down.collect();
        down.dedup();
        let is_so = down.iter().map(|(node, down)| (node.as_str(), down.as_str())).eq(expected.iter().copied());
        is_so.then_some(())
    })
    .await;
}

async fn service(initiator: &Running) -> ServiceReport {
    initiator.tunnels().await.services.remove(0)
}

/// Clients that ask a cluster one request after the other.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: JoinSet<Vec<u16>>,
}

impl Load {
    fn of(site: &Site, clients: usize) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut load = Self { stop, served, clients: JoinSet::new() };
        for _ in 0..clients {
            let (egress, stop, served) = (site.egress(), Arc::clone(&load.stop), Arc::clone(&load.served));
            load.clients.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(egress, "/slow/5", &[TO_CLUSTER]).await.unwrap().status() {
                        200 => drop(served.fetch_add(1, Ordering::Relaxed)),
                        status => failed.push(status),
                    }
                }
                failed
            });
        }
        load
    }

    /// Waits until so many more were served.
    async fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("fifty more", async || (self.served.load(Ordering::Relaxed) >= before + 50).then_some(())).await;
    }

    /// The statuses of what was not served.
    async fn finish(self) -> Vec<u16> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

// spec: CT-58, CT-61
async fn a_cluster_of_three_loses_only_what_is_in_flight_when_a_target_dies_and_uses_it_again_when_it_is_back(
    transport: Transport,
) {
    const CLIENTS: usize = 4;
    let site = Site::with(Cloud::new(), Edge::new(transport)).await;
    let (second, _target) = site.join(Edge::new(transport).named("second").claim(SECOND)).await;
    let (third, target) = site.join(Edge::new(transport).named("third").claim(THIRD).count(2)).await;
    let load = Load::of(&site, CLIENTS);
    load.goes_on().await;
    let address = target.address();
    target.stop().await;
    told(&site, &[("edge-3", "web: target_refused")]).await;
    load.goes_on().await;
    let failed = load.finish().await;
    assert!(failed.len() <= CLIENTS, "{failed:?}");
    let down = service(&third).await;
    assert_eq!((down.state.as_str(), down.cause.as_deref()), ("down", Some("target_refused")));
    assert_eq!(third.metric("adit_service_down{service=\"web\"}").await, 1);
    third.line_with("the service is down").await;

    let before = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    for nth in 0..60 {
        // It could not go to another node, had it been sent to the one that is down.
        let response = post(&site, TO_CLUSTER).await;
        assert_eq!((response.status(), response.text().as_str()), (200, "body"), "request {nth}");
    }
    let after = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    assert_eq!(after, before + 60);

    let target = Target::http1_at(address).await;
    told(&site, &[]).await;
    eventually("its share again", async || {
        assert_eq!(post(&site, TO_CLUSTER).await.status(), 200);
        target.requests().iter().any(|seen| seen.ends_with("/echo")).then_some(())
    })
    .await;
    assert_eq!((service(&third).await.state.as_str(), service(&second).await.state.as_str()), ("up", "up"));
}

// spec: CT-61
async fn a_node_is_asked_by_its_name_and_a_cluster_that_has_no_other_whatever_was_said(transport: Transport) {
    let mut site = Site::with(Cloud::new(), Edge::new(transport)).await;
    let (_second, target) = site.join(Edge::new(transport).named("second").claim(SECOND)).await;
    let address = target.address();
    target.stop().await;
    let refused = get(site.egress(), "/", &["x-node-id: edge-2"]).await.unwrap();
    assert_eq!(refused.status(), 502);
    told(&site, &[("edge-2", "web: target_refused")]).await;
    let refused = post(&site, "x-node-id: edge-2").await;
    assert_eq!(refused.status(), 502, "it was asked: {}", refused.text());
    assert!(refused.field("proxy-status").unwrap().starts_with("adit; error=connection_refused"));

    let other = std::mem::replace(&mut site.target, Target::http1_at(address).await);
    assert_eq!(get(site.egress(), "/request", &["x-node-id: edge-2"]).await.unwrap().status(), 200, "at once");
    told(&site, &[]).await;
    std::mem::replace(&mut site.target, other).stop().await;
    let gone = std::mem::replace(&mut site.target, Target::http1().await);
    gone.stop().await;
    let refused = eventually("a request that no target takes", async || {
        Some(get(site.egress(), "/", &[TO_CLUSTER]).await.unwrap()).filter(|response| response.status() != 200)
    })
    .await;
    assert_eq!(refused.status(), 502, "{}", refused.text());
    told(&site, &[("edge-1", "web: target_refused"), ("edge-2", "web: target_refused")]).await;
    let refused = get(site.egress(), "/", &[TO_CLUSTER]).await.unwrap();
    assert!(refused.field("proxy-status").unwrap().starts_with("adit; error=connection_refused"), "{}", refused.text());
}

// spec: CT-60
async fn a_responder_that_was_away_is_told_again(transport: Transport) {
    let service = "{ name: web, match: {}, target: \"http://127.0.0.1:1\" }";
    let mut site = Site::with(Cloud::new(), Edge::new(transport).count(2).service(service)).await;
    assert_eq!(site.get("/").await.status(), 502);
    told(&site, &[("edge-1", "web: target_refused")]).await;
    site.responder = site.responder.restart().await;
    site.responder.registered(2).await;
    eventually("the same in both tunnels", async || {
        let report = site.responder.0.tunnels().await;
        report.accepted.iter().all(|tunnel| tunnel.down == ["web: target_refused"]).then_some(())
    })
    .await;
}

async fn raw_streams_of_a_cluster_avoid_a_node_whose_target_is_down(transport: Transport) {
    let bytes = "{ name: bytes, target: \"tcp://127.0.0.1:1\", health: { interval: 200ms } }";
    let site = Site::with(Cloud::new().egress("connect", "true"), Edge::new(transport).service(bytes)).await;
    let edge = Edge::new(transport).named("second").claim(SECOND);
    let target = Target::http1().await;
    let edge = edge.service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address()));
    let _second = edge.start(&site.folder, site.responder.tunnel_address()).await;
    site.responder.registered(2).await;
    told(&site, &[("edge-1", "bytes: target_refused")]).await;
    let before = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    for _ in 0..20 {
        let mut client: RawHttp<_> = site.connect().await;
        let head = format!("CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\n{TO_CLUSTER}\r\n\r\n");
        client.send(head.as_bytes()).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 200);
    }
    let after = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    assert_eq!(after, before + 20, "each found the right one at once");
}

async fn checks_come_change_and_go_with_the_file(transport: Transport) {
    let checked = |health: &str| format!("{{ name: web, match: {{}}, target: \"{{target}}\"{health} }}");
    let edge = |health: &str| Edge::new(transport).service(&checked(health));
    let site = Site::with(Cloud::new(), edge("")).await;
    let reload = async |health: &str| {
        let edge = edge(health).target(&format!("http://{}", site.target.address()));
        std::fs::write(site.initiator.file(), edge.text(&site.responder.tunnel_address().to_string())).unwrap();
        site.initiator.signal("HUP");
    };
    let state = async |expected: &str| {
        eventually(&format!("{expected} at the initiator"), async || {
            (service(&site.initiator).await.state == expected).then_some(())
        })
        .await;
    };
    assert_eq!(service(&site.initiator).await.state, "unknown");
    let wrong = ", health: { path: /status/404, interval: 200ms, healthy_after: 1, unhealthy_after: 1 }";
    reload(wrong).await;
    told(&site, &[("edge-1", "web: check_failed")]).await;
    let line = site.initiator.line_with("the service is down").await;
    assert_eq!((&line["service"], &line["cause"]), (&"web".into(), &"check_failed".into()), "{line}");
    assert_eq!(site.get("/request").await.status(), 200, "it is asked all the same");
    assert_eq!(service(&site.initiator).await.state, "down", "and its checks alone bring it back");
    let down = "adit_targets_down{side=\"target\",target=\"web\"}";
    assert_eq!(site.initiator.metric(down).await, 1);

    reload(", health: { path: /status/404, status: 404, interval: 200ms }").await;
    told(&site, &[]).await;
    state("up").await;
    eventually("the former one of this name not counted", async || {
        (site.initiator.metric(down).await == 0).then_some(())
    })
    .await;

    reload("").await;
    state("unknown").await;
    let asked = || site.target.requests().iter().filter(|seen| seen.contains("/status/")).count();
    // Ten times what was from one to the next.
    standstill("the checks", Duration::from_secs(2), async || asked()).await;
}
