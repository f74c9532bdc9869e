//! The initiator's side: streams that the responder opens, each answered by a service in a task of its own.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::VarInt;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{debug, trace};

use crate::message::BoxError;
use crate::message::interim::InformationalSink;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::stream::{self, Event, RequestHead, ResponseHead, Role};
use crate::transport::body::RecvBody;
use crate::transport::error::{BodyError, SendError};
use crate::transport::quic::open::{content_length, exceeds};
use crate::transport::quic::settings::Settings;
use crate::transport::quic::streams::{MessageStream, SendHalf};
use crate::transport::serve::Serve;
use crate::transport::state::TunnelState;

/// How long a stream may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Interim responses that may wait to be sent; a service that makes more loses the newest.
const MAX_PENDING_INFO_BYTES: usize = 64 * 1024;

/// Accepts streams until the connection is gone, raising the stream limit with the load.
pub(super) async fn serve_streams<S: Serve>(
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    settings: Settings,
    service: S,
) {
    let mut allowed = settings.quic.initial_streams;
    while let Ok((send, recv)) = quic.accept_bi().await {
        let in_flight = state.begin();
        if state.in_flight() * 2 > allowed && allowed < settings.quic.max_streams {
            allowed = (allowed * 2).min(settings.quic.max_streams);
            quic.set_max_concurrent_bi_streams(VarInt::from_u32(allowed));
        }
        let (service, limits, peer_limits) = (service.clone(), settings.tunnel.limits, state.peer_limits());
        tokio::spawn(async move {
            let _in_flight = in_flight;
            answer(SendHalf::new(send), MessageStream::new(recv, Role::Request, limits), peer_limits, service).await;
        });
    }
}

async fn answer<S: Serve>(mut send: SendHalf, mut stream: MessageStream, peer_limits: PeerLimits, mut service: S) {
    let head = match timeout(HEAD_TIMEOUT, stream.event()).await {
        Ok(Ok(Event::Request(head, _))) if head.protocol.is_some() => {
            drop(stream);
            return respond(&mut send, not_implemented(), false, peer_limits).await;
        }
        Ok(Ok(Event::Request(head, end))) => (head, end),
        Ok(Ok(_)) => return send.reset(StreamCode::Protocol),
        Ok(Err(BodyError::Protocol(error))) => {
            debug!(%error, "a stream broke the protocol");
            return send.reset(error.code());
        }
        Ok(Err(error)) => return trace!(%error, "a stream ended before its head"),
        Err(_) => return send.reset(StreamCode::Rejected),
    };
    let interim = Arc::new(Interim::default());
    let Some(request) = request(head.0, head.1, stream, &interim) else { return send.reset(StreamCode::Protocol) };
    let is_head = request.method() == http::Method::HEAD;
    let response = {
        let mut serving = pin!(service.serve(request));
        let mut stopped = pin!(send.stopped());
        loop {
            tokio::select! {
                biased;
                response = &mut serving => break response,
                // The future is dropped here: the target sees the cancellation at once.
                _ = &mut stopped => return send.reset(StreamCode::Cancelled),
                () = interim.ready() => {
                    if write_interim(&mut send, &interim).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    if write_interim(&mut send, &interim).await.is_err() {
        return;
    }
    match response {
        Ok(response) => respond(&mut send, response, is_head, peer_limits).await,
        Err(error) => {
            debug!(%error, "the service failed");
            send.reset(StreamCode::Internal);
        }
    }
}

/// The answer to an extended CONNECT, which version 1 leaves to a later one. spec: ST-15
fn not_implemented() -> http::Response<http_body_util::Empty<Bytes>> {
    let mut response = http::Response::default();
    *response.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
    response
}

/// Turns a head into a request whose body reads on from the stream; `None` when it is no valid request.
fn request(
    head: Box<RequestHead>,
    end: bool,
    stream: MessageStream,
    interim: &Arc<Interim>,
) -> Option<http::Request<RecvBody>> {
    let RequestHead { method, scheme, authority, path, service, protocol: _, fields } = *head;
    let uri = http::Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()?;
    let body = if end {
        stream.complete();
        RecvBody::empty()
    } else {
        RecvBody::frames(stream, content_length(&fields), None)
    };
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = fields;
    let extensions = request.extensions_mut();
    if let Some(service) = service {
        extensions.insert(service);
    }
    extensions.insert(interim.sink());
    Some(request)
}

async fn respond<B>(send: &mut SendHalf, response: http::Response<B>, is_head: bool, peer_limits: PeerLimits)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (parts, body) = response.into_parts();
    let end = is_head || body.is_end_stream();
    let head = ResponseHead { status: parts.status, fields: parts.headers };
    let mut out = BytesMut::with_capacity(512);
    stream::encode_response(&head, end, &mut out);
    if exceeds(peer_limits, out.len(), &head.fields) {
        debug!(bytes = out.len(), "the response head is larger than the responder accepts");
        return send.reset(StreamCode::Limit);
    }
    let sent =
        if end { send.write(out.freeze()).await.map(|()| send.finish()) } else { send.send_message(out, body).await };
    if let Err(error) = sent {
        debug!(%error, "a response was cut");
    }
}

/// Interim responses on their way from the service to the stream.
#[derive(Debug, Default)]
struct Interim {
    encoded: Mutex<BytesMut>,
    added: Notify,
}

impl Interim {
    fn sink(self: &Arc<Self>) -> InformationalSink {
        let interim = Arc::clone(self);
        InformationalSink::new(move |response| interim.push(response))
    }

    fn push(&self, response: http::Response<()>) {
        let (parts, ()) = response.into_parts();
        if !parts.status.is_informational() || parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if encoded.len() < MAX_PENDING_INFO_BYTES {
            stream::encode_info(&ResponseHead { status: parts.status, fields: parts.headers }, &mut encoded);
            self.added.notify_one();
        }
    }

    fn ready(&self) -> impl Future<Output = ()> {
        self.added.notified()
    }

    fn take(&self) -> Bytes {
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner).split().freeze()
    }
}

async fn write_interim(send: &mut SendHalf, interim: &Interim) -> Result<(), SendError> {
    let bytes = interim.take();
    if bytes.is_empty() { Ok(()) } else { send.write(bytes).await }
}
