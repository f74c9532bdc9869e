//! What crosses a tunnel, and how it ends.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use adit::message::BoxError;
use adit::message::interim::InformationalSink;
use adit::protocol::code::StreamCode;
use adit::protocol::stream::StreamError;
use adit::transport::{BodyError, OpenError, RecvBody, Tunnel};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::{Notify, mpsc};

use crate::support::eventually::eventually;
use crate::support::site::{Transport, over_each_transport};
use crate::tunnel::pair::{Pair, exchange};

over_each_transport!(
    a_request_with_a_body_comes_back_whole,
    head_fields_and_address_cross_unchanged,
    trailers_cross_in_both_directions,
    interim_responses_arrive_before_the_head,
    a_response_cut_at_its_source_is_an_error_not_an_end,
    a_request_cut_at_its_source_is_an_error_to_the_service,
    a_request_that_is_silent_after_its_answer_came_whole_is_let_go,
    an_answer_that_comes_before_the_request_ends_is_whole_and_stops_the_rest,
    a_caller_that_leaves_ends_the_services_work_at_once,
    a_response_body_that_is_dropped_stops_its_source,
    a_reader_that_stalls_holds_back_its_source_and_no_other_stream,
    a_reader_that_stalls_on_small_pieces_harms_no_other_stream,
    small_pieces_that_are_ready_go_on_in_few,
    a_thousand_exchanges_share_one_tunnel,
    a_service_that_fails_resets_the_stream_and_not_the_tunnel,
    a_body_shorter_than_its_declared_length_is_an_error,
);

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A service made of a function.
#[derive(Clone)]
struct Answer<F>(F);

impl<F, Fut> tower_service::Service<Request<RecvBody>> for Answer<F>
where
    F: Fn(Request<RecvBody>) -> Fut + Clone,
    Fut: Future<Output = Result<Response<Body>, BoxError>>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RecvBody>) -> Fut {
        (self.0)(request)
    }
}

fn echo(request: Request<RecvBody>) -> Ready<Result<Response<Body>, BoxError>> {
    ready(Ok(Response::new(request.into_body().map_err(Into::into).boxed_unsync())))
}

fn full(bytes: &'static [u8]) -> Body {
    Full::new(Bytes::from_static(bytes)).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body whose frames a test hands over one by one; dropping the sender ends it.
fn piecewise() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, mut frames) = mpsc::channel(1);
    (sender, StreamBody::new(PollFn(move |cx: &mut Context<'_>| frames.poll_recv(cx))).boxed_unsync())
}

/// A stream made of a poll function.
struct PollFn<F>(F);

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> futures_core::Stream for PollFn<F> {
    type Item = T;
    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

async fn send<B>(tunnel: &Tunnel, request: Request<B>) -> Result<Response<RecvBody>, OpenError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let (head, body) = request.into_parts();
    exchange(tunnel, &head, &mut Some(body)).await
}

fn post<B>(body: B) -> Request<B> {
    Request::post("http://api.example/echo?x=1").body(body).unwrap()
}

async fn a_request_with_a_body_comes_back_whole(transport: Transport) {
    let pair = Pair::open(transport, Answer(echo)).await;
    let body = Bytes::from(vec![7; 300_000]);
    let response = send(&pair.responder, post(Full::new(body.clone()))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    eventually("the exchange no longer counts", async || (pair.responder.snapshot().in_flight == 0).then_some(()))
        .await;
}

async fn head_fields_and_address_cross_unchanged(transport: Transport) {
    let pair = Pair::open(
        transport,
        Answer(|request: Request<RecvBody>| {
            let seen = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get("x-one"));
            ready(Ok(Response::builder().status(418).header("x-seen", seen).body(full(b"")).unwrap()))
        }),
    )
    .await;
    let mut request = post(Empty::new());
    request.headers_mut().insert("x-one", "1".parse().unwrap());
    let response = send(&pair.responder, request).await.unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(response.headers()["x-seen"], "POST http://api.example/echo?x=1 Some(\"1\")");
    assert!(http_body::Body::is_end_stream(response.body()));
}

// spec: ST-33
async fn trailers_cross_in_both_directions(transport: Transport) {
    let pair = Pair::open(transport, Answer(echo)).await;
    let (frames, body) = piecewise();
    let response = send(&pair.responder, post(body));
    let mut fields = HeaderMap::new();
    fields.insert("x-sum", "42".parse().unwrap());
    let feed = async move {
        frames.send(Ok(Frame::data(Bytes::from_static(b"data")))).await.unwrap();
        frames.send(Ok(Frame::trailers(fields))).await.unwrap();
    };
    let (response, ()) = tokio::join!(response, feed);
    let collected = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "data");
}

async fn interim_responses_arrive_before_the_head(transport: Transport) {
    let pair = Pair::open(
        transport,
        Answer(|request: Request<RecvBody>| {
            let sink = request.extensions().get::<InformationalSink>().unwrap();
            sink.send(Response::builder().status(103).header("link", "</a.css>").body(()).unwrap());
            ready(Ok(Response::new(full(b"ok"))))
        }),
    )
    .await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut request = post(Empty::new());
    let log = Arc::clone(&seen);
    request.extensions_mut().insert(InformationalSink::new(move |info| {
        log.lock().unwrap().push((info.status().as_u16(), info.headers()["link"].clone()));
    }));
    send(&pair.responder, request).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(103, "</a.css>".parse().unwrap())]);
}

async fn a_response_cut_at_its_source_is_an_error_not_an_end(transport: Transport) {
    let pair = Pair::open(
        transport,
        Answer(|_| {
            let (frames, body) = piecewise();
            tokio::spawn(async move {
                frames.send(Ok(Frame::data(Bytes::from_static(b"half")))).await.unwrap();
                frames.send(Err("the target is gone".into())).await.unwrap();
            });
            ready(Ok(Response::new(body)))
        }),
    )
    .await;
    // All that was sent before the cut arrives. spec: ST-38
    let mut body = send(&pair.responder, post(Empty::new())).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    let end = body.frame().await.unwrap().unwrap_err();
    match transport {
        Transport::Quic => assert!(matches!(end, BodyError::Protocol(StreamError::Truncated)), "{end:?}"),
        // HTTP/2 knows no other cut. spec: TB-8
        Transport::Tcp => assert!(matches!(end, BodyError::Reset(StreamCode::Internal)), "{end:?}"),
    }
}

async fn a_request_cut_at_its_source_is_an_error_to_the_service(transport: Transport) {
    let (seen, mut errors) = mpsc::channel(1);
    let (begun, mut bodies) = mpsc::channel(1);
    let pair = Pair::open(
        transport,
        Answer(move |request: Request<RecvBody>| {
            let (seen, begun) = (seen.clone(), begun.clone());
            async move {
                let mut body = request.into_body();
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
                begun.send(()).await.unwrap();
                seen.send(body.collect().await.is_err()).await.unwrap();
                Ok(Response::new(full(b"")))
            }
        }),
    )
    .await;
    let (frames, body) = piecewise();
    let exchange = tokio::spawn({
        let tunnel = pair.responder.clone();
        async move { send(&tunnel, post(body)).await.map(|_| ()) }
    });
    frames.send(Ok(Frame::data(Bytes::from_static(b"half")))).await.unwrap();
    // A reset may overtake what was sent before it; then there would be no request to be cut.
    bodies.recv().await.unwrap();
    frames.send(Err("the client is gone".into())).await.unwrap();
    assert_eq!(errors.recv().await, Some(true));
    exchange.await.unwrap().ok();
}

// spec: ST-30
async fn an_answer_that_comes_before_the_request_ends_is_whole_and_stops_the_rest(transport: Transport) {
    let pair = Pair::open(transport, Answer(|_| ready(Ok(Response::new(full(b"enough")))))).await;
    let (frames, body) = piecewise();
    let response = send(&pair.responder, post(body)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "enough");
    // The source of the request notices that nobody reads on.
    while frames.send(Ok(Frame::data(Bytes::from_static(&[0; 1000])))).await.is_ok() {}
}

// spec: ST-30
async fn a_request_that_is_silent_after_its_answer_came_whole_is_let_go(transport: Transport) {
    let pair = Pair::open(transport, Answer(|_| ready(Ok(Response::new(full(b"enough")))))).await;
    let mut silent = Vec::new();
    // More than may be under way at a time: none of them keeps its place.
    for _ in 0..300 {
        let (frames, body) = piecewise();
        let response = send(&pair.responder, post(body)).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "enough");
        silent.push(frames);
    }
    for frames in silent {
        frames.closed().await;
    }
}

/// Counts how many are alive.
struct Alive(Arc<AtomicUsize>, Arc<Notify>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

// spec: ST-31
async fn a_caller_that_leaves_ends_the_services_work_at_once(transport: Transport) {
    let (alive, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, dropped) = (Arc::clone(&alive), Arc::clone(&gone));
    let pair = Pair::open(
        transport,
        Answer(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(Arc::clone(&count), Arc::clone(&dropped));
            async move {
                let _alive = alive;
                std::future::pending().await
            }
        }),
    )
    .await;
    let exchange = tokio::spawn({
        let tunnel = pair.responder.clone();
        async move { send(&tunnel, post(Empty::<Bytes>::new())).await.map(|_| ()) }
    });
    eventually("the service works", async || (alive.load(Ordering::SeqCst) == 1).then_some(())).await;
    exchange.abort();
    gone.notified().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

async fn a_response_body_that_is_dropped_stops_its_source(transport: Transport) {
    let (stopped, mut stops) = mpsc::channel(1);
    let pair = Pair::open(
        transport,
        Answer(move |_| {
            let stopped = stopped.clone();
            let (frames, body) = piecewise();
            tokio::spawn(async move {
                while frames.send(Ok(Frame::data(Bytes::from_static(&[0; 1000])))).await.is_ok() {}
                stopped.send(()).await.unwrap();
            });
            ready(Ok(Response::new(body)))
        }),
    )
    .await;
    let response = send(&pair.responder, post(Empty::new())).await.unwrap();
    drop(response);
    stops.recv().await.unwrap();
}

async fn a_reader_that_stalls_holds_back_its_source_and_no_other_stream(transport: Transport) {
    let produced = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&produced);
    let pair = Pair::open(
        transport,
        Answer(move |request: Request<RecvBody>| {
            if request.uri().path() == "/small" {
                return ready(Ok(Response::new(full(b"small"))));
            }
            let (frames, body) = piecewise();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                while frames.send(Ok(Frame::data(Bytes::from_static(&[0; 64 * 1024])))).await.is_ok() {
                    count.fetch_add(64 * 1024, Ordering::SeqCst);
                }
            });
            ready(Ok(Response::new(body)))
        }),
    )
    .await;
    let stalled = send(&pair.responder, post(Empty::new())).await.unwrap();
    eventually("the source is held back", async || {
        let before = produced.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        (before > 1_000_000 && produced.load(Ordering::SeqCst) == before).then_some(())
    })
    .await;
    assert!(produced.load(Ordering::SeqCst) < 24 << 20, "bounded by both windows");
    let small = Request::get("http://api.example/small").body(Empty::new()).unwrap();
    let body = send(&pair.responder, small).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "small");
    drop(stalled);
}

/// What broke: the pieces of 20 bytes that one reader did not take were enough for HTTP/2 to end the whole connection.
// spec: TB-7
async fn a_reader_that_stalls_on_small_pieces_harms_no_other_stream(transport: Transport) {
    let produced = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&produced);
    let pair = Pair::open(
        transport,
        Answer(move |request: Request<RecvBody>| {
            if request.uri().path() == "/small" {
                return ready(Ok(Response::new(full(b"small"))));
            }
            let count = Arc::clone(&count);
            let pieces = PollFn(move |_: &mut Context<'_>| {
                count.fetch_add(20, Ordering::SeqCst);
                Poll::Ready(Some(Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[7; 20])))))
            });
            ready(Ok(Response::new(StreamBody::new(pieces).boxed_unsync())))
        }),
    )
    .await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let before = produced.load(Ordering::SeqCst);
        stalled.push(send(&pair.responder, post(Empty::new())).await.unwrap());
        eventually("the source is held back", async || {
            let seen = produced.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            (seen > before + 1_000_000 && produced.load(Ordering::SeqCst) == seen).then_some(())
        })
        .await;
    }
    let small = Request::get("http://api.example/small").body(Empty::new()).unwrap();
    let body = send(&pair.responder, small).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "small");
}

/// What keeps the one above from being a matter of a fast machine.
// spec: TB-7
async fn small_pieces_that_are_ready_go_on_in_few(transport: Transport) {
    const PIECES: usize = 10_000;
    let pair = Pair::open(
        transport,
        Answer(|_| {
            let mut left = 0..PIECES;
            let pieces = PollFn(move |_: &mut Context<'_>| {
                Poll::Ready(left.next().map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[7; 20])))))
            });
            ready(Ok(Response::new(StreamBody::new(pieces).boxed_unsync())))
        }),
    )
    .await;
    let mut body = send(&pair.responder, post(Empty::new())).await.unwrap().into_body();
    let (mut bytes, mut frames) = (0, 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
        frames += 1;
    }
    assert_eq!(bytes, PIECES * 20);
    assert!(frames < PIECES / 10, "{frames}");
}

async fn a_thousand_exchanges_share_one_tunnel(transport: Transport) {
    let pair = Pair::open(transport, Answer(echo)).await;
    let exchanges = (0..1000).map(|number: u32| {
        let tunnel = pair.responder.clone();
        tokio::spawn(async move {
            let body = Bytes::from(number.to_string().repeat(100));
            let response = send(&tunnel, post(Full::new(body.clone()))).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        })
    });
    for exchange in exchanges.collect::<Vec<_>>() {
        exchange.await.unwrap();
    }
}

// spec: ST-34
async fn a_service_that_fails_resets_the_stream_and_not_the_tunnel(transport: Transport) {
    let pair = Pair::open(
        transport,
        Answer(|request: Request<RecvBody>| {
            ready(match request.uri().path() {
                "/fail" => Err("broken".into()),
                _ => Ok(Response::new(full(b"fine"))),
            })
        }),
    )
    .await;
    let fail = Request::get("http://api.example/fail").body(Empty::new()).unwrap();
    assert!(matches!(send(&pair.responder, fail).await, Err(OpenError::Reset(_))));
    assert_eq!(send(&pair.responder, post(Empty::new())).await.unwrap().status(), 200);
}

async fn a_body_shorter_than_its_declared_length_is_an_error(transport: Transport) {
    let pair = Pair::open(
        transport,
        Answer(|_| ready(Ok(Response::builder().header("content-length", "10").body(full(b"short")).unwrap()))),
    )
    .await;
    let body = send(&pair.responder, post(Empty::new())).await.unwrap().into_body();
    // HTTP/2 counts too, and finds it first.
    let error = body.collect().await.unwrap_err();
    assert!(matches!(error, BodyError::Length | BodyError::Protocol(StreamError::Http2)), "{error}");
}
