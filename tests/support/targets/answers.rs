//! What each path of a target does.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::pieces::pieces;
use super::{BoxError, Cancellation, pattern};

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// How much of a generated body is made at a time.
const PIECE: u64 = 16 * 1024;

const SUM: HeaderName = HeaderName::from_static("x-sum");

/// The answer to one request; `cancellation` goes along with its body.
pub(super) async fn answer(
    request: Request<Incoming>,
    cancellation: Cancellation,
) -> Result<Response<Watched>, Infallible> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let response = match parts.as_slice() {
        ["echo"] => echo(request),
        ["request"] => describe(&request),
        ["status", status] => with_status(status.parse().unwrap()),
        ["bytes", count] => bytes(count.parse().unwrap()),
        ["chunks", count, pause] => chunks(count.parse().unwrap(), milliseconds(pause)),
        ["slow", pause] => {
            tokio::time::sleep(milliseconds(pause)).await;
            full("slow\n")
        }
        ["fields", count, length] => with_fields(count.parse().unwrap(), length.parse().unwrap()),
        ["hang"] => std::future::pending().await,
        ["cut", count] => cut(count.parse().unwrap()),
        ["held"] => held(cancellation.seen.released.clone()),
        ["trailers"] => trailers(),
        ["sink"] => sink(request).await,
        _ => full("hello\n"),
    };
    let length = content_length(response.headers());
    Ok(response.map(|body| Watched::new(body, length, cancellation)))
}

fn with_fields(count: usize, length: usize) -> Response<AnyBody> {
    let mut response = full("");
    for number in 0..count {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        response.headers_mut().insert(name, HeaderValue::try_from("v".repeat(length)).unwrap());
    }
    response
}

fn echo(request: Request<Incoming>) -> Response<AnyBody> {
    let kind = request.headers().get(http::header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().map_err(Into::into).boxed_unsync());
    if let Some(kind) = kind {
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    }
    response
}

fn describe(request: &Request<Incoming>) -> Response<AnyBody> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    let description = serde_json::json!({
        "method": request.method().as_str(),
        "uri": request.uri().to_string(),
        "fields": fields,
    });
    full(&description.to_string())
}

fn with_status(status: u16) -> Response<AnyBody> {
    let mut response = full("");
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn bytes(count: u64) -> Response<AnyBody> {
    let (sender, body) = pieces();
    tokio::spawn(async move {
        for at in (0..count).step_by(PIECE as usize) {
            let piece = pattern(at, PIECE.min(count - at));
            if sender.send(Ok(Frame::data(piece.into()))).await.is_err() {
                return;
            }
        }
    });
    sized(body.boxed_unsync(), count)
}

fn chunks(count: u64, pause: Duration) -> Response<AnyBody> {
    let (sender, body) = pieces();
    tokio::spawn(async move {
        for number in 0..count {
            let chunk = format!("chunk {number}\n");
            if sender.send(Ok(Frame::data(chunk.into()))).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    });
    Response::new(body.boxed_unsync())
}

fn cut(count: u64) -> Response<AnyBody> {
    let (sender, body) = pieces();
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data(pattern(0, count).into()))).await;
        let _ = sender.send(Err("broken off, as asked".into())).await;
    });
    sized(body.boxed_unsync(), count * 2)
}

fn held(released: CancellationToken) -> Response<AnyBody> {
    let (sender, body) = pieces();
    tokio::spawn(async move {
        if sender.send(Ok(Frame::data("begun\n".into()))).await.is_ok() {
            released.cancelled().await;
            let _ = sender.send(Ok(Frame::data("ended\n".into()))).await;
        }
    });
    Response::new(body.boxed_unsync())
}

fn trailers() -> Response<AnyBody> {
    let (sender, body) = pieces();
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data("body\n".into()))).await;
        let trailers = HeaderMap::from_iter([(SUM, HeaderValue::from_static("42"))]);
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(http::header::TRAILER, SUM.into());
    response
}

async fn sink(request: Request<Incoming>) -> Response<AnyBody> {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return full(&format!("{length} then {error}")),
        }
    }
    full(&length.to_string())
}

fn full(text: &str) -> Response<AnyBody> {
    let body = Full::from(text.to_owned()).map_err(|error: Infallible| match error {});
    Response::new(body.boxed_unsync())
}

fn sized(body: AnyBody, length: u64) -> Response<AnyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    response
}

fn content_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn milliseconds(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap())
}

/// A body that completes its exchange when it was read to its end.
pub(super) struct Watched {
    body: AnyBody,
    /// What hyper will still ask for: it does not poll a sized body again after its last byte.
    left: u64,
    cancellation: Cancellation,
}

impl Watched {
    fn new(body: AnyBody, length: Option<u64>, mut cancellation: Cancellation) -> Self {
        cancellation.complete = body.is_end_stream() || length == Some(0);
        Self { body, left: length.unwrap_or(u64::MAX), cancellation }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let data = frame.iter().flatten().find_map(|frame| frame.data_ref());
        this.left -= data.map_or(0, |data| data.len() as u64);
        this.cancellation.complete |= frame.is_none() || this.left == 0 || this.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
