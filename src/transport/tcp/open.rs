//! The responder's side of an HTTP stream over HTTP/2: a request out, a response back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use tokio::task::AbortHandle;

use crate::id::ServiceName;
use crate::message::fields::strip_hop_by_hop;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::StreamError;
use crate::protocol::wire::Malformed;
use crate::transport::body::RecvBody;
use crate::transport::error::OpenError;
use crate::transport::open::{self, AnswerHead, HeadParts, HttpHead, HttpStream, Upload};
use crate::transport::quic::declared_length;
use crate::transport::state::InFlight;
use crate::transport::tcp::body::{Http2Body, lost, reason, stream_code};
use crate::transport::tcp::connection::Connection;
use crate::transport::tcp::fields::{check_fields, field_bytes};

/// Names the exported service that a request is for; nothing else may carry it. spec: TB-6
pub(super) static SERVICE: HeaderName = HeaderName::from_static("adit-service");

impl Connection {
    /// See [`Tunnel::open_http`](crate::transport::Tunnel::open_http).
    pub(crate) async fn open_http(&self, head: HttpHead<'_>) -> Result<HttpStream, OpenError> {
        let in_flight = self.state.begin();
        let HttpHead { service, parts, end } = head;
        self.check_request(service, parts.get())?;
        self.state.ready_to_open().await?;
        let mut sender = self.stream_slot().await?;
        let to_head = parts.get().method == Method::HEAD;
        let request = self.request(service, parts)?;
        let sent = sender.send_request(request, end);
        let (response, stream) = sent.map_err(|error| self.not_sent(&error))?;
        let mut answer = Answer {
            response,
            limits: self.limits,
            in_flight: Some(in_flight),
            to_head,
            sent: None,
            upload: Tied(None),
        };
        let upload = if end {
            answer.sent = Some(stream);
            None
        } else {
            Some(Upload::tcp(stream))
        };
        Ok(HttpStream { upload, answer: open::Answer::tcp(answer) })
    }

    fn check_request(&self, service: Option<&ServiceName>, parts: &request::Parts) -> Result<(), OpenError> {
        if parts.uri.authority().is_none() {
            return Err(OpenError::Request("it has no authority"));
        }
        if parts.method == Method::CONNECT {
            return Err(OpenError::Request("CONNECT is not an exchange"));
        }
        if service.is_some() && !self.names_services {
            return Err(OpenError::NoNamedServices);
        }
        Ok(())
    }

    fn request(&self, service: Option<&ServiceName>, mut parts: HeadParts<'_>) -> Result<Request<()>, OpenError> {
        let mut fields = parts.take_fields();
        let parts = parts.get();
        strip_hop_by_hop(&mut fields);
        fields.remove(HOST);
        // A client must not name a service that its route does not.
        fields.remove(&SERVICE);
        if let Some(service) = service {
            let name = HeaderValue::from_str(service.as_str()).expect("a service name is visible ASCII");
            fields.insert(SERVICE.clone(), name);
        }
        if exceeds(self.state.peer_limits(), parts, &fields) {
            return Err(OpenError::HeadTooLarge);
        }
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

/// The receiving half of a stream before the final head. Dropped before that, it cancels the upload too.
#[derive(Debug)]
pub(crate) struct Answer {
    response: ResponseFuture,
    limits: Limits,
    in_flight: Option<InFlight>,
    to_head: bool,
    /// The sending half, where nothing follows the head: to reset the stream with.
    sent: Option<SendStream<Bytes>>,
    upload: Tied,
}

/// An upload that ends with the wait for its answer.
#[derive(Debug)]
struct Tied(Option<AbortHandle>);

impl Drop for Tied {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            upload.abort();
        }
    }
}

impl Answer {
    pub(crate) fn tie_upload(&mut self, task: AbortHandle) {
        self.upload.0 = Some(task);
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
        if let Poll::Ready(Some(Ok(early))) = self.response.poll_informational(cx) {
            // spec: ST-21
            if early.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(StreamError::from(Malformed::Invalid("status")).into()));
            }
            check_fields(early.headers(), 0, self.limits)?;
            return Poll::Ready(Ok(AnswerHead::Interim(early)));
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx)).map_err(|error| before_head(&error))?;
        check_fields(response.headers(), 0, self.limits)?;
        Poll::Ready(Ok(self.complete(response)))
    }

    fn complete(&mut self, response: Response<RecvStream>) -> AnswerHead {
        let (mut parts, stream) = response.into_parts();
        parts.version = Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        let length = declared_length(self.to_head, parts.status, &parts.headers);
        let body = Http2Body::new(stream, self.limits, self.upload.0.take());
        AnswerHead::Final(parts, RecvBody::http2(body, length, self.in_flight.take()))
    }
}

/// Whether the peer said that it does not take a head of this size. spec: HS-15, TB-7
fn exceeds(limits: PeerLimits, head: &request::Parts, fields: &HeaderMap) -> bool {
    let target = head.uri.path_and_query().map_or(1, |path| path.as_str().len());
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let bytes = head.method.as_str().len() + target + authority + field_bytes(fields);
    bytes > limits.head_bytes as usize || fields.len() > limits.head_fields as usize
}

fn before_head(error: &h2::Error) -> OpenError {
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
