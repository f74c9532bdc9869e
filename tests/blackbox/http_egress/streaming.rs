//! Bodies flow while they are made, in both directions, and never faster than they are read.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::timeout;

use crate::support::eventually::PATIENCE;
use crate::support::http2::Http2;
use crate::support::raw_target::RawTarget;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    each_piece_comes_back_before_the_next_is_sent,
    events_arrive_while_the_response_goes_on,
    a_reader_that_stalls_holds_back_the_target_and_nobody_else,
    a_target_that_stalls_holds_back_the_sender,
);

/// A write that takes longer than this is held back.
const STALLED: Duration = Duration::from_millis(300);
/// Both windows, and what the kernel holds on two connections.
const MOST_UNDER_WAY: usize = 48 << 20;
const PIECE: usize = 64 << 10;

async fn scripted(transport: Transport) -> (Site, RawTarget) {
    let target = RawTarget::new().await;
    let raw = format!("{{ name: raw, match: {{ prefix: /raw }}, target: \"http://{}\" }}", target.address());
    let edge = Edge::new(transport).service(&raw).service("{ name: web, match: {}, target: \"{target}\" }");
    (Site::with(Cloud::new(), edge).await, target)
}

async fn each_piece_comes_back_before_the_next_is_sent(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = Http2::connect(site.egress()).await;
    let request = Request::post(format!("http://{}/echo", site.egress())).header("x-node-id", NODE.node);
    let (response, mut upload) = client.send(request.body(()).unwrap(), false).await;
    upload.send_data(Bytes::from_static(b"first"), false).unwrap();
    let mut download = response.await.unwrap().into_body();
    assert_eq!(download.data().await.unwrap().unwrap(), "first");
    for piece in ["second", "third"] {
        upload.send_data(Bytes::from_static(piece.as_bytes()), false).unwrap();
        assert_eq!(download.data().await.unwrap().unwrap(), piece);
    }
    upload.send_data(Bytes::new(), true).unwrap();
    while let Some(end) = download.data().await {
        assert_eq!(end.unwrap(), "");
    }

    let mut client = site.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    client.send(b"5\r\nfirst\r\n").await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.exactly(10).await.unwrap(), b"5\r\nfirst\r\n");
    client.send(b"6\r\nsecond\r\n").await.unwrap();
    assert_eq!(client.exactly(11).await.unwrap(), b"6\r\nsecond\r\n");
}

async fn events_arrive_while_the_response_goes_on(transport: Transport) {
    let (site, target) = scripted(transport).await;
    let mut client = site.connect().await;
    client.send(format!("GET /raw HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut peer, _) = target.accept().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    peer.send(head).await.unwrap();
    assert_eq!(client.head().await.unwrap().field("content-type"), Some("text/event-stream"));
    for _ in 0..3 {
        peer.send("9\r\ndata: 1\n\n\r\n").await.unwrap();
        assert_eq!(client.exactly(14).await.unwrap(), b"9\r\ndata: 1\n\n\r\n");
    }
}

async fn a_reader_that_stalls_holds_back_the_target_and_nobody_else(transport: Transport) {
    let (site, target) = scripted(transport).await;
    let mut client = site.connect().await;
    client.send(format!("GET /raw HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * MOST_UNDER_WAY)).await.unwrap();
    let piece = [7; PIECE];
    let mut written = 0;
    while timeout(STALLED, peer.send(&piece)).await.is_ok() {
        written += PIECE;
        assert!(written < MOST_UNDER_WAY, "nothing holds the target back");
    }
    assert_eq!(site.get("/").await.status(), 200, "another request is not held back");
    client.head().await.unwrap();
    client.exactly(written).await.unwrap();
    timeout(PATIENCE, peer.send(&piece)).await.expect("it goes on once the client reads").unwrap();
}

async fn a_target_that_stalls_holds_back_the_sender(transport: Transport) {
    let (site, target) = scripted(transport).await;
    let mut client = site.connect().await;
    let length = 2 * MOST_UNDER_WAY;
    let head = format!("POST /raw HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ncontent-length: {length}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let (mut peer, _) = target.accept().await;
    let piece = [7; PIECE];
    let mut written = 0;
    while timeout(STALLED, client.send(&piece)).await.is_ok() {
        written += PIECE;
        assert!(written < MOST_UNDER_WAY, "nothing holds the sender back");
    }
    assert_eq!(site.get("/").await.status(), 200, "another request is not held back");
    peer.exactly(written).await.unwrap();
    timeout(PATIENCE, client.send(&piece)).await.expect("it goes on once the target reads").unwrap();
}
