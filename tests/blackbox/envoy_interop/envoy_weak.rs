//! Where the real Envoy is weak by itself. Nothing here runs adit; a test that fails here says that Envoy has become
//! better.

use std::time::Duration;

use super::envoy_alone::{OTHER, Pair, attentive, status};
use super::tap::Tap;
use crate::support::certificates::Node;
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::eventually::eventually;
use crate::support::site::{Folder, NODE, TO_NODE};
use crate::support::targets::Target;

/// What an eavesdropper between the two ends reads of one exchange.
struct Overheard {
    handshake: bool,
    probe: bool,
    http2: bool,
    body: bool,
}

async fn overhear(variant: Variant) -> Option<Overheard> {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let tls = variant.has_tls().then(|| Tls::responder(&folder, NODE));
    let responder = EnvoyResponder::start(variant, ResponderOptions { tls, ..ResponderOptions::default() }).await?;
    let tap = Tap::new(responder.tunnel_address()).await;
    let tls = variant.has_tls().then(|| Tls::initiator(&folder, NODE));
    let options = InitiatorOptions { tls, ..InitiatorOptions::default() };
    let _initiator = EnvoyInitiator::start(variant, tap.address(), target.address(), options).await?;
    responder.registered(1).await;
    eventually("a probe", async || tap.saw(b"RPINGRPING").then_some(())).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    Some(Overheard {
        handshake: tap.saw(b"GET /reverse_connections/request HTTP/1.1\r\n"),
        probe: tap.saw(b"RPING"),
        http2: tap.saw(b"PRI * HTTP/2.0\r\n"),
        body: tap.saw(b"hello\n"),
    })
}

#[tokio::test]
async fn tls_of_the_handshake_leaves_requests_in_clear() {
    let Some(seen) = overhear(Variant::Mtls).await else { return };
    assert!(!seen.handshake && seen.probe && seen.http2 && seen.body);
}

#[tokio::test]
async fn inner_tls_hides_requests_but_not_probes() {
    let Some(seen) = overhear(Variant::InnerMtls).await else { return };
    assert!(!seen.handshake && seen.probe && !seen.http2 && !seen.body);
}

#[tokio::test]
async fn without_tls_all_is_in_clear() {
    let Some(seen) = overhear(Variant::Plaintext).await else { return };
    assert!(seen.handshake && seen.probe && seen.http2 && seen.body);
}

/// A tunnel belongs to one worker, and the others do not find it.
#[tokio::test]
async fn with_two_workers_and_one_tunnel_some_requests_are_503() {
    let responder = ResponderOptions { concurrency: 2, reuse_port: true, ..ResponderOptions::default() };
    let Some(pair) = Pair::plaintext(responder, InitiatorOptions::default()).await else { return };
    let mut counts = [0, 0];
    for _ in 0..40 {
        match pair.status(TO_NODE).await {
            200 => counts[0] += 1,
            503 => counts[1] += 1,
            other => panic!("{other}"),
        }
    }
    let [found, missed] = counts;
    assert!(found > 0 && missed > 0, "{found} requests found the tunnel, {missed} did not");
}

/// A cluster is looked for before a node, and nothing keeps a node from naming its cluster after another node.
#[tokio::test]
async fn a_node_takes_the_requests_of_another_whose_name_it_claims_as_its_cluster() {
    let victim = Pair::plaintext(ResponderOptions::default(), InitiatorOptions::default()).await;
    let Some(victim) = victim else { return };
    assert_eq!(victim.status(TO_NODE).await, 200);
    assert_eq!(victim.target.requests().len(), 1);

    let elsewhere = Target::http1().await;
    let claim = Node { cluster: NODE.node, ..OTHER };
    let (to, options) = (victim.responder.tunnel_address(), InitiatorOptions { claim, ..InitiatorOptions::default() });
    let attacker = EnvoyInitiator::start(Variant::Plaintext, to, elsewhere.address(), options).await.unwrap();
    attacker.connected(1).await;
    victim.responder.registered(2).await;
    for _ in 0..10 {
        assert_eq!(victim.status(TO_NODE).await, 200);
    }
    assert_eq!((victim.target.requests().len(), elsewhere.requests().len()), (1, 10));
}

/// Only idle tunnels are probed, unless the file asks for HTTP/2 probes.
#[tokio::test]
async fn a_frozen_initiator_in_use_keeps_getting_requests() {
    let responder = ResponderOptions {
        ping_interval: Some(Duration::from_secs(2)),
        ping_failure_threshold: Some(1),
        request_timeout: Some(Duration::from_secs(2)),
        ..ResponderOptions::default()
    };
    let Some(pair) = Pair::plaintext(responder, attentive()).await else { return };
    assert_eq!(pair.status(TO_NODE).await, 200);
    pair.initiator.freeze();
    // An idle one would be gone after 3.3 s at the latest.
    for _ in 0..3 {
        assert_eq!(pair.status(TO_NODE).await, 504);
    }
    assert_eq!(pair.responder.tunnels().await, 1);
}
