//! Siblings that do not have what is asked for, are not who they should be, or die.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::protocol::code::RefusalCode;
use adit::protocol::fleet::{Greeted, Greeting};
use adit::protocol::handshake::PeerLimits;
use adit::tls::{self, SiblingTls};
use bytes::BytesMut;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::world::{Choices, Edge, Member, Table, certificate_of, credentials, trust};
use super::{NOWHERE, Pair, of_requests};
use crate::support::certificates::{Authority, Node};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::RawHttp;
use crate::support::raw_target::RawTarget;
use crate::support::site::Transport;
use crate::support::targets::{Target, pattern};

fn targets(web: &Target) -> [String; 3] {
    [format!("http://{}", web.address()), format!("tcp://{NOWHERE}"), format!("udp://{NOWHERE}")]
}

fn world() -> (Authority, Arc<Table>) {
    (Authority::new("test CA"), Arc::new(Table::default()))
}

// spec: FL-42, FL-44, FL-51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_believe_in_each_other_ask_once_and_then_know_better() {
    let (authority, table) = world();
    let (a, b) = (Member::start(&authority, &table, "a"), Member::start(&authority, &table, "b"));
    table.says("a", "edge-1");
    table.says("b", "edge-1");
    // The first one may not wait for the connection as long as a busy machine takes for it.
    eventually("that b was asked", async || {
        let response = a.get("/").await;
        assert_eq!(response.status(), 503, "{:?}", response.head);
        (a.metric("adit_fleet_hops_total{result=\"through\"}") == 1).then_some(())
    })
    .await;
    assert_eq!(a.metric("adit_fleet_hops_total{result=\"not_here\"}"), 1);
    assert_eq!(b.metric("adit_fleet_hops_total{result=\"through\"}"), 0, "never a second hop");
    assert!(!table.still_says("b", "edge-1") && table.still_says("a", "edge-1"));
    assert_eq!(a.get("/").await.status(), 503);
    assert_eq!(a.metric("adit_fleet_hops_total{result=\"through\"}"), 1, "it is not asked again");
}

// spec: FL-44, FL-51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_without_the_node_costs_nothing_but_a_try_at_the_next() {
    let ((authority, table), web) = (world(), Target::http1().await);
    let [a, b, c] = ["a", "b", "c"].map(|id| Member::start(&authority, &table, id));
    let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &c), targets(&web)).await;
    a.reaches(&table, &["b", "c"]).await;
    let asked = || a.metric("adit_fleet_hops_total{result=\"not_here\"}");
    let before = asked();
    table.says("b", "edge-1");
    table.says("c", "edge-1");
    assert_eq!(a.get("/").await.text(), "hello\n");
    assert_eq!(asked(), before + 1, "b was asked first");
    assert!(!table.still_says("b", "edge-1"));
    drop(b);
}

// Regression: a body that had begun could not begin again, so the client got 503.
// spec: FL-44, FL-47, FL-51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_sent_twice_goes_on_to_the_next_sibling_with_its_whole_body() {
    let ((authority, table), target) = (world(), RawTarget::new().await);
    let [a, _b, c] = ["a", "b", "c"].map(|id| Member::start(&authority, &table, id));
    let web = format!("http://{}", target.address());
    let targets = [web, format!("tcp://{NOWHERE}"), format!("udp://{NOWHERE}")];
    let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &c), targets).await;
    a.reaches(&table, &["b", "c"]).await;
    let asked = a.metric("adit_fleet_hops_total{result=\"not_here\"}");
    ["b", "c"].into_iter().for_each(|id| table.says(id, "edge-1"));
    let (answered, body) = (target.accept(), pattern(0, 300_000));
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), &body].concat()).await.unwrap();
    let (mut peer, head) = answered.await;
    assert!(head.contains("content-length: 300000\r\n"), "{head}");
    assert!(peer.exactly(body.len()).await.unwrap() == body);
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hi");
    assert_eq!(a.metric("adit_fleet_hops_total{result=\"not_here\"}"), asked + 1, "b was asked, and has it not");
    assert!(!table.still_says("b", "edge-1") && table.still_says("c", "edge-1"));
}

// spec: FL-51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_held_goes_through_a_sibling_that_gets_the_node_meanwhile() {
    let ((authority, table), web) = (world(), Target::http1().await);
    let hold = Choices { hold: Duration::from_secs(60), ..Choices::default() };
    let a = Member::with(&authority, &table, ("a", hold));
    let b = Member::start(&authority, &table, "b");
    let edge = Edge::start((&authority, Transport::Quic), ("edge-1", &a), targets(&web)).await;
    assert_eq!(a.get("/").await.status(), 200);
    drop(edge);
    eventually("that the site has left", async || {
        a.directory().registry().snapshot().all(|live| live.leaving).then_some(())
    })
    .await;
    let (response, _edge) = tokio::join!(a.get("/"), async {
        let edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), targets(&web)).await;
        table.says("b", "edge-1");
        edge
    });
    assert_eq!(response.status(), 200, "{:?}", response.head);
}

// Regression: what the directory told a moment too early, or of a node that reconnects, was a 503 at once.
// spec: FL-44, FL-51, FL-52
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_has_not_got_the_node_is_asked_again_when_it_is_said_to_have_it() {
    let ((authority, table), web) = (world(), Target::http1().await);
    let hold = Choices { hold: Duration::from_secs(60), ..Choices::default() };
    let a = Member::with(&authority, &table, ("a", hold));
    let b = Member::start(&authority, &table, "b");
    table.says("b", "edge-1");
    table.knows("edge-1");
    let (response, _edge) = tokio::join!(a.get("/"), async {
        eventually("that b was asked", async || {
            (a.metric("adit_fleet_hops_total{result=\"not_here\"}") == 1).then_some(())
        })
        .await;
        let edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), targets(&web)).await;
        table.says("b", "edge-1");
        edge
    });
    assert_eq!(response.status(), 200, "{:?}", response.head);
    assert_eq!(a.metric("adit_fleet_hops_total{result=\"through\"}"), 2);
}

// Regression: an address that is silent took all of the time of a dial.
// spec: FL-37
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_is_silent_at_one_of_its_addresses_is_reached_at_the_next() {
    let ((authority, table), web) = (world(), Target::http1().await);
    let forever = Duration::from_secs(600);
    let choices = Choices { hold: forever, handshake_timeout: forever, ..Choices::default() };
    let a = Member::with(&authority, &table, ("a", choices));
    let b = Member::start(&authority, &table, "b");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    table.also_at("b", silent.local_addr().unwrap());
    let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), targets(&web)).await;
    table.says("b", "edge-1");
    assert_eq!(a.get("/").await.text(), "hello\n");
    assert_eq!(a.metric("adit_fleet_dials_failed_total"), 0);
}

// spec: FL-31, FL-32
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_prove_to_be_that_sibling_is_not_asked() {
    let ((authority, table), web) = (world(), Target::http1().await);
    let a = Member::start(&authority, &table, "a");
    let node = authority.either_role("b", Some(Node { tenant: "default", cluster: "stores", node: "b" }));
    let other_name = certificate_of(&authority, "spiffe://example.org/responder/c");
    let other_ca = certificate_of(&Authority::new("another CA"), "spiffe://example.org/responder/b");
    let mut members = Vec::new();
    for (index, shows) in [node, other_name, other_ca].into_iter().enumerate() {
        let failed = a.metric("adit_fleet_dials_failed_total");
        let strange = Choices { shows: Some(shows), ..Choices::default() };
        let before = Arc::new(Table::default());
        let b = Member::with(&authority, &before, ("b", strange));
        let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), targets(&web)).await;
        if index == 0 {
            table.enters("b", b.hop)
        } else {
            table.moves("b", b.hop)
        }
        table.says("b", "edge-1");
        assert_eq!(a.get("/").await.status(), 503, "certificate {index}");
        // It is not waited for as long as a dial may take.
        let is_refused = async || (a.metric("adit_fleet_dials_failed_total") > failed).then_some(());
        eventually(&format!("that certificate {index} is not taken"), is_refused).await;
        members.push(b);
    }
    assert!(a.ways.connected().is_empty() && web.requests().is_empty());
}

// spec: FL-31, FL-32, FL-34, FL-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_prove_to_be_a_sibling_is_not_served() {
    let ((authority, table), web) = (world(), Target::http1().await);
    let node = authority.either_role("a", Some(Node { tenant: "default", cluster: "stores", node: "a" }));
    let a = Member::with(&authority, &table, ("a", Choices { shows: Some(node), ..Choices::default() }));
    let b = Member::start(&authority, &table, "b");
    let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), targets(&web)).await;
    table.says("b", "edge-1");
    assert_eq!(a.get("/").await.status(), 503);
    assert!(web.requests().is_empty() && a.ways.connected().is_empty());
    assert_eq!(b.metric("adit_fleet_connections_open{direction=\"in\"}"), 0);
}

// spec: FL-37, FL-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_dies_in_flight_cuts_what_was_there_and_is_dialled_again() {
    let target = RawTarget::new().await;
    let Pair { a, b, table, edge: _edge } = of_requests(Transport::Quic, target.address()).await;
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\ncontent-length: 4\r\n\r\nabcd").await.unwrap();
    let (_peer, _) = target.accept().await;
    b.leave_fleet();
    let response = client.response().await.unwrap();
    assert_eq!(response.status(), 502, "{:?}", response.head);
    assert!(response.field("proxy-status").unwrap().contains("error=connection_terminated"), "{:?}", response.head);
    eventually("that the sibling is gone", async || a.ways.connected().is_empty().then_some(())).await;
    assert!(table.still_says("b", "edge-1"), "its death is for the directory to tell");
}

// spec: FL-39
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_stops_finishes_what_was_asked_of_it() {
    let target = RawTarget::new().await;
    let Pair { a, b, edge: _edge, .. } = of_requests(Transport::Quic, target.address()).await;
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
    let (mut peer, _) = target.accept().await;
    b.drain_fleet();
    // One that comes before the drain is heard goes through, and is answered by nobody.
    eventually("that it takes no more", async || {
        let asked = timeout(Duration::from_secs(1), a.get("/")).await;
        asked.is_ok_and(|response| response.status() == 503).then_some(())
    })
    .await;
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hi");
}

/// One of a former version, which greets and says nothing more; resolves once that has come which is sent to it as a body.
async fn asked_unasked(authority: &Authority, id: &str, body: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    let shows = certificate_of(authority, &format!("spiffe://example.org/responder/{id}"));
    let tls = SiblingTls { credentials: credentials(&shows), siblings: trust(authority) };
    let config = QuicServerConfig::try_from(tls::sibling_server_config(&tls).unwrap()).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let (at, id) = (endpoint.local_addr().unwrap(), id.parse().unwrap());
    let asked = tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, _control) = connection.accept_bi().await.unwrap();
        let mut greeting = BytesMut::new();
        Greeting { responder: id, epoch: 1, limits: PeerLimits::default(), here: false }.encode(&mut greeting);
        send.write_all(&greeting).await.unwrap();
        let (_answer, mut recv) = connection.accept_bi().await.unwrap();
        let mut received = Vec::new();
        while !received.windows(body.len()).any(|window| window == body) {
            received.extend_from_slice(&recv.read_chunk(4096, true).await.unwrap().unwrap().bytes);
        }
    });
    (at, asked)
}

// Regression: whoever asked waited for a word that a former version does not know.
// spec: FL-47
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_does_not_say_when_it_wants_a_body_gets_it_unasked() {
    let (authority, table) = world();
    let a = Member::with(&authority, &table, ("a", Choices { hold: Duration::from_secs(60), ..Choices::default() }));
    let (at, asked) = asked_unasked(&authority, "b", b"the body of the request").await;
    table.enters("b", at);
    table.says("b", "edge-1");
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\ncontent-length: 23\r\n\r\n";
    client.send(format!("{head}the body of the request").as_bytes()).await.unwrap();
    timeout(PATIENCE, asked).await.expect("the body").unwrap();
}

/// Greets as this one, and returns what the sibling says to that.
async fn greeted(authority: &Authority, id: &str, at: SocketAddr) -> Greeted {
    let shows = certificate_of(authority, &format!("spiffe://example.org/responder/{id}"));
    let tls = SiblingTls { credentials: credentials(&shows), siblings: trust(authority) };
    let config = QuicClientConfig::try_from(tls::sibling_client_config(&tls).unwrap()).unwrap();
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let connection = endpoint.connect_with(config, at, "sibling").unwrap().await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut bytes = BytesMut::new();
    Greeting { responder: id.parse().unwrap(), epoch: 1, limits: PeerLimits::default(), here: true }.encode(&mut bytes);
    send.write_all(&bytes).await.unwrap();
    let mut received = BytesMut::new();
    loop {
        if let Some(greeted) = Greeted::take(&mut received).unwrap() {
            return greeted;
        }
        received.extend_from_slice(&recv.read_chunk(4096, true).await.unwrap().unwrap().bytes);
    }
}

// spec: FL-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_stops_refuses_whoever_is_new_and_finishes_what_was_asked_of_it() {
    let target = RawTarget::new().await;
    let (authority, table) = world();
    let (a, b) = (Member::start(&authority, &table, "a"), Member::start(&authority, &table, "b"));
    let web = [format!("http://{}", target.address()), format!("tcp://{NOWHERE}"), format!("udp://{NOWHERE}")];
    let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), web).await;
    a.reaches(&table, &["b"]).await;
    table.says("b", "edge-1");
    assert!(
        matches!(greeted(&authority, "c", b.hop).await, Greeted::By(greeting) if greeting.responder.as_str() == "b")
    );
    let mut client = RawHttp::connect(a.egress).await.unwrap();
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
    let (mut peer, _) = target.accept().await;
    b.drain_fleet();
    let refusal = eventually("a refusal", async || match greeted(&authority, "c", b.hop).await {
        Greeted::Refused(refusal) => Some(refusal),
        Greeted::By(_) => None,
    })
    .await;
    assert_eq!((refusal.code, refusal.reason.as_str()), (RefusalCode::Unavailable, "the responder stops"));
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hi");
}
