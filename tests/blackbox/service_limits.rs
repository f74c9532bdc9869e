//! What one service may have under way at its initiator: what is beyond it is refused, and goes to another node of a cluster.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response, get};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    beyond_what_a_service_may_have_under_way_a_request_is_answered_503,
    a_request_to_a_cluster_goes_to_a_node_whose_service_has_room,
    a_target_never_has_more_connections_than_its_service_may_make,
    raw_streams_have_places_too,
    a_raw_stream_has_its_place_until_both_directions_have_ended,
    what_follows_an_upgrade_has_its_place_until_both_directions_have_ended,
    a_target_that_is_not_there_sends_a_request_to_another_node,
    what_a_target_writes_about_refusals_is_for_nobody,
);

const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
/// How long a request waits for a connection.
const WAIT: Duration = Duration::from_secs(1);

fn limited(limits: &str) -> String {
    format!("{{ name: web, match: {{}}, target: \"{{target}}\", limits: {limits} }}")
}

/// Begins a request that is never answered, and waits until it is at a target.
async fn hang(site: &Site, target: &Target, to: &str) -> RawHttp<TcpStream> {
    let hanging = || target.requests().iter().filter(|seen| seen.ends_with("/hang")).count();
    let before = hanging();
    let mut client = site.connect().await;
    client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{to}\r\n\r\n").as_bytes()).await.unwrap();
    eventually("the request at the target", async || (hanging() > before).then_some(())).await;
    client
}

async fn post(site: &Site, to: &str) -> Response {
    let mut client = site.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{to}\r\ncontent-length: 4\r\n\r\nbody");
    client.send(head.as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

// spec: ST-45
async fn beyond_what_a_service_may_have_under_way_a_request_is_answered_503(transport: Transport) {
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&limited("{ in_flight: 2 }"))).await;
    let to = "x-node-id: edge-1";
    let (first, _second) = (hang(&site, &site.target, to).await, hang(&site, &site.target, to).await);
    for refused in [site.get("/").await, post(&site, to).await] {
        assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")), "{}", refused.text());
        let told = refused.field("proxy-status").unwrap();
        assert!(told.starts_with("adit; error=connection_limit_reached; details=\"the service has no room"), "{told}");
        assert_eq!(refused.field("adit-refused"), None);
    }
    site.initiator.counted("adit_service_refused_total{service=\"web\"}", 2).await;
    let full = "adit_exchanges_failed_total{side=\"egress\",cause=\"service_full\"}";
    site.responder.0.counted(full, 2).await;
    let full = "adit_exchanges_failed_total{side=\"target\",cause=\"service_full\"}";
    site.initiator.counted(full, 2).await;
    drop(first);
    eventually("room once one of them is gone", async || (site.get("/").await.status() == 200).then_some(())).await;
}

// spec: ST-45
async fn a_request_to_a_cluster_goes_to_a_node_whose_service_has_room(transport: Transport) {
    // A place is free again a moment after the response has come: there is one for each request.
    const PLACES: usize = 20;
    let site = Site::with(Cloud::new(), Edge::new(transport).count(2).service(&limited("{ in_flight: 1 }"))).await;
    let limits = format!("{{ in_flight: {PLACES} }}");
    let edge = Edge::new(transport).named("other").claim(OTHER).service(&limited(&limits));
    let (_other, target) = site.join(edge).await;
    let _first = hang(&site, &site.target, "x-node-id: edge-1").await;
    let before = site.responder.0.metric("adit_exchanges_failed_total{side=\"egress\",cause=\"service_full\"}").await;
    for nth in 0..PLACES {
        let response = get(site.egress(), "/request", &["x-cluster-id: stores"]).await.unwrap();
        assert_eq!(response.status(), 200, "request {nth}: {}", response.text());
    }
    assert_eq!(target.requests().len(), PLACES);
    let after = site.responder.0.metric("adit_exchanges_failed_total{side=\"egress\",cause=\"service_full\"}").await;
    assert_eq!(after, before, "nobody was told");

    let mut hanging = Vec::new();
    for _ in 0..PLACES {
        hanging.push(hang(&site, &target, "x-node-id: edge-2").await);
    }
    let response = get(site.egress(), "/request", &["x-cluster-id: stores"]).await.unwrap();
    assert_eq!((response.status(), response.field("retry-after")), (503, Some("1")), "all of them are full");
}

async fn a_target_never_has_more_connections_than_its_service_may_make(transport: Transport) {
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&limited("{ connections: 3 }"))).await;
    let mut asked = JoinSet::new();
    for _ in 0..24 {
        let egress = site.egress();
        asked.spawn(async move {
            let began = Instant::now();
            (get(egress, "/slow/20", &["x-node-id: edge-1"]).await.unwrap().status(), began.elapsed())
        });
    }
    let answers = asked.join_all().await;
    // Where others take the machine, some may wait for longer than anybody does.
    let is_fair = |(status, took): &(u16, Duration)| *status == 200 || (*status == 503 && *took >= WAIT);
    assert!(answers.iter().all(is_fair), "those that wait are served: {answers:?}");
    assert!(answers.iter().filter(|(status, _)| *status == 200).count() > 3, "somebody has waited: {answers:?}");
    assert!(site.target.connections() <= 3, "{} connections", site.target.connections());

    let to = "x-node-id: edge-1";
    let mut hanging = Vec::new();
    for _ in 0..3 {
        hanging.push(hang(&site, &site.target, to).await);
    }
    let refused = site.get("/").await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")), "{}", refused.text());
    assert!(refused.text().contains("has no room at edge-1"), "{}", refused.text());
}

/// What a CONNECT to the service `bytes` is answered, and the connection that it came on.
async fn connect(site: &Site) -> (u16, RawHttp<TcpStream>) {
    let mut client = site.connect().await;
    client.send(b"CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
    (client.head().await.unwrap().status, client)
}

async fn raw_streams_have_places_too(transport: Transport) {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    let mut peers = JoinSet::new();
    peers.spawn(async move {
        while let Ok((mut peer, _)) = target.accept().await {
            // It ends its direction when the client has.
            tokio::spawn(async move { peer.read_to_end(&mut Vec::new()).await });
        }
    });
    let service = format!("{{ name: bytes, target: \"tcp://{address}\", limits: {{ in_flight: 1 }} }}");
    let site = Site::with(Cloud::new().egress("connect", "true"), Edge::new(transport).service(&service)).await;
    let (status, first) = connect(&site).await;
    assert_eq!(status, 200);
    assert_eq!(connect(&site).await.0, 503);
    drop(first);
    eventually("a place once the first is gone", async || (connect(&site).await.0 == 200).then_some(())).await;
}

/// While one direction goes on, so often somebody else is refused: many round trips behind the end of the other one.
const REFUSED: usize = 10;

// spec: ST-60
async fn a_raw_stream_has_its_place_until_both_directions_have_ended(transport: Transport) {
    for limit in ["in_flight", "connections"] {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = target.local_addr().unwrap();
        let service = format!("{{ name: bytes, target: \"tcp://{address}\", limits: {{ {limit}: 1 }} }}");
        let site = Site::with(Cloud::new().egress("connect", "true"), Edge::new(transport).service(&service)).await;
        let (status, client) = connect(&site).await;
        assert_eq!(status, 200);
        let (mut client, mut peer) = (client.into_parts().0, target.accept().await.unwrap().0);
        // The target has nothing to say, and listens on.
        peer.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        for nth in 0..if limit == "in_flight" { REFUSED } else { 2 } {
            assert_eq!(connect(&site).await.0, 503, "{limit}: {nth}");
        }
        client.write_all(b"more").await.unwrap();
        let mut said = [0; 4];
        peer.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"more");
        client.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut said).await.unwrap(), 0);
        eventually("a place once both have ended", async || (connect(&site).await.0 == 200).then_some(())).await;
    }
}

// spec: ST-25
async fn what_follows_an_upgrade_has_its_place_until_both_directions_have_ended(transport: Transport) {
    let target = RawTarget::new().await;
    let address = target.address();
    let service = "{ name: web, match: {}, target: \"http://TARGET\", limits: { in_flight: 1 }, upgrades: [tcp] }";
    let service = service.replace("TARGET", &address.to_string());
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&service)).await;
    let mut client = TcpStream::connect(site.egress()).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n";
    client.write_all(head).await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n").await.unwrap();
    peer.finish().await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    for nth in 0..REFUSED {
        assert_eq!(site.get("/").await.status(), 503, "{nth}");
    }
    client.write_all(b"more").await.unwrap();
    assert_eq!(peer.exactly(4).await.unwrap(), b"more");
    client.shutdown().await.unwrap();
    peer.gone().await;
    let next = async {
        let mut peer = target.accept().await.0;
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        peer
    };
    let asked =
        eventually("a place once both have ended", async || (site.get("/").await.status() == 204).then_some(()));
    tokio::join!(next, asked);
}

// spec: ST-45
async fn a_target_that_is_not_there_sends_a_request_to_another_node(transport: Transport) {
    let site = Site::with(Cloud::new(), Edge::new(transport)).await;
    // Nobody listens there.
    let nowhere = Edge::new(transport).named("other").claim(OTHER);
    let nowhere = nowhere.service("{ name: web, match: {}, target: \"http://127.0.0.1:1\" }");
    let _other = nowhere.start(&site.folder, site.responder.tunnel_address()).await;
    site.responder.registered(2).await;
    for nth in 0..20 {
        let response = get(site.egress(), "/request", &["x-cluster-id: stores"]).await.unwrap();
        assert_eq!(response.status(), 200, "request {nth}: {}", response.text());
    }
    let refused = get(site.egress(), "/", &["x-node-id: edge-2"]).await.unwrap();
    assert_eq!(refused.status(), 502);
    assert!(refused.field("proxy-status").unwrap().starts_with("adit; error=connection_refused"), "{}", refused.text());
    assert_eq!(refused.field("adit-refused"), None);
}

// spec: ST-45
async fn what_a_target_writes_about_refusals_is_for_nobody(transport: Transport) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar = format!("http://{}", listener.local_addr().unwrap());
    let mut lies = JoinSet::new();
    lies.spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && peer.read_buf(&mut head).await.unwrap() > 0 {}
            let answer = b"HTTP/1.1 503 No\r\nconnection: close\r\nadit-refused: 7\r\ncontent-length: 4\r\n\r\nmine";
            peer.write_all(answer).await.unwrap();
        }
    });
    let service = format!("{{ name: web, match: {{}}, target: \"{liar}\" }}");
    let site = Site::with(Cloud::new(), Edge::new(transport).service(&service)).await;
    let edge = Edge::new(transport).named("other").claim(OTHER).service(&service);
    let (_other, _target) = site.join(edge).await;
    for _ in 0..10 {
        let response = get(site.egress(), "/", &["x-cluster-id: stores"]).await.unwrap();
        assert_eq!((response.status(), response.text().as_str(), response.field("adit-refused")), (503, "mine", None));
    }
    let attempts = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    assert_eq!(attempts, 10, "none was tried again");
}
