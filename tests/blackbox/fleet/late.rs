//! A responder is started while etcd is away, and etcd comes later, or not in time.

use http::Method;

use crate::cli::{adit, parts};
use crate::fleet::hop::section;
use crate::fleet::world::{fleet, has, member, names, sees, start};
use crate::support::certificates::Node;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(a_responder_without_a_view_serves_its_own_nodes_and_is_ready_once_it_knows_the_others);

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";
/// What `/ready` says while the directory is missing.
const MISSING: &str = "the fleet's directory (etcd was not read yet)\n";
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
const TO_OTHER: &str = "x-node-id: edge-2";

/// A responder with a hop that waits for no node because it is young.
fn file(etcd: &Etcd, folder: &Folder, id: &str, ready_timeout: &str) -> Cloud {
    let section = section(etcd, folder, id, LONG).replace("lease:", &format!("ready_timeout: {ready_timeout}, lease:"));
    Cloud::new().responder("grace", "0").process("fleet", &section)
}

async fn ready(responder: &Responder) -> (u16, String) {
    let (status, text) = responder.0.ask(Method::GET, "/ready").await;
    (status.as_u16(), text)
}

/// Regression: it was ready at once, and refused what only the others have.
///
/// spec: FL-26, FL-27
async fn a_responder_without_a_view_serves_its_own_nodes_and_is_ready_once_it_knows_the_others(transport: Transport) {
    let Some(mut etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let file = |id: &str| file(&etcd, &folder, id, LONG).egress("hold", LONG);
    let (of_a, of_b) = (file("a"), file("b"));
    let b = start(&folder, "b", &of_b).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let _edge = edge.clone().start(&folder, b.tunnel_address()).await;
    sees(&b, "its tunnel", |report| has(report, "b", 1)).await;
    etcd.kill().await;

    let a = start(&folder, "a", &of_a).await;
    a.0.line_with("etcd is not reached since the start").await;
    let _own = edge.claim(OTHER).named("other").start(&folder, a.tunnel_address()).await;
    a.registered(1).await;
    assert_eq!(get(a.egress(), "/", &[TO_OTHER]).await.unwrap().status(), 200, "its own node");
    assert_eq!(ready(&a).await, (503, MISSING.to_owned()));
    let report = fleet(&a).await;
    assert!(report.view == "empty" && report.trouble.is_some(), "{report:?}");
    let (code, out, _) = parts(&adit(&["fleet", "--admin", &a.0.admin().to_string()]).await);
    assert!(code == Some(1) && out.starts_with("view empty\n  etcd was not read since"), "{out}");
    let mut held = RawHttp::connect(a.egress()).await.unwrap();
    held.send(format!("GET / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();

    etcd.begin_again().await;
    assert_eq!(held.response().await.unwrap().status(), 200, "a node of the other");
    sees(&a, "both", |report| report.view == "current" && names(report) == ["a", "b"]).await;
    eventually("ready", async || (ready(&a).await == (200, "ready\n".to_owned())).then_some(())).await;
}

/// All responders of a fleet may start while etcd is away: none would ever be ready.
///
/// spec: FL-26, FL-27
#[tokio::test]
async fn a_responder_whose_etcd_stays_away_is_ready_after_its_time_and_says_what_it_does_not_know() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let file = file(&etcd, &folder, "a", "500ms").egress("hold", "0");
    let alone = member(&etcd, "b", LONG).responder("grace", "0");
    etcd.kill().await;
    let a = start(&folder, "a", &file).await;
    a.0.line_with("taking requests without knowing what the siblings have").await;
    assert_eq!(ready(&a).await.0, 200);
    let refused = get(a.egress(), "/", &[TO_NODE]).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(
        refused.field("proxy-status").unwrap().contains("the directory of the fleet is not read yet"),
        "{refused:?}"
    );
    // Whoever asks no siblings does not wait to know them.
    let b = start(&folder, "b", &alone).await;
    assert_eq!(ready(&b).await, (200, "ready\n".to_owned()));
}
