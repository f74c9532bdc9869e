//! Etcd is lost, restarted, compacted, or not heard by one.

use serde_json::json;

use crate::fleet::world::{has, member, names, sees, start, two};
use crate::support::certificates::Node;
use crate::support::etcd::Etcd;
use crate::support::http1::get;
use crate::support::site::{Edge, Folder, NODE, Responder, TO_NODE, Transport};
use crate::support::targets::Target;

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";
/// Another node of the same cluster.
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };

async fn answers(responder: &Responder) {
    let response = get(responder.egress(), "/", &[TO_NODE]).await.unwrap();
    assert_eq!(response.status(), 200);
}

/// spec: FL-12, FL-20
#[tokio::test]
async fn a_restart_of_etcd_costs_no_request_and_the_view_goes_on() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (a, b) = two(&etcd, &folder, LONG).await;
    let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
    let _edge = edge.start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    etcd.kill().await;
    let stale = sees(&b, "a stale mark", |report| report.view == "stale" && report.trouble.is_some()).await;
    assert!(has(&stale, "a", 1), "it serves what it knew: {stale:?}");
    answers(&a).await;
    let _other = Edge::new(Transport::Quic).claim(OTHER).named("other").start(&folder, a.tunnel_address()).await;
    a.registered(2).await;
    etcd.begin_again().await;
    let is_well = |report: &adit::admin::FleetReport| report.view == "current" && report.trouble.is_none();
    sees(&b, "what came meanwhile", |report| is_well(report) && has(report, "a", 2)).await;
    answers(&a).await;
}

/// spec: FL-20
#[tokio::test]
async fn a_partition_from_etcd_is_marked_and_heals() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    // Etcd is asked every third of it.
    let (a, b) = two(&etcd, &folder, "6s").await;
    let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
    let _edge = edge.start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    etcd.freeze();
    for responder in [&a, &b] {
        let stale = sees(responder, "a stale mark", |report| report.view == "stale").await;
        assert!(has(&stale, "a", 1), "{stale:?}");
        responder.0.counted("adit_fleet_view_stale", 1).await;
    }
    answers(&a).await;
    // A view that is stale refuses nothing: the same node with another key.
    let _other = Edge::new(Transport::Quic).claim(OTHER).named("other").start(&folder, a.tunnel_address()).await;
    a.registered(2).await;
    etcd.thaw();
    sees(&b, "all again", |report| report.view == "current" && names(report) == ["a", "b"] && has(report, "a", 2))
        .await;
    answers(&a).await;
    assert_eq!(a.0.tunnels().await.accepted.len(), 2, "no tunnel was touched");
}

/// spec: FL-13
#[tokio::test]
async fn what_was_compacted_meanwhile_is_read_whole() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let b = member(&etcd, "b", LONG).process("log", "{ level: debug }");
    let a = start(&folder, "a", &member(&etcd, "a", LONG)).await;
    let b = start(&folder, "b", &b).await;
    let edge = Edge::new(Transport::Quic).count(2).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnels of a", |report| has(report, "a", 2)).await;
    b.0.freeze();
    etcd.kill().await;
    etcd.begin_again().await;
    drop(edge);
    let _other = Edge::new(Transport::Quic).claim(OTHER).named("other").start(&folder, a.tunnel_address()).await;
    sees(&a, "other tunnels", |report| report.view == "current" && has(report, "a", 1)).await;
    etcd.compact().await;
    b.0.thaw();
    b.0.line_with("the changes since the last view are not kept any more").await;
    sees(&b, "what is there now", |report| has(report, "a", 1) && report.tunnels == 1).await;
}

/// spec: FL-13
#[tokio::test]
async fn an_etcd_that_lost_everything_is_filled_again() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, LONG).await;
    let _edge = Edge::new(Transport::Quic).start(&folder, a.tunnel_address()).await;
    let before = sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    etcd.kill().await;
    etcd.empty();
    etcd.begin_again().await;
    for responder in [&a, &b] {
        let all = |report: &adit::admin::FleetReport| names(report) == ["a", "b"] && has(report, "a", 1);
        sees(responder, "all again", |report| {
            all(report) && report.view == "current" && report.revision < before.revision + 3
        })
        .await;
    }
}

/// spec: FL-13
#[tokio::test]
async fn an_etcd_that_is_restored_from_a_copy_gets_what_that_lacks_and_loses_what_is_gone() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, LONG).await;
    let edge = Edge::new(Transport::Quic).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    etcd.kill().await;
    let copy = etcd.copy();
    etcd.begin_again().await;
    let other = Edge::new(Transport::Quic).claim(OTHER).named("other").count(2);
    let _other = other.start(&folder, a.tunnel_address()).await;
    sees(&b, "all tunnels", |report| report.view == "current" && has(report, "a", 3)).await;
    drop(edge);
    let before = sees(&b, "those that are left", |report| has(report, "a", 2)).await;

    etcd.kill().await;
    etcd.restore(copy);
    etcd.begin_again().await;
    for responder in [&a, &b] {
        let is_old = |report: &adit::admin::FleetReport| report.revision <= before.revision;
        sees(responder, "what there is", |report| {
            is_old(report) && report.view == "current" && report.tunnels == 2 && has(report, "a", 2)
        })
        .await;
    }
}

/// spec: FL-9
#[tokio::test]
async fn a_responder_whose_lease_was_ended_writes_everything_again() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let (a, b) = two(&etcd, &folder, "3s").await;
    let _edge = Edge::new(Transport::Quic).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    let leases = etcd.ask("/v3/lease/leases", json!({})).await.unwrap();
    for lease in leases["leases"].as_array().unwrap() {
        // One that has just ended by itself is as good.
        etcd.ask("/v3/lease/revoke", lease.clone()).await;
    }
    a.0.line_with("the lease in etcd has ended").await;
    for responder in [&a, &b] {
        sees(responder, "all again", |report| names(report) == ["a", "b"] && has(report, "a", 1)).await;
    }
}
