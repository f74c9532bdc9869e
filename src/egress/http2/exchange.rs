//! One exchange on a stream.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::DATE;
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Piece};
use crate::egress::answer::{rejection, unwritable};
use crate::egress::date::DateCache;
use crate::egress::gate::{Gate, Passed, RESETS_BURST, RESETS_PER_SECOND};
use crate::egress::{Context, ExchangeService, RequestBody, Serving, advertise};
use crate::message::BoxError;
use crate::message::connect;
use crate::message::fields::{self, FieldRules, strip_hop_by_hop};
use crate::message::grpc;
use crate::message::h2::recv::StreamBody;
use crate::message::h2::send::{ANY_TRAILERS, OnCut, Terms, send_body_through};
use crate::message::h2::small::{Inflow, SmallFrames};
use crate::message::interim::{InformationalSink, Queue};
use crate::message::length;
use crate::message::upgrade::Protocol;
use crate::message::validate;
use crate::message::violation::Violation;
use crate::protocol::allowance::Allowance;
use crate::protocol::budgets::RAW_PATIENCE;

/// A connection, what waits on it, and what waits to begin.
pub(super) struct Served<S> {
    pub(super) serving: Serving<S>,
    pub(super) budget: Arc<Budget>,
    gate: Gate,
    /// What is known of small frames below HTTP/2.
    small_frames: Arc<SmallFrames>,
    /// What requests that are given up before they are answered are paid from.
    resets: Mutex<Allowance>,
    /// There were too many of them.
    pub(super) flood: CancellationToken,
}

impl<S> Served<S> {
    pub(super) fn new(serving: Serving<S>, budget: Arc<Budget>, small_frames: Arc<SmallFrames>) -> Self {
        let resets = Mutex::new(Allowance::new(Instant::now(), RESETS_BURST, RESETS_PER_SECOND));
        Self { serving, budget, gate: Gate::new(), small_frames, resets, flood: CancellationToken::new() }
    }

    /// Counts a request that its client gave up before it was answered.
    fn given_up(&self) {
        let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
        if !resets.spend(1, Instant::now) {
            self.flood.cancel();
        }
    }
}

/// Serves one request. Ends, and drops the service's work, as soon as the stream is reset.
pub(super) async fn exchange<S: ExchangeService>(
    served: Arc<Served<S>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Piece>,
) {
    let serving = &served.serving;
    let kind = Kind::of(&request);
    let is_call = grpc::has_call(request.method(), request.headers());
    let informational = Arc::new(Queue::new(true));
    let (request, upload) = match admit(request, &served) {
        Ok(admitted) => admitted,
        Err(violation) => {
            serving.service.refused(&serving.info, Some(Version::HTTP_2), violation);
            tracing::debug!(%violation, remote = %serving.info.remote, "a request is rejected");
            return conclude(respond, rejection(violation, is_call), &served.budget);
        }
    };
    let Ok(mut passed) = begin(&served, &mut respond).await else { return served.given_up() };
    let context =
        Context { connection: serving.info.clone(), interim: InformationalSink::from(Arc::clone(&informational)) };
    let Ok(response) = answer(serving.service.call(request, context), &informational, &mut respond).await else {
        return served.given_up();
    };
    passed.answer();
    for early in informational.close() {
        send_informational(&mut respond, early);
    }
    let goes_on = response.status().is_success();
    deliver(response, respond, kind, &served).await;
    if let Some(upload) = upload.filter(|_| goes_on) {
        // Until then the connection is not idle.
        upload.cancelled().await;
    }
}

/// What a request says of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has no body.
    Head,
    /// Where it is 2xx, bytes both ways.
    Connect,
    /// Likewise, in another protocol.
    Switch,
    Other,
}

impl Kind {
    fn of<B>(request: &Request<B>) -> Self {
        match *request.method() {
            Method::HEAD => Self::Head,
            Method::CONNECT if request.extensions().get::<h2::ext::Protocol>().is_none() => Self::Connect,
            Method::CONNECT => Self::Switch,
            _ => Self::Other,
        }
    }
}

/// The other end has reset the stream or left.
#[derive(Debug)]
struct Gone;

/// Waits until another exchange of the connection may begin.
async fn begin<'a, S>(served: &'a Served<S>, respond: &mut SendResponse<Piece>) -> Result<Passed<'a>, Gone> {
    if let Some(turn) = served.serving.info.turn() {
        let mut turn = pin!(turn);
        let waits = poll_fn(|cx| match turn.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => respond.poll_reset(cx).map(|_| Err(Gone)),
        });
        waits.await?;
    }
    if let Some(passed) = served.gate.try_pass() {
        return Ok(passed);
    }
    // Boxed: it is rare, and in the way of every exchange.
    let mut turn = Box::pin(served.gate.pass(|| served.budget.is_full()));
    poll_fn(|cx| match turn.as_mut().poll(cx) {
        Poll::Ready(passed) => Poll::Ready(Ok(passed)),
        Poll::Pending => respond.poll_reset(cx).map(|_| Err(Gone)),
    })
    .await
}

/// A request in the shape that requests of every version have. Of one that may go on in both directions the second says when
/// its body is over, or nobody reads it any more.
type Admitted = (Request<RequestBody>, Option<CancellationToken>);

fn admit<S: ExchangeService>(mut request: Request<RecvStream>, served: &Served<S>) -> Result<Admitted, Violation> {
    let serving = &served.serving;
    let has_body = !request.body().is_end_stream();
    validate::expects_continue(&mut request, has_body)?;
    let (mut parts, stream) = request.into_parts();
    if let Some(asked) = parts.extensions.remove::<h2::ext::Protocol>() {
        // spec: ST-15
        parts.extensions.insert(Protocol::new(asked.as_str()).ok_or(Violation::Upgrade)?);
    }
    let (max_bytes, max_fields) = serving.head_bounds();
    let scheme = if serving.info.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let length = validate::http2_request(&mut parts, &scheme, max_fields)?;
    if connect::is_plain(&parts) && !serving.service.takes_connect() {
        return Err(Violation::Connect);
    }
    if !has_body {
        return Ok((Request::from_parts(parts, RequestBody::empty()), None));
    }
    let rules = FieldRules { max_fields, max_bytes, forbids: fields::is_forbidden_in_any_trailers };
    let stream = Inflow::new(stream, &served.small_frames);
    let body = RequestBody::http2(StreamBody::new(stream, length, rules));
    let over = (parts.method == Method::CONNECT).then(CancellationToken::new);
    let body = match &over {
        Some(over) => body.telling(over.clone()),
        None => body,
    };
    Ok((Request::from_parts(parts, body), over))
}

async fn answer<F: Future>(
    call: F,
    informational: &Queue,
    respond: &mut SendResponse<Piece>,
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

fn send_informational(respond: &mut SendResponse<Piece>, early: Response<()>) {
    // It can only fail when the stream is gone, which whoever waits for the reset is told.
    let _ = respond.send_informational(early);
}

/// Sends an answer of our own.
fn conclude(mut respond: SendResponse<Piece>, response: Response<Bytes>, budget: &Arc<Budget>) {
    let (parts, body) = response.into_parts();
    if let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), false) {
        // A stream that is gone needs no answer.
        let _ = stream.send_data(budget.put_at_once(body), true);
    }
}

async fn deliver<B, S>(response: Response<B>, mut respond: SendResponse<Piece>, kind: Kind, served: &Served<S>)
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let Served { serving, budget, .. } = served;
    let (mut parts, body) = response.into_parts();
    let Ok(declared) = length::content_length(&parts.headers) else {
        return conclude(respond, unwritable(), budget);
    };
    if parts.status.is_informational() {
        return conclude(respond, unwritable(), budget);
    }
    let bodyless = kind == Kind::Head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let ended = bodyless || (body.is_end_stream() && declared.unwrap_or(0) == 0);
    parts.version = Version::HTTP_2;
    strip_hop_by_hop(&mut parts.headers);
    length::strip_where_none(parts.status, &mut parts.headers);
    parts.headers.entry(DATE).or_insert_with(|| DateCache::new().now().clone());
    advertise(serving.alternative.as_ref(), &serving.end.leaving, &mut parts.headers);
    let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), ended) else { return };
    if ended {
        return;
    }
    let send_timeout = serving.settings.send_timeout;
    let (stall_timeout, reason): (_, fn(&_) -> _) = match kind {
        // RFC 9113 section 8.5
        Kind::Connect => (send_timeout.max(RAW_PATIENCE), |_| Reason::CONNECT_ERROR),
        Kind::Switch => (send_timeout.max(RAW_PATIENCE), |_| Reason::INTERNAL_ERROR),
        Kind::Head | Kind::Other => (send_timeout, |_| Reason::INTERNAL_ERROR),
    };
    let terms = Terms {
        declared,
        stall_timeout: Some(stall_timeout),
        max_trailers: ANY_TRAILERS,
        reset: reason,
        on_cut: OnCut::Deliver,
    };
    if let Err(failure) = send_body_through(budget, &mut stream, pin!(body), &terms).await {
        tracing::debug!(error = &failure as &dyn std::error::Error, "a response is cut off");
    }
}
