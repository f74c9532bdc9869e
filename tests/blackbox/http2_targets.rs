//! Targets of HTTP/2 that do what they may: they end connections, take few requests at once, and send empty and small frames.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::eventually::{PATIENCE, eventually, standstill};
use crate::support::http1::RawHttp;
use crate::support::http2::{Http2, whole};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};
use crate::support::trickle::{LARGE, SMALL, is_all, trickle};

over_each_transport!(
    empty_data_of_a_target_costs_nobody_a_connection,
    empty_data_of_a_client_costs_it_no_connection,
    small_frames_of_a_target_that_nobody_reads_cost_nobody_a_connection,
    small_frames_of_a_client_that_no_target_reads_cost_it_no_connection,
    behind_a_goaway_requests_go_over_another_connection_and_those_before_it_go_on,
    a_target_that_is_full_is_asked_over_a_few_more_connections_and_no_others,
    a_request_that_a_target_passed_by_is_sent_again_whatever_its_method,
);

/// What has not moved for so long is held back.
const STALLED: Duration = Duration::from_millis(500);

/// A target on the `h2` crate.
struct Peer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Requests that were held so far.
    held: Arc<AtomicUsize>,
    /// Bytes of small frames that were sent so far.
    trickled: Arc<AtomicUsize>,
    /// Answers what is held.
    release: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Peer {
    /// The first `passing_by` connections process nothing; others take so many requests at once.
    async fn start(passing_by: usize, max_streams: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let (release, released) = watch::channel(false);
        let held = Arc::<AtomicUsize>::default();
        let (count, holding, mut tasks) = (Arc::clone(&connections), Arc::clone(&held), JoinSet::new());
        let trickled = Arc::<AtomicUsize>::default();
        let trickling = Arc::clone(&trickled);
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                if count.fetch_add(1, Ordering::Relaxed) < passing_by {
                    served.spawn(pass_by(stream));
                } else {
                    let counted = (Arc::clone(&holding), Arc::clone(&trickling));
                    served.spawn(serve(stream, max_streams, counted, released.clone()));
                }
            }
        });
        Self { address, connections, held, trickled, release, _tasks: tasks }
    }

    async fn site(&self, transport: Transport) -> Site {
        let service = format!("{{ name: peer, match: {{}}, target: \"h2c://{}\" }}", self.address);
        Site::with(Cloud::new(), Edge::new(transport).service(&service)).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// | path | does |
/// |---|---|
/// | `/hold` | answers when it is released |
/// | `/leave` | the same, and ends the connection: GOAWAY |
/// | `/empty` | answers, with an empty DATA frame among others |
/// | `/small` | answers with [`LARGE`] bytes, and [`SMALL`] in small frames |
async fn serve(
    stream: TcpStream,
    max_streams: u32,
    (holding, trickled): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    mut released: watch::Receiver<bool>,
) {
    let Ok(mut connection) = server::Builder::new().max_concurrent_streams(max_streams).handshake(stream).await else {
        return;
    };
    let mut held = Vec::new();
    let mut trickles = JoinSet::new();
    let mut is_released = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => match request.uri().path() {
                    path @ ("/hold" | "/leave") => {
                        held.push(respond);
                        holding.fetch_add(1, Ordering::Relaxed);
                        if path == "/leave" {
                            connection.graceful_shutdown();
                        }
                    }
                    "/small" => drop(trickles.spawn(small_answer(respond, Arc::clone(&trickled)))),
                    path => answer(respond, path == "/empty"),
                },
                _ => return,
            },
            done = released.wait_for(|released| *released), if !is_released => {
                is_released = done.is_ok();
                held.drain(..).for_each(|respond| answer(respond, false));
            }
        }
    }
}

async fn small_answer(mut respond: SendResponse<Bytes>, trickled: Arc<AtomicUsize>) {
    let stream = respond.send_response(Response::new(()), false).unwrap();
    trickle(stream, LARGE, &trickled).await.unwrap();
}

fn answer(mut respond: SendResponse<Bytes>, with_empty: bool) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    if with_empty {
        stream.send_data("o".into(), false).unwrap();
        stream.send_data(Bytes::new(), false).unwrap();
        stream.send_data("k".into(), true).unwrap();
    } else {
        stream.send_data("ok".into(), true).unwrap();
    }
}

/// Says of the first request that it was not processed: GOAWAY, for no error, with a last stream before it.
async fn pass_by(mut stream: TcpStream) {
    stream.read_exact(&mut [0; 24]).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == 1 {
            stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        }
    }
}

fn request(method: &str, site: &Site, path: &str) -> Request<()> {
    let uri = format!("http://{}{path}", site.egress());
    Request::builder().method(method).uri(uri).header("x-node-id", NODE.node).body(()).unwrap()
}

/// Begins a request that is held, and waits until the target has it.
async fn begin(site: &Site, peer: &Peer, path: &str) -> RawHttp<TcpStream> {
    let held = || peer.held.load(Ordering::Relaxed);
    let before = held();
    let mut client = site.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    eventually("the request at the target", async || (held() > before).then_some(())).await;
    client
}

// spec: SE-18
async fn empty_data_of_a_target_costs_nobody_a_connection(transport: Transport) {
    let peer = Peer::start(0, 100).await;
    let site = peer.site(transport).await;
    let mut held = begin(&site, &peer, "/hold").await;
    for nth in 0..150 {
        let response = site.get("/empty").await;
        assert_eq!((response.status(), response.text()), (200, "ok".into()), "{nth}");
    }
    assert_eq!(peer.connections(), 1);
    peer.release.send_replace(true);
    assert_eq!(held.response().await.unwrap().status(), 200, "its neighbour was not cut");
}

// spec: SE-18
async fn empty_data_of_a_client_costs_it_no_connection(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = Http2::connect(site.egress()).await;
    for nth in 0..150 {
        let (response, mut body) = client.send(request("POST", &site, "/sink"), false).await;
        for piece in ["a", "", "b", ""] {
            body.send_data(piece.into(), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        let response = whole(response.await.unwrap()).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.body().bytes[..]), (200, &b"2"[..]), "{nth}");
    }
}

// spec: SE-19
async fn small_frames_of_a_target_that_nobody_reads_cost_nobody_a_connection(transport: Transport) {
    let peer = Peer::start(0, 100).await;
    let site = peer.site(transport).await;
    let tunnel = site.responder.0.tunnels().await.accepted[0].id.clone();
    let mut held = begin(&site, &peer, "/hold").await;
    let mut deaf = Http2::connect(site.egress()).await;
    let (response, _) = deaf.send(request("GET", &site, "/small"), true).await;
    let response = response.await.unwrap();
    eventually("some of it", async || (peer.trickled.load(Ordering::Relaxed) > 0).then_some(())).await;
    let waiting = standstill("the target", STALLED, async || peer.trickled.load(Ordering::Relaxed)).await;
    assert!(waiting < SMALL, "{waiting}");
    for _ in 0..5 {
        assert_eq!(timeout(PATIENCE, site.get("/")).await.expect("an answer").status(), 200);
    }
    peer.release.send_replace(true);
    assert_eq!(held.response().await.unwrap().status(), 200, "its neighbour was not cut");
    let response = timeout(PATIENCE, whole(response)).await.expect("all of it").unwrap();
    assert!(is_all(&response.body().bytes), "{} bytes", response.body().bytes.len());
    assert_eq!(peer.connections(), 1);
    assert_eq!(site.responder.0.tunnels().await.accepted[0].id, tunnel);
}

// spec: SE-19
async fn small_frames_of_a_client_that_no_target_reads_cost_it_no_connection(transport: Transport) {
    let target = RawTarget::narrow();
    let stall = format!("{{ name: stall, match: {{ prefix: /stall }}, target: \"http://{}\" }}", target.address());
    let edge = Edge::new(transport).service(&stall).service("{ name: web, match: {}, target: \"{target}\" }");
    let site = Site::with(Cloud::new(), edge).await;
    let tunnel = site.responder.0.tunnels().await.accepted[0].id.clone();
    let mut client = Http2::connect(site.egress()).await;
    let (neighbour, _) = client.send(request("GET", &site, "/hang"), true).await;
    site.arrived("/hang").await;
    let mut post = request("POST", &site, "/stall");
    post.headers_mut().insert(CONTENT_LENGTH, (LARGE + SMALL).into());
    let (response, upload) = client.send(post, false).await;
    let trickled = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&trickled);
    let upload = tokio::spawn(async move { trickle(upload, LARGE, &counted).await.unwrap() });
    let (mut stalled, head) = target.accept().await;
    assert!(head.contains("post /stall"), "{head}");
    eventually("some of it", async || (trickled.load(Ordering::Relaxed) > 0).then_some(())).await;
    let waiting = standstill("the client", STALLED, async || trickled.load(Ordering::Relaxed)).await;
    assert!(waiting < SMALL, "{waiting}");
    for _ in 0..5 {
        let answer = timeout(PATIENCE, client.get(request("GET", &site, "/"))).await.expect("an answer");
        assert_eq!(answer.status(), 200, "on the same connection");
    }
    let read = timeout(PATIENCE, stalled.exactly(LARGE + SMALL)).await.expect("all of it").unwrap();
    assert!(is_all(&read), "{} bytes", read.len());
    stalled.send(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(response.await.unwrap().status(), 204);
    upload.await.unwrap();
    drop(neighbour);
    assert_eq!(site.responder.0.tunnels().await.accepted[0].id, tunnel);
}

async fn behind_a_goaway_requests_go_over_another_connection_and_those_before_it_go_on(transport: Transport) {
    let peer = Peer::start(0, 2).await;
    let site = peer.site(transport).await;
    let mut before = [begin(&site, &peer, "/hold").await, begin(&site, &peer, "/leave").await];
    for _ in 0..3 {
        let response = timeout(PATIENCE, site.get("/")).await.expect("an answer");
        assert_eq!(response.status(), 200, "{}", response.text());
    }
    assert_eq!(peer.connections(), 2);
    peer.release.send_replace(true);
    for held in &mut before {
        assert_eq!(held.response().await.unwrap().status(), 200);
    }
}

async fn a_target_that_is_full_is_asked_over_a_few_more_connections_and_no_others(transport: Transport) {
    let peer = Peer::start(0, 1).await;
    let site = peer.site(transport).await;
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(begin(&site, &peer, "/hold").await);
    }
    let response = site.get("/").await;
    assert_eq!((response.status(), peer.connections()), (200, 8), "{}", response.text());
    held.push(begin(&site, &peer, "/hold").await);
    let refused = site.get("/").await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")), "{}", refused.text());
    assert!(refused.field("proxy-status").unwrap().contains("connection_limit_reached"));
    let waits = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.release.send_replace(true);
    };
    let (served, ()) = tokio::join!(site.get("/"), waits);
    assert_eq!(served.status(), 200, "one that waits is served when a stream ends: {}", served.text());
    for held in &mut held {
        assert_eq!(held.response().await.unwrap().status(), 200);
    }
    assert!(peer.connections() <= 9, "{}", peer.connections());
}

async fn a_request_that_a_target_passed_by_is_sent_again_whatever_its_method(transport: Transport) {
    let peer = Peer::start(3, 100).await;
    let site = peer.site(transport).await;
    let mut client = site.connect().await;
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ncontent-length: 4\r\n\r\nbody");
    client.send(head.as_bytes()).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.status(), peer.connections()), (200, 4), "{}", response.text());
}
