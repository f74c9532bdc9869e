//! A sibling that hangs, and a node that does.

use crate::fleet::hop::section;
use crate::fleet::world::{answers, has, names, sees, start};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, NODE, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(a_request_that_waits_in_a_silent_tunnel_moves_when_the_node_comes_to_a_sibling);

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";

/// Regression: the request waited until the silent sibling was given up, 30 s.
///
/// spec: CT-42, FL-36, FL-51
#[tokio::test]
async fn a_request_that_waits_at_a_sibling_that_falls_silent_goes_through_another_one() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let mut fleet = Vec::new();
    // The one with the larger share is asked first.
    for (id, weight) in [("a", 100), ("b", 1000), ("c", 1)] {
        let section = section(&etcd, &folder, id, LONG).replace(", id:", &format!(", weight: {weight}, id:"));
        fleet.push(start(&folder, id, &Cloud::new().process("fleet", &section)).await);
    }
    let [a, b, c] = &fleet[..] else { panic!("three were started") };
    let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
    let _edge = edge.also(c.tunnel_address()).start(&folder, b.tunnel_address()).await;
    let is_there = |report: &_| names(report) == ["a", "b", "c"] && has(report, "b", 1) && has(report, "c", 1);
    sees(a, "one tunnel at each of the others", is_there).await;
    answers(a, TO_NODE).await;
    let open = async || a.0.metric("adit_fleet_connections_open{direction=\"out\"}").await;
    eventually("that both are connected", async || (open().await == 2).then_some(())).await;
    b.0.freeze();
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    assert_eq!(open().await, 2, "the silent one is not given up yet");
    let twice = async || a.0.lines_of("exchange").iter().any(|line| line["attempts"] == 2).then_some(());
    eventually("the record of a request for which the silent one was asked first", twice).await;
}

/// Regression: the request stayed where it was until something changed at its own responder, which was the end of the tunnel.
///
/// spec: CT-42, FL-51
async fn a_request_that_waits_in_a_silent_tunnel_moves_when_the_node_comes_to_a_sibling(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let cloud = |id: &str| Cloud::new().process("fleet", &section(&etcd, &folder, id, LONG));
    // The silent tunnel does not end.
    let a = start(&folder, "a", &cloud("a").responder("idle_timeout", "600s")).await;
    let b = start(&folder, "b", &cloud("b")).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let shown = folder.authority.node(NODE);
    let silent = edge.start_with(&folder, a.tunnel_address(), &shown).await;
    a.registered(1).await;
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    silent.freeze();
    let waiting = tokio::spawn(get(a.egress(), "/", &[TO_NODE]));
    let in_flight = async || a.0.metric("adit_exchanges_in_flight{side=\"egress\"}").await;
    eventually("that it waits", async || (in_flight().await == 1).then_some(())).await;
    a.0.line_with("tunnel suspect").await;
    // Another process of the node, with the same key.
    let _again = edge.named("again").start_with(&folder, b.tunnel_address(), &shown).await;
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert_eq!(a.0.tunnels().await.accepted.len(), 1, "the silent one is not given up yet");
}
