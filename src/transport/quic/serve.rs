//! The initiator's side: streams that the responder opens, each taken in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tokio::time::timeout;
use tracing::{debug, trace};

use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::stream::{Event, RequestHead, Role};
use crate::transport::arrival::{self, Accept, Arrival, HttpArrival};
use crate::transport::body::RecvBody;
use crate::transport::error::BodyError;
use crate::transport::quic::open::content_length;
use crate::transport::quic::respond::Responder;
use crate::transport::quic::settings::Settings;
use crate::transport::quic::streams::{MessageStream, SendHalf};
use crate::transport::state::TunnelState;

/// How long a stream may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts streams until the connection is gone, raising the stream limit with the load.
pub(super) async fn serve_streams<A: Accept>(
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    settings: Settings,
    accept: A,
) {
    let mut allowed = settings.quic.initial_streams;
    while let Ok((send, recv)) = quic.accept_bi().await {
        let in_flight = state.begin();
        if state.in_flight() * 2 > allowed && allowed < settings.quic.max_streams {
            allowed = (allowed * 2).min(settings.quic.max_streams);
            quic.set_max_concurrent_bi_streams(VarInt::from_u32(allowed));
        }
        let (accept, limits, peer_limits) = (accept.clone(), settings.tunnel.limits, state.peer_limits());
        tokio::spawn(async move {
            let _in_flight = in_flight;
            let arrived = arrival(SendHalf::new(send), MessageStream::new(recv, Role::Request, limits), peer_limits);
            if let Some(arrival) = arrived.await {
                accept.accept(arrival).await;
            }
        });
    }
}

/// Reads what a stream wants; `None` where it was answered already.
async fn arrival(mut send: SendHalf, mut stream: MessageStream, peer_limits: PeerLimits) -> Option<Arrival> {
    let (head, end) = match timeout(HEAD_TIMEOUT, stream.event()).await {
        Ok(Ok(Event::Request(head, end))) => (head, end),
        Ok(Ok(_)) => {
            send.reset(StreamCode::Protocol);
            return None;
        }
        Ok(Err(BodyError::Protocol(error))) => {
            debug!(%error, "a stream broke the protocol");
            send.reset(error.code());
            return None;
        }
        Ok(Err(error)) => {
            trace!(%error, "a stream ended before its head");
            return None;
        }
        Err(_) => {
            send.reset(StreamCode::Rejected);
            return None;
        }
    };
    let responder = arrival::Responder::quic(Responder::new(send, head.method == http::Method::HEAD, peer_limits));
    if head.protocol.is_some() {
        drop(stream);
        // A stream that is gone needs no answer.
        let _ = responder.respond(not_implemented()).await;
        return None;
    }
    request(head, end, stream, responder)
}

/// The answer to an extended CONNECT, which version 1 leaves to a later one. spec: ST-15
fn not_implemented() -> http::Response<http_body_util::Empty<Bytes>> {
    let mut response = http::Response::default();
    *response.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
    response
}

/// Turns a head into a request whose body reads on from the stream; `None` when it is no valid request.
fn request(head: Box<RequestHead>, end: bool, stream: MessageStream, responder: arrival::Responder) -> Option<Arrival> {
    let RequestHead { method, scheme, authority, path, service, protocol: _, fields } = *head;
    let Ok(uri) = http::Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build() else {
        responder.reset(StreamCode::Protocol);
        return None;
    };
    let body = if end {
        stream.complete();
        RecvBody::empty()
    } else {
        RecvBody::frames(stream, content_length(&fields), None)
    };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.headers = fields;
    Some(Arrival::Http(HttpArrival { parts, body, service, responder }))
}
