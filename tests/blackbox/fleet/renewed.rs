//! A node that died without a word and comes back elsewhere with its next certificate.

use crate::fleet::hop::section;
use crate::fleet::world::{answers, has, names, sees, start};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(a_node_that_died_is_let_in_elsewhere_with_its_next_certificate_once_nobody_hears_the_former_one);

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";

async fn accepted(at: &Responder) -> usize {
    at.0.tunnels().await.accepted.len()
}

// spec: FL-16, FL-17, HS-14
async fn a_node_that_died_is_let_in_elsewhere_with_its_next_certificate_once_nobody_hears_the_former_one(
    transport: Transport,
) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    // What is dead does not end by itself.
    let cloud = |id: &str| {
        let cloud = Cloud::new().responder("idle_timeout", "600s");
        cloud.process("fleet", &section(&etcd, &folder, id, LONG))
    };
    let (a, b) = (start(&folder, "a", &cloud("a")).await, start(&folder, "b", &cloud("b")).await);
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let former = edge.start(&folder, b.tunnel_address()).await;
    let at_b = |report: &_| names(report) == ["a", "b"] && has(report, "b", 1);
    sees(&a, "the node at b", at_b).await;
    match transport {
        Transport::Quic => drop(former.kill()),
        // The kernel would say so to its peer.
        Transport::Tcp => former.freeze(),
    }
    let shown = folder.authority.renewed_node(NODE);
    let next = edge.named("next").start_with(&folder, a.tunnel_address(), &shown).await;
    next.line_with("older certificate, which gives way once it is not heard").await;
    assert_eq!((accepted(&a).await, accepted(&b).await), (0, 1), "it may live yet");
    a.registered(1).await;
    eventually("that what is dead gives way", async || (accepted(&b).await == 0).then_some(())).await;
    for responder in [&a, &b] {
        sees(responder, "the node at a", |report| has(report, "a", 1) && has(report, "b", 0)).await;
        answers(responder, TO_NODE).await;
    }
}
