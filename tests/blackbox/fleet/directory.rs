//! Who is there, who has what, and how it ends.

use crate::fleet::world::{has, member, names, of, sees, start, two};
use crate::support::certificates::Node;
use crate::support::etcd::Etcd;
use crate::support::site::{Edge, Folder, NODE, Transport, over_each_transport};

over_each_transport!(two_responders_see_each_others_tunnels, a_node_has_one_key_in_the_whole_fleet);

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";

async fn two_responders_see_each_others_tunnels(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, LONG).await;
    let edge = Edge::new(transport).count(2).start(&folder, a.tunnel_address()).await;
    let report = sees(&b, "the tunnels of a", |report| has(report, "a", 2)).await;
    let known = of(&report, "a").unwrap();
    assert_eq!((known.initiators_at[0].as_str(), known.region.as_deref()), ("a.example:7843", Some("here")));
    assert_eq!((report.view.as_str(), report.tunnels), ("current", 2));
    drop(edge);
    sees(&b, "no tunnels", |report| has(report, "a", 0) && report.tunnels == 0).await;
}

/// spec: FL-16
async fn a_node_has_one_key_in_the_whole_fleet(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, LONG).await;
    let _first = Edge::new(transport).start(&folder, a.tunnel_address()).await;
    sees(&b, "the node at a", |report| has(report, "a", 1)).await;
    // Each start makes another certificate, with another key.
    let second = Edge::new(transport).named("other").start(&folder, b.tunnel_address()).await;
    second.line_with("connected to another responder of the fleet with another key").await;
    // A node that is a cluster elsewhere.
    let odd = Node { node: NODE.cluster, cluster: "other", ..NODE };
    let odd = Edge::new(transport).claim(odd).named("odd").start(&folder, b.tunnel_address()).await;
    odd.line_with("the node's name is the name of a cluster at another responder").await;
    assert_eq!(b.0.tunnels().await.accepted.len(), 0);
}

/// spec: FL-9
#[tokio::test]
async fn what_a_killed_responder_had_goes_with_its_lease() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, "3s").await;
    let _edge = Edge::new(Transport::Quic).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    a.0.kill();
    let report = sees(&b, "nothing of a", |report| names(report) == ["b"]).await;
    assert_eq!(report.tunnels, 0, "its tunnels go with it");
}

/// spec: FL-21
#[tokio::test]
async fn a_responder_that_stops_is_out_of_the_directory_at_once() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (mut a, b) = two(&etcd, &folder, LONG).await;
    let _edge = Edge::new(Transport::Quic).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    a.0.terminate();
    assert_eq!(a.0.exit().await.code(), Some(0));
    sees(&b, "nothing of a", |report| names(report) == ["b"] && report.tunnels == 0).await;
}

/// spec: FL-10, FL-14
#[tokio::test]
async fn a_responder_that_starts_again_has_nothing_of_its_former_life() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, LONG).await;
    let edge = Edge::new(Transport::Quic).count(3).start(&folder, a.tunnel_address()).await;
    let before = sees(&b, "the tunnels of a", |report| has(report, "a", 3)).await;
    drop(edge);
    a.0.kill();
    let a = start(&folder, "a", &member(&etcd, "a", LONG)).await;
    let epoch = |report: &adit::admin::FleetReport| of(report, "a").map(|a| a.epoch);
    sees(&b, "the new start of a", |report| epoch(report) > epoch(&before) && report.tunnels == 0).await;
    sees(&a, "itself, and nothing else", |report| has(report, "a", 0)).await;
}

/// spec: FL-10
#[tokio::test]
async fn of_two_with_one_name_the_later_one_is_in_the_directory() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let first = start(&folder, "first", &member(&etcd, "same", LONG)).await;
    sees(&first, "itself", |report| names(report) == ["same"]).await;
    let mut second = start(&folder, "second", &member(&etcd, "same", LONG)).await;
    first.0.line_with("another responder has the same name in the fleet").await;
    let said = sees(&first, "trouble", |report| report.trouble.is_some()).await;
    assert!(said.trouble.unwrap().contains("give each its own fleet.id"));
    let _edge = Edge::new(Transport::Quic).start(&folder, second.tunnel_address()).await;
    sees(&second, "its tunnel", |report| has(report, "same", 1)).await;
    // A mistake that is put right has no consequences.
    second.0.terminate();
    second.0.exit().await;
    let _edge = Edge::new(Transport::Quic).start(&folder, first.tunnel_address()).await;
    sees(&first, "its own tunnel", |report| has(report, "same", 1) && report.trouble.is_none()).await;
}
