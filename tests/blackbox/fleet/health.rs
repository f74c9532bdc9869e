//! Services that are down at the nodes of one responder, and not at those of another.

use crate::fleet::hop::section;
use crate::fleet::world::{answers, has, names, sees, start};
use crate::support::certificates::Node;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response, get};
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(a_cluster_whose_service_is_down_here_is_served_where_it_is_not);

/// Longer than a test may take.
const LONG: &str = "300s";
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
const TO_OTHER: &str = "x-node-id: edge-2";
const TO_CLUSTER: &str = "x-cluster-id: stores";

/// A POST with a body, which is for one node only once it was sent.
async fn post(at: &Responder, to: &str) -> Response {
    let mut client = RawHttp::connect(at.egress()).await.unwrap();
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{to}\r\ncontent-length: 4\r\n\r\nbody");
    client.send(head.as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

/// Waits until the responder has heard that so many of its tunnels are of a node where something is down.
async fn told(at: &Responder, expected: usize) {
    eventually(&format!("{expected} with something down"), async || {
        let down = at.0.tunnels().await.accepted.iter().filter(|tunnel| !tunnel.down.is_empty()).count();
        (down == expected).then_some(())
    })
    .await;
}

/// Regression: whatever its nodes said, a responder that had some of a cluster asked no other one.
// spec: FL-15, FL-50, CT-61
async fn a_cluster_whose_service_is_down_here_is_served_where_it_is_not(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, here, there) = (Folder::new(), Target::http1().await, Target::http1().await);
    let file = |id: &str| Cloud::new().process("fleet", &section(&etcd, &folder, id, LONG));
    let (a, b) = (start(&folder, "a", &file("a")).await, start(&folder, "b", &file("b")).await);
    let edge = Edge::new(transport).target(&format!("http://{}", here.address()));
    let _edge = edge.start(&folder, a.tunnel_address()).await;
    let other = Edge::new(transport).target(&format!("http://{}", there.address())).claim(OTHER).named("other");
    let _other = other.start(&folder, b.tunnel_address()).await;
    let both = |report: &_| names(report) == ["a", "b"] && has(report, "a", 1) && has(report, "b", 1);
    for responder in [&a, &b] {
        sees(responder, "a tunnel at each", both).await;
    }
    // The hop.
    answers(&a, TO_OTHER).await;
    let (here_at, there_at) = (here.address(), there.address());
    here.stop().await;
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 502);
    told(&a, 1).await;
    let attempts = async || a.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    let before = attempts().await;
    for nth in 0..20 {
        let response = post(&a, TO_CLUSTER).await;
        assert_eq!((response.status(), response.text().as_str()), (200, "body"), "request {nth}");
    }
    assert_eq!(attempts().await, before + 20, "none was sent to the node that says so");
    assert_eq!(post(&a, TO_NODE).await.status(), 502, "a node is asked by its name");

    there.stop().await;
    assert_eq!(get(b.egress(), "/", &[TO_OTHER]).await.unwrap().status(), 502);
    told(&b, 1).await;
    let refused = post(&a, TO_CLUSTER).await;
    assert_eq!(refused.status(), 502, "it is asked all the same: {}", refused.text());
    assert!(refused.field("proxy-status").unwrap().starts_with("adit; error=connection_refused"));
    let _there = Target::http1_at(there_at).await;
    told(&b, 0).await;
    eventually("that b serves it again", async || (post(&a, TO_CLUSTER).await.status() == 200).then_some(())).await;
    let here = Target::http1_at(here_at).await;
    told(&a, 0).await;
    let served = here.requests().len();
    assert_eq!(post(&a, TO_CLUSTER).await.status(), 200);
    assert_eq!(here.requests().len(), served + 1, "what is here comes first");
}
