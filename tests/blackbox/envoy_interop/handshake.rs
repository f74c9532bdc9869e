//! What our initiator sends to whoever plays an Envoy responder, and how it takes the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit::admin::DialledTunnel;

use crate::envoy_interop::raw::{ACCEPTED, Coalesced, PING, RawResponder, Wire};
use crate::support::eventually::{eventually, standstill};
use crate::support::http2::Http2;
use crate::support::raw_target::RawTarget;
use crate::support::site::{Edge, Folder, Running};
use crate::support::targets::Target;
use crate::support::trickle::{SMALL, trickle};

/// What has not moved for so long is held back.
const STALLED: Duration = Duration::from_millis(500);

/// One tunnel of ours in clear to `to`; `envoy` are further settings, each after a comma.
async fn dialling(folder: &Folder, to: &RawResponder, target: &Target, envoy: &str) -> Running {
    let edge = Edge::envoy(&format!("{{ security: none{envoy} }}")).target(&format!("http://{}", target.address()));
    started(edge, folder, to).await
}

async fn started(edge: Edge, folder: &Folder, to: &RawResponder) -> Running {
    edge.start(folder, to.address()).await
}

async fn slot(edge: &Running) -> DialledTunnel {
    edge.tunnels().await.dialled.into_iter().next().unwrap_or_default()
}

async fn state(edge: &Running, wanted: &str) -> DialledTunnel {
    eventually(wanted, async || Some(slot(edge).await).filter(|slot| slot.state == wanted)).await
}

/// The next line about a failure, after `seen` others.
async fn failure(edge: &Running, seen: usize) -> serde_json::Value {
    let line = eventually("a failed dial", async || {
        let log = edge.log();
        log.lines().filter(|line| line.contains("cannot open a tunnel")).nth(seen).map(str::to_owned)
    })
    .await;
    serde_json::from_str(&line).unwrap()
}

/// Byte for byte what an Envoy 1.40.0 sends, as it was recorded, with the values of this test.
// spec: EV-1
#[tokio::test]
async fn the_request_is_that_of_envoy_to_the_byte() {
    let (folder, target, responder) = (Folder::new(), Target::http1().await, RawResponder::new().await);
    let _edge = dialling(&folder, &responder, &target, ", upstream_cluster: responder").await;
    let mut wire = responder.connection().await;
    let request = String::from_utf8(wire.whole_head().await).unwrap();
    let time = request.lines().find_map(|line| line.strip_prefix("x-envoy-reverse-tunnel-initiation-time: ")).unwrap();
    assert!(time.len() == 13 && time.bytes().all(|byte| byte.is_ascii_digit()), "milliseconds since 1970: {time}");
    let expected = format!(
        "GET /reverse_connections/request HTTP/1.1\r\n\
         host: {}\r\n\
         x-envoy-reverse-tunnel-node-id: edge-1\r\n\
         x-envoy-reverse-tunnel-cluster-id: stores\r\n\
         x-envoy-reverse-tunnel-tenant-id: acme\r\n\
         x-envoy-reverse-tunnel-upstream-cluster-name: responder\r\n\
         x-envoy-reverse-tunnel-initiation-time: {time}\r\n\
         x-envoy-reverse-tunnel-worker-id: worker_0\r\n\
         x-envoy-reverse-tunnel-connection-id: 0\r\n\
         content-length: 0\r\n\r\n",
        responder.address()
    );
    assert_eq!(request, expected);
    assert_eq!(wire.during(Duration::from_millis(300)).await, b"", "nothing before the answer");
}

// spec: EV-2, EV-3, EV-19
#[tokio::test]
async fn an_upgrade_another_path_and_a_token_are_in_the_request() {
    let (folder, responder) = (Folder::new(), RawResponder::new().await);
    let edge = Edge::envoy("{ security: none, upgrade: true, path: /tunnels }").initiator("token", "0123456789abcdef");
    let edge = started(edge, &folder, &responder).await;
    let mut wire = responder.connection().await;
    let request = wire.head().await;
    assert!(request.starts_with("get /tunnels http/1.1\r\n"), "{request}");
    for field in ["connection: upgrade", "upgrade: reverse-tunnel", "authorization: bearer 0123456789abcdef"] {
        assert!(request.contains(&format!("\r\n{field}\r\n")), "{field} in {request}");
    }
    wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: reverse-tunnel\r\n\r\n").await;
    state(&edge, "connected").await;
    assert!(!edge.log().contains("0123456789abcdef"), "a token was logged");
}

// spec: EV-4, EV-5, EV-6
#[tokio::test]
async fn whatever_is_not_exactly_200_is_a_refusal_with_its_reason() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let chunked = "content-type: text/plain\r\ntransfer-encoding: chunked";
    let rows = [
        ("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n".to_owned(), "Created"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".into(), "body"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: reverse-tunnel\r\n\r\n".into(), "not asked for"),
        (
            format!("HTTP/1.1 403 Forbidden\r\n{chunked}\r\n\r\n11\r\nvalidation_failed\r\n0\r\n\r\n"),
            "validation_failed",
        ),
        (
            format!("HTTP/1.1 404 Not Found\r\n{chunked}\r\n\r\n1c\r\nNot a reverse tunnel request\r\n0\r\n\r\n"),
            "Not a reverse tunnel request",
        ),
        ("HTTP/1.1 426 Upgrade Required\r\nupgrade: reverse-tunnel\r\ncontent-length: 0\r\n\r\n".into(), "426"),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nx-adit-reason: not you\r\n\r\n".into(), "not you"),
        ("SSH-2.0-OpenSSH\r\n".into(), "HTTP"),
    ];
    // Each on its own, since each failure makes the next dial later.
    for (number, (answer, reason)) in rows.into_iter().enumerate() {
        // Of its own: an initiator that was just killed may have dialled again.
        let responder = RawResponder::new().await;
        let edge = dialling(&folder, &responder, &target, "").await;
        let mut wire = responder.answer(&answer).await;
        let line = failure(&edge, 0).await;
        assert!(line["error"].as_str().unwrap().contains(reason), "row {number}: {reason:?} in {line}");
        assert!(line["advice"].is_string(), "row {number}: {line}");
        wire.gone().await;
        assert!(slot(&edge).await.reason.unwrap().contains(reason), "and in /tunnels");
    }
}

// spec: EV-4
#[tokio::test]
async fn a_200_counts_however_it_is_framed() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        // Of its own: an initiator that was just killed may have dialled again.
        let responder = RawResponder::new().await;
        let edge = dialling(&folder, &responder, &target, "").await;
        let mut wire = responder.answer(answer).await;
        wire.send(PING).await;
        wire.ping().await;
        state(&edge, "connected").await;
    }
}

// spec: EV-6, EV-7
#[tokio::test]
async fn a_retry_after_is_honoured_in_seconds_only_and_a_close_after_200_is_a_failure() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let told = |value: &str| format!("HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\nretry-after: {value}\r\n\r\n");
    let [seconds, date, ends] = [RawResponder::new().await, RawResponder::new().await, RawResponder::new().await];
    let edge = |name| Edge::envoy("{ security: none }").named(name).target(&format!("http://{}", target.address()));
    let (first, _second, third) = (
        started(edge("first"), &folder, &seconds).await,
        started(edge("second"), &folder, &date).await,
        started(edge("third"), &folder, &ends).await,
    );
    let in_seconds = async {
        let asked = Instant::now();
        seconds.answer(told("2")).await;
        assert!(state(&first, "backoff").await.retry_in_seconds.is_some_and(|left| left <= 3));
        seconds.connection().await;
        assert!(asked.elapsed() >= Duration::from_millis(1990), "{:?}", asked.elapsed());
    };
    let as_a_date = async {
        date.answer(told("Fri, 31 Dec 2999 23:59:59 GMT")).await;
        date.connection().await;
    };
    let at_once = async {
        // The first of a row comes back at once, the others ever later.
        for _ in 0..4 {
            drop(ends.answer(ACCEPTED).await);
        }
        state(&third, "backoff").await;
        third.line_with("tunnel lost").await;
        assert_eq!(third.metric("adit_initiator_destinations{state=\"connected\"}").await, 0);
    };
    tokio::join!(in_seconds, as_a_date, at_once);
}

// spec: EV-30, EV-31, EV-32
#[tokio::test]
async fn pings_are_echoed_one_write_each_and_nothing_else_is_said() {
    let (folder, target, responder) = (Folder::new(), Target::http1().await, RawResponder::new().await);
    let edge = dialling(&folder, &responder, &target, "").await;
    let mut wire = responder.answer(ACCEPTED).await;
    assert_eq!(wire.during(Duration::from_millis(300)).await, b"", "silent until it is pinged");
    wire.send(PING).await;
    wire.ping().await;
    // In two pieces.
    wire.send(&PING[..3]).await;
    assert_eq!(wire.during(Duration::from_millis(200)).await, b"", "no echo of a part");
    wire.send(&PING[3..]).await;
    wire.ping().await;
    // Three in one piece.
    wire.send(PING.repeat(3)).await;
    assert_eq!(wire.exactly(15).await, PING.repeat(3));
    assert_eq!(wire.during(Duration::from_millis(200)).await, b"", "and nothing else");
    state(&edge, "connected").await;
    served(wire).await;
}

/// Asks over HTTP/2 on this connection, as the responder would.
async fn served(wire: Wire) {
    let mut http2 = Http2::over(wire.into_stream()).await;
    let request = http::Request::get("http://x/").body(()).unwrap();
    let response = http2.get(request).await;
    assert_eq!((response.status().as_u16(), &response.body().bytes[..]), (200, &b"hello\n"[..]));
}

// spec: EV-32, EV-40
#[tokio::test]
async fn http2_may_begin_in_one_piece_with_a_ping_or_with_the_200() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    for front in [&b""[..], PING, b"RPINGRPING"] {
        // Of its own: an initiator that was just killed may have dialled again.
        let responder = RawResponder::new().await;
        let edge = dialling(&folder, &responder, &target, "").await;
        let mut wire = responder.connection().await;
        wire.whole_head().await;
        let stream = wire.into_stream();
        let coalesced = Coalesced { front: [ACCEPTED, front].concat(), stream };
        let mut http2 = Http2::over(coalesced.over(front.len()).await).await;
        let response = http2.get(http::Request::get("http://x/").body(()).unwrap()).await;
        assert_eq!((response.status().as_u16(), &response.body().bytes[..]), (200, &b"hello\n"[..]));
        state(&edge, "connected").await;
    }
}

// spec: SE-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_that_a_service_does_not_read_cost_others_nothing() {
    let (folder, target, responder) = (Folder::new(), Target::http1().await, RawResponder::new().await);
    let stalled = RawTarget::narrow();
    let stall = format!("{{ name: stall, match: {{ prefix: /stall }}, target: \"http://{}\" }}", stalled.address());
    let edge = Edge::envoy("{ security: none }").target(&format!("http://{}", target.address()));
    let edge = edge.service(&stall).service("{ name: web, match: {}, target: \"{target}\" }");
    let edge = started(edge, &folder, &responder).await;
    let mut http2 = Http2::over(responder.answer(ACCEPTED).await.into_stream()).await;
    let (_response, upload) = http2.send(http::Request::post("http://x/stall").body(()).unwrap(), false).await;
    let trickled = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&trickled);
    let upload = tokio::spawn(async move { trickle(upload, 0, &counted).await });
    eventually("some of it", async || (trickled.load(Ordering::Relaxed) > 0).then_some(())).await;
    let waiting = standstill("the responder", STALLED, async || trickled.load(Ordering::Relaxed)).await;
    assert!(waiting < SMALL, "{waiting}");
    let response = http2.get(http::Request::get("http://x/").body(()).unwrap()).await;
    assert_eq!(response.status(), 200);
    assert!(!upload.is_finished());
    upload.abort();
    state(&edge, "connected").await;
}

// spec: EV-8
#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let (folder, target, responder) = (Folder::new(), Target::http1().await, RawResponder::new().await);
    let began = Instant::now();
    let edge = dialling(&folder, &responder, &target, ", handshake_timeout: 1s").await;
    let mut wire = responder.connection().await;
    wire.whole_head().await;
    // Never early. When it was asked for, this end notices later.
    assert!(wire.gone().await - began >= Duration::from_secs(1));
    assert!(failure(&edge, 0).await["error"].as_str().unwrap().contains("no answer within 1s"));
}
