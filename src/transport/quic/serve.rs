//! The initiator's side: streams that the responder opens, each taken in a task of its own.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use quinn::VarInt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::{debug, trace};

use crate::message::upgrade::Protocol;
use crate::message::violation::Violation;
use crate::net::SendRoom;
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::flows::FlowError;
use crate::protocol::stream::{Open, Refused, RequestHead, Role, ServiceEvent, ServiceReader, StreamType, Text};
use crate::transport::arrival::{
    self, Accept, Arrival, FlowArrival, HttpArrival, RawArrival, StreamRefusal, TunnelFacts,
};
use crate::transport::body::RecvBody;
use crate::transport::error::BodyError;
use crate::transport::quic::datagrams::FlowTable;
use crate::transport::quic::open::content_length;
use crate::transport::quic::respond::Responder;
use crate::transport::quic::service::{ServiceArrival, ServiceRecv};
use crate::transport::quic::settings::Settings;
use crate::transport::quic::streams::{MessageStream, SendHalf, poll_chunk};
use crate::transport::serve::Refusing;
use crate::transport::state::{Arriving, Beginning, InFlight, TunnelState};

/// How long a stream may take to say what it wants.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts streams until the connection is gone.
pub(super) async fn serve_streams<A: Accept>(
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    settings: Settings,
    accept: A,
) {
    let take = |stream, recv| drop(tokio::spawn(take(stream, recv, accept.clone())));
    accept_streams(quic, state, settings, take).await;
}

/// What the streams of a tunnel share.
pub(super) struct Served {
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    flows: FlowTable,
    send_room: Arc<SendRoom>,
}

/// What is known of a stream beside what is read on it.
pub(super) struct NewStream {
    pub(super) tunnel: Arc<Served>,
    send: SendHalf,
    in_flight: InFlight,
}

/// Hands each stream that the other end opens to `take`, until the connection is gone, raising the stream limit with the load.
pub(super) async fn accept_streams(
    quic: quinn::Connection,
    state: Arc<TunnelState>,
    settings: Settings,
    take: impl Fn(NewStream, quinn::RecvStream),
) {
    let mut allowed = settings.quic.initial_streams;
    let (flows, send_room) = (FlowTable::default(), settings.send_room());
    let tunnel = Arc::new(Served { quic, state, flows, send_room });
    tunnel.flows.begin(&tunnel.quic, tunnel.state.most_flows());
    while let Ok((send, recv)) = tunnel.quic.accept_bi().await {
        let in_flight = tunnel.state.begin();
        if tunnel.state.in_flight() * 2 > allowed && allowed < settings.quic.max_streams {
            allowed = (allowed * 2).min(settings.quic.max_streams);
            tunnel.quic.set_max_concurrent_bi_streams(VarInt::from_u32(allowed));
        }
        let send = SendHalf::new(send, &tunnel.send_room, tunnel.state.peer_limits());
        take(NewStream { tunnel: Arc::clone(&tunnel), send, in_flight }, recv);
    }
}

/// All that is done for one stream: a task of its own.
#[allow(clippy::manual_async_fn, reason = "the arguments of an async fn lie in its future twice")]
fn take<A: Accept>(
    stream: NewStream,
    recv: quinn::RecvStream,
    accept: A,
) -> impl Future<Output = ()> + Send + 'static + use<A> {
    async move {
        let read = timeout(HEAD_TIMEOUT, opening(recv, &stream.tunnel)).await;
        let arrival = match stream.arrival(read) {
            Ok(arrival) => arrival,
            Err(Some(not_taken)) => {
                let NotTaken { tunnel, refusal, answering } = *not_taken;
                accept.refused(TunnelFacts::new(&tunnel.state), &refusal);
                return answering.await;
            }
            Err(None) => return,
        };
        accept.accept(arrival).await;
    }
}

/// The first of a stream.
#[allow(clippy::large_enum_variant, reason = "one allocation less per exchange; the large one is the usual one")]
pub(super) enum Opening {
    Http(MessageStream, RequestHead, bool),
    Service(ServiceRecv, Open),
    /// A head that there is no room for.
    Refused,
}

/// A stream that is refused here.
pub(super) struct NotTaken {
    tunnel: Arc<Served>,
    refusal: StreamRefusal,
    /// What is still to be answered.
    pub(super) answering: Refusing,
}

impl NotTaken {
    fn reset(tunnel: Arc<Served>, refusal: StreamRefusal) -> Box<Self> {
        Self::answered(tunnel, refusal, Box::pin(std::future::ready(())))
    }

    fn answered(tunnel: Arc<Served>, refusal: StreamRefusal, answering: Refusing) -> Box<Self> {
        Box::new(Self { tunnel, refusal, answering })
    }
}

/// What arrived, unless the stream was refused, or was gone before it said what it wants.
pub(super) type Arrived = Result<Arrival, Option<Box<NotTaken>>>;

impl NewStream {
    /// What arrived with the first of the stream.
    pub(super) fn arrival(mut self, read: Result<Result<Opening, BodyError>, Elapsed>) -> Arrived {
        match read {
            Ok(Ok(Opening::Http(stream, head, end))) => self.http(stream, head, end),
            Ok(Ok(Opening::Service(recv, open))) => self.service(recv, open),
            Ok(Ok(Opening::Refused)) => {
                // Another tunnel may take it. spec: ER-3
                self.send.reset(StreamCode::Rejected);
                Err(Some(NotTaken::reset(self.tunnel, StreamRefusal::heads())))
            }
            Ok(Err(BodyError::Protocol(error))) => {
                debug!(%error, "a stream broke the protocol");
                self.send.reset(error.code());
                Err(Some(NotTaken::reset(self.tunnel, StreamRefusal::broken(&error))))
            }
            Ok(Err(error)) => {
                trace!(%error, "a stream ended before its head");
                Err(None)
            }
            Err(_) => {
                self.send.reset(StreamCode::Rejected);
                let refusal = StreamRefusal::reset(StreamCode::Rejected, Violation::HeadTimeout.to_string());
                Err(Some(NotTaken::reset(self.tunnel, refusal)))
            }
        }
    }

    fn http(self, stream: MessageStream, head: RequestHead, end: bool) -> Arrived {
        let is_head = head.method == http::Method::HEAD;
        let responder = Responder::new(self.send, is_head);
        let responder = arrival::Responder::quic(responder, Arriving::new(self.in_flight));
        let protocol = head.protocol.as_deref().and_then(Protocol::new);
        if head.method == http::Method::CONNECT && protocol.is_none() {
            drop(stream);
            // A stream that is gone needs no answer.
            let answering = Box::pin(async move { drop(responder.respond(not_implemented()).await) });
            return Err(Some(NotTaken::answered(self.tunnel, StreamRefusal::connect(), answering)));
        }
        request((head, protocol), end, stream, responder).map_err(|refusal| Some(NotTaken::reset(self.tunnel, refusal)))
    }

    fn service(self, recv: ServiceRecv, open: Open) -> Arrived {
        let Self { tunnel, send, in_flight } = self;
        let arrival = ServiceArrival::new(send, recv);
        let Some(id) = open.flow else {
            return Ok(Arrival::Raw(RawArrival::quic(open.service, arrival, in_flight).of(open.client)));
        };
        match tunnel.flows.accept(&tunnel.quic, id, tunnel.state.most_flows()) {
            Ok(place) => Ok(Arrival::Flow(FlowArrival::quic(open.service, arrival, place, in_flight).of(open.client))),
            Err(taken @ FlowError::Taken(_)) => {
                arrival.reset(StreamCode::Protocol);
                let refusal = StreamRefusal::reset(StreamCode::Protocol, taken.to_string());
                Err(Some(NotTaken::reset(tunnel, refusal)))
            }
            Err(full @ FlowError::Full(_)) => {
                let refused = Refused { cause: OpenCause::Limit, reason: full.to_string() };
                let refusal = StreamRefusal::full(refused.reason.clone());
                let answering = Box::pin(async move {
                    let _in_flight = in_flight;
                    // A stream that is gone needs no answer.
                    drop(arrival.refuse(&refused).await);
                });
                Err(Some(NotTaken::answered(tunnel, refusal, answering)))
            }
        }
    }
}

/// Reads the first of a stream.
async fn opening(recv: quinn::RecvStream, tunnel: &Served) -> Result<Opening, BodyError> {
    opening_behind(Bytes::new(), recv, tunnel).await
}

/// Reads the first of a stream of which `front` was read already.
pub(super) async fn opening_behind(
    front: Bytes,
    mut recv: quinn::RecvStream,
    tunnel: &Served,
) -> Result<Opening, BodyError> {
    let front = first(front, &mut recv).await?;
    if let Ok(Some(StreamType::Raw | StreamType::Flow)) = StreamType::of(&front) {
        let mut recv = ServiceRecv::behind(front, recv, ServiceReader::of_requests());
        return match recv.event().await? {
            ServiceEvent::Open(open) => Ok(Opening::Service(recv, open)),
            // The reader yields OPEN first.
            _ => Err(BodyError::Reset(StreamCode::Protocol)),
        };
    }
    let mut stream = MessageStream::behind(front, recv, Role::Request, tunnel.state.heads().takes());
    let mut beginning = Beginning::new(&tunnel.state);
    let head = stream.request_head(|held| beginning.hold(held)).await?;
    Ok(head.map_or(Opening::Refused, |(head, end)| Opening::Http(stream, head, end)))
}

/// The first bytes of a stream behind those that were read, enough to tell its type unless it ends before.
async fn first(mut front: Bytes, recv: &mut quinn::RecvStream) -> Result<Bytes, quinn::ReadError> {
    while matches!(StreamType::of(&front), Ok(None))
        && let Some(chunk) = poll_fn(|cx| poll_chunk(recv, cx)).await?
    {
        front = joined(front, chunk);
    }
    Ok(front)
}

/// What was read, and what came behind it.
pub(super) fn joined(front: Bytes, chunk: Bytes) -> Bytes {
    if front.is_empty() { chunk } else { [front, chunk].concat().into() }
}

/// The answer to a CONNECT without a protocol, or with one of our own. spec: ST-25
fn not_implemented() -> http::Response<http_body_util::Empty<Bytes>> {
    let mut response = http::Response::default();
    *response.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
    response
}

/// Turns a head into a request whose body reads on from the stream, unless it is no valid request.
fn request(
    (head, asked): (RequestHead, Option<Protocol>),
    end: bool,
    stream: MessageStream,
    mut responder: arrival::Responder,
) -> Result<Arrival, StreamRefusal> {
    let RequestHead { method, scheme, authority, path, service, protocol: _, fields } = head;
    let Ok(uri) = uri(scheme, authority, path) else {
        responder.reset(StreamCode::Protocol);
        return Err(StreamRefusal::reset(StreamCode::Protocol, Violation::Target.to_string()));
    };
    let body = if end {
        stream.complete();
        RecvBody::empty()
    } else {
        RecvBody::frames(stream, content_length(&fields), None).watched(responder.credit(), asked.is_some())
    };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.headers = fields;
    if !responder.hold(&mut parts) {
        responder.reset(StreamCode::Rejected);
        return Err(StreamRefusal::heads());
    }
    if let Some(asked) = asked {
        parts.extensions.insert(asked);
    }
    Ok(Arrival::Http(HttpArrival { parts, body, service, responder }))
}

/// The parts share the memory of the head.
fn uri(scheme: Scheme, authority: Text, path: Text) -> Result<Uri, http::Error> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::from_maybe_shared(authority.into_bytes())?);
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path.into_bytes())?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator::serve::Services;

    /// The most bytes of a task of an exchange.
    const MAX_SIZE: usize = 1536;

    /// The size of the future that is spawned for every stream.
    fn size_of_task<F>(_: impl FnOnce(NewStream, quinn::RecvStream, Services) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_exchange_is_small() {
        let size = size_of_task(take::<Services>);
        assert!(size <= MAX_SIZE, "{size} bytes");
    }
}
