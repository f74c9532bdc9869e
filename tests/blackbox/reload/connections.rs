//! What changes of a listener reaches the connections that are open there: limits, and who is let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit::lifecycle::{Drain, DrainWatch};
use adit::tls;
use http::Request;
use rustls::ClientConfig;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trigger::rewrite;
use super::world::tunnels;
use crate::support::certificates::{Authority, Certificate};
use crate::support::eventually::{eventually, within};
use crate::support::http1::RawHttp;
use crate::support::http2::{Http2, whole};
use crate::support::http3::{Http3, request, wait};
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    limits_of_heads_hold_for_the_next_request_over_http1,
    connections_over_http2_are_asked_to_come_back_under_other_limits_and_finish_what_they_carry,
    connections_over_http3_are_asked_to_come_back_under_other_limits_and_finish_what_they_carry,
    limits_that_change_all_the_time_lose_no_request_of_connections_that_are_kept,
    clients_who_would_not_be_let_in_any_more_are_sent_away_and_finish_what_they_carry,
);

/// A connection that carries nothing is sent away after 75 s, whatever the terms say.
const SOON: Duration = Duration::from_secs(30);

const SMALL: &str = "{ head_bytes: 4KiB }";

fn head(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{TO_NODE}\r\n{more}\r\n")
}

fn asked(path: &str) -> Request<()> {
    Request::get(format!("http://localhost{path}")).header("x-node-id", NODE.node).body(()).unwrap()
}

async fn limits_of_heads_hold_for_the_next_request_over_http1(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let before = tunnels(&site.responder).await;
    let large = head("/", &format!("x-large: {}\r\n", "l".repeat(8_000)));
    let (mut one, mut other) = (site.connect().await, site.connect().await);
    one.send(large.as_bytes()).await.unwrap();
    assert_eq!(one.response().await.unwrap().status(), 200);
    other.send(head("/", "").as_bytes()).await.unwrap();
    assert_eq!(other.response().await.unwrap().status(), 200);

    rewrite(&site.responder.0, &cloud.clone().egress("limits", SMALL).text()).await.changes();
    one.send(large.as_bytes()).await.unwrap();
    assert_eq!(one.response().await.unwrap().status(), 431);
    other.send(head("/", "").as_bytes()).await.unwrap();
    let answer = other.response().await.unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")), "asked to come back");

    let mut small = site.connect().await;
    small.send(head("/", "").as_bytes()).await.unwrap();
    assert_eq!(small.response().await.unwrap().status(), 200);
    rewrite(&site.responder.0, &cloud.text()).await.changes();
    small.send(large.as_bytes()).await.unwrap();
    assert_eq!(small.response().await.unwrap().status(), 200, "what is larger is taken at once");
    assert_eq!(tunnels(&site.responder).await, before);
}

async fn connections_over_http2_are_asked_to_come_back_under_other_limits_and_finish_what_they_carry(
    transport: Transport,
) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let mut client = Http2::connect(site.egress()).await;
    let (long, _) = client.send(asked("/chunks/30/50"), true).await;
    let long = long.await.unwrap();
    // What concerns no connection disturbs none.
    rewrite(&site.responder.0, &cloud.clone().egress("access_log", "false").text()).await.changes();
    assert_eq!(client.get(asked("/")).await.status(), 200);
    rewrite(&site.responder.0, &cloud.clone().egress("limits", SMALL).text()).await.changes();
    let sender = client.sender();
    within(SOON, "GOAWAY", async || sender.clone().ready().await.is_err().then_some(())).await;
    let body = whole(long).await.unwrap().into_body();
    assert!(body.bytes.ends_with(b"chunk 29\n"));
    let mut again = Http2::connect(site.egress()).await;
    assert_eq!(again.get(asked("/")).await.status(), 200);
    let mut large = asked("/");
    large.headers_mut().insert("x-large", "l".repeat(8_000).parse().unwrap());
    assert_eq!(again.get(large).await.status(), 431);
}

async fn connections_over_http3_are_asked_to_come_back_under_other_limits_and_finish_what_they_carry(
    transport: Transport,
) {
    let cloud = Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let steps = vec![
        request("long", "GET", "/chunks/30/50"),
        json!({ "do": "head", "name": "long" }),
        json!({ "do": "goaway" }),
        wait("long"),
        json!({ "do": "closed" }),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    client.did("head", "long").await;
    rewrite(&site.responder.0, &cloud.clone().egress("limits", SMALL).text()).await.changes();
    timeout(SOON, client.did_once("goaway")).await.expect("GOAWAY");
    let answer = client.answer("long").await;
    assert!(answer.is_whole() && answer.text().ends_with("chunk 29\n"), "{answer:?}");
    let again = Http3::start(site.egress(), &site.folder, vec![request("a", "GET", "/"), wait("a")]).unwrap();
    assert_eq!(again.answer("a").await.status(), 200);
}

/// Clients that keep their connections until they are asked to come back.
struct Kept {
    tasks: JoinSet<()>,
    stop: Drain,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    connections: AtomicUsize,
}

impl Kept {
    fn start(egress: SocketAddr) -> Self {
        let mut kept = Self { tasks: JoinSet::new(), stop: Drain::new(), counts: Arc::default() };
        for _ in 0..2 {
            kept.tasks.spawn(over_http1(egress, Arc::clone(&kept.counts), kept.stop.watch()));
            kept.tasks.spawn(over_http2(egress, Arc::clone(&kept.counts), kept.stop.watch()));
        }
        kept
    }

    async fn goes_on(&mut self) {
        let enough = self.counts.requests.load(Ordering::Relaxed) + 40;
        eventually("requests that are answered", async || {
            if let Some(ended) = self.tasks.try_join_next() {
                ended.unwrap();
            }
            (self.counts.requests.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// How many connections there were; none of their requests was lost.
    async fn finish(mut self) -> usize {
        self.stop.begin(Duration::ZERO);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.counts.connections.load(Ordering::Relaxed)
    }
}

async fn over_http1(egress: SocketAddr, counts: Arc<Counts>, stop: DrainWatch) {
    while !stop.is_draining() {
        let mut client = RawHttp::connect(egress).await.unwrap();
        counts.connections.fetch_add(1, Ordering::Relaxed);
        while !stop.is_draining() {
            client.send(head("/", "").as_bytes()).await.unwrap();
            let response = client.response().await.unwrap();
            assert_eq!(response.status(), 200);
            counts.requests.fetch_add(1, Ordering::Relaxed);
            if response.field("connection") == Some("close") {
                break;
            }
        }
    }
}

async fn over_http2(egress: SocketAddr, counts: Arc<Counts>, stop: DrainWatch) {
    while !stop.is_draining() {
        let client = Http2::connect(egress).await;
        counts.connections.fetch_add(1, Ordering::Relaxed);
        while !stop.is_draining() {
            // What cannot be sent was not: it goes over the next connection.
            let Ok(mut sender) = client.sender().ready().await else { break };
            let Ok((response, _)) = sender.send_request(asked("/"), true) else { break };
            let response = whole(response.await.unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            counts.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn limits_that_change_all_the_time_lose_no_request_of_connections_that_are_kept(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let mut kept = Kept::start(site.egress());
    kept.goes_on().await;
    for round in 0..10 {
        let limits = format!("{{ head_bytes: {}KiB, exchange_idle: {}s }}", 8 + round, 30 + round);
        rewrite(&site.responder.0, &cloud.clone().egress("limits", &limits).text()).await.changes();
        kept.goes_on().await;
    }
    let connections = kept.finish().await;
    assert!(connections >= 20, "{connections}: they came back under other limits");
}

/// A client of the listener that shows this certificate.
fn showing(site: &Site, certificate: &Certificate, alpn: &[u8]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(site.folder.authority.roots());
    let mut config = config.with_client_auth_cert(certificate.chain(), certificate.private_key()).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

async fn secured(site: &Site, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(site.egress()).await.unwrap();
    TlsConnector::from(Arc::clone(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

async fn clients_who_would_not_be_let_in_any_more_are_sent_away_and_finish_what_they_carry(transport: Transport) {
    // The UDP port comes with TLS: it is that of TCP, and must be free then, too.
    let address = free_address();
    let asks = |ca: &str| {
        let tls = format!("{{ cert: cloud.pem, key: cloud.key, client_ca: {ca} }}");
        Cloud::new().egress("http", &format!("\"{address}\"")).egress("tls", &tls)
    };
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let clear = Cloud::new().egress("http", &format!("\"{address}\""));
    let site = Site::with(clear, Edge::new(transport)).await;
    other.write(site.folder.path(), "other");
    site.folder.write("both.pem", &(one.pem() + &other.pem()));
    let (of_one, of_other) = (one.node(NODE), other.node(NODE));
    let (http1, http2) = (showing(&site, &of_one, b"http/1.1"), showing(&site, &of_one, b"h2"));
    let stays = showing(&site, &of_other, b"http/1.1");
    rewrite(&site.responder.0, &asks("both.pem").text()).await.changes();

    let mut idle = RawHttp::over(secured(&site, &http1).await);
    idle.send(head("/", "").as_bytes()).await.unwrap();
    assert_eq!(idle.response().await.unwrap().status(), 200);
    let mut kept = RawHttp::over(secured(&site, &stays).await);
    kept.send(head("/", "").as_bytes()).await.unwrap();
    assert_eq!(kept.response().await.unwrap().status(), 200);
    let mut busy = RawHttp::over(secured(&site, &http1).await);
    busy.send(head("/chunks/20/50", "").as_bytes()).await.unwrap();
    let begun = busy.head().await.unwrap();
    let mut joined = Http2::over(secured(&site, &http2).await).await;
    let (long, _) = joined.send(asked("/chunks/20/50"), true).await;
    let long = long.await.unwrap();
    of_one.write(site.folder.path(), "client");
    let steps = vec![
        request("long", "GET", "/chunks/20/50"),
        json!({ "do": "head", "name": "long" }),
        wait("long"),
        json!({ "do": "closed" }),
    ];
    let path = |name: &str| site.folder.path().join(name).to_str().unwrap().to_owned();
    let arguments = ["--cert".to_owned(), path("client.pem"), "--key".to_owned(), path("client.key")];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let http3 = Http3::start_with(site.egress(), &site.folder, steps, &arguments);
    if let Some(http3) = &http3 {
        http3.did("head", "long").await;
    }

    rewrite(&site.responder.0, &asks("other.pem").text()).await.changes();
    assert!(timeout(SOON, idle.read_to_end()).await.is_ok(), "nobody waits for its next request");
    assert!(busy.body(&begun).await.unwrap().0.ends_with(b"chunk 19\n"));
    assert!(timeout(SOON, busy.read_to_end()).await.is_ok(), "it is over with its answer");
    let sender = joined.sender();
    within(SOON, "GOAWAY", async || sender.clone().ready().await.is_err().then_some(())).await;
    assert!(whole(long).await.unwrap().into_body().bytes.ends_with(b"chunk 19\n"));
    if let Some(http3) = http3 {
        let answer = http3.answer("long").await;
        assert!(answer.is_whole() && answer.text().ends_with("chunk 19\n"), "{answer:?}");
        timeout(SOON, http3.did_once("closed")).await.expect("the end of the connection");
    }
    // Who is let in still is not disturbed.
    kept.send(head("/", "").as_bytes()).await.unwrap();
    let answer = kept.response().await.unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (200, None));
}
