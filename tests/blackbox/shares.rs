//! What each tenant and node may have of a responder: what is beyond it is refused with the time to come again, or waits.

use std::time::{Duration, Instant};

use http::Request;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::http2::Http2;
use crate::support::http3::{Http3, request, wait};
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    requests_beyond_those_that_may_be_under_way_are_refused_in_every_version_of_http,
    whoever_asks_too_often_hears_when_to_come_again_and_is_served_then,
    raw_streams_have_a_number_of_their_own,
    a_request_to_a_cluster_goes_to_a_node_that_has_room,
    bytes_beyond_the_rate_wait_and_none_is_lost,
    downloads_that_wait_for_a_rate_are_not_taken_for_slow_readers,
    tenants_beside_each_other_are_all_served_whole,
);

/// Begins a request that is never answered, and waits until it is at the target.
async fn hang(site: &Site, node: &str) -> RawHttp<TcpStream> {
    let before = hanging(site);
    let mut client = site.connect().await;
    client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\nx-node-id: {node}\r\n\r\n").as_bytes()).await.unwrap();
    eventually("the request at the target", async || (hanging(site) > before).then_some(())).await;
    client
}

fn hanging(site: &Site) -> usize {
    site.target.requests().iter().filter(|seen| seen.ends_with("/hang")).count()
}

fn to_node(fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::post("http://x/").header("x-node-id", NODE.node);
    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

async fn requests_beyond_those_that_may_be_under_way_are_refused_in_every_version_of_http(transport: Transport) {
    let cloud = Cloud::new().responder("shares", "{ per_tenant: { in_flight: 2 } }");
    let tls = "{ cert: cloud.pem, key: cloud.key }";
    let site = Site::with(cloud.and_egress().egress("tls", tls), Edge::new(transport)).await;
    let (first, second) = (hang(&site, NODE.node).await, hang(&site, NODE.node).await);

    let told = "adit; error=connection_limit_reached; details=\"tenant acme has its 2 requests under way already\"";
    let refused = site.get("/").await;
    assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("1")), "{}", refused.text());
    assert_eq!(refused.field("proxy-status"), Some(told));

    let mut http2 = Http2::connect(site.egress()).await;
    let refused = http2.get(to_node(&[])).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    assert_eq!(refused.headers()["proxy-status"], told);
    // RESOURCE_EXHAUSTED, as a client of gRPC understands it.
    let refused = http2.get(to_node(&[("content-type", "application/grpc"), ("te", "trailers")])).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["grpc-status"]), (200, &"8".parse().unwrap()));

    let steps = vec![request("a", "GET", "/"), wait("a")];
    if let Some(client) = Http3::start(site.responder.egress_at(1), &site.folder, steps) {
        let refused = client.answer("a").await;
        assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("1")), "{refused:?}");
    }
    let counted = site.responder.0.metric("adit_shares_exceeded_total{of=\"tenant\",limit=\"in_flight\"}").await;
    assert!(counted >= 3, "{counted}");
    site.responder.0.counted("adit_exchanges_failed_total{side=\"egress\",cause=\"quota\"}", counted).await;

    drop(first);
    eventually("room once one of them is gone", async || (site.get("/").await.status() == 200).then_some(())).await;
    drop(second);
}

async fn whoever_asks_too_often_hears_when_to_come_again_and_is_served_then(transport: Transport) {
    let cloud = Cloud::new().responder("shares", "{ per_tenant: { requests: 1 } }");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let (mut served, began) = (0, Instant::now());
    let refused = eventually("a request that is one too many", async || {
        let response = site.get("/").await;
        served += u64::from(response.status() == 200);
        (response.status() == 429).then_some(response)
    })
    .await;
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert!(refused.text().contains("tenant acme has had its 1 requests a second"), "{}", refused.text());
    eventually("an answer when the time has come", async || {
        let status = site.get("/").await.status();
        served += u64::from(status == 200);
        (status == 200).then_some(())
    })
    .await;
    let most = began.elapsed().as_secs() + 2;
    assert!(served <= most, "{served} were served in {:?}", began.elapsed());
}

async fn raw_streams_have_a_number_of_their_own(transport: Transport) {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    let mut echoes = JoinSet::new();
    echoes.spawn(async move {
        while let Ok((mut peer, _)) = target.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = peer.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let cloud = Cloud::new().responder("shares", "{ per_tenant: { streams: 1 } }").egress("connect", "true");
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: bytes, target: \"tcp://{address}\" }}"));
    let site = Site::with(cloud, edge).await;
    let connect = async || {
        let mut client = site.connect().await;
        client
            .send(format!("CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\n{TO_NODE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let head = client.head().await.unwrap();
        (client, head)
    };
    let (mut first, head) = connect().await;
    assert_eq!(head.status, 200);
    let (_, refused) = connect().await;
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")), "{refused:?}");
    assert!(refused.field("proxy-status").unwrap().contains("1 raw streams under way"));
    assert_eq!(site.get("/").await.status(), 200, "other requests are not counted there");
    first.send(b"still there").await.unwrap();
    assert_eq!(first.exactly(11).await.unwrap(), b"still there");
    drop(first);
    eventually("room for the next one", async || (connect().await.1.status == 200).then_some(())).await;
}

async fn a_request_to_a_cluster_goes_to_a_node_that_has_room(transport: Transport) {
    // The other node may have as many as come: a place is free again a moment after the response has come.
    let cloud = Cloud::new().responder("shares", "{ nodes: [ { node: edge-1, in_flight: 1 } ] }");
    let cloud = cloud.egress("balance", "hash").egress("affinity", "\"%REQ(x-session)%\"");
    // More tunnels of one node than a request is tried on.
    let site = Site::with(cloud, Edge::new(transport).count(6)).await;
    let other = Node { node: "edge-2", ..NODE };
    let (_initiator, target) = site.join(Edge::new(transport).claim(other).named("other")).await;
    let held = hang(&site, NODE.node).await;
    // Half of them would go to the node that is full.
    for session in 0..20 {
        let fields = ["x-cluster-id: stores", &format!("x-session: {session}")];
        let response = get(site.egress(), "/", &fields).await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text());
    }
    assert_eq!(target.requests().len(), 20);
    let refused = site.get("/").await;
    assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("1")));
    assert!(refused.text().contains("node edge-1 has its 1 requests under way already"), "{}", refused.text());
    drop(held);
    eventually("room at the node", async || (site.get("/").await.status() == 200).then_some(())).await;
}

async fn bytes_beyond_the_rate_wait_and_none_is_lost(transport: Transport) {
    const RATE: u64 = 256 << 10;
    const LENGTH: u64 = 640 << 10;
    let cloud = Cloud::new().responder("shares", "{ per_tenant: { bytes: 256KiB } }");
    let site = Site::with(cloud, Edge::new(transport)).await;

    let began = Instant::now();
    let response = site.get(&format!("/bytes/{LENGTH}")).await;
    assert!(response.body == pattern(0, LENGTH));
    // A second's worth was there, and the last piece was taken on credit.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    let began = Instant::now();
    let mut client = site.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ncontent-length: {LENGTH}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let sent = pattern(0, LENGTH);
    client.send(&sent).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.body == sent, "both directions are whole");
    let least = Duration::from_secs((2 * LENGTH - RATE) / RATE - 1);
    assert!(began.elapsed() >= least, "both directions count: {:?}", began.elapsed());
    assert!(site.responder.0.metric("adit_shares_waited_total{of=\"tenant\",cause=\"bytes\"}").await > 0);
}

/// Twice as many as may stand still in a tunnel.
// spec: SE-11
async fn downloads_that_wait_for_a_rate_are_not_taken_for_slow_readers(transport: Transport) {
    let cloud = Cloud::new().responder("shares", "{ per_tenant: { bytes: 1MiB } }");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let mut downloads = JoinSet::new();
    for _ in 0..40 {
        let mut client = site.connect().await;
        let head = format!("GET /bytes/4000000 HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n");
        downloads.spawn(async move {
            client.send(head.as_bytes()).await.unwrap();
            client.into_parts().0.read_exact(&mut [0; 200_000]).await
        });
    }
    while let Some(read) = downloads.join_next().await {
        read.unwrap().expect("it is waited for, and not cut");
    }
}

async fn tenants_beside_each_other_are_all_served_whole(transport: Transport) {
    const LENGTH: u64 = 300_000;
    let tenants = "{ tenants: [ { tenant: acme, weight: 4 } ] }";
    let cloud = Cloud::new().responder("shares", tenants).egress("tenant", "\"%REQ(x-tenant)%\"");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let other = Node { tenant: "other", ..NODE };
    let _other = site.join(Edge::new(transport).claim(other).named("other")).await;
    let mut clients = JoinSet::new();
    for number in 0..40 {
        let (address, tenant) = (site.egress(), if number % 2 == 0 { "acme" } else { "other" });
        clients.spawn(async move {
            let mut client = RawHttp::connect(address).await.unwrap();
            let body = pattern(number, LENGTH);
            for _ in 0..10 {
                let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\nx-tenant: {tenant}\r\n");
                client.send(format!("{head}content-length: {LENGTH}\r\n\r\n").as_bytes()).await.unwrap();
                let (mut got, mut sent) = (Vec::new(), 0);
                // Both directions at once, as much as fits into every buffer on the way.
                while sent < body.len() {
                    let next = (sent + 65_536).min(body.len());
                    client.send(&body[sent..next]).await.unwrap();
                    sent = next;
                }
                let response = client.response().await.unwrap();
                assert_eq!(response.status(), 200, "{}", response.text());
                got.extend(response.body);
                assert!(got == body, "{tenant}");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let turns = site.responder.0.metric("adit_shares_waited_total{of=\"tenant\",cause=\"turn\"}").await;
    assert!(turns > 0, "they took turns");
}
