//! A responder is cut off from etcd: its records end with its lease, and it serves all the same, here and there.

use crate::fleet::hop::section;
use crate::fleet::leave::Asking;
use crate::fleet::world::{answers, has, names, sees, start};
use crate::support::certificates::Node;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::link::CLEAN;
use crate::support::link::tcp::TcpLink;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    what_only_a_responder_without_etcd_has_is_reached_through_it,
    a_responder_without_etcd_finds_what_has_come_to_others_since,
    what_has_come_to_a_responder_without_etcd_since_is_reached_through_it,
);

/// As short as it may be: records end with it.
const LEASE: &str = "3s";
/// Longer than a test may take.
const LONG: &str = "300s";
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
const TO_OTHER: &str = "x-node-id: edge-2";

/// `a`, and `b`, which reaches etcd over a line that can be cut; in which no request waits for a node.
async fn two(etcd: &Etcd, folder: &Folder) -> (Responder, Responder, TcpLink) {
    let link = TcpLink::new(etcd.client(), CLEAN, 1).await.unwrap();
    let file = |section: &str| Cloud::new().egress("hold", "0").process("fleet", section);
    let a = start(folder, "a", &file(&section(etcd, folder, "a", LEASE))).await;
    let over_the_line = section(etcd, folder, "b", LEASE).replace(&etcd.url(), &format!("http://{}", link.address()));
    let b = start(folder, "b", &file(&over_the_line)).await;
    for responder in [&a, &b] {
        sees(responder, "both", |report| names(report) == ["a", "b"]).await;
    }
    (a, b, link)
}

/// Its records have ended.
async fn cut(link: &TcpLink, a: &Responder, b: &Responder) {
    link.blackout(true);
    sees(a, "nothing of b", |report| names(report) == ["a"]).await;
    sees(b, "a stale mark", |report| report.view == "stale").await;
}

async fn status(at: &Responder, node: &str) -> u16 {
    get(at.egress(), "/", &[node]).await.unwrap().status()
}

/// Regression: from the end of the lease on, the node was nowhere to be found.
///
/// spec: FL-20, FL-24, FL-25
async fn what_only_a_responder_without_etcd_has_is_reached_through_it(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (a, b, link) = two(&etcd, &folder).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let _edge = edge.start(&folder, b.tunnel_address()).await;
    sees(&a, "the tunnel of b", |report| has(report, "b", 1)).await;
    answers(&a, TO_NODE).await;
    let asking = Asking::start(a.egress());
    cut(&link, &a, &b).await;
    for _ in 0..20 {
        assert_eq!(status(&a, TO_NODE).await, 200);
    }
    assert_eq!(status(&a, "x-node-id: nobody").await, 503);
    link.blackout(false);
    sees(&a, "b again", |report| has(report, "b", 1)).await;
    sees(&b, "all again", |report| report.view == "current" && has(report, "b", 1)).await;
    asking.nothing_is_lost().await;
    assert_eq!(b.0.metric("adit_tunnels_opened_total{role=\"responder\"}").await, 1, "no tunnel was touched");
}

/// spec: FL-20, FL-25
async fn a_responder_without_etcd_finds_what_has_come_to_others_since(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (a, b, link) = two(&etcd, &folder).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let _edge = edge.clone().start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    answers(&b, TO_NODE).await;
    cut(&link, &a, &b).await;
    let _other = edge.claim(OTHER).named("other").start(&folder, a.tunnel_address()).await;
    a.registered(2).await;
    answers(&b, TO_OTHER).await;
    assert_eq!(status(&b, "x-node-id: nobody").await, 503);
    assert_eq!(status(&b, TO_NODE).await, 200);
}

/// spec: FL-24, FL-25
async fn what_has_come_to_a_responder_without_etcd_since_is_reached_through_it(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (a, b, link) = two(&etcd, &folder).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let _edge = edge.clone().start(&folder, b.tunnel_address()).await;
    sees(&a, "the tunnel of b", |report| has(report, "b", 1)).await;
    answers(&a, TO_NODE).await;
    cut(&link, &a, &b).await;
    let _other = edge.claim(OTHER).named("other").start(&folder, b.tunnel_address()).await;
    b.registered(2).await;
    answers(&a, TO_OTHER).await;
}

/// Regression: a node that was at a sibling and reconnects was not waited for, as one that was here is.
///
/// spec: FL-52
#[tokio::test]
async fn a_node_that_was_at_a_sibling_and_comes_back_is_waited_for() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let file = |id: &str| Cloud::new().egress("hold", LONG).process("fleet", &section(&etcd, &folder, id, LONG));
    let (a, b) = (start(&folder, "a", &file("a")).await, start(&folder, "b", &file("b")).await);
    sees(&a, "both", |report| names(report) == ["a", "b"]).await;
    let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
    let mut site = edge.start(&folder, b.tunnel_address()).await;
    sees(&a, "the tunnel of b", |report| has(report, "b", 1)).await;
    site.terminate();
    site.exit().await;
    sees(&a, "no tunnel", |report| has(report, "b", 0)).await;
    let waiting = tokio::spawn(get(a.egress(), "/", &[TO_NODE]));
    eventually("that it waits", async || {
        (a.0.metric("adit_exchanges_in_flight{side=\"egress\"}").await == 1).then_some(())
    })
    .await;
    let _site = edge.start(&folder, b.tunnel_address()).await;
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}
