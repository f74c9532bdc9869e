//! Requests of the responder's own program, without a listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit::egress::Client;
use adit::id::{Claim, InstanceId, PeerIdentity, Place, ServiceName, TunnelId};
use adit::message::failure::{Cause, Failure};
use adit::message::interim::InformationalSink;
use adit::policy::{RuleSettings, Rules, authorize};
use adit::registry::{Handle as _, Health};
use adit::routing::Directory;
use adit::telemetry::Metrics;
use adit::transport::Tunnel;
use axum::extract::Request as Asked;
use axum::routing::{any, get};
use axum::{Extension, Router};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tower_service::Service;

use crate::support::eventually::eventually;
use crate::support::site::{Transport, over_each_transport};
use crate::tunnel::pair::{NODE, Pair};

over_each_transport!(
    a_program_reaches_a_node_and_its_cluster_without_a_listener,
    a_client_is_a_service_of_which_every_clone_works,
    what_speaks_of_one_connection_stays_behind,
    a_request_that_cannot_be_sent_is_refused_with_the_reason_and_harms_nobody,
    a_failure_is_that_of_the_egress_and_so_is_its_record,
    a_response_that_does_not_begin_in_time_ends_the_work_at_the_target,
    a_node_that_reconnects_is_waited_for,
    interim_responses_reach_the_program,
);

fn place() -> Place {
    let claim = Claim {
        tenant: NODE.tenant.parse().unwrap(),
        cluster: NODE.cluster.parse().unwrap(),
        node: NODE.node.parse().unwrap(),
    };
    Place { claim, instance: InstanceId([1; 16]), slot: 0, generation: 1 }
}

async fn enter(directory: &Directory<Tunnel>, pair: &Pair) {
    // Who waits for an open tunnel is rung by its responder, and there is none here.
    let open = async || (pair.responder.health() < Health::Opening).then_some(());
    eventually("a tunnel whose WELCOME has left", open).await;
    let rules = Rules::new(RuleSettings { insecure_accept_any: true, ..RuleSettings::default() }).unwrap();
    let admitted = authorize(place(), &PeerIdentity::default(), None, &rules).unwrap();
    let inserted = directory.insert(admitted, TunnelId(7), pair.responder.clone()).unwrap();
    assert!(inserted.superseded.is_empty());
}

/// A tunnel that leads to this router, and who sends into it.
async fn reach(transport: Transport, router: Router) -> (Pair, Client) {
    let pair = Pair::open(transport, router).await;
    let directory = Arc::new(Directory::new());
    enter(&directory, &pair).await;
    (pair, Client::new(directory, NODE.node.parse().unwrap()))
}

fn get_of(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

async fn text<B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>>(response: Response<B>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Says what it was asked: method, URI, and the fields by name.
fn mirror() -> Router {
    Router::new().fallback(any(async |request: Asked| {
        let (head, body) = request.into_parts();
        let mut names: Vec<_> = head.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        names.sort();
        let length = body.collect().await.unwrap().to_bytes().len();
        format!("{} {} {length} {}", head.method, head.uri, names.join(" "))
    }))
}

async fn a_program_reaches_a_node_and_its_cluster_without_a_listener(transport: Transport) {
    let service = async |service: Option<Extension<ServiceName>>, body: Bytes| {
        format!("{} bytes for {:?}", body.len(), service.map(|name| name.0.as_str().to_owned()))
    };
    let (_pair, client) = reach(transport, Router::new().route("/up", any(service))).await;
    let upload = || Request::put("http://shop.example/up").body(Full::new(Bytes::from(vec![7; 300_000]))).unwrap();
    let response = client.send(upload()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "300000 bytes for None");

    let cluster = client.to(NODE.cluster.parse().unwrap()).service("web".parse().unwrap()).stick_to("session 1");
    assert_eq!(text(cluster.send(upload()).await.unwrap()).await, "300000 bytes for Some(\"web\")");
    let elsewhere = client.to(NODE.cluster.parse().unwrap()).tenant("acme".parse().unwrap());
    assert_eq!(elsewhere.send(upload()).await.unwrap_err().cause(), Cause::UnknownHost);
}

async fn a_client_is_a_service_of_which_every_clone_works(transport: Transport) {
    let (_pair, client) = reach(transport, Router::new().route("/", get(async || "hello"))).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                std::future::poll_fn(|cx| Service::<Request<Empty<Bytes>>>::poll_ready(&mut client, cx)).await?;
                client.call(get_of("http://shop.example/")).await
            })
        })
        .collect();
    for call in calls {
        assert_eq!(text(call.await.unwrap().unwrap()).await, "hello");
    }
}

async fn what_speaks_of_one_connection_stays_behind(transport: Transport) {
    let (_pair, client) = reach(transport, mirror()).await;
    let request = Request::post("/a?b=1")
        .header("host", "shop.example:8080")
        .header("connection", "x-hop, close")
        .header("x-hop", "1")
        .header("transfer-encoding", "chunked")
        .header("upgrade", "websocket")
        .header("expect", "100-continue")
        .header("te", "gzip, trailers")
        .header("x-kept", "2")
        .body(Full::new(Bytes::from_static(b"12345")))
        .unwrap();
    let expected = "POST http://shop.example:8080/a?b=1 5 content-length=\"5\" te=\"trailers\" x-kept=\"2\"";
    assert_eq!(text(client.send(request).await.unwrap()).await, expected);
    // An authority alone is a whole address.
    assert_eq!(text(client.send(get_of("shop.example")).await.unwrap()).await, "GET http://shop.example/ 0 ");
}

async fn a_request_that_cannot_be_sent_is_refused_with_the_reason_and_harms_nobody(transport: Transport) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let target = Router::new().fallback(any(async move || count.fetch_add(1, Ordering::SeqCst).to_string()));
    let (_pair, client) = reach(transport, target).await;
    let body = || Full::new(Bytes::from_static(b"12345"));
    let connect = Request::builder().method(Method::CONNECT).uri("shop.example:443").body(body()).unwrap();
    let mut many = Request::post("http://shop.example/").body(body()).unwrap();
    for n in 0..20_000 {
        many.headers_mut().append("x-many", n.into());
    }
    let post = || Request::post("http://shop.example/");
    let refused = [
        (connect, Cause::BadRequest, "CONNECT names no service"),
        (Request::post("/a").body(body()).unwrap(), Cause::BadRequest, "names no host"),
        (Request::post("ftp://shop.example/").body(body()).unwrap(), Cause::BadRequest, "target is malformed"),
        (Request::post("http://me@shop.example/").body(body()).unwrap(), Cause::BadRequest, "authority is malformed"),
        (post().header("host", "other.example").body(body()).unwrap(), Cause::BadRequest, "differs"),
        (post().header("x-a", " b").body(body()).unwrap(), Cause::BadRequest, "white space"),
        (post().header("content-length", "5, 5").body(body()).unwrap(), Cause::BadRequest, "Content-Length"),
        (post().header("content-length", "4").body(body()).unwrap(), Cause::BadRequest, "4 bytes, and the body has 5"),
        (many, Cause::HeadTooLarge, "head"),
    ];
    for (request, cause, reason) in refused {
        let asked = format!("{} {}", request.method(), request.uri());
        let failure = client.send(request).await.unwrap_err();
        assert_eq!(failure.cause(), cause, "{asked}: {failure}");
        assert!(failure.to_string().contains(reason), "{asked}: {failure}");
    }
    assert_eq!(client.send(get_of("http://shop.example/")).await.unwrap().status(), 200);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "only the good one arrives");
}

async fn a_failure_is_that_of_the_egress_and_so_is_its_record(transport: Transport) {
    let (_pair, client) = reach(transport, mirror()).await;
    let metrics = Metrics::new();
    let client = client.recorded(&metrics, false);
    let nobody = client.to("nobody".parse().unwrap());
    let failure: Failure = nobody.send(get_of("http://shop.example/")).await.unwrap_err();
    assert_eq!(failure.to_string(), "unknown_host: no node or cluster nobody is connected");
    assert_eq!(failure.response().headers()["retry-after"], "5");
    drop(client.send(get_of("http://shop.example/")).await.unwrap().into_body().collect().await.unwrap());
    let text = metrics.render();
    for series in [
        "adit_exchanges_failed_total{side=\"egress\",cause=\"unknown_host\"} 1",
        "adit_exchanges_total{side=\"egress\",status=\"2xx\"} 1",
        "adit_exchanges_total{side=\"egress\",status=\"5xx\"} 1",
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }
}

async fn a_response_that_does_not_begin_in_time_ends_the_work_at_the_target(transport: Transport) {
    struct OnDrop(mpsc::UnboundedSender<()>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    let (ended, mut ends) = mpsc::unbounded_channel();
    let never = async move |_: Asked| {
        let _work = OnDrop(ended);
        std::future::pending::<()>().await;
    };
    let (_pair, client) = reach(transport, Router::new().route("/", get(never))).await;
    let client = client.deadline(Duration::from_millis(300));
    // Where the request itself is late, there is no work yet.
    eventually("work that is dropped", async || {
        let failure = client.send(get_of("http://shop.example/")).await.unwrap_err();
        assert_eq!(failure.cause(), Cause::Deadline);
        timeout(Duration::from_secs(1), ends.recv()).await.ok()
    })
    .await
    .expect("the service is there");
}

async fn a_node_that_reconnects_is_waited_for(transport: Transport) {
    let pair = Pair::open(transport, mirror()).await;
    let directory = Arc::new(Directory::new());
    enter(&directory, &pair).await;
    directory.registry().remove(TunnelId(7), Instant::now()).unwrap();
    let client = Client::new(Arc::clone(&directory), NODE.node.parse().unwrap());
    let impatient = client.clone().hold(Duration::ZERO);
    assert_eq!(impatient.send(get_of("http://shop.example/")).await.unwrap_err().cause(), Cause::NoTunnel);
    let patient = client.hold(Duration::from_secs(600));
    let mut waits = std::pin::pin!(patient.send(get_of("http://shop.example/")));
    let waiting = std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx).is_pending())).await;
    assert!(waiting, "there is no tunnel to send it into");
    enter(&directory, &pair).await;
    assert_eq!(waits.await.unwrap().status(), 200);
}

async fn interim_responses_reach_the_program(transport: Transport) {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let service = async move |Extension(sink): Extension<InformationalSink>| {
        sink.send(Response::builder().status(103).header("link", "</a.css>").body(()).unwrap());
        wait.notified().await;
        "done"
    };
    let (_pair, client) = reach(transport, Router::new().route("/", get(service))).await;
    let (told, mut early) = mpsc::unbounded_channel();
    let mut request = get_of("http://shop.example/");
    let tell = move |response: Response<()>| told.send(response.status()).unwrap();
    request.extensions_mut().insert(InformationalSink::new(tell));
    let response = tokio::spawn(async move { client.send(request).await });
    let status = eventually("an interim response", async || early.try_recv().ok()).await;
    assert_eq!(status, 103);
    go.notify_one();
    assert_eq!(text(response.await.unwrap().unwrap()).await, "done");
}
