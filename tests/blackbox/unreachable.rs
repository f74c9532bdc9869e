//! A site that does not answer costs its own requests a short wait, and nobody else anything.

use http::Method;

use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_site_that_does_not_answer_gets_no_new_requests_until_it_does,
    what_hangs_in_a_suspect_tunnel_moves_to_another_one,
    a_site_that_does_not_answer_holds_no_stop_up,
    a_responder_that_does_not_answer_holds_no_stop_up,
    a_responder_that_lost_its_keys_is_dialled_as_soon_as_it_is_suspect,
);

/// Another node of the same cluster.
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
const TO_CLUSTER: &str = "x-node-id: stores";
/// Longer than any test waits: what ends before was not ended by it.
const NEVER: &str = "600s";

/// A responder that gives tunnels up long after the test.
fn patient() -> Cloud {
    Cloud::new().responder("idle_timeout", NEVER).responder("keepalive", "500ms")
}

/// Waits until the responder doubts its first tunnel.
async fn suspect(site: &Site) {
    eventually("the tunnel is suspect", async || {
        site.responder.0.tunnels().await.accepted.iter().any(|tunnel| tunnel.health == "suspect").then_some(())
    })
    .await;
}

async fn a_site_that_does_not_answer_gets_no_new_requests_until_it_does(transport: Transport) {
    let site = Site::with(patient().egress("hold", "100ms"), Edge::new(transport)).await;
    site.initiator.freeze();
    suspect(&site).await;
    let refused = site.get("/new").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.field("retry-after").is_some() && refused.text().contains("suspect"), "{}", refused.text());
    site.initiator.thaw();
    eventually("it takes requests again", async || (site.get("/again").await.status() == 200).then_some(())).await;
    assert!(!site.target.requests().iter().any(|request| request.ends_with("/new")), "nothing was left in the tunnel");
}

async fn what_hangs_in_a_suspect_tunnel_moves_to_another_one(transport: Transport) {
    let site = Site::with(patient().egress("deadline", "1h"), Edge::new(transport)).await;
    site.initiator.freeze();
    let egress = site.egress();
    let hanging = tokio::spawn(async move { get(egress, "/moved", &[TO_CLUSTER]).await });
    eventually("the request is in the tunnel", async || {
        site.responder.0.tunnels().await.accepted.iter().any(|tunnel| tunnel.in_flight == 1).then_some(())
    })
    .await;
    let (_other, target) = site.join(Edge::new(transport).named("other").claim(OTHER)).await;
    assert_eq!(hanging.await.unwrap().unwrap().status(), 200);
    assert_eq!(target.requests(), ["GET /moved"]);
}

async fn a_site_that_does_not_answer_holds_no_stop_up(transport: Transport) {
    for doubted in [true, false] {
        let mut site = Site::with(patient().process("drain_timeout", NEVER), Edge::new(transport)).await;
        site.initiator.freeze();
        if doubted {
            suspect(&site).await;
        }
        site.responder.0.terminate();
        assert_eq!(site.responder.0.exit().await.code(), Some(0));
        site.responder.0.line_with("drained: everything finished").await;
    }
}

async fn a_responder_that_does_not_answer_holds_no_stop_up(transport: Transport) {
    let mut site = Site::with(patient(), Edge::new(transport).process("drain_timeout", NEVER)).await;
    site.responder.0.freeze();
    site.initiator.terminate();
    assert_eq!(site.initiator.exit().await.code(), Some(0));
}

// spec: CT-45
async fn a_responder_that_lost_its_keys_is_dialled_as_soon_as_it_is_suspect(transport: Transport) {
    let Site { responder, initiator, target, folder } = Site::with(patient(), Edge::new(transport)).await;
    let responder = responder.restart().await;
    responder.registered(1).await;
    assert_eq!(get(responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    drop((initiator, target, folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_does_not_answer_keeps_no_other_from_a_restarted_responder() {
    let cloud = patient().process("drain_timeout", NEVER).responder("state_dir", "state").responder("grace", "300s");
    // The other one is waited for, however long it takes to come back.
    let cloud = cloud.egress("hold", "300s");
    let site = Site::with(cloud, Edge::new(Transport::Quic)).await;
    let (other, target) = site.join(Edge::new(Transport::Quic).named("other").claim(OTHER)).await;
    site.initiator.freeze();
    let Site { responder, initiator, folder, .. } = site;
    let responder = responder.restart_gracefully().await;
    let answer = get(responder.egress(), "/", &["x-node-id: edge-2"]).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(responder.0.ask(Method::GET, "/ready").await.0, 503, "one of two is not back");
    initiator.thaw();
    eventually("both are back", async || (responder.0.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    drop((other, target, folder));
}
