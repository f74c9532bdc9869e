//! One exchange on a stream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{DATE, EXPECT, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use tokio::time::timeout;

use super::Incoming;
use crate::egress::answer::{rejection, unwritable};
use crate::egress::{ExchangeService, RequestBody, Serving};
use crate::message::BoxError;
use crate::message::interim::Informational;
use crate::message::validate::{self, Violation};

/// Serves one request. Ends, and drops the service's work, as soon as the stream is reset.
pub(super) async fn exchange<S: ExchangeService>(
    serving: Arc<Serving<S>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let is_head = request.method() == Method::HEAD;
    let informational = Informational::new(true);
    let request = match admit(request, &serving, &informational) {
        Ok(request) => request,
        Err(violation) => {
            tracing::debug!(%violation, remote = %serving.info.remote, "a request is rejected");
            return conclude(respond, rejection(violation));
        }
    };
    let Ok(response) = answer(serving.service.call(request), &informational, &mut respond).await else { return };
    for early in informational.close() {
        send_informational(&mut respond, early);
    }
    deliver(response, respond, is_head, serving.settings.send_timeout).await;
}

/// The other end has reset the stream or left.
#[derive(Debug)]
struct Gone;

/// What ends a response before its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the other end is gone")]
    Gone,
    #[error("the other end takes nothing")]
    Stalled,
    #[error("the response body failed")]
    Body(#[source] BoxError),
    #[error("the response body differs from its announced length")]
    Length,
}

impl From<h2::Error> for Failure {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

fn admit<S>(
    request: Request<RecvStream>,
    serving: &Serving<S>,
    informational: &Informational,
) -> Result<Request<RequestBody>, Violation> {
    let (mut parts, stream) = request.into_parts();
    let max_fields = serving.settings.max_head_fields;
    let length = validate::http2_request(&mut parts, max_fields)?;
    let expectation = parts.headers.remove(EXPECT);
    if expectation.as_ref().is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Violation::Expectation);
    }
    let body = match (stream.is_end_stream(), expectation) {
        (true, _) => RequestBody::empty(),
        (false, None) => RequestBody::http2(Incoming::new(stream, length, max_fields)),
        (false, Some(_)) => {
            RequestBody::http2(Incoming::new(stream, length, max_fields)).expecting(informational.sink().clone())
        }
    };
    parts.extensions.insert(serving.info.clone());
    parts.extensions.insert(informational.sink().clone());
    Ok(Request::from_parts(parts, body))
}

async fn answer<F: Future>(
    call: F,
    informational: &Informational,
    respond: &mut SendResponse<Bytes>,
) -> Result<F::Output, Gone> {
    let mut call = pin!(call);
    poll_fn(|cx| {
        if let Poll::Ready(response) = call.as_mut().poll(cx) {
            return Poll::Ready(Ok(response));
        }
        while let Poll::Ready(early) = informational.poll_next(cx) {
            send_informational(respond, early);
        }
        respond.poll_reset(cx).map(|_| Err(Gone))
    })
    .await
}

fn send_informational(respond: &mut SendResponse<Bytes>, mut early: Response<()>) {
    strip(early.headers_mut());
    // It can only fail when the stream is gone, which whoever waits for the reset is told.
    let _ = respond.send_informational(early);
}

/// Sends an answer of our own.
fn conclude(mut respond: SendResponse<Bytes>, response: Response<Bytes>) {
    let (parts, body) = response.into_parts();
    if let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), false) {
        // A stream that is gone needs no answer.
        let _ = stream.send_data(body, true);
    }
}

async fn deliver<B>(response: Response<B>, mut respond: SendResponse<Bytes>, is_head: bool, patience: Duration)
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (mut parts, body) = response.into_parts();
    let Ok(declared) = validate::content_length(&parts.headers) else { return conclude(respond, unwritable()) };
    if parts.status.is_informational() {
        return conclude(respond, unwritable());
    }
    let bodyless = is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let ended = bodyless || (body.is_end_stream() && declared.unwrap_or(0) == 0);
    parts.version = Version::HTTP_2;
    strip(&mut parts.headers);
    parts.headers.entry(DATE).or_insert_with(date);
    let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), ended) else { return };
    if ended {
        return;
    }
    if let Err(failure) = copy(body, declared, &mut stream, patience).await {
        tracing::debug!(error = &failure as &dyn std::error::Error, "a response is cut off");
        stream.send_reset(Reason::INTERNAL_ERROR);
    }
}

async fn copy<B>(
    body: B,
    mut remaining: Option<u64>,
    stream: &mut SendStream<Bytes>,
    patience: Duration,
) -> Result<(), Failure>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (mut body, mut trailers) = (pin!(body), None);
    while let Some(frame) = next_frame(body.as_mut(), stream).await? {
        match frame.into_data() {
            Ok(data) => {
                remaining = count(remaining, data.len())?;
                let last = trailers.is_none() && remaining.unwrap_or(0) == 0 && body.is_end_stream();
                send_data(data, last, stream, patience).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if remaining.unwrap_or(0) > 0 {
        return Err(Failure::Length);
    }
    match trailers {
        Some(mut trailers) => {
            strip(&mut trailers);
            stream.send_trailers(trailers)?;
        }
        None => stream.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

fn count(remaining: Option<u64>, length: usize) -> Result<Option<u64>, Failure> {
    remaining.map(|remaining| remaining.checked_sub(length as u64).ok_or(Failure::Length)).transpose()
}

async fn next_frame<B>(mut body: Pin<&mut B>, stream: &mut SendStream<Bytes>) -> Result<Option<Frame<Bytes>>, Failure>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    poll_fn(|cx| match body.as_mut().poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(|error| Failure::Body(error.into()))),
        Poll::Pending => stream.poll_reset(cx).map(|_| Err(Failure::Gone)),
    })
    .await
}

/// Hands data over as the window of the other end allows, so that no more than a window is buffered.
async fn send_data(
    mut data: Bytes,
    last: bool,
    stream: &mut SendStream<Bytes>,
    patience: Duration,
) -> Result<(), Failure> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match stream.capacity() {
            0 => timeout(patience, capacity(stream)).await.map_err(|_| Failure::Stalled)??,
            granted => granted,
        };
        let piece = data.split_to(granted.min(data.len()));
        stream.send_data(piece, last && data.is_empty())?;
    }
    Ok(())
}

async fn capacity(stream: &mut SendStream<Bytes>) -> Result<usize, Failure> {
    loop {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(0)) => {}
            Some(Ok(granted)) => return Ok(granted),
            Some(Err(_)) | None => return Err(Failure::Gone),
        }
    }
}

/// Connection-specific fields do not exist in HTTP/2.
fn strip(fields: &mut HeaderMap) {
    let mut forbidden = Vec::new();
    forbidden.extend(fields.keys().filter(|name| validate::is_connection_specific(name) || **name == TE).cloned());
    forbidden.iter().for_each(|name: &HeaderName| drop(fields.remove(name)));
}

fn date() -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())).expect("an HTTP date is printable ASCII")
}
