//! One exchange on a stream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, ConnectionError, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::DATE;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::timeout;

use super::body::StreamBody;
use super::datagrams::{Arrived, Leaving};
use super::early::Early;
use super::link::{Arrival, Link, Side, Stopped};
use super::quic::Quic;
use super::stream::{Receiving, Sending};
use super::window::QUIET;
use crate::egress::answer::{rejection, unwritable};
use crate::egress::date::DateCache;
use crate::egress::gate::{Gate, Passed};
use crate::egress::{Context, ExchangeService, RequestBody, Serving};
use crate::message::BoxError;
use crate::message::connect;
use crate::message::fields::EARLY_DATA;
use crate::message::fields::{self, FieldRules, strip_hop_by_hop};
use crate::message::forward::IN_EARLY_DATA;
use crate::message::grpc;
use crate::message::h3::request::Head;
use crate::message::interim::{InformationalSink, Queue};
use crate::message::length;
use crate::message::pieces::poll_gathered;
use crate::message::upgrade::Protocol;
use crate::message::validate;
use crate::message::violation::{ErrorCode, Violation};
use crate::net::SendRoom;
use crate::protocol::budgets::RAW_PATIENCE;

/// The most of a body that is handed to QUIC at once: what of it a stalled client takes is progress.
const PIECE: usize = 64 * 1024;
/// How long a request that has no body by its method and head is waited for to say so. Most say it with the head.
const END_OF_REQUEST: Duration = Duration::from_millis(200);

type Reply = RequestStream<Sending, Bytes>;

/// A connection, and what its streams share.
pub(super) struct Served<S> {
    pub(super) serving: Serving<S>,
    pub(super) quic: quinn::Connection,
    pub(super) link: Arc<Link>,
    /// Where early data is taken.
    pub(super) early: Option<Arc<Early>>,
    pub(super) gate: Gate,
}

impl<S> Served<S> {
    /// A QUIC datagram has come; what is for nobody costs as much as a frame.
    pub(super) fn take(&self, datagram: Bytes) {
        match self.link.takers.arrived(datagram) {
            Ok(true) => {}
            Ok(false) => self.link.count_control(1),
            Err(error) => self.link.close(Code::H3_DATAGRAM_ERROR, &error.to_string()),
        }
    }
}

/// How an exchange ended, as far as its connection cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    /// Before a response began its client gave it up; or it was no request.
    GivenUp,
}

/// Why a response was not sent to its end.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the client stopped the stream, or is gone")]
    Stopped,
    #[error("the client takes nothing")]
    Stalled,
    #[error("the body failed at its source: {0}")]
    Source(#[source] BoxError),
    #[error("the body differs from its declared length")]
    Length,
    #[error("HTTP/3 does not take the response: {0}")]
    Refused(#[source] StreamError),
}

impl From<StreamError> for SendError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::RemoteTerminate { .. } | StreamError::ConnectionError { .. } => Self::Stopped,
            other => Self::Refused(other),
        }
    }
}

/// Serves one request. Ends, and drops the service's work, as soon as the client stops the stream.
pub(super) async fn exchange<S: ExchangeService>(
    served: Arc<Served<S>>,
    resolver: RequestResolver<Quic, Bytes>,
    arrival: Arrival,
) {
    let side = Arc::clone(&arrival.side);
    if Box::pin(serve(&served, resolver, arrival)).await == End::GivenUp {
        served.link.count_reset(&side);
    }
}

async fn serve<S: ExchangeService>(
    served: &Served<S>,
    resolver: RequestResolver<Quic, Bytes>,
    arrival: Arrival,
) -> End {
    let Arrival { stream: id, side, stopped } = arrival;
    let serving = &served.serving;
    let mut resolving = Resolving { served, side: &side, is_done: false };
    let resolved = timeout(serving.settings.head_timeout, resolver.resolve_request()).await;
    resolving.is_done = true;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => return refused_by_h3(served, &side, &error),
        Err(_) => {
            refuse(serving, Violation::HeadTimeout);
            return End::GivenUp;
        }
    };
    side.serve();
    let (send, recv) = stream.split();
    let is_call = grpc::has_call(request.method(), request.headers());
    let (is_head, is_connect) = (request.method() == Method::HEAD, request.method() == Method::CONNECT);
    let (cut, send_timeout) = (cut(&side, is_connect), serving.settings.send_timeout);
    let stall = if is_connect { send_timeout.max(RAW_PATIENCE) } else { send_timeout };
    // Before anything else is waited for: they may come right behind the head.
    let (arrived, leaving) = match takes_datagrams(&side) {
        true => (Some(served.link.takers.of(id)), Some(Leaving::new(&served.link.takers, id))),
        false => (None, None),
    };
    let room = Arc::clone(&served.link.send_room);
    let mut reply = Replying { send, room, side: Arc::clone(&side), stopped, stall, cut, leaving };
    // By now all of its head has come.
    let is_early = served.early.as_ref().is_some_and(|early| early.has(id));
    let admitted = admit(request, (recv, arrived), &side, serving).await;
    let request = match admitted.and_then(|request| if is_early { mark_early(request) } else { Ok(request) }) {
        Ok(request) => request,
        Err(violation) => {
            refuse(serving, violation);
            reply.conclude(rejection(violation, is_call)).await;
            return End::Answered;
        }
    };
    let Ok(mut passed) = reply.begin(served).await else { return End::GivenUp };
    let informational = Arc::new(Queue::new(true));
    let context =
        Context { connection: serving.info.clone(), interim: InformationalSink::from(Arc::clone(&informational)) };
    let Ok(response) = reply.answer(serving.service.call(request, context), &informational).await else {
        return End::GivenUp;
    };
    side.answer();
    passed.answer();
    // Until all of it was acknowledged.
    let _sends = served.link.sends();
    for early in informational.close() {
        let _ = reply.head(early).await;
    }
    let is_switch = is_connect && response.status().is_success();
    if let Err(failure) = reply.deliver(response, is_head, &served.link).await {
        tracing::debug!(error = &failure as &dyn std::error::Error, "a response is cut off");
    } else if is_switch {
        // Each direction ends by itself. spec: ST-25
        side.released().await;
    }
    End::Answered
}

fn refuse<S: ExchangeService>(serving: &Serving<S>, violation: Violation) {
    serving.service.refused(&serving.info, Some(Version::HTTP_3), violation);
    tracing::debug!(%violation, remote = %serving.info.remote, "a request is rejected");
}

/// A request whose head is not whole. Its connection may be gone before it is asked again.
struct Resolving<'a, S: ExchangeService> {
    served: &'a Served<S>,
    side: &'a Side,
    is_done: bool,
}

impl<S: ExchangeService> Drop for Resolving<'_, S> {
    fn drop(&mut self) {
        if !self.is_done {
            head_cut(self.served, self.side);
        }
    }
}

/// The client has gone, perhaps before the head was whole.
fn head_cut<S: ExchangeService>(served: &Served<S>, side: &Side) {
    if side.head().is_none() && served.link.fault().is_none() {
        refuse(&served.serving, Violation::HeadCut);
    }
}

/// What `h3` did not hand out, it has answered or reset.
fn refused_by_h3<S: ExchangeService>(served: &Served<S>, side: &Side, error: &StreamError) -> End {
    let serving = &served.serving;
    match error {
        // That is told of the connection, once.
        _ if served.link.fault().is_some() => {}
        StreamError::ConnectionError { 0: ConnectionError::Local { .. }, .. } => {}
        StreamError::HeaderTooBig { .. } => refuse(serving, Violation::HeadTooLarge),
        StreamError::StreamError { code, .. } => refuse(serving, Violation::Reset(ErrorCode::Http3(code.value()))),
        // A reset takes away what was on its way, which may have been all of the head.
        StreamError::RemoteTerminate { .. } => refuse(serving, Violation::HeadCut),
        StreamError::ConnectionError { .. } => head_cut(served, side),
        // The stream was stopped by the watcher.
        _ if side.is_overloaded() => {
            refuse(serving, Violation::Reset(ErrorCode::Http3(Code::H3_EXCESSIVE_LOAD.value())))
        }
        error => tracing::debug!(%error, remote = %serving.info.remote, "a stream without a request"),
    }
    End::GivenUp
}

/// The code that tells a client that a response is cut. RFC 9114 section 4.4, RFC 9220 section 3
fn cut(side: &Side, is_connect: bool) -> Code {
    match side.head() {
        Some(Head::Good { protocol: Some(_) }) => Code::H3_REQUEST_CANCELLED,
        _ if is_connect => Code::H3_CONNECT_ERROR,
        _ => Code::H3_INTERNAL_ERROR,
    }
}

/// Whether a request asks for datagrams, which may come and go beside its stream. RFC 9298 section 3.4
fn takes_datagrams(side: &Side) -> bool {
    matches!(side.head(), Some(Head::Good { protocol: Some(asked) }) if asked.eq_ignore_ascii_case(b"connect-udp"))
}

/// Brings a request into the shape that requests of every version have, or says which rule it breaks.
async fn admit<S: ExchangeService>(
    mut request: Request<()>,
    (recv, arrived): (RequestStream<Receiving, Bytes>, Option<Arrived>),
    side: &Arc<Side>,
    serving: &Serving<S>,
) -> Result<Request<RequestBody>, Violation> {
    match side.head() {
        Some(Head::Refused(violation)) => return Err(*violation),
        // Kept from `h3`, which knows two names of protocols and takes any other for an error. spec: ST-15
        Some(Head::Good { protocol: Some(asked) }) => {
            let protocol = str::from_utf8(asked).ok().and_then(Protocol::new).ok_or(Violation::Upgrade)?;
            request.extensions_mut().insert(protocol);
        }
        Some(Head::Good { protocol: None }) => {}
        // Nobody has judged it.
        None => return Err(Violation::Syntax),
    }
    let (max_bytes, max_fields) = serving.head_bounds();
    let rules = FieldRules { max_fields, max_bytes, forbids: fields::is_forbidden_in_any_trailers };
    let mut body = StreamBody::new(recv, Arc::clone(side), rules);
    body.beside(arrived);
    let has_body = !is_empty(&mut body, &request).await;
    validate::expects_continue(&mut request, has_body)?;
    let (mut parts, ()) = request.into_parts();
    let declared = validate::http2_request(&mut parts, &Scheme::HTTPS, max_fields)?;
    if connect::is_plain(&parts) && !serving.service.takes_connect() {
        return Err(Violation::Connect);
    }
    body.declare(declared);
    if !has_body && declared.unwrap_or(0) > 0 {
        return Err(Violation::ContentLength);
    }
    Ok(Request::from_parts(parts, if has_body { RequestBody::http3(body) } else { RequestBody::empty() }))
}

/// A request that somebody else may send again is marked, or not taken. RFC 8470 sections 4 and 5.1
fn mark_early(mut request: Request<RequestBody>) -> Result<Request<RequestBody>, Violation> {
    if !request.method().is_safe() {
        return Err(Violation::TooEarly);
    }
    request.headers_mut().insert(EARLY_DATA, IN_EARLY_DATA);
    Ok(request)
}

/// Whether there is no body. The end of the stream says so, which may come behind the head.
async fn is_empty(body: &mut StreamBody, request: &Request<()>) -> bool {
    let mut begins = pin!(poll_fn(|cx| body.poll_begin(cx)));
    let at_once = poll_fn(|cx| Poll::Ready(begins.as_mut().poll(cx).is_ready())).await;
    let is_bodyless = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    if !at_once && is_bodyless && !request.headers().contains_key(http::header::CONTENT_LENGTH) {
        // What is not said by then is a body.
        let _ = timeout(END_OF_REQUEST, begins).await;
    }
    body.is_empty()
}

/// The sending half of a stream, and what is known of who reads.
struct Replying {
    send: Reply,
    /// What all responses of the connection share.
    room: Arc<SendRoom>,
    side: Arc<Side>,
    stopped: Stopped,
    stall: Duration,
    /// What the stream is reset with if the response is cut.
    cut: Code,
    /// Where the capsules of the response go, if it has some.
    leaving: Option<Leaving>,
}

impl Replying {
    /// Waits until another exchange of the connection may begin.
    async fn begin<'a, S>(&mut self, served: &'a Served<S>) -> Result<Passed<'a>, SendError> {
        if let Some(turn) = served.serving.info.turn() {
            let mut turn = pin!(turn);
            let waits = poll_fn(|cx| match turn.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => self.stopped.as_mut().poll(cx).map(|_| Err(SendError::Stopped)),
            });
            waits.await?;
        }
        if let Some(passed) = served.gate.try_pass() {
            return Ok(passed);
        }
        // Boxed: it is rare, and in the way of every exchange.
        let mut turn = Box::pin(served.gate.pass(|| served.link.is_full()));
        poll_fn(|cx| match turn.as_mut().poll(cx) {
            Poll::Ready(passed) => Poll::Ready(Ok(passed)),
            Poll::Pending => self.stopped.as_mut().poll(cx).map(|_| Err(SendError::Stopped)),
        })
        .await
    }

    /// Waits for the response and passes on what is said before it.
    async fn answer<F: Future>(&mut self, call: F, informational: &Queue) -> Result<F::Output, SendError> {
        let mut call = pin!(call);
        loop {
            let early = poll_fn(|cx| {
                if let Poll::Ready(response) = call.as_mut().poll(cx) {
                    return Poll::Ready(Ok(Err(response)));
                }
                if let Poll::Ready(early) = informational.poll_next(cx) {
                    return Poll::Ready(Ok(Ok(early)));
                }
                self.stopped.as_mut().poll(cx).map(|_| Err(SendError::Stopped))
            });
            match early.await? {
                Err(response) => return Ok(response),
                Ok(early) => self.head(early).await?,
            }
        }
    }

    async fn head(&mut self, head: Response<()>) -> Result<(), SendError> {
        let sent = timeout(self.stall, self.send.send_response(head)).await;
        sent.map_err(|_| SendError::Stalled)?.map_err(SendError::from)
    }

    /// Sends an answer of our own.
    async fn conclude(&mut self, response: Response<Bytes>) {
        let (parts, body) = response.into_parts();
        let sent = async {
            self.head(Response::from_parts(parts, ())).await?;
            self.data(body).await?;
            self.finish().await
        };
        if let Err(error) = sent.await {
            tracing::debug!(%error, "an answer is cut off");
        }
    }

    async fn deliver<B>(&mut self, response: Response<B>, is_head: bool, link: &Link) -> Result<(), SendError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (mut parts, body) = response.into_parts();
        let declared = match length::content_length(&parts.headers) {
            Ok(declared) if !parts.status.is_informational() => declared,
            _ => {
                self.conclude(unwritable()).await;
                return Ok(());
            }
        };
        let bodyless = is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let ended = bodyless || (body.is_end_stream() && declared.unwrap_or(0) == 0);
        self.leaving = self.leaving.take().filter(|_| parts.status.is_success());
        strip_hop_by_hop(&mut parts.headers);
        length::strip_where_none(parts.status, &mut parts.headers);
        parts.headers.entry(DATE).or_insert_with(|| DateCache::new().now().clone());
        match self.head(Response::from_parts(parts, ())).await {
            Err(SendError::Refused(_)) => {
                self.conclude(unwritable()).await;
                return Ok(());
            }
            sent => sent?,
        }
        if ended {
            return self.finish().await;
        }
        let sent = self.body(pin!(body), declared, link).await;
        if let Err(SendError::Source(_) | SendError::Length) = &sent {
            // Boxed: it is rare.
            Box::pin(self.see_off()).await;
        }
        if let Err(SendError::Source(_) | SendError::Length | SendError::Stalled) = &sent {
            self.send.stop_stream(self.cut);
        }
        sent
    }

    /// Waits until the client has what was written, which a reset would throw away, for as long as one that takes nothing is waited
    /// for. spec: ST-82
    async fn see_off(&mut self) {
        let Self { side, stopped, stall, .. } = self;
        side.sent().gone(Some(*stall), |cx| stopped.as_mut().poll(cx).map(drop)).await;
    }

    /// Sends a body to its end.
    async fn body<B>(&mut self, mut body: Pin<&mut B>, mut remaining: Option<u64>, link: &Link) -> Result<(), SendError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let mut behind = None;
        loop {
            // A body may be silent for long; a client that wants no more must end it all the same.
            let frame = poll_fn(|cx| match poll_gathered(body.as_mut(), &mut behind, cx) {
                Poll::Ready(next) => Poll::Ready(next.map_err(SendError::Source)),
                Poll::Pending => self.stopped.as_mut().poll(cx).map(|_| Err(SendError::Stopped)),
            });
            let frame = if link.has_room_to_give() {
                match timeout(QUIET, frame).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        link.rest();
                        continue;
                    }
                }
            } else {
                frame.await
            };
            let trailers = match frame?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    remaining = count(remaining, data.len())?;
                    let data = match &mut self.leaving {
                        Some(leaving) => leaving.pass(&data).map_err(|error| SendError::Source(error.into()))?,
                        None => data,
                    };
                    self.data(data).await?;
                    continue;
                }
                Some(Err(frame)) => frame.into_trailers().ok(),
                None => None,
            };
            if remaining.unwrap_or(0) > 0 {
                return Err(SendError::Length);
            }
            self.trailers(trailers.unwrap_or_default()).await?;
            return self.finish().await;
        }
    }

    /// Patience of one that waits behind others of its connection begins again with whatever the client takes of those.
    async fn data(&mut self, mut data: Bytes) -> Result<(), SendError> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let mut sending = pin!(self.send.send_data(piece));
            loop {
                let gone = self.room.gone();
                match timeout(self.stall, sending.as_mut()).await {
                    Ok(sent) => break sent?,
                    Err(_) if self.side.is_in_line() && self.room.gone() != gone => {}
                    Err(_) => return Err(SendError::Stalled),
                }
            }
        }
        Ok(())
    }

    async fn trailers(&mut self, mut trailers: HeaderMap) -> Result<(), SendError> {
        fields::strip_from_trailers(&mut trailers);
        if trailers.is_empty() {
            return Ok(());
        }
        let sent = timeout(self.stall, self.send.send_trailers(trailers)).await;
        Ok(sent.map_err(|_| SendError::Stalled)??)
    }

    /// Ends the response, and waits until the client has got all of it: what closes the connection before throws it away. A client
    /// over a slow link is waited for as long as something arrives there.
    async fn finish(&mut self) -> Result<(), SendError> {
        self.send.finish().await?;
        let mut over = None;
        let Self { side, stopped, stall, .. } = self;
        let sent = side.sent();
        let arrived = sent.gone(Some(*stall), |cx| stopped.as_mut().poll(cx).map(|stopped| over = Some(stopped))).await;
        if !arrived && over.is_none() {
            return Err(SendError::Stalled);
        }
        let over = match over {
            Some(over) => over,
            // What is left is that all of it has come to its end.
            None => timeout(self.stall, self.stopped.as_mut()).await.map_err(|_| SendError::Stalled)?,
        };
        match over {
            Ok(None) => Ok(()),
            Ok(_) | Err(_) => Err(SendError::Stopped),
        }
    }
}

/// What remains of the declared length once so many bytes are sent.
fn count(remaining: Option<u64>, length: usize) -> Result<Option<u64>, SendError> {
    remaining.map(|remaining| remaining.checked_sub(length as u64).ok_or(SendError::Length)).transpose()
}
