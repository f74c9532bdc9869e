//! The responder's side of an HTTP stream over HTTP/2: a request out, a response back.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Frame;
use tokio::time::{sleep, timeout};

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::fields::{field_bytes, strip_hop_by_hop};
use crate::message::h2::head::{Head, poll_head};
use crate::message::h2::recv::StreamBody;
use crate::message::h2::send::OnCut;
use crate::message::h2::small::Inflow;
use crate::message::length::of_tunnelled_response;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::StreamError;
use crate::protocol::tcp::{SERVICE_FIELD, strip_own_fields};
use crate::protocol::wire::Malformed;
use crate::transport::body::RecvBody;
use crate::transport::error::{OpenError, SendError};
use crate::transport::kind::Dialect;
use crate::transport::open::{self, AnswerHead, HeadParts, HttpHead, HttpStream, Upload};
use crate::transport::state::{InFlight, TunnelState};
use crate::transport::tcp::codes::{SOURCE_FAILED, head_rules, lost, reason, send_body, stream_code, trailer_rules};
use crate::transport::tcp::connection::Connection;
use crate::transport::tcp::envoy::websocket::Asked;
use crate::transport::tied::{Answered, Interest, Started, TiedUpload};

impl Connection {
    /// See [`Tunnel::open_http`](crate::transport::Tunnel::open_http).
    pub(crate) async fn open_http(&self, head: HttpHead<'_>) -> Result<HttpStream, OpenError> {
        let in_flight = self.state.begin();
        let HttpHead { service, parts, end } = head;
        self.check_request(service, parts.get())?;
        self.state.ready_to_open().await?;
        let mut sender = self.stream_slot().await?;
        if parts.get().method == Method::CONNECT {
            // Rare, and apart from the future of every exchange.
            Box::pin(self.check_switches(&sender)).await?;
        }
        let to_head = parts.get().method == Method::HEAD;
        let (request, asked) = self.request(service, parts)?;
        let sent = sender.send_request(request, end);
        let (response, stream) = sent.map_err(|error| self.not_sent(&error))?;
        let mut answer = Answer {
            response,
            limits: self.state.heads().takes(),
            in_flight: Some(in_flight),
            to_head,
            asked,
            sent: None,
            upload: TiedUpload::default(),
        };
        let upload = if end {
            answer.sent = Some(stream);
            None
        } else {
            Some(Upload::tcp(HttpUpload { stream, ahead: None, tunnel: Arc::clone(&self.state) }))
        };
        Ok(HttpStream { upload, answer: open::Answer::tcp(answer) })
    }

    fn check_request(&self, service: Option<&ServiceName>, parts: &request::Parts) -> Result<(), OpenError> {
        if parts.uri.authority().is_none() {
            return Err(OpenError::Request("it has no authority"));
        }
        open::asked_protocol(parts)?;
        if service.is_some() && self.dialect == Dialect::Envoy {
            return Err(OpenError::NoNamedServices);
        }
        Ok(())
    }

    /// Whether the other end takes an extended CONNECT. Nothing is known of that before its SETTINGS. spec: TB-7
    async fn check_switches(&self, sender: &SendRequest<Bytes>) -> Result<(), OpenError> {
        match self.dialect {
            _ if sender.is_extended_connect_protocol_enabled() => {}
            Dialect::Adit => self.requests.settled().await.map_err(OpenError::NotSent)?,
            Dialect::Envoy => {
                let enabled = async {
                    while !sender.is_extended_connect_protocol_enabled() {
                        sleep(SETTINGS_INTERVAL).await;
                    }
                };
                // Late is as good as never.
                let _ = timeout(SETTINGS_TIMEOUT, enabled).await;
            }
        }
        if sender.is_extended_connect_protocol_enabled() { Ok(()) } else { Err(OpenError::NoUpgrades) }
    }

    fn request(&self, service: Option<&ServiceName>, mut parts: HeadParts<'_>) -> Result<Asking, OpenError> {
        let mut fields = parts.take_fields();
        let parts = parts.get();
        strip_hop_by_hop(&mut fields);
        fields.remove(HOST);
        // A client must not name a service that its route does not.
        strip_own_fields(&mut fields);
        if let Some(service) = service {
            let name = HeaderValue::from_str(service.as_str()).expect("a service name is visible ASCII");
            fields.insert(SERVICE_FIELD.clone(), name);
        }
        let protocol = open::asked_protocol(parts)?;
        let asked = match self.dialect {
            Dialect::Envoy => Asked::with(protocol, &mut fields),
            Dialect::Adit => None,
        };
        if exceeds(self.state.peer_limits(), parts, &fields) {
            return Err(OpenError::HeadTooLarge);
        }
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(h2::ext::Protocol::from(protocol.as_str()));
        }
        Ok((request, asked))
    }
}

/// A request, and what must come back for it where it asks an Envoy for a WebSocket.
type Asking = (Request<()>, Option<Box<Asked>>);

/// How long an Envoy may take to say what its HTTP/2 can, and how often that is looked at.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
const SETTINGS_INTERVAL: Duration = Duration::from_millis(5);

/// A body up to this long that is here whole is handed to h2 at once, which holds it until the peer's window takes it: it
/// would be held as long by a task.
const SMALL_BODY_BYTES: usize = 16 * 1024;

/// The sending half of a stream.
#[derive(Debug)]
pub(crate) struct HttpUpload {
    stream: SendStream<Bytes>,
    /// What was pulled of the body already.
    ahead: Option<Frame<Bytes>>,
    tunnel: Arc<TunnelState>,
}

impl HttpUpload {
    /// See [`Upload::start`].
    pub(crate) fn start<B>(&mut self, mut body: Pin<&mut B>) -> Started
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        // Whoever goes on polls it again, with a waker.
        let mut cx = Context::from_waker(Waker::noop());
        let data = match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => return Started::Goes,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if body.is_end_stream() && data.len() <= SMALL_BODY_BYTES => data,
                Ok(data) => return self.goes(Frame::data(data)),
                Err(frame) => return self.goes(frame),
            },
            Poll::Ready(None) => Bytes::new(),
            Poll::Ready(Some(Err(_))) => {
                self.stream.send_reset(SOURCE_FAILED);
                return Started::Done;
            }
        };
        // A stream that is gone tells whoever waits for the answer.
        let _ = self.stream.send_data(data, true);
        Started::Done
    }

    fn goes(&mut self, frame: Frame<Bytes>) -> Started {
        self.ahead = Some(frame);
        Started::Goes
    }

    /// See [`Upload::send`].
    pub(crate) async fn send<B>(self, body: B, interest: Interest) -> Result<(), SendError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Self { mut stream, ahead, tunnel } = self;
        // A client that vanished wants nothing any more.
        let body = pin!(Continued { ahead, body: pin!(body) });
        let left = async {
            if interest.ends().await == Answered::Whole {
                // The stream itself tells, also while the body is silent.
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            sent = send_body(&mut stream, tunnel, body, OnCut::Discard) => sent,
            () = left => Err(SendError::Stopped(StreamCode::Cancelled)),
        }
    }
}

/// A body of which a piece was pulled already.
struct Continued<'a, B> {
    ahead: Option<Frame<Bytes>>,
    body: Pin<&'a mut B>,
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Continued<'_, B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.ahead.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }
}

/// The receiving half of a stream before the final head. Dropped before that, it cancels the upload too.
#[derive(Debug)]
pub(crate) struct Answer {
    response: ResponseFuture,
    /// What it may take: as much as when the stream was opened, or as is taken when the head arrives, if that is more.
    limits: Limits,
    in_flight: Option<InFlight>,
    to_head: bool,
    asked: Option<Box<Asked>>,
    /// The sending half, where nothing follows the head: to reset the stream with.
    sent: Option<SendStream<Bytes>>,
    upload: TiedUpload,
}

impl Answer {
    /// See [`open::Answer::tie_upload`].
    pub(crate) fn tie_upload(&mut self) -> Interest {
        self.upload.interest()
    }

    /// See [`open::Answer::poll_next`].
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, OpenError>> {
        let polled = ready!(self.poll_head(cx));
        if let (Err(OpenError::Protocol(error)), Some(stream)) = (&polled, &mut self.sent) {
            stream.send_reset(reason(error.code()));
        }
        Poll::Ready(polled)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, OpenError>> {
        let head = ready!(poll_head(&mut self.response, cx)).map_err(|error| before_head(&error))?;
        if let Some(in_flight) = &self.in_flight {
            self.limits = self.limits.or_more(in_flight.tunnel().heads().takes());
        }
        let rules = head_rules(self.limits);
        match head {
            // spec: ST-21
            Head::Interim(early) if early.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Poll::Ready(Err(StreamError::from(Malformed::Invalid("status")).into()))
            }
            Head::Interim(early) => {
                rules.judge(early.headers(), 0).map_err(StreamError::Fields)?;
                Poll::Ready(Ok(AnswerHead::Interim(early)))
            }
            Head::Final(response) => {
                rules.judge(response.headers(), 0).map_err(StreamError::Fields)?;
                Poll::Ready(self.complete(response))
            }
        }
    }

    fn complete(&mut self, response: Response<RecvStream>) -> Result<AnswerHead, OpenError> {
        let (mut parts, stream) = response.into_parts();
        parts.version = Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        if let Some(asked) = &self.asked {
            asked.settle(&mut parts)?;
        }
        let length = of_tunnelled_response(self.to_head, parts.status, &parts.headers);
        let length = length.map_err(|_| StreamError::from(Malformed::Invalid("content-length")))?;
        let in_flight = self.in_flight.take().expect("there is one final head");
        let stream = Inflow::new(stream, in_flight.tunnel().small_frames());
        let body = StreamBody::new(stream, length, trailer_rules(self.limits));
        let upload = std::mem::take(&mut self.upload);
        let body = RecvBody::http2(body, upload, Some(in_flight)).watched_by_tunnel(self.asked.is_some());
        Ok(AnswerHead::Final(parts, body))
    }
}

/// Whether the peer said that it does not take a head of this size. spec: HS-15, TB-7
fn exceeds(limits: PeerLimits, head: &request::Parts, fields: &HeaderMap) -> bool {
    let target = head.uri.path_and_query().map_or(1, |path| path.as_str().len());
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let bytes = head.method.as_str().len() + target + authority + field_bytes(fields);
    bytes > limits.head_bytes as usize || fields.len() > limits.head_fields as usize
}

pub(super) fn before_head(error: &h2::Error) -> OpenError {
    match error.reason() {
        // The initiator did not reset it: this end's HTTP/2 does not take it.
        Some(_) if error.is_library() && !error.is_go_away() => OpenError::Protocol(StreamError::Http2),
        Some(Reason::REFUSED_STREAM) if error.is_reset() => OpenError::Rejected,
        Some(reason) if error.is_reset() => OpenError::Reset(stream_code(reason)),
        // RFC 9113 section 6.8: h2 fails with the GOAWAY those streams only that the peer did not process.
        Some(Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => OpenError::Rejected,
        _ => OpenError::TunnelLost(lost(error)),
    }
}
