//! What our initiator shows when a real Envoy responder refuses it, and that it comes in once the reason is gone.

use crate::envoy_interop::ends::adit_initiator;
use crate::envoy_interop::envoy_alone::{OTHER, status};
use crate::support::envoy::{EnvoyResponder, ResponderOptions, Tls, Variant};
use crate::support::eventually::eventually;
use crate::support::site::{Edge, Folder, NODE, Running, TO_NODE};
use crate::support::targets::Target;

async fn started(edge: Edge, folder: &Folder, responder: &EnvoyResponder, target: &Target) -> Running {
    let edge = edge.target(&format!("http://{}", target.address()));
    Running::start(folder.write("edge.yaml", &edge.text(&responder.tunnel_address().to_string()))).await
}

/// Without a certificate; `settings` each after a comma.
fn in_clear(settings: &str) -> Edge {
    Edge::envoy(&format!("{{ security: none{settings} }}")).initiator("tls", "{ ca: ca.pem }")
}

/// The state and the reason in `/tunnels`, once there is a reason and no further attempt is just being made.
async fn told(edge: &Running) -> (String, String) {
    eventually("a reason", async || {
        let slot = edge.tunnels().await.dialled.into_iter().next()?;
        Some((slot.state, slot.reason?)).filter(|(state, _)| state != "connecting")
    })
    .await
}

// spec: EV-6
#[tokio::test]
async fn a_certificate_that_does_not_prove_the_node_is_403_with_advice() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let node_id_format = Some("%DOWNSTREAM_PEER_DNS_SAN%");
    let tls = Some(Tls::responder(&folder, NODE));
    let options = ResponderOptions { tls, node_id_format, ..ResponderOptions::default() };
    let Some(responder) = EnvoyResponder::start(Variant::Mtls, options).await else { return };
    let liar = started(adit_initiator(Variant::Mtls, &folder).claim(OTHER), &folder, &responder, &target).await;
    let (state, reason) = told(&liar).await;
    assert_eq!(state, "cannot_connect");
    assert!(reason.contains("403") && reason.contains("validation_failed"), "{reason}");
    let line = liar.line_with("cannot open a tunnel").await;
    assert!(line["advice"].as_str().unwrap().contains("those of the certificate"), "{line}");
    drop(liar);

    let _honest = started(adit_initiator(Variant::Mtls, &folder), &folder, &responder, &target).await;
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
}

// spec: EV-1, EV-2, EV-6
#[tokio::test]
async fn path_upgrade_and_name_must_be_those_of_the_responder() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let options = ResponderOptions {
        use_http_upgrade: true,
        request_path: Some("/tunnels"),
        required_cluster_name: Some("cloud"),
        ..ResponderOptions::default()
    };
    let Some(responder) = EnvoyResponder::start(Variant::Plaintext, options).await else { return };
    for (settings, said) in [
        ("", "404"),
        (", path: /tunnels", "426"),
        (", path: /tunnels, upgrade: true", "Missing upstream cluster name header"),
        (", path: /tunnels, upgrade: true, upstream_cluster: sky", "Cluster name mismatch"),
    ] {
        let edge = started(in_clear(settings), &folder, &responder, &target).await;
        let (_, reason) = told(&edge).await;
        assert!(reason.contains(said), "{said} in {reason}");
    }
    let right = in_clear(", path: /tunnels, upgrade: true, upstream_cluster: cloud");
    let _edge = started(right, &folder, &responder, &target).await;
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
}

/// Envoy says 429 without a time; ours comes back by its own schedule, until there is room.
// spec: EV-6
#[tokio::test]
async fn one_tunnel_too_many_waits_for_room() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let options = ResponderOptions { max_connections_per_node: Some(1), ..ResponderOptions::default() };
    let Some(responder) = EnvoyResponder::start(Variant::Plaintext, options).await else { return };
    let first = started(in_clear(""), &folder, &responder, &target).await;
    responder.registered(1).await;
    let late = started(in_clear(""), &folder, &responder, &target).await;
    let (state, reason) = told(&late).await;
    assert_eq!(state, "backoff");
    assert!(reason.contains("429"), "{reason}");
    drop(first.kill());
    eventually("the tunnel of the late one", async || {
        late.tunnels().await.dialled.iter().any(|slot| slot.id.is_some()).then_some(())
    })
    .await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
}
