//! The responder's side of an HTTP stream over QUIC: a request out, a response back.

use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode, request};
use tokio::task::AbortHandle;

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::stream::{self, Event, RequestView, ResponseHead, Role};
use crate::transport::body::RecvBody;
use crate::transport::error::{OpenError, SendError, TunnelLost};
use crate::transport::kind::TransportKind;
use crate::transport::open::{self, AnswerHead, HttpHead, HttpStream, Upload};
use crate::transport::quic::control::Connection;
use crate::transport::quic::streams::{MessageStream, SendHalf, lost};
use crate::transport::state::{InFlight, PathStats, TunnelSnapshot};

/// The sending half of a stream, with a head that is still to be sent.
#[derive(Debug)]
pub(crate) struct HttpUpload {
    send: SendHalf,
    head: BytesMut,
}

impl HttpUpload {
    /// See [`Upload::send`].
    pub(crate) async fn send<B>(mut self, body: B) -> Result<(), SendError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.send.send_message(self.head, pin!(body)).await
    }
}

/// The receiving half of a stream before the final head.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` once the final head is there.
    stream: Option<MessageStream>,
    in_flight: Option<InFlight>,
    to_head: bool,
}

impl Answer {
    pub(crate) fn tie_upload(&mut self, task: AbortHandle) {
        if let Some(stream) = &mut self.stream {
            stream.tie_upload(task);
        }
    }

    /// See [`open::Answer::poll_next`].
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, OpenError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(OpenError::Reset(StreamCode::NoError))) };
        Poll::Ready(match ready!(stream.poll_event(cx)).map_err(OpenError::from)? {
            Event::Response(head, end) => Ok(self.complete(*head, end)),
            Event::Info(head) => {
                let mut interim = Response::new(());
                *interim.status_mut() = head.status;
                *interim.headers_mut() = head.fields;
                Ok(AnswerHead::Interim(interim))
            }
            // The reader yields only heads before the head.
            _ => Err(OpenError::Reset(StreamCode::Protocol)),
        })
    }

    fn complete(&mut self, head: ResponseHead, end: bool) -> AnswerHead {
        let in_flight = self.in_flight.take();
        let body = match self.stream.take() {
            Some(stream) if !end => {
                let length = declared_length(self.to_head, head.status, &head.fields);
                RecvBody::frames(stream, length, in_flight)
            }
            Some(stream) => {
                stream.complete();
                RecvBody::empty()
            }
            None => RecvBody::empty(),
        };
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = head.status;
        parts.headers = head.fields;
        AnswerHead::Final(parts, body)
    }
}

impl Connection {
    /// See [`Tunnel::open_http`](crate::transport::Tunnel::open_http).
    pub(crate) async fn open_http(&self, head: HttpHead<'_>) -> Result<HttpStream, OpenError> {
        let in_flight = self.state.begin();
        let HttpHead { service, parts, end } = head;
        let parts = parts.get();
        let encoded = encode_head(service, parts, end)?;
        if exceeds(self.state.peer_limits(), encoded.len(), &parts.headers) {
            return Err(OpenError::HeadTooLarge);
        }
        self.state.ready_to_open().await?;
        let (send, recv) = self.quic.open_bi().await.map_err(|error| OpenError::NotSent(lost(&error)))?;
        let (mut send, stream) = (SendHalf::new(send), MessageStream::new(recv, Role::Response, self.limits));
        let upload = if end {
            send.write(encoded.freeze()).await.map_err(not_sent)?;
            send.finish();
            None
        } else {
            Some(Upload::quic(HttpUpload { send, head: encoded }))
        };
        let to_head = parts.method == Method::HEAD;
        let answer = open::Answer::quic(Answer { stream: Some(stream), in_flight: Some(in_flight), to_head });
        Ok(HttpStream { upload, answer })
    }

    pub(crate) fn snapshot(&self) -> TunnelSnapshot {
        let stats = self.quic.stats();
        let path = PathStats {
            loss: stats.path.lost_packets as f64 / (stats.path.sent_packets.max(1)) as f64,
            lost_packets: stats.path.lost_packets,
            mtu: stats.path.current_mtu,
            congestion_window: stats.path.cwnd,
        };
        TunnelSnapshot {
            rtt_ms: stats.path.rtt.as_secs_f64() * 1e3,
            path: Some(path),
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            ..self.state.snapshot(TransportKind::Quic, self.quic.remote_address())
        }
    }
}

fn encode_head(service: Option<&ServiceName>, head: &request::Parts, end: bool) -> Result<BytesMut, OpenError> {
    let authority = head.uri.authority().ok_or(OpenError::Request("it has no authority"))?;
    let mut out = BytesMut::with_capacity(512);
    let request = RequestView {
        method: &head.method,
        scheme: head.uri.scheme().unwrap_or(&http::uri::Scheme::HTTP),
        authority: authority.as_str(),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        service,
        protocol: None,
        fields: &head.headers,
    };
    stream::encode_request(request, end, &mut out);
    Ok(out)
}

/// Whether the peer said that it does not take a head of this size. spec: HS-15
pub(super) fn exceeds(limits: PeerLimits, encoded_bytes: usize, fields: &HeaderMap) -> bool {
    encoded_bytes > limits.head_bytes as usize || fields.len() > limits.head_fields as usize
}

/// A stream that failed before its head was whole never became a request at the other end.
fn not_sent(error: SendError) -> OpenError {
    match error {
        SendError::Stopped(StreamCode::Rejected) => OpenError::Rejected,
        SendError::Stopped(code) => OpenError::Reset(code),
        SendError::Lost(lost) => OpenError::NotSent(lost),
        SendError::Source(_) | SendError::Head(_) => OpenError::NotSent(TunnelLost(error.to_string())),
    }
}

/// The length that the body must have; a response to HEAD and 304 declare the length of a body that is not sent.
pub(crate) fn declared_length(to_head: bool, status: StatusCode, fields: &HeaderMap) -> Option<u64> {
    if to_head || status == StatusCode::NOT_MODIFIED {
        return None;
    }
    content_length(fields)
}

/// The value of content-length, if there is a readable one.
pub(super) fn content_length(fields: &HeaderMap) -> Option<u64> {
    crate::message::length::content_length(fields).ok().flatten()
}
