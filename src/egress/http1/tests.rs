use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::egress::testing::{
    OnDrop, TestBody, WithContext, data, describe, echo, full, pieces, serve, serve_with, told,
};
use crate::egress::{BodyError, Context as ExchangeContext, RequestBody, Settings};
use crate::message::BoxError;

fn informational(status: u16) -> Response<()> {
    Response::builder().status(status).header("link", "</a>").body(()).unwrap()
}

#[tokio::test]
async fn requests_of_a_connection_are_answered_in_order_even_if_sent_at_once() {
    let server = serve(describe).await;
    let mut wire = server.connect().await;
    wire.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    wire.send("GET http://h/3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let (head, body) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ndate: "), "{head}");
    assert_eq!(body, "GET http://h/1 0");
    assert_eq!(wire.response().await.1, "POST http://h/2 3");
    let (head, body) = wire.response().await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(body, "GET http://h/3 0");
    assert_eq!(wire.rest().await.0, "");
}

#[tokio::test]
async fn the_service_knows_who_is_connected() {
    let service = |_: Request<RequestBody>, context: ExchangeContext| async move {
        let info = context.connection;
        Response::new(full(format!("{} {} {}", info.remote, info.local, info.tls)))
    };
    let server = serve(WithContext(service)).await;
    let mut wire = server.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let expected = format!("{} {} false", wire.0.local_addr().unwrap(), server.address);
    assert_eq!(wire.response().await.1, expected);
}

#[tokio::test]
async fn a_large_body_arrives_whole_with_either_framing_and_the_connection_is_kept() {
    let server = serve(describe).await;
    let mut wire = server.connect().await;
    let piece = vec![b'x'; 100_000];
    wire.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await;
    for _ in 0..10 {
        wire.send(&piece).await;
    }
    assert_eq!(wire.response().await.1, "PUT http://h/a 1000000");
    wire.send("PUT /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..10 {
        wire.send(format!("{:X}\r\n", piece.len())).await;
        wire.send(&piece).await;
        wire.send("\r\n").await;
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.response().await.1, "PUT http://h/b 1000000");
}

#[tokio::test]
async fn the_response_streams_while_the_request_does_and_trailers_pass_both_ways() {
    let server = serve(echo).await;
    let mut wire = server.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert!(wire.head().await.contains("transfer-encoding: chunked\r\n"));
    for _ in 0..3 {
        wire.send("5\r\nhello\r\n").await;
        assert_eq!(wire.read_until("5\r\nhello\r\n").await, "5\r\nhello\r\n");
    }
    wire.send("0\r\nX-Sum: 7\r\n\r\n").await;
    assert_eq!(wire.read_until("\r\n\r\n").await, "0\r\nx-sum: 7\r\n\r\n");
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(wire.response().await.1, "ok");
}

#[tokio::test]
async fn trailers_are_sent_to_who_reads_them_or_when_announced() {
    let service = |announced: bool| {
        move |_: Request<RequestBody>| async move {
            let (feed, body) = pieces();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            trailers.insert("content-length", "9".parse().unwrap());
            feed.send(data(b"body")).await.unwrap();
            feed.send(Ok(Frame::trailers(trailers))).await.unwrap();
            let mut response = Response::new(body);
            if announced {
                response.headers_mut().insert("trailer", "x-sum".parse().unwrap());
                response.headers_mut().insert("content-length", "4".parse().unwrap());
            }
            response
        }
    };
    let silent = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let reading = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTE: gzip, Trailers;q=1\r\n\r\n";
    let (with, without) = ("4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n", "4\r\nbody\r\n0\r\n\r\n");
    for (announced, request, expected) in [(false, silent, without), (false, reading, with), (true, silent, with)] {
        let mut wire = serve(service(announced)).await.connect().await;
        wire.send(request).await;
        let head = wire.head().await;
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
        assert_eq!(wire.rest().await.0, expected, "announced: {announced}, {request}");
    }
}

#[tokio::test]
async fn continue_is_said_to_a_sender_of_whom_a_function_wants_the_body() {
    let server = serve(describe).await;
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("ok").await;
    assert_eq!(wire.response().await.1, "PUT http://h/ 2");
}

#[tokio::test]
async fn continue_is_the_services_to_say_and_without_it_the_connection_ends() {
    let service = |request: Request<RequestBody>, _: ExchangeContext| async move {
        assert!(request.headers().contains_key("expect"), "the service must know that the sender waits");
        Response::builder().status(413).body(full("no")).unwrap()
    };
    let server = serve(WithContext(service)).await;
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    let (head, _) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 413 Payload Too Large\r\n") && head.contains("connection: close"), "{head}");
    assert_eq!(wire.rest().await.0, "");
}

#[tokio::test]
async fn continue_is_not_said_when_the_body_is_already_here() {
    let server = serve(describe).await;
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn informational_responses_go_first_and_never_to_http_1_0() {
    let service = |_: Request<RequestBody>, context: ExchangeContext| async move {
        let sink = context.interim;
        sink.send(informational(103));
        tokio::task::yield_now().await;
        sink.send(informational(102));
        Response::new(full("done"))
    };
    let server = serve(WithContext(service)).await;
    let mut wire = server.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.head().await, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    assert_eq!(wire.head().await, "HTTP/1.1 102 Processing\r\nlink: </a>\r\n\r\n");
    assert_eq!(wire.response().await.1, "done");
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.response().await.1, "done");
}

#[tokio::test]
async fn an_informational_response_does_not_wait_for_the_final_one() {
    let (told_sender, _keep) = mpsc::unbounded_channel::<&'static str>();
    let service = move |_: Request<RequestBody>, context: ExchangeContext| {
        let told = told_sender.clone();
        async move {
            context.interim.send(informational(103));
            told.closed().await;
            Response::new(full(""))
        }
    };
    let mut wire = serve(WithContext(service)).await.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 103"));
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let service = |request: Request<RequestBody>| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder().status(status).header("content-length", "4").body(full("body")).unwrap()
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("HEAD /200 HTTP/1.1\r\nHost: h\r\n\r\nGET /304 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.send("GET /204 HTTP/1.1\r\nHost: h\r\n\r\nGET /200 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(wire.head().await.contains("content-length: 4"));
    assert!(wire.head().await.starts_with("HTTP/1.1 304 Not Modified\r\n"));
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 204") && !head.contains("content-length"), "{head}");
    assert_eq!(wire.response().await.1, "body");
}

#[tokio::test]
async fn a_body_of_unknown_length_ends_with_the_connection_on_http_1_0() {
    let (feed, body) = pieces();
    let body = std::sync::Mutex::new(Some(body));
    let body = std::sync::Arc::new(body);
    let service = move |_: Request<RequestBody>| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Response::new(body) }
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = wire.head().await;
    assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
    feed.send(data(b"some")).await.unwrap();
    assert_eq!(wire.read_until("some").await, "some");
    drop(feed);
    let (rest, end) = wire.rest().await;
    assert!(rest.is_empty() && end.is_ok());
}

#[tokio::test]
async fn http_1_0_is_kept_alive_when_asked() {
    let mut wire = serve(describe).await.connect().await;
    for _ in 0..2 {
        wire.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let (head, body) = wire.response().await;
        assert!(head.contains("connection: keep-alive"), "{head}");
        assert_eq!(body, "GET /a 0");
    }
}

/// A service that never answers and tells when it is dropped.
fn stuck() -> (impl crate::egress::ExchangeService<Body = TestBody>, mpsc::UnboundedReceiver<&'static str>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = move |request: Request<RequestBody>| {
        let sender = sender.clone();
        async move {
            sender.send("called").unwrap();
            let _guard = OnDrop(sender, "dropped");
            let _body = request.into_body();
            std::future::pending::<Response<TestBody>>().await
        }
    };
    (service, receiver)
}

#[tokio::test]
async fn a_sender_that_leaves_cancels_the_service_at_once() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    for request in requests {
        let (service, mut receiver) = stuck();
        let mut wire = serve(service).await.connect().await;
        wire.send(request).await;
        assert_eq!(told(&mut receiver).await, "called");
        drop(wire);
        assert_eq!(told(&mut receiver).await, "dropped", "{request}");
    }
}

#[tokio::test]
async fn a_sender_that_leaves_drops_the_response_body() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let service = move |_: Request<RequestBody>| {
        let guard = OnDrop(sender.clone(), "dropped");
        async move {
            let (feed, body) = pieces();
            feed.send(data(b"first")).await.unwrap();
            Response::new(body.map_frame(move |frame| (&guard, &feed, frame).2).boxed_unsync())
        }
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.read_until("first\r\n").await;
    drop(wire);
    assert_eq!(told(&mut receiver).await, "dropped");
}

#[tokio::test]
async fn half_close_only_ends_the_request_where_the_settings_say_so() {
    let slow = |request: Request<RequestBody>| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        describe(request).await
    };
    let server = serve_with(slow, Settings { half_close: true, ..Settings::default() }, None).await;
    let mut wire = server.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.0.shutdown().await.unwrap();
    assert_eq!(wire.response().await.1, "GET http://h/ 0");
    assert_eq!(wire.response().await.1, "GET http://h/2 0");
    assert_eq!(wire.rest().await.0, "");
}

#[tokio::test]
async fn what_a_failed_response_body_gave_arrives_and_its_end_is_missing() {
    let announced = [None, Some("100")];
    for length in announced {
        let service = move |_: Request<RequestBody>| async move {
            let (feed, body) = pieces();
            feed.send(data(b"part")).await.unwrap();
            feed.send(Err("broken".into())).await.unwrap();
            let mut response = Response::new(body);
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length.parse().unwrap());
            }
            response
        };
        let mut wire = serve(service).await.connect().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let (text, end) = wire.rest().await;
        end.expect("the connection ends in order, behind all that there is");
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body, if length.is_some() { "part" } else { "4\r\npart\r\n" });
    }
}

#[tokio::test]
async fn a_cut_that_would_not_show_resets_the_connection() {
    let service = async |_: Request<RequestBody>| {
        let (feed, body) = pieces();
        feed.send(data(b"part")).await.unwrap();
        feed.send(Err("broken".into())).await.unwrap();
        Response::new(body)
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    wire.assert_reset().await;
    let service = async |_: Request<RequestBody>| {
        let (feed, body) = pieces();
        feed.send(data(b"part")).await.unwrap();
        feed.send(Err("broken".into())).await.unwrap();
        Response::builder().header("content-length", "4").body(body).unwrap()
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.assert_reset().await;
}

#[tokio::test]
async fn a_response_body_that_differs_from_its_length_is_cut_short_of_it() {
    for length in ["3", "5"] {
        let service = move |_: Request<RequestBody>| async move {
            let (feed, body) = pieces();
            feed.send(data(b"four")).await.unwrap();
            Response::builder().header("content-length", length).body(body).unwrap()
        };
        let mut wire = serve(service).await.connect().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let body = wire.rest().await.0.split_once("\r\n\r\n").unwrap().1.to_owned();
        assert!(body.len() < length.parse().unwrap(), "{body}");
    }
}

#[tokio::test]
async fn what_http_1_cannot_say_becomes_a_502() {
    let server = serve(async |_: Request<RequestBody>| Response::builder().status(101).body(full("")).unwrap()).await;
    let mut wire = server.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let (head, _) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("proxy-status: adit; "), "{head}");
}

#[tokio::test]
async fn hop_by_hop_fields_of_the_service_are_not_written() {
    let service = |_: Request<RequestBody>| async move {
        let response = Response::builder().header("connection", "keep-alive").header("transfer-encoding", "gzip");
        response.header("keep-alive", "timeout=5").header("upgrade", "x").body(full("ok")).unwrap()
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let (head, _) = wire.response().await;
    for name in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!head.contains(name), "{head}");
    }
}

#[tokio::test]
async fn an_early_response_closes_the_connection_and_survives_the_rest_of_the_upload() {
    let server = serve(async |_: Request<RequestBody>| Response::builder().status(403).body(full("no")).unwrap()).await;
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n").await;
    let (head, body) = wire.response().await;
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, "no");
    wire.send(vec![0; 100_000]).await;
    let (rest, end) = wire.rest().await;
    assert!(rest.is_empty() && end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_body_dropped_unread_costs_no_connection_if_it_is_complete() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let service = move |request: Request<RequestBody>| {
        let mut gate = gate.clone();
        async move {
            drop(request);
            gate.wait_for(|open| *open).await.unwrap();
            Response::new(full("ignored"))
        }
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n").await;
    wire.send(vec![0; 3_000_000]).await;
    wire.taken().await;
    go.send(true).unwrap();
    for request in ["", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
        wire.send(request).await;
        let (head, body) = wire.response().await;
        assert!(body == "ignored" && !head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn a_body_nobody_reads_yet_holds_its_sender_back() {
    let (service, mut receiver) = stuck();
    let mut wire = serve(service).await.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert_eq!(told(&mut receiver).await, "called");
    let piece = vec![0; 1 << 20];
    let mut sent = 0;
    while timeout(Duration::from_millis(200), wire.0.write_all(&piece)).await.is_ok() {
        sent += 1;
        assert!(sent < 64, "64 MiB are somewhere");
    }
}

#[tokio::test]
async fn a_body_is_read_in_another_task_with_its_length_and_its_error() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let service = move |request: Request<RequestBody>| {
        let sender = sender.clone();
        async move {
            let mut body = request.into_body();
            assert_eq!(body.size_hint().exact(), Some(5));
            tokio::spawn(async move {
                let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!((&first[..], body.size_hint().exact()), (&b"ab"[..], Some(3)));
                let failed = body.frame().await.unwrap();
                assert!(matches!(failed, Err(BodyError::Disconnected)), "{failed:?}");
                sender.send("failed").unwrap();
            });
            std::future::pending::<Response<TestBody>>().await
        }
    };
    let mut wire = serve(service).await.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab").await;
    drop(wire);
    assert_eq!(told(&mut receiver).await, "failed");
}

#[tokio::test]
async fn a_broken_chunk_is_answered_before_the_response_and_cuts_it_after() {
    let broken = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n";
    let mut wire = serve(describe).await.connect().await;
    wire.send(broken).await;
    assert!(wire.response().await.0.starts_with("HTTP/1.1 400 "));
    let mut wire = serve(echo).await.connect().await;
    wire.send(broken).await;
    wire.assert_reset().await;
}

#[tokio::test]
async fn a_slow_head_is_ended_and_an_idle_connection_too() {
    // Long enough for what is said in time here, on a machine with other things to do.
    let short = Duration::from_secs(1);
    let settings = Settings { head_timeout: short, idle_timeout: short, ..Settings::default() };
    let server = serve_with(describe, settings, None).await;
    let mut silent = server.connect().await;
    assert_eq!(silent.rest().await.0, "");
    let mut slow = server.connect().await;
    slow.send("GET / HTTP/1.1\r\nHost:").await;
    assert!(slow.response().await.0.starts_with("HTTP/1.1 408 "));
    let mut idle = server.connect().await;
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle.response().await;
    assert_eq!(idle.rest().await.0, "");
}

#[tokio::test]
async fn a_response_nobody_reads_is_given_up() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let service = move |_: Request<RequestBody>| {
        let guard = OnDrop(sender.clone(), "dropped");
        async move { Response::new(Endless(guard).boxed_unsync()) }
    };
    let settings = Settings { send_timeout: Duration::from_millis(100), ..Settings::default() };
    let mut wire = serve_with(service, settings, None).await.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(told(&mut receiver).await, "dropped");
}

#[tokio::test]
async fn drain_ends_idle_connections_and_lets_busy_ones_finish() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let service = move |request: Request<RequestBody>| {
        let (mut gate, sender) = (gate.clone(), sender.clone());
        async move {
            if request.uri().path() == "/wait" {
                sender.send("called").unwrap();
                gate.wait_for(|open| *open).await.unwrap();
            }
            Response::new(full("finished"))
        }
    };
    let server = serve(service).await;
    let (mut idle, mut busy, mut fresh) = (server.connect().await, server.connect().await, server.connect().await);
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle.response().await;
    busy.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(told(&mut receiver).await, "called");
    server.drain.cancel();
    assert_eq!(idle.rest().await.0, "");
    assert_eq!(fresh.rest().await.0, "");
    drop((idle, fresh));
    go.send(true).unwrap();
    let (head, body) = busy.response().await;
    assert!(body == "finished" && head.contains("connection: close"), "{head}");
    drop(busy);
    server.drained().await;
}

/// A body that always has more.
struct Endless(#[allow(dead_code, reason = "held for its drop")] OnDrop);

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 65536])))))
    }
}
