//! Initiators learn of the responders of a fleet, and have their tunnels at distinct ones.

use adit::id::Claim;
use adit::protocol::roster::Listed;

use crate::fleet::hop::section;
use crate::fleet::leave::Asking;
use crate::fleet::world::{self, fleet, has, names, sees, start};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, Running, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport! {
    tunnels_through_one_address_are_at_two_responders_and_go_to_the_other_when_one_dies,
    a_responder_that_joins_is_learned_and_gets_its_share,
    what_a_responder_drains_goes_to_a_sibling,
    nothing_is_lost_while_a_responder_leaves_and_its_site_goes_to_a_sibling,
}

const LONG: &str = "300s";

/// The file of a responder that says nothing of where initiators reach it: they reach it where it listens.
fn member(etcd: &Etcd, id: &str, more: &str) -> Cloud {
    Cloud::new().process("fleet", &format!("{{ etcd: {:?}, id: {id}, lease: {LONG}{more} }}", etcd.url()))
}

/// Those of these names, which have seen each other.
async fn all(etcd: &Etcd, folder: &Folder, ids: &[&str]) -> Vec<Responder> {
    let mut responders = Vec::new();
    for id in ids {
        responders.push(start(folder, id, &member(etcd, id, "")).await);
    }
    for responder in &responders {
        sees(responder, "all", |report| names(report) == ids).await;
    }
    responders
}

/// At whom the initiator has its tunnels, in the order of the names.
async fn at(edge: &Running) -> Vec<String> {
    let mut at: Vec<String> = edge.tunnels().await.dialled.into_iter().filter_map(|tunnel| tunnel.responder).collect();
    at.sort();
    at
}

/// Waits until it has its tunnels there.
async fn is_at(edge: &Running, expected: &[&str]) {
    eventually(&format!("tunnels at {expected:?}"), async || (at(edge).await == expected).then_some(())).await;
}

async fn answers(responder: &Responder) {
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
}

/// spec: FL-60, FL-62, FL-64
async fn tunnels_through_one_address_are_at_two_responders_and_go_to_the_other_when_one_dies(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let mut responders = all(&etcd, &folder, &["a", "b"]).await;
    let edge = Edge::new(transport).count(2).target(&format!("http://{}", target.address()));
    let edge = edge.start(&folder, responders[0].tunnel_address()).await;
    is_at(&edge, &["a", "b"]).await;
    for responder in &responders {
        responder.registered(1).await;
        answers(responder).await;
    }
    responders.remove(0).0.kill();
    eventually("both tunnels at b", async || {
        // Whatever becomes of the other one meanwhile.
        answers(&responders[0]).await;
        (at(&edge).await == ["b", "b"]).then_some(())
    })
    .await;
}

/// One of these names with which a responder is among the two that the node prefers, beside `a` and `b`.
fn preferred() -> String {
    let claim = Claim {
        tenant: NODE.tenant.parse().unwrap(),
        cluster: NODE.cluster.parse().unwrap(),
        node: NODE.node.parse().unwrap(),
    };
    let distance = |id: &str| {
        Listed { id: id.parse().unwrap(), region: None, weight: 100, addresses: Vec::new() }.distance(&claim)
    };
    let worst = distance("a").max(distance("b"));
    (0..).map(|nth| format!("c{nth}")).find(|id| distance(id) < worst).unwrap()
}

/// spec: CT-62, FL-61, FL-63
async fn a_responder_that_joins_is_learned_and_gets_its_share(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let responders = all(&etcd, &folder, &["a", "b"]).await;
    let edge = Edge::new(transport).count(2).tunnel("rebalance", "1s");
    let edge = edge.start(&folder, responders[0].tunnel_address()).await;
    is_at(&edge, &["a", "b"]).await;
    let id = preferred();
    let joined = start(&folder, &id, &member(&etcd, &id, "")).await;
    joined.registered(1).await;
    eventually("two tunnels", async || {
        let at = at(&edge).await;
        (at.len() == 2 && at.contains(&id)).then_some(())
    })
    .await;
    edge.line_with("a tunnel is at another responder of the fleet now").await;
}

/// spec: FL-67
async fn what_a_responder_drains_goes_to_a_sibling(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let mut responders = all(&etcd, &folder, &["a", "b"]).await;
    let edge = Edge::new(transport).count(2).target(&format!("http://{}", target.address()));
    let edge = edge.start(&folder, responders[0].tunnel_address()).await;
    is_at(&edge, &["a", "b"]).await;
    responders[0].0.terminate();
    assert_eq!(responders[0].0.exit().await.code(), Some(0));
    eventually("both tunnels at b", async || {
        answers(&responders[1]).await;
        (at(&edge).await == ["b", "b"]).then_some(())
    })
    .await;
}

/// spec: CT-35, FL-67
async fn nothing_is_lost_while_a_responder_leaves_and_its_site_goes_to_a_sibling(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let file = |id: &str| {
        // Initiators reach it where it listens.
        let section = section(&etcd, &folder, id, LONG).replace(&format!("initiators_at: \"{id}.example:7843\", "), "");
        Cloud::new().egress("hold", "0").process("fleet", &section)
    };
    let (mut a, b) = (start(&folder, "a", &file("a")).await, start(&folder, "b", &file("b")).await);
    for responder in [&a, &b] {
        sees(responder, "both", |report| names(report) == ["a", "b"]).await;
    }
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let edge = edge.start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    world::answers(&b, TO_NODE).await;
    let asking = Asking::start(b.egress());
    a.0.terminate();
    assert_eq!(a.0.exit().await.code(), Some(0));
    is_at(&edge, &["b"]).await;
    asking.nothing_is_lost().await;
}

/// spec: FL-61, FL-62
#[tokio::test]
async fn a_region_is_preferred_over_any_transport_and_who_does_not_follow_stays() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let a = start(&folder, "a", &member(&etcd, "a", ", region: far")).await;
    let b = start(&folder, "b", &member(&etcd, "b", ", region: near")).await;
    for responder in [&a, &b] {
        sees(responder, "both", |report| names(report) == ["a", "b"]).await;
    }
    let stays = Edge::new(Transport::Quic).named("stays").count(2).tunnel("siblings", "false");
    let stays = stays.claim(crate::support::certificates::Node { node: "edge-2", ..NODE });
    let stays = stays.start(&folder, a.tunnel_address()).await;
    is_at(&stays, &["a", "a"]).await;
    let edge = Edge::auto().tunnel("region", "near").tunnel("rebalance", "1s");
    let edge = edge.start(&folder, a.tunnel_address()).await;
    is_at(&edge, &["b"]).await;
    assert_eq!(at(&stays).await, ["a", "a"], "it was told as well");
}

/// spec: FL-60
#[tokio::test]
async fn without_a_fleet_nothing_is_said_and_in_one_the_responder_itself_comes_first() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let a = start(&folder, "a", &member(&etcd, "a", "")).await;
    let report = sees(&a, "itself", |report| names(report) == ["a"]).await;
    assert_eq!(report.responders[0].initiators_at, [a.tunnel_address().to_string()], "where it listens");
    // Alone it has nobody to name, and is named itself.
    let edge = Edge::new(Transport::Quic).count(2).start(&folder, a.tunnel_address()).await;
    is_at(&edge, &["a", "a"]).await;
    let plain = Cloud::new().responder("name", "plain").start(&folder).await;
    let edge = Edge::new(Transport::Quic).named("plain").start(&folder, plain.tunnel_address()).await;
    is_at(&edge, &["plain"]).await;
    assert_eq!(fleet(&a).await.responders.len(), 1);
}
