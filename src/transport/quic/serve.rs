//! The initiator's side: streams that the responder opens, each taken in a task of its own.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tokio::time::timeout;
use tracing::{debug, trace};

use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::flows::FlowError;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::{Event, Open, Refused, RequestHead, Role, ServiceEvent, ServiceReader, StreamType};
use crate::transport::arrival::{self, Accept, Arrival, FlowArrival, HttpArrival, RawArrival};
use crate::transport::body::RecvBody;
use crate::transport::error::BodyError;
use crate::transport::quic::datagrams::FlowTable;
use crate::transport::quic::open::content_length;
use crate::transport::quic::respond::Responder;
use crate::transport::quic::service::{ServiceArrival, ServiceRecv};
use crate::transport::quic::settings::Settings;
use crate::transport::quic::streams::{MessageStream, SendHalf, poll_chunk};
use crate::transport::state::{InFlight, TunnelState};

/// How long a stream may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts streams until the connection is gone, raising the stream limit with the load.
pub(super) async fn serve_streams<A: Accept>(
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    settings: Settings,
    accept: A,
) {
    let flows = Arc::new(FlowTable::default());
    let mut allowed = settings.quic.initial_streams;
    while let Ok((send, recv)) = quic.accept_bi().await {
        let in_flight = state.begin();
        if state.in_flight() * 2 > allowed && allowed < settings.quic.max_streams {
            allowed = (allowed * 2).min(settings.quic.max_streams);
            quic.set_max_concurrent_bi_streams(VarInt::from_u32(allowed));
        }
        let stream = NewStream {
            quic: quic.clone(),
            flows: Arc::clone(&flows),
            send: SendHalf::new(send),
            limits: settings.tunnel.limits,
            peer_limits: state.peer_limits(),
        };
        let accept = accept.clone();
        tokio::spawn(async move {
            let mut in_flight = Some(in_flight);
            if let Some(arrival) = stream.arrival(recv, &mut in_flight).await {
                accept.accept(arrival).await;
            }
        });
    }
}

/// What is known of a stream beside what is read on it.
struct NewStream {
    quic: quinn::Connection,
    flows: Arc<FlowTable>,
    send: SendHalf,
    limits: Limits,
    peer_limits: PeerLimits,
}

/// The first of a stream.
enum Opening {
    Http(MessageStream, Box<RequestHead>, bool),
    Service(ServiceRecv, Open),
}

impl NewStream {
    /// Reads what the stream wants; `None` where it was answered already. A raw stream or a flow takes the guard with it.
    async fn arrival(mut self, recv: quinn::RecvStream, in_flight: &mut Option<InFlight>) -> Option<Arrival> {
        let opening = match timeout(HEAD_TIMEOUT, opening(recv, self.limits)).await {
            Ok(Ok(opening)) => opening,
            Ok(Err(BodyError::Protocol(error))) => {
                debug!(%error, "a stream broke the protocol");
                self.send.reset(error.code());
                return None;
            }
            Ok(Err(error)) => {
                trace!(%error, "a stream ended before its head");
                return None;
            }
            Err(_) => {
                self.send.reset(StreamCode::Rejected);
                return None;
            }
        };
        match opening {
            Opening::Http(stream, head, end) => {
                let responder = Responder::new(self.send, head.method == http::Method::HEAD, self.peer_limits);
                let responder = arrival::Responder::quic(responder);
                if head.protocol.is_some() {
                    drop(stream);
                    // A stream that is gone needs no answer.
                    let _ = responder.respond(not_implemented()).await;
                    return None;
                }
                request(head, end, stream, responder)
            }
            Opening::Service(recv, open) => self.service(recv, open, in_flight.take()?).await,
        }
    }

    async fn service(self, recv: ServiceRecv, open: Open, in_flight: InFlight) -> Option<Arrival> {
        let arrival = ServiceArrival::new(self.send, recv);
        let Some(id) = open.flow else {
            return Some(Arrival::Raw(RawArrival::quic(open.service, arrival, in_flight)));
        };
        match self.flows.accept(&self.quic, id) {
            Ok(place) => Some(Arrival::Flow(FlowArrival::quic(open.service, arrival, place, in_flight))),
            Err(FlowError::Taken(_)) => {
                arrival.reset(StreamCode::Protocol);
                None
            }
            Err(full @ FlowError::Full(_)) => {
                let refused = Refused { cause: OpenCause::Limit, reason: full.to_string() };
                // A stream that is gone needs no answer.
                let _ = arrival.refuse(&refused).await;
                None
            }
        }
    }
}

/// Reads the first of a stream.
async fn opening(mut recv: quinn::RecvStream, limits: Limits) -> Result<Opening, BodyError> {
    let front = first(&mut recv).await?;
    if let Ok(Some(StreamType::Raw | StreamType::Flow)) = StreamType::of(&front) {
        let mut recv = ServiceRecv::behind(front, recv, ServiceReader::of_requests());
        return match recv.event().await? {
            ServiceEvent::Open(open) => Ok(Opening::Service(recv, open)),
            // The reader yields OPEN first.
            _ => Err(BodyError::Reset(StreamCode::Protocol)),
        };
    }
    let mut stream = MessageStream::behind(front, recv, Role::Request, limits);
    match stream.event().await? {
        Event::Request(head, end) => Ok(Opening::Http(stream, head, end)),
        // The reader yields the head first.
        _ => Err(BodyError::Reset(StreamCode::Protocol)),
    }
}

/// The first bytes of a stream, enough to tell its type unless it ends before.
async fn first(recv: &mut quinn::RecvStream) -> Result<Bytes, quinn::ReadError> {
    let mut front = Bytes::new();
    while let Some(chunk) = poll_fn(|cx| poll_chunk(recv, cx)).await? {
        front = if front.is_empty() { chunk } else { [front, chunk].concat().into() };
        if !matches!(StreamType::of(&front), Ok(None)) {
            break;
        }
    }
    Ok(front)
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
