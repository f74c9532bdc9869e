//! One hop: what comes in at a responder reaches a node that is connected to its sibling, as if that were its own.

mod faults;
mod hanging;
mod renewal;
mod seats;
pub(crate) mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use adit::egress::Client as Requests;
use http_body_util::{BodyExt as _, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use self::world::{Edge, Member, Table};
use crate::support::certificates::Authority;
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::ports::free_address;
use crate::support::raw_target::RawTarget;
use crate::support::site::{Transport, over_each_transport};
use crate::support::targets::{Target, pattern};

over_each_transport!(
    a_request_on_one_reaches_a_node_of_the_other,
    interim_responses_trailers_and_uploads_pass,
    a_cancellation_reaches_the_target,
    a_cut_is_a_cut_behind_what_came_before_it,
    causes_are_those_of_a_tunnel,
    bytes_pass_both_ways_and_end_each_by_itself,
    datagrams_pass_over_listeners_and_in_capsules,
);

/// Where a target is that nobody asks for in a test.
const NOWHERE: &str = "127.0.0.1:9";

/// Two responders; the node `edge-1` is connected to `b`, and the table says so.
struct Pair {
    a: Member,
    b: Member,
    table: Arc<Table>,
    edge: Edge,
}

async fn pair(transport: Transport, web: &str, bytes: SocketAddr, echo: SocketAddr) -> Pair {
    let (authority, table) = (Authority::new("test CA"), Arc::new(Table::default()));
    let (a, b) = (Member::start(&authority, &table, "a"), Member::start(&authority, &table, "b"));
    let targets = [web.to_owned(), format!("tcp://{bytes}"), format!("udp://{echo}")];
    let edge = Edge::start((&authority, transport), ("edge-1", &b), targets).await;
    table.says("b", "edge-1");
    table.says("b", "stores");
    a.reaches(&table, &["b"]).await;
    Pair { a, b, table, edge }
}

fn nowhere() -> SocketAddr {
    NOWHERE.parse().unwrap()
}

async fn of_requests(transport: Transport, target: SocketAddr) -> Pair {
    pair(transport, &format!("http://{target}"), nowhere(), nowhere()).await
}

// spec: FL-33, FL-35, FL-36, FL-46, FL-50
async fn a_request_on_one_reaches_a_node_of_the_other(transport: Transport) {
    let target = Target::http1().await;
    let Pair { a, b, table, edge: _edge } = of_requests(transport, target.address()).await;
    let through = || a.metric("adit_fleet_hops_total{result=\"through\"}");
    let before = through();
    for _ in 0..3 {
        let response = a.get("/bytes/100000").await;
        assert!(response.status() == 200 && response.body == pattern(0, 100_000), "{:?}", response.head);
    }
    assert_eq!(b.get("/").await.text(), "hello\n", "its own node needs no sibling");
    let series = |member: &Member| member.metric("adit_exchanges_total{side=\"relay\",status=\"2xx\"}");
    eventually("three records of what was relayed", async || (series(&b) == 3).then_some(())).await;
    assert_eq!((through(), series(&a)), (before + 3, 0));
    assert_eq!(b.metric("adit_fleet_hops_total{result=\"through\"}"), 0);
    assert_eq!(a.metric("adit_fleet_connections_open{direction=\"out\"}"), 1, "one connection carries all");
    assert_eq!(a.ways.connected(), ["b".parse().unwrap()]);
    // A cluster is found likewise, and so does the client of the library.
    let site = Requests::new(a.directory(), "stores".parse().unwrap()).service("web".parse().unwrap());
    let response = site.send(http::Request::get("http://x/").body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello\n");
    assert!(table.still_says("b", "edge-1"));
}

// spec: FL-46
async fn interim_responses_trailers_and_uploads_pass(transport: Transport) {
    let target = RawTarget::new().await;
    let Pair { a, b: _b, edge: _edge, .. } = of_requests(transport, target.address()).await;
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    let head = "POST /x HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(head.as_bytes()).await.unwrap();
    client.send(b"3\r\nabc\r\n").await.unwrap();
    let (mut peer, head) = target.accept().await;
    assert!(head.starts_with("post /x http/1.1\r\n"), "{head}");
    assert_eq!(peer.exactly(8).await.unwrap(), b"3\r\nabc\r\n", "before the request is whole");
    peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n").await.unwrap();
    let hint = client.head().await.unwrap();
    assert_eq!((hint.status, hint.field("link")), (103, Some("</a.css>; rel=preload")));
    client.send(b"0\r\nx-sum: 42\r\n\r\n").await.unwrap();
    assert_eq!(peer.exactly(16).await.unwrap(), b"0\r\nx-sum: 42\r\n\r\n");
    let answer =
        "HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-end: yes\r\n\r\n";
    peer.send(answer).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (200, "hi"));
    assert_eq!(response.trailers, [("x-end".into(), "yes".into())]);
}

// spec: FL-46
async fn a_cancellation_reaches_the_target(transport: Transport) {
    let target = Target::http1().await;
    let Pair { a, b: _b, edge: _edge, .. } = of_requests(transport, target.address()).await;
    for path in ["/hang", "/chunks/100000/1"] {
        let before = target.cancelled();
        let mut client = RawHttp::connect(a.egress).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n");
        client.send(request.as_bytes()).await.unwrap();
        eventually("the request", async || target.requests().last().filter(|seen| seen.ends_with(path)).cloned()).await;
        drop(client);
        eventually("the cancellation", async || (target.cancelled() > before).then_some(())).await;
    }
}

// spec: FL-46
async fn a_cut_is_a_cut_behind_what_came_before_it(transport: Transport) {
    let target = RawTarget::new().await;
    let Pair { a, b: _b, edge: _edge, .. } = of_requests(transport, target.address()).await;
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(client.exactly(5).await.unwrap(), b"hello");
    drop(peer);
    assert!(client.body(&head).await.is_err(), "it must not look whole");
}

// spec: FL-45, FL-46
async fn causes_are_those_of_a_tunnel(transport: Transport) {
    let free = free_address();
    let Pair { a, b, edge: _edge, .. } = pair(transport, &format!("http://{free}"), free, nowhere()).await;
    let told = async |member: &Member, request: &str| {
        let mut client = RawHttp::connect(member.egress).await.unwrap();
        client.send(request.as_bytes()).await.unwrap();
        let response = client.response().await.unwrap();
        (response.status(), response.field("proxy-status").unwrap_or_default().to_owned())
    };
    let long = "v".repeat(100_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n".to_owned(), 502),
        ("CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\nx-node-id: edge-1\r\n\r\n".to_owned(), 502),
        ("CONNECT nothing:1 HTTP/1.1\r\nhost: nothing:1\r\nx-node-id: edge-1\r\n\r\n".to_owned(), 404),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\nx-long: {long}\r\n\r\n"), 431),
        ("GET / HTTP/1.1\r\nhost: x\r\nx-node-id: nobody\r\n\r\n".to_owned(), 503),
    ] {
        let (through_sibling, through_tunnel) = (told(&a, &request).await, told(&b, &request).await);
        assert_eq!(through_sibling, through_tunnel, "{}", &request[..40]);
        assert_eq!(through_sibling.0, status, "{through_sibling:?}");
    }
}

// spec: FL-46
async fn bytes_pass_both_ways_and_end_each_by_itself(transport: Transport) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bytes = listener.local_addr().unwrap();
    let Pair { a, b: _b, edge: _edge, .. } = pair(transport, &format!("http://{NOWHERE}"), bytes, nowhere()).await;
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    client.send(b"CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\nx-node-id: edge-1\r\n\r\nfirst").await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    let mut first = [0; 5];
    peer.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
    let sent = pattern(0, 3 << 20);
    let (stream, rest) = client.into_parts();
    assert!(rest.is_empty());
    let (mut read, mut write) = stream.into_split();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.unwrap();
    assert!(got == expected, "{} bytes", got.len());
    // The other direction goes on.
    peer.write_all(b"last words").await.unwrap();
    peer.shutdown().await.unwrap();
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"last words");
    sending.await.unwrap();
}

// spec: FL-46
async fn datagrams_pass_over_listeners_and_in_capsules(transport: Transport) {
    let peer = Peer::echo().await;
    let Pair { a, b, edge: _edge, .. } = pair(transport, &format!("http://{NOWHERE}"), nowhere(), peer.address()).await;
    let client = Client::new(a.udp).await;
    for size in [0, 1, 1000, 1400, 9000, 60_000] {
        let sent = pattern(size, size);
        assert!(ask(&client, &sent).await == sent, "{size} bytes");
    }
    assert_eq!(b.metric("adit_flows_open{side=\"relay\"}"), 1, "one flow carried them");
    let mut capsules = RawHttp::connect(a.egress).await.unwrap();
    let fields = "connection: upgrade\r\nupgrade: connect-udp\r\ncapsule-protocol: ?1\r\nx-node-id: edge-1";
    let head = format!("GET /.well-known/masque/udp/echo/7/ HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n");
    capsules.send(head.as_bytes()).await.unwrap();
    assert_eq!(capsules.head().await.unwrap().status, 101);
    capsules.send(&[0, 6, 0, b'h', b'e', b'l', b'l', b'o']).await.unwrap();
    assert_eq!(capsules.exactly(8).await.unwrap(), [0, 6, 0, b'h', b'e', b'l', b'l', b'o']);
}
