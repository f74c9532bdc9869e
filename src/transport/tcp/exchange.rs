//! The responder's side of an exchange over HTTP/2, and the live connection behind a tunnel's handle.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::sync::{Notify, mpsc, watch};

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::InformationalSink;
use crate::protocol::code::CloseCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::StreamError;
use crate::protocol::wire::Malformed;
use crate::registry::Health;
use crate::transport::body::RecvBody;
use crate::transport::control::Command;
use crate::transport::error::{ExchangeError, TunnelLost};
use crate::transport::kind::TransportKind;
use crate::transport::quic::declared_length;
use crate::transport::state::{CloseReason, TunnelSnapshot, TunnelState};
use crate::transport::tcp::body::{Http2Body, lost, reason, stream_code};
use crate::transport::tcp::fields::{check_fields, field_bytes};
use crate::transport::tcp::send::send_body;
use crate::transport::tcp::wire::Meter;

/// Names the exported service that a request is for; nothing else may carry it. spec: TB-6
pub(super) static SERVICE: HeaderName = HeaderName::from_static("adit-service");

/// The live connection behind a tunnel handle.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: Arc<TunnelState>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) remote: SocketAddr,
    pub(super) meter: Arc<Meter>,
    pub(super) limits: Limits,
    pub(super) requests: Requests,
    /// Whether the other end understands `adit-service`.
    pub(super) names_services: bool,
}

/// Where requests are handed to HTTP/2, which may have to begin first.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    ready: watch::Receiver<Option<SendRequest<Bytes>>>,
    wanted: Arc<Notify>,
}

/// The other end of [`Requests`]: makes HTTP/2 begin.
#[derive(Debug)]
pub(super) struct Starter {
    ready: watch::Sender<Option<SendRequest<Bytes>>>,
    wanted: Arc<Notify>,
}

impl Requests {
    pub(super) fn new() -> (Self, Starter) {
        let (sender, ready) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        (Self { ready, wanted: Arc::clone(&wanted) }, Starter { ready: sender, wanted })
    }

    /// The way into HTTP/2, once that has begun.
    async fn sender(&self) -> Result<SendRequest<Bytes>, TunnelLost> {
        let ready = self.ready.borrow().clone();
        if let Some(sender) = ready {
            return Ok(sender);
        }
        self.wanted.notify_one();
        let mut ready = self.ready.clone();
        let sender = ready.wait_for(Option::is_some).await;
        sender.ok().and_then(|sender| sender.clone()).ok_or_else(|| TunnelLost("it is gone".into()))
    }
}

impl Starter {
    /// Resolves when somebody wants to send a request. Cancel safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// HTTP/2 has begun.
    pub(super) fn begin(&self, sender: SendRequest<Bytes>) {
        self.ready.send_replace(Some(sender));
    }

    /// No request is handed to HTTP/2 any more.
    pub(super) fn end(self) {
        self.ready.send_replace(None);
    }
}

impl Connection {
    /// See [`Tunnel::exchange`](crate::transport::Tunnel::exchange).
    pub(crate) async fn exchange<B>(
        &self,
        service: Option<&ServiceName>,
        head: &http::request::Parts,
        body: &mut Option<B>,
    ) -> Result<Response<RecvBody>, ExchangeError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let in_flight = self.state.begin();
        let upload = body.as_ref().is_some_and(|body| !body.is_end_stream());
        let request = self.request(service, head)?;
        self.state.opened().await;
        // The registry lets go of a draining tunnel, but a pick may have come before that. spec: CT-21
        if self.state.health() == Health::Draining {
            return Err(ExchangeError::NotSent(TunnelLost("it drains".into())));
        }
        let sender = self.requests.sender().await.map_err(ExchangeError::NotSent)?;
        let mut sender = sender.ready().await.map_err(|error| self.not_sent(&error))?;
        let sent = sender.send_request(request, !upload);
        let (response, mut stream) = sent.map_err(|error| self.not_sent(&error))?;
        let (upload, mut stream) = match body.take() {
            Some(body) if upload => {
                let task = tokio::spawn(async move {
                    // The reason reaches the peer as a reset and the caller as the end of the response.
                    let _ = send_body(&mut stream, body).await;
                });
                (Some(task.abort_handle()), None)
            }
            _ => (None, Some(stream)),
        };
        // Dropped before the head is there, it cancels the stream with it.
        let guard = AbortOnDrop(upload);
        let answered = final_head(response, head, self.limits).await.inspect_err(|error| {
            if let (ExchangeError::Protocol(error), Some(stream)) = (error, &mut stream) {
                stream.send_reset(reason(error.code()));
            }
        });
        let (parts, stream) = answered?.into_parts();
        let body = Http2Body::new(stream, self.limits, guard.defuse());
        let length = declared_length(&head.method, parts.status, &parts.headers);
        let mut response = Response::new(RecvBody::http2(body, length, Some(in_flight)));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        Ok(response)
    }

    /// After a GOAWAY the connection takes no request, and is no tunnel of ours, however well it is otherwise; an Envoy
    /// drains with it. spec: TB-11
    fn not_sent(&self, error: &h2::Error) -> ExchangeError {
        if self.names_services && error.is_go_away() && error.is_remote() {
            let text = "the initiator sent GOAWAY".to_owned();
            // A full queue belongs to a driver that is busy; the next request says it again.
            let _ = self.commands.try_send(Command::Close(CloseReason { code: CloseCode::Protocol, text }));
        }
        ExchangeError::NotSent(lost(error))
    }

    fn request(
        &self,
        service: Option<&ServiceName>,
        head: &http::request::Parts,
    ) -> Result<Request<()>, ExchangeError> {
        if head.uri.authority().is_none() {
            return Err(ExchangeError::Request("it has no authority"));
        }
        if head.method == Method::CONNECT {
            return Err(ExchangeError::Request("CONNECT is not an exchange"));
        }
        let mut fields = head.headers.clone();
        strip_hop_by_hop(&mut fields);
        fields.remove(HOST);
        // A client must not name a service that its route does not.
        fields.remove(&SERVICE);
        match service {
            Some(service) if self.names_services => {
                let name = HeaderValue::from_str(service.as_str()).expect("a service name is visible ASCII");
                fields.insert(SERVICE.clone(), name);
            }
            Some(_) => return Err(ExchangeError::NoNamedServices),
            None => {}
        }
        if exceeds(self.state.peer_limits(), head, &fields) {
            return Err(ExchangeError::HeadTooLarge);
        }
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        Ok(request)
    }

    pub(crate) fn transport(&self) -> TransportKind {
        if self.names_services { TransportKind::Tcp } else { TransportKind::Envoy }
    }

    pub(crate) fn snapshot(&self) -> TunnelSnapshot {
        TunnelSnapshot {
            bytes_sent: self.meter.sent(),
            bytes_received: self.meter.received(),
            ..self.state.snapshot(self.transport(), self.remote)
        }
    }
}

/// An upload that ends with the wait for its answer.
struct AbortOnDrop(Option<tokio::task::AbortHandle>);

impl AbortOnDrop {
    fn defuse(mut self) -> Option<tokio::task::AbortHandle> {
        self.0.take()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            upload.abort();
        }
    }
}

/// Whether the peer said that it does not take a head of this size. spec: HS-15, TB-7
fn exceeds(limits: PeerLimits, head: &http::request::Parts, fields: &HeaderMap) -> bool {
    let target = head.uri.path_and_query().map_or(1, |path| path.as_str().len());
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let bytes = head.method.as_str().len() + target + authority + field_bytes(fields);
    bytes > limits.head_bytes as usize || fields.len() > limits.head_fields as usize
}

/// Passes 1xx responses on until the final head is there.
async fn final_head(
    mut response: ResponseFuture,
    head: &http::request::Parts,
    limits: Limits,
) -> Result<Response<RecvStream>, ExchangeError> {
    let sink = head.extensions.get::<InformationalSink>();
    let response = poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
            // spec: ST-21
            if early.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(StreamError::from(Malformed::Invalid("status")).into()));
            }
            if let Err(error) = check_fields(early.headers(), 0, limits) {
                return Poll::Ready(Err(error.into()));
            }
            if let Some(sink) = sink {
                sink.send(early);
            }
        }
        Pin::new(&mut response).poll(cx).map_err(|error| before_head(&error))
    })
    .await?;
    check_fields(response.headers(), 0, limits)?;
    Ok(response)
}

fn before_head(error: &h2::Error) -> ExchangeError {
    match error.reason() {
        // The initiator did not reset it: this end's HTTP/2 does not take it.
        Some(_) if error.is_library() && !error.is_go_away() => ExchangeError::Protocol(StreamError::Http2),
        Some(Reason::REFUSED_STREAM) if error.is_reset() => ExchangeError::Rejected,
        Some(reason) if error.is_reset() => ExchangeError::Reset(stream_code(reason)),
        // RFC 9113 section 6.8: h2 fails with the GOAWAY those streams only that the peer did not process.
        Some(Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => ExchangeError::Rejected,
        _ => ExchangeError::TunnelLost(lost(error)),
    }
}
