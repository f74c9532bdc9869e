//! Rules that come, change and go while requests run beside them.

use std::net::SocketAddr;
use std::sync::Arc;

use adit::tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::trigger::{Trigger, rewrite};
use super::world::Outcome;
use crate::support::certificates::{Authority, Certificate};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Folder, Site, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(rules_are_exchanged_at_once_and_what_is_under_way_stays);

/// The first listener, with one rule that does this.
fn cloud(action: &str) -> String {
    let rules = format!("[{{ priority: 7, name: all, match: {{ prefix: / }}, action: {action} }}]");
    Cloud::new().egress("policies", &rules).text()
}

async fn rules_are_exchanged_at_once_and_what_is_under_way_stays(transport: Transport) {
    let site = Site::start(transport).await;
    let (responder, listener) = (&site.responder.0, "egress[127.0.0.1:0].policies");
    let mut under_way = site.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nhost: h\r\n{TO_NODE}\r\ncontent-length: 4\r\n\r\nab");
    under_way.send(head.as_bytes()).await.unwrap();
    site.arrived("/echo").await;

    let added = rewrite(responder, &cloud("deny")).await;
    assert_eq!(added, Outcome::Applied(vec![format!("+ {listener}.all")]));
    assert_eq!(site.get("/").await.status(), 403);
    under_way.send(b"cd").await.unwrap();
    assert_eq!(under_way.response().await.unwrap().status(), 200);

    let changed = rewrite(responder, &cloud("deny, status: 404")).await;
    assert_eq!(changed, Outcome::Applied(vec![format!("~ {listener}.all.status: 403 -> 404")]));
    assert_eq!(site.get("/").await.status(), 404);

    let broken = rewrite(responder, &cloud("drop")).await;
    assert!(matches!(broken, Outcome::Failed(_)), "{broken:?}");
    assert_eq!(site.get("/").await.status(), 404);

    assert_eq!(rewrite(responder, &Cloud::new().text()).await, Outcome::Applied(vec![format!("- {listener}.all")]));
    assert_eq!(site.get("/").await.status(), 200);
}

/// A server over TLS that shows this and answers each connection once. It lasts as long as the test.
async fn secured(shown: &Certificate) -> SocketAddr {
    let config = rustls::ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(shown.chain(), shown.private_key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever does not take the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

// Nothing else of the listener changes, and no tunnel is there.
async fn other_roots_for_an_upstream_are_followed(trigger: Trigger) {
    let (folder, genuine) = (Folder::new(), Authority::new("CA of upstreams"));
    let port = secured(&genuine.responder()).await.port();
    genuine.write(folder.path(), "upstream-ca");
    let rules = format!(
        "[{{ priority: 7, name: all, match: any, action: forward, target: \"https://localhost:{port}\", \
         tls: {{ ca: upstream-ca.pem }} }}]"
    );
    let responder = trigger.cloud().egress("policies", &rules).start(&folder).await;
    let status = async || get(responder.egress(), "/", &[]).await.unwrap().status();
    assert_eq!(status().await, 200);
    let note = "~ egress[127.0.0.1:0].policies.all.tls.ca: other certificates";
    for (roots, expected) in [(&Authority::new("another CA"), 502), (&genuine, 200)] {
        let changed = trigger.change(&responder.0, || folder.write("upstream-ca.pem", &roots.pem())).await;
        assert_eq!((changed, status().await), (Outcome::Applied(vec![note.to_owned()]), expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_roots_for_an_upstream_are_followed_by_signal() {
    other_roots_for_an_upstream_are_followed(Trigger::Signal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_roots_for_an_upstream_are_followed_by_watch() {
    other_roots_for_an_upstream_are_followed(Trigger::Watch).await;
}

// What was under way at a server did not count after a change of another rule, and one that was down was asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_rules_that_did_not_change_stay_as_they_are_known() {
    let (folder, upstream, absent) = (Folder::new(), Target::http1().await, free_address());
    let text = |more: &str, in_flight: u32| {
        let rules = format!(
            "[{{ priority: 8, name: all, match: any, action: forward, target: \"http://{}\", \
             limits: {{ in_flight: {in_flight} }} }}, \
             {{ priority: 9, name: gone, match: {{ prefix: /gone }}, action: forward, target: \"http://{absent}\" }}{more}]",
            upstream.address()
        );
        Cloud::new().egress("policies", &rules)
    };
    let responder = text("", 2).start(&folder).await;
    let status = async |path: &str| get(responder.egress(), path, &[]).await.unwrap().status();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = RawHttp::connect(responder.egress()).await.unwrap();
        client.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        held.push(client);
    }
    assert_eq!(status("/gone").await, 502);
    eventually("as many as may be under way", async || (status("/request").await == 503).then_some(())).await;
    for number in 10..15 {
        let other = format!(", {{ priority: {number}, name: other, match: {{ path: /other }}, action: deny }}");
        rewrite(&responder.0, &text(&other, 2).text()).await.changes();
        assert_eq!(status("/request").await, 503, "after {} reloads", number - 9);
        assert_eq!(status("/gone").await, 503, "it is not asked by a request");
    }
    rewrite(&responder.0, &text("", 1).text()).await.changes();
    assert_eq!(status("/request").await, 503);
    rewrite(&responder.0, &text("", 3).text()).await.changes();
    assert_eq!(status("/request").await, 200);
    drop(held);
}
