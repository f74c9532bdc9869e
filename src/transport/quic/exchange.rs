//! The responder's side of an exchange: one stream, a request out, a response back.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::interim::InformationalSink;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::stream::{self, Event, RequestView, ResponseHead, Role};
use crate::registry::Health;
use crate::transport::body::RecvBody;
use crate::transport::error::{BodyError, ExchangeError, TunnelLost};
use crate::transport::kind::TransportKind;
use crate::transport::quic::control::Connection;
use crate::transport::quic::streams::{MessageStream, SendError, SendHalf, lost};
use crate::transport::state::{PathStats, TunnelSnapshot};

impl Connection {
    /// See [`Tunnel::exchange`](crate::transport::Tunnel::exchange).
    pub(crate) async fn exchange<B>(
        &self,
        service: Option<&ServiceName>,
        head: &http::request::Parts,
        body: &mut Option<B>,
    ) -> Result<http::Response<RecvBody>, ExchangeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let in_flight = self.state.begin();
        let upload = body.as_ref().is_some_and(|body| !body.is_end_stream());
        let opening = encode_head(service, head, !upload)?;
        if exceeds(self.state.peer_limits(), opening.len(), &head.headers) {
            return Err(ExchangeError::HeadTooLarge);
        }
        self.state.opened().await;
        // The registry lets go of a draining tunnel, but a pick may have come before that. spec: CT-21
        if self.state.health() == Health::Draining {
            return Err(ExchangeError::NotSent(TunnelLost("it drains".into())));
        }
        let (send, recv) = self.quic.open_bi().await.map_err(|error| ExchangeError::NotSent(lost(&error)))?;
        let mut send = SendHalf::new(send);
        let mut stream = MessageStream::new(recv, Role::Response, self.limits);
        send.write(opening).await.map_err(not_sent)?;
        match body.take() {
            Some(body) if upload => {
                let task = tokio::spawn(async move {
                    // The reason reaches the peer as a reset and the caller as the end of the response.
                    let _ = send.send_body(body).await;
                });
                stream.tie_upload(task.abort_handle());
            }
            _ => send.finish(),
        }
        let (status, fields, end) = response_head(&mut stream, head).await?;
        let mut response = http::Response::new(if end {
            stream.complete();
            RecvBody::empty()
        } else {
            let length = declared_length(&head.method, status, &fields);
            RecvBody::frames(stream, length, Some(in_flight))
        });
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        Ok(response)
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

fn encode_head(service: Option<&ServiceName>, head: &http::request::Parts, end: bool) -> Result<Bytes, ExchangeError> {
    let authority = head.uri.authority().ok_or(ExchangeError::Request("it has no authority"))?;
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
    Ok(out.freeze())
}

/// Whether the peer said that it does not take a head of this size. spec: HS-15
pub(super) fn exceeds(limits: PeerLimits, encoded_bytes: usize, fields: &HeaderMap) -> bool {
    encoded_bytes > limits.head_bytes as usize || fields.len() > limits.head_fields as usize
}

/// A stream that failed before its head was whole never became a request at the other end.
fn not_sent(error: SendError) -> ExchangeError {
    match error {
        SendError::Stopped(StreamCode::Rejected) => ExchangeError::Rejected,
        SendError::Stopped(code) => ExchangeError::Reset(code),
        SendError::Lost(lost) => ExchangeError::NotSent(lost),
        SendError::Source(error) => ExchangeError::NotSent(TunnelLost(error.to_string())),
    }
}

async fn response_head(
    stream: &mut MessageStream,
    head: &http::request::Parts,
) -> Result<(StatusCode, HeaderMap, bool), ExchangeError> {
    loop {
        match stream.event().await.map_err(before_head)? {
            Event::Response(response, end) => {
                let ResponseHead { status, fields } = *response;
                return Ok((status, fields, end));
            }
            Event::Info(info) => {
                if let Some(sink) = head.extensions.get::<InformationalSink>() {
                    let mut response = http::Response::new(());
                    *response.status_mut() = info.status;
                    *response.headers_mut() = info.fields;
                    sink.send(response);
                }
            }
            // The reader yields only heads before the head.
            _ => return Err(ExchangeError::Reset(StreamCode::Protocol)),
        }
    }
}

fn before_head(error: BodyError) -> ExchangeError {
    match error {
        BodyError::Reset(StreamCode::Rejected) => ExchangeError::Rejected,
        BodyError::Reset(code) => ExchangeError::Reset(code),
        BodyError::Protocol(error) => ExchangeError::Protocol(error),
        BodyError::TunnelLost(lost) => ExchangeError::TunnelLost(lost),
        BodyError::Length | BodyError::Source(_) => ExchangeError::Reset(StreamCode::Protocol),
    }
}

/// The length that the body must have; a response to HEAD and 304 declare the length of a body that is not sent.
pub(crate) fn declared_length(method: &Method, status: StatusCode, fields: &HeaderMap) -> Option<u64> {
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return None;
    }
    content_length(fields)
}

/// The value of content-length, if there is a readable one.
pub(super) fn content_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
