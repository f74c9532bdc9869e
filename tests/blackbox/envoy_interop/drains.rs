//! Either end stops while requests run and keep coming: a replacement comes first, and no request is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::envoy_interop::ends::adit_initiator;
use crate::envoy_interop::envoy_alone::{attentive, status};
use crate::envoy_interop::raw::{ACCEPTED, Goaway, RawResponder};
use crate::envoy_interop::rejections::open_to_all;
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::http2::{Http2, whole};
use crate::support::site::{Folder, Responder, Running, TO_NODE};
use crate::support::targets::Target;

/// Requests one after the other, each on a connection of its own, until it is asked for what became of them.
struct Steady {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<Vec<u16>>,
}

impl Steady {
    fn start(egress: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::<AtomicUsize>::default();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut statuses = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let asked = get(egress, "/slow/10", &[TO_NODE]).await;
                statuses.push(asked.map_or(0, |response| response.status()));
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            statuses
        });
        Self { stop, asked, task }
    }

    /// Those that failed, of those until now and a few more.
    async fn end(self, what: &str) -> Vec<u16> {
        let before = self.asked.load(Ordering::Relaxed);
        eventually("twenty more", async || (self.asked.load(Ordering::Relaxed) > before + 20).then_some(())).await;
        self.stop.store(true, Ordering::Relaxed);
        let statuses = self.task.await.unwrap();
        let failed: Vec<u16> = statuses.iter().copied().filter(|status| *status != 200).collect();
        eprintln!("{what}: {} requests, {} failed", statuses.len(), failed.len());
        failed
    }
}

/// A response under way at `egress`.
async fn under_way(egress: SocketAddr) -> (RawHttp<tokio::net::TcpStream>, crate::support::http1::Head) {
    let mut client = RawHttp::connect(egress).await.unwrap();
    client.send(format!("GET /chunks/20/50 HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    (client, head)
}

async fn finishes((mut client, head): (RawHttp<tokio::net::TcpStream>, crate::support::http1::Head)) {
    let (body, _) = client.body(&head).await.unwrap();
    assert!(body.ends_with(b"chunk 19\n"));
}

async fn drain_aware(responder: &Responder, target: &Target, options: InitiatorOptions) -> Option<EnvoyInitiator> {
    EnvoyInitiator::start(Variant::DrainAware, responder.tunnel_address(), target.address(), options).await
}

async fn dialling(folder: &Folder, to: SocketAddr, target: &Target) -> Running {
    let edge = adit_initiator(Variant::Plaintext, folder).target(&format!("http://{}", target.address()));
    Running::start(folder.write("edge.yaml", &edge.text(&to.to_string()))).await
}

/// Our responder ends: GOAWAY, what runs is finished, the socket is closed; a drain-aware Envoy keeps its tunnel to the
/// other responder, and finds the first when it is back.
// spec: EV-43
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_responder_ends_and_an_envoy_finds_it_again_when_it_is_back() {
    let (one, other, target) = (Folder::new(), Folder::new(), Target::http1().await);
    let mut first = open_to_all(&one, "").await;
    let second = open_to_all(&other, "").await;
    let options = InitiatorOptions { more_responders: vec![second.tunnel_address()], ..attentive() };
    let Some(envoy) = drain_aware(&first, &target, options).await else { return };
    first.registered(1).await;
    second.registered(1).await;
    let running = under_way(first.egress()).await;
    first.0.terminate();
    finishes(running).await;
    assert_eq!(first.0.exit().await.code(), Some(0));
    envoy.connected(1).await;
    assert_eq!(status(second.egress(), TO_NODE).await, 200);
    let first = first.restart().await;
    let restarted = Instant::now();
    first.registered(1).await;
    eprintln!("our responder restarted, until Envoy is back: {:.1} s", restarted.elapsed().as_secs_f64());
    assert_eq!(status(first.egress(), TO_NODE).await, 200);
}

/// Envoy drains its listeners: its replacements come first, and ours takes no failed request for it.
// spec: EV-46
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_initiator_drains_and_no_request_fails() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, "").await;
    let options = InitiatorOptions { drain_time: Duration::from_secs(4), ..attentive() };
    let Some(envoy) = drain_aware(&responder, &target, options).await else { return };
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let steady = Steady::start(responder.egress());
    assert_eq!(envoy.ask("POST", "/drain_listeners?graceful").await.unwrap().status(), 200);
    // Envoy says GOAWAY sooner or later, and then dials; at the end of its drain it has no listener any more.
    let accepted = "adit_envoy_handshakes_total{result=\"accepted\"}";
    eventually("a replacement", async || (responder.0.metric(accepted).await >= 2).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(steady.end("Envoy's initiator drains").await, [0u16; 0]);
}

/// GOAWAY is noticed when it comes, while a stream still runs: nothing new is sent, and the tunnel is shown as draining.
// spec: EV-46
#[tokio::test]
async fn our_initiator_replaces_a_tunnel_at_goaway_and_not_at_its_end() {
    let (folder, target, responder) = (Folder::new(), Target::http1().await, RawResponder::new().await);
    let edge = dialling(&folder, responder.address(), &target).await;
    let stream = responder.answer(ACCEPTED).await.into_stream();
    let (stream, goaway) = Goaway::beside(stream);
    let mut http2 = Http2::over(stream).await;
    // The target waits for its reader, so the stream has not ended before it is read.
    let request = http::Request::get("http://x/bytes/1000000").body(()).unwrap();
    let (response, _) = http2.send(request, true).await;
    let response = response.await.unwrap();
    // The h2 crate says it when the last stream has ended, and this is about one that comes before.
    goaway.say();
    let mut replacement = responder.connection().await;
    assert!(replacement.head().await.starts_with("get /reverse_connections/request "));
    assert_eq!(whole(response).await.unwrap().body().bytes.len(), 1_000_000, "what runs is finished");
    edge.line_with("the responder drains").await;
}

/// Envoy's responder drains its cluster: our replacement is on its way when GOAWAY arrives. Envoy closes the connection
/// right behind it if no stream runs, so for a round trip it has only the second tunnel.
// spec: EV-46
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_responder_drains_its_cluster_and_no_request_fails() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = EnvoyResponder::start(Variant::DrainAware, ResponderOptions::default()).await;
    let Some(responder) = responder else { return };
    let edge = adit_initiator(Variant::Plaintext, &folder).target(&format!("http://{}", target.address())).count(2);
    let edge = Running::start(folder.write("edge.yaml", &edge.text(&responder.tunnel_address().to_string()))).await;
    responder.registered(2).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let steady = Steady::start(responder.egress());
    let drain = responder.ask("POST", "/reverse_tunnel/drain_clusters?drain_time_ms=200").await.unwrap();
    assert_eq!(drain.status(), 200, "{}", drain.text());
    eventually("a replacement", async || {
        (responder.stat("reverse_tunnel.handshake.accepted").await >= 3).then_some(())
    })
    .await;
    edge.line_with("the responder drains").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(steady.end("Envoy's responder drains").await, [0u16; 0]);
}

/// Our initiator is asked to stop: GOAWAY, what runs is finished, and the process ends well.
// spec: EV-43
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_initiator_ends_and_finishes_what_runs() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = EnvoyResponder::start(Variant::DrainAware, ResponderOptions::default()).await;
    let Some(responder) = responder else { return };
    let mut edge = dialling(&folder, responder.tunnel_address(), &target).await;
    responder.registered(1).await;
    let running = under_way(responder.egress()).await;
    edge.terminate();
    finishes(running).await;
    assert_eq!(edge.exit().await.code(), Some(0));
    edge.line_with("drained: everything finished").await;
    responder.registered(0).await;
}
