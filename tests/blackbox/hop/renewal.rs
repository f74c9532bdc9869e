//! Certificates, roots and revocation lists between siblings become others while connections live. spec: FL-48

use adit::tls::{Trust, parse_crls};

use super::world::{Member, certificate_of, trust};
use super::{Pair, of_requests};
use crate::support::certificates::{Authority, Certificate};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::raw_target::RawTarget;
use crate::support::site::Transport;
use crate::support::targets::Target;

fn certificate(authority: &Authority, id: &str) -> Certificate {
    certificate_of(authority, &format!("spiffe://example.org/responder/{id}"))
}

fn both(one: &Authority, other: &Authority) -> Trust {
    Trust::roots([trust(one), trust(other)].into_iter().flat_map(|trust| trust.roots))
}

async fn answers(member: &Member, status: u16) {
    eventually(&format!("an answer {status}"), async || (member.get("/").await.status() == status).then_some(())).await;
}

async fn asks(member: &Member, connections: u64) {
    let series = "adit_fleet_connections_open{direction=\"out\"}";
    eventually("other connections", async || (member.metric(series) == connections).then_some(())).await;
}

// spec: FL-48
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_moves_to_another_ca_without_losing_a_request() {
    let target = RawTarget::new().await;
    let Pair { a, b, table, edge: _edge } = of_requests(Transport::Quic, target.address()).await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n";
    let mut first = RawHttp::connect(a.egress).await.unwrap();
    first.send(request).await.unwrap();
    let (mut peer, _) = target.accept().await;
    let (old, new) = (Authority::new("the first CA of the test"), Authority::new("the next CA"));
    // Nobody has a certificate of this one: what lives is not admitted any more, and what runs on it is.
    let (stranger, next) = (trust(&old), certificate(&new, "b"));
    assert!(b.renew(&next, stranger));
    eventually("that the connection is left", async || a.ways.connected().is_empty().then_some(())).await;
    assert_eq!(a.metric("adit_fleet_connections_open{direction=\"out\"}"), 1, "what runs goes on");
    peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    peer.send("first").await.unwrap();
    assert_eq!(first.response().await.unwrap().text(), "first");
    asks(&a, 0).await;
    // Neither takes the other.
    assert_eq!(a.get("/").await.status(), 503);
    assert!(b.renew(&next, trust(&new)) && a.renew(&certificate(&new, "a"), both(&old, &new)));
    assert!(!b.renew(&next, trust(&new)), "the same again is nothing");
    eventually("that the other one can be asked", async || {
        // For a node that nobody has, so that the target sees nothing of it.
        table.says("b", "edge-9");
        let _ = get(a.egress, "/", &["x-node-id: edge-9"]).await.unwrap();
        (!a.ways.connected().is_empty()).then_some(())
    })
    .await;
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    client.send(request).await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "next");
}

// spec: FL-48
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_revokes_a_sibling_ends_what_it_asks_and_what_it_is_asked() {
    let target = Target::http1().await;
    let Pair { a, b, edge: _edge, .. } = of_requests(Transport::Quic, target.address()).await;
    let ca = Authority::new("a CA with a list");
    let (of_a, of_b) = (certificate(&ca, "a"), certificate(&ca, "b"));
    assert!(a.renew(&of_a, trust(&ca)) && b.renew(&of_b, trust(&ca)));
    answers(&a, 200).await;
    let listed = |revoked: &Certificate| {
        let list = ca.crl(&[adit::tls::Summary::of(&revoked.chain()[0]).unwrap().serial]);
        Trust { crls: parse_crls(list.as_bytes()).unwrap(), ..trust(&ca) }
    };
    // Whoever is asked judges the asker.
    assert!(b.renew(&of_b, listed(&of_a)));
    answers(&a, 503).await;
    assert!(b.renew(&of_b, trust(&ca)));
    answers(&a, 200).await;
    // The asker judges whom it asks.
    assert!(a.renew(&of_a, listed(&of_b)));
    answers(&a, 503).await;
    asks(&a, 0).await;
    assert!(a.renew(&of_a, trust(&ca)));
    answers(&a, 200).await;
}
