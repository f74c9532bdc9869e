use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::head::final_head;
use super::recv::{RecvError, StreamBody};
use super::send::{ANY_TRAILERS, OnCut, Outlet, SendError, Terms, send_body, send_body_through};
use super::small::Inflow;
use crate::message::BoxError;
use crate::message::fields::{FieldRules, is_forbidden_in_trailers};
use crate::message::interim::{Flood, MAX_READ};
use crate::message::violation::Violation;

/// What a stream takes before its reader has read anything.
const WINDOW: usize = 65_535;

const RULES: FieldRules = FieldRules { max_fields: 2, max_bytes: 64, forbids: is_forbidden_in_trailers };

/// A stream between a client and a server.
struct Stream {
    upload: SendStream<Bytes>,
    response: ResponseFuture,
    request: RecvStream,
    respond: SendResponse<Bytes>,
    /// What moves the bytes of the server; aborted, the connection is gone.
    server: JoinHandle<()>,
}

/// Has room for whoever waits, when it is given.
#[derive(Default)]
struct Later {
    asked: Notify,
    given: Notify,
}

impl Outlet for Arc<Later> {
    type Data = Bytes;

    fn try_reserve(&self, _: usize) -> Option<usize> {
        None
    }

    async fn reserve(&self, wanted: usize) -> usize {
        self.asked.notify_one();
        self.given.notified().await;
        wanted
    }

    fn put(&self, data: Bytes, _: usize) -> Bytes {
        data
    }
}

/// A connection with a server that takes streams when it is told to.
struct Connection {
    client: SendRequest<Bytes>,
    server: server::Connection<DuplexStream, Bytes>,
}

impl Connection {
    async fn new() -> Self {
        let (one, other) = duplex(1 << 20);
        let (client, server) = tokio::join!(client::handshake(one), server::handshake(other));
        let ((client, connection), server) = (client.unwrap(), server.unwrap());
        tokio::spawn(connection);
        Self { client, server }
    }

    async fn open(&mut self) -> (ResponseFuture, SendStream<Bytes>, RecvStream, SendResponse<Bytes>) {
        let mut client = self.client.clone().ready().await.unwrap();
        let request = Request::put("http://h/").body(()).unwrap();
        let (response, upload) = client.send_request(request, false).unwrap();
        let (request, respond) = self.server.accept().await.unwrap().unwrap();
        (response, upload, request.into_body(), respond)
    }

    /// Moves its bytes.
    fn run(mut self) -> JoinHandle<()> {
        tokio::spawn(async move { while self.server.accept().await.is_some() {} })
    }
}

async fn stream() -> Stream {
    let mut connection = Connection::new().await;
    let (response, upload, request, respond) = connection.open().await;
    Stream { upload, response, request, respond, server: connection.run() }
}

/// Has no room for anybody, and counts what others have written.
#[derive(Default)]
struct Full {
    written: AtomicU64,
}

impl Outlet for Arc<Full> {
    type Data = Bytes;

    fn try_reserve(&self, _: usize) -> Option<usize> {
        None
    }

    fn reserve(&self, _: usize) -> impl Future<Output = usize> + Send {
        std::future::pending()
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn put(&self, data: Bytes, _: usize) -> Bytes {
        data
    }
}

/// Says what it holds, then waits for ever, or ends.
struct Parts {
    frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
    ends: bool,
}

fn parts<const N: usize>(frames: [Result<Frame<Bytes>, BoxError>; N]) -> Parts {
    Parts { frames: frames.into(), ends: true }
}

fn data(length: usize) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from(vec![7; length])))
}

fn trailers(name: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::trailers(fields(name)))
}

fn fields(name: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static("1"))])
}

impl Body for Parts {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.frames.pop_front() {
            None if !self.ends => Poll::Pending,
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.frames.is_empty()
    }
}

fn terms(declared: Option<u64>) -> Terms {
    let reset = |error: &SendError| match error {
        SendError::Source(_) => Reason::CANCEL,
        SendError::Stalled => Reason::ENHANCE_YOUR_CALM,
        _ => Reason::INTERNAL_ERROR,
    };
    Terms {
        declared,
        stall_timeout: Some(Duration::from_secs(5)),
        max_trailers: ANY_TRAILERS,
        reset,
        on_cut: OnCut::Deliver,
    }
}

async fn send(upload: &mut SendStream<Bytes>, body: Parts, declared: Option<u64>) -> Result<(), SendError> {
    send_body(upload, pin!(body), &terms(declared)).await
}

/// The body as far as it came, and why it went no further.
async fn collect(request: RecvStream, declared: Option<u64>) -> (usize, Option<HeaderMap>, Option<RecvError>) {
    let request = Inflow::new(request, &Arc::default());
    let (mut body, mut length, mut trailers) = (StreamBody::new(request, declared, RULES), 0, None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => length += data.len(),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return (length, trailers, Some(error)),
        }
    }
    (length, trailers, None)
}

#[tokio::test]
async fn a_body_arrives_whole_however_large_its_pieces_are() {
    for pieces in [[0, 1, 2], [3 * WINDOW, 1, 1], [1, 1, 3 * WINDOW], [10_000, 0, 10_000]] {
        let Stream { mut upload, request, server: _server, .. } = stream().await;
        let total = pieces.iter().sum::<usize>();
        let body = parts(pieces.map(data));
        let (sent, (length, trailers, error)) =
            tokio::join!(send(&mut upload, body, Some(total as u64)), collect(request, Some(total as u64)));
        assert!(sent.is_ok() && trailers.is_none() && error.is_none(), "{sent:?} {error:?}");
        assert_eq!(length, total);
    }
}

// spec: TB-7
#[tokio::test]
async fn the_end_comes_with_the_last_data() {
    let Stream { mut upload, mut request, .. } = stream().await;
    send(&mut upload, parts([data(1), data(2)]), None).await.unwrap();
    assert_eq!(request.data().await.unwrap().unwrap().len(), 3);
    assert!(request.is_end_stream());
}

// spec: ST-24
#[tokio::test]
async fn trailers_lose_what_must_not_be_in_them() {
    for (name, left) in [("grpc-status", true), ("content-length", false)] {
        let Stream { mut upload, request, server: _server, .. } = stream().await;
        send(&mut upload, parts([data(1), trailers(name)]), None).await.unwrap();
        let (length, received, error) = collect(request, None).await;
        assert!(length == 1 && error.is_none());
        assert_eq!(received, left.then(|| fields(name)));
    }
}

#[tokio::test]
async fn a_silent_body_ends_when_the_peer_resets_the_stream() {
    let Stream { mut upload, mut respond, server: _server, .. } = stream().await;
    let silent = Parts { frames: [data(1)].into(), ends: false };
    let resets = async { respond.send_reset(Reason::NO_ERROR) };
    let (sent, ()) = tokio::join!(send(&mut upload, silent, None), resets);
    assert!(matches!(sent, Err(SendError::Stopped(Reason::NO_ERROR))), "{sent:?}");
}

#[tokio::test]
async fn a_peer_that_leaves_ends_both_directions() {
    let Stream { mut upload, response, server, request, respond } = stream().await;
    let silent = Parts { frames: VecDeque::new(), ends: false };
    let leaves = async {
        drop((request, respond));
        server.abort();
    };
    let (sent, ()) = tokio::join!(send(&mut upload, silent, None), leaves);
    assert!(matches!(sent, Err(SendError::Lost(_) | SendError::Stopped(_))), "{sent:?}");
    assert!(response.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up() {
    let Stream { mut upload, mut request, server: _server, .. } = stream().await;
    let sent = send(&mut upload, parts([data(2 * WINDOW)]), None).await;
    assert!(matches!(sent, Err(SendError::Stalled)), "{sent:?}");
    let error = poll_fn(|cx| request.poll_data(cx)).await;
    let error = match error {
        Some(Err(error)) => error,
        _ => loop {
            match request.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("a cut body must not end"),
            }
        },
    };
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

// spec: SE-20
#[tokio::test]
async fn those_who_wait_for_room_leave_what_the_peer_takes_to_those_who_have_some() {
    let mut connection = Connection::new().await;
    let (full, mut waiting) = (Arc::<Full>::default(), JoinSet::new());
    // Four streams that want all that the connection takes.
    for _ in 0..4 {
        let (response, mut upload, request, respond) = connection.open().await;
        let full = Arc::clone(&full);
        waiting.spawn(async move {
            let _kept = (response, request, respond);
            let body = pin!(parts([data(WINDOW)]));
            send_body_through(&full, &mut upload, body, &Terms { stall_timeout: None, ..terms(None) }).await
        });
    }
    let (_response, mut upload, request, _respond) = connection.open().await;
    let _server = connection.run();
    let (sent, (length, _, _)) =
        tokio::join!(send(&mut upload, parts([data(WINDOW / 2)]), None), collect(request, None));
    assert!(sent.is_ok() && length == WINDOW / 2, "{sent:?}, {length}");
    assert!(waiting.try_join_next().is_none());
}

#[tokio::test]
async fn whoever_has_room_at_last_and_finds_the_window_of_all_used_up_sends_no_tiny_frame() {
    let mut connection = Connection::new().await;
    let room = Arc::<Later>::default();
    let (_response, mut upload, mut request, _respond) = connection.open().await;
    let (_other_response, mut other, _unread, _other_respond) = connection.open().await;
    let _server = connection.run();
    let waits = Arc::clone(&room);
    let waiting = tokio::spawn(async move {
        let body = pin!(parts([data(WINDOW)]));
        send_body_through(&waits, &mut upload, body, &Terms { stall_timeout: None, ..terms(None) }).await
    });
    room.asked.notified().await;
    // Another one takes all that is left, and nobody reads it.
    other.reserve_capacity(WINDOW);
    let left = poll_fn(|cx| other.poll_capacity(cx)).await.unwrap().unwrap();
    other.send_data(vec![0; left].into(), false).unwrap();
    room.given.notify_one();
    assert_eq!(request.data().await.unwrap().unwrap().len(), WINDOW - left);
    assert!(WINDOW - left >= 512, "{left}");
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_is_patient_as_long_as_the_peer_takes_what_others_send() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let Stream { mut upload, request: _request, respond: _respond, server: _server, .. } = stream().await;
    let (full, began, terms) = (Arc::<Full>::default(), Instant::now(), terms(None));
    let body = pin!(parts([data(1)]));
    let sends = send_body_through(&full, &mut upload, body, &terms);
    let takes = async {
        for _ in 0..4 {
            sleep(PATIENCE * 4 / 5).await;
            full.written.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (sent, ()) = tokio::join!(sends, takes);
    assert!(matches!(sent, Err(SendError::Stalled)), "{sent:?}");
    // The last piece was taken in the fourth time of patience, and none in the fifth.
    assert_eq!(began.elapsed(), 5 * PATIENCE);
}

#[tokio::test]
async fn a_body_of_another_length_than_declared_is_cut_by_its_sender() {
    for (declared, pieces) in [(5, [3, 3]), (7, [3, 3])] {
        let Stream { mut upload, request, server: _server, .. } = stream().await;
        let sent = send(&mut upload, parts(pieces.map(data)), Some(declared)).await;
        assert!(matches!(sent, Err(SendError::Length)), "{sent:?}");
        let (length, _, error) = collect(request, None).await;
        assert!(length as u64 <= declared, "{length}");
        assert!(matches!(error, Some(RecvError::Stopped(Reason::INTERNAL_ERROR))), "{error:?}");
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_declared_is_told_to_its_reader() {
    for (declared, handed_on) in [(5, 0), (7, 6)] {
        let Stream { mut upload, request, server: _server, .. } = stream().await;
        send(&mut upload, parts([data(6)]), None).await.unwrap();
        let (length, _, error) = collect(request, Some(declared)).await;
        assert!(matches!(error, Some(RecvError::Length)), "{error:?}");
        assert_eq!(length, handed_on);
    }
}

#[tokio::test]
async fn a_source_that_fails_resets_with_the_code_of_the_caller() {
    let Stream { mut upload, request, response: _response, server: _server, .. } = stream().await;
    let sent = send(&mut upload, parts([data(1), Err("cut".into())]), None).await;
    assert!(matches!(sent, Err(SendError::Source(_))), "{sent:?}");
    let (_, _, error) = collect(request, None).await;
    assert!(matches!(error, Some(RecvError::Stopped(Reason::CANCEL))), "{error:?}");
}

// spec: ST-24
#[tokio::test]
async fn trailers_that_break_the_rules_are_refused() {
    for name in ["host", "content-length"] {
        let Stream { mut upload, request, server: _server, .. } = stream().await;
        upload.send_trailers(fields(name)).unwrap();
        let (_, _, error) = collect(request, None).await;
        assert!(matches!(error, Some(RecvError::Trailers(Violation::ConnectionField))), "{name}: {error:?}");
    }
}

/// Why there is no response.
#[derive(Debug)]
enum NoHead {
    Http2,
    Flood,
    Refused,
}

impl From<h2::Error> for NoHead {
    fn from(_: h2::Error) -> Self {
        Self::Http2
    }
}

impl From<Flood> for NoHead {
    fn from(_: Flood) -> Self {
        Self::Flood
    }
}

fn early(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

/// The interim responses that came, and what ended the wait.
async fn head(mut response: ResponseFuture) -> (Vec<u16>, Result<u16, NoHead>) {
    let mut told = Vec::new();
    let head = final_head(&mut response, |early| {
        told.push(early.status().as_u16());
        if early.status() == 101 { Err(NoHead::Refused) } else { Ok(()) }
    });
    let head = head.await.map(|head| head.status().as_u16());
    (told, head)
}

#[tokio::test]
async fn interim_heads_come_before_the_final_one_and_may_be_refused() {
    let Stream { response, mut respond, server: _server, .. } = stream().await;
    respond.send_informational(early(103)).unwrap();
    respond.send_informational(early(100)).unwrap();
    respond.send_response(early(200), true).unwrap();
    assert!(matches!(head(response).await, (told, Ok(200)) if told == [103, 100]));

    let Stream { response, mut respond, server: _server, .. } = stream().await;
    respond.send_informational(early(101)).unwrap();
    assert!(matches!(head(response).await, (_, Err(NoHead::Refused))));
    respond.send_reset(Reason::CANCEL);

    let Stream { response, mut respond, server: _server, .. } = stream().await;
    respond.send_reset(Reason::CANCEL);
    assert!(matches!(head(response).await, (_, Err(NoHead::Http2))));
}

#[tokio::test]
async fn interim_heads_without_end_end_the_wait() {
    let Stream { response, mut respond, server: _server, .. } = stream().await;
    let floods = async {
        for _ in 0..2 * MAX_READ {
            if respond.send_informational(early(103)).is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let ((told, head), ()) = tokio::join!(head(response), floods);
    assert!(matches!(head, Err(NoHead::Flood)), "{head:?}");
    assert_eq!(told.len(), MAX_READ);
}
