//! The initiator's side: requests that the responder sends over HTTP/2, each taken in a task of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tracing::debug;

use crate::id::ServiceName;
use crate::message::h2::recv::StreamBody;
use crate::message::h2::small::Inflow;
use crate::message::upgrade::Protocol;
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::flows::FlowError;
use crate::protocol::http2::Unserved;
use crate::protocol::limits::DEFAULT_FLOWS;
use crate::protocol::stream::{Refused, StreamError, StreamType, check_content_length, check_http_target};
use crate::protocol::tcp::SERVICE_FIELD;
use crate::transport::arrival::{
    self, Accept, Arrival, FlowArrival, HttpArrival, RawArrival, StreamRefusal, TunnelFacts,
};
use crate::transport::body::RecvBody;
use crate::transport::kind::Dialect;
use crate::transport::state::{Arriving, InFlight, TunnelState};
use crate::transport::tcp::codes::{head_rules, reason, trailer_rules};
use crate::transport::tcp::envoy::websocket::Asking;
use crate::transport::tcp::respond::Responder;
use crate::transport::tcp::service::{RawRecv, ServiceArrival, asked_for, has_service_target, take_client};
use crate::transport::tied::TiedUpload;

/// Does this work of a connection, and tells of the requests that HTTP/2 has refused by itself meanwhile. Cancel safe if the work is.
/// spec: SE-44
pub(super) async fn hearing<F: Future, A: Accept>(
    work: F,
    unserved: &Unserved,
    state: &Arc<TunnelState>,
    accept: &A,
) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        while let Some((unheard, count)) = unserved.take() {
            for _ in 0..count {
                accept.refused(TunnelFacts::new(state), &StreamRefusal::unheard(unheard));
            }
        }
        polled
    })
    .await
}

/// Takes one request of the responder in a task of its own.
pub(super) fn accept_one<A: Accept>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: &Arc<TunnelState>,
    accept: &A,
    dialect: Dialect,
) {
    let in_flight = state.begin();
    if request.method() == Method::CONNECT {
        match asked_for(&request).filter(|_| dialect == Dialect::Adit) {
            None if protocol(request.extensions()).is_some() => {}
            None => {
                accept.refused(TunnelFacts::new(state), &StreamRefusal::connect());
                return not_implemented(respond);
            }
            Some(stream_type) => return accept_service(stream_type, (request, respond), state, in_flight, accept),
        }
    }
    let (mut parts, body, service) = match admit(request, dialect, state) {
        Ok(request) => request,
        Err(code) => {
            debug!(%code, "a request broke the protocol");
            let refusal = StreamRefusal::reset(code, "the head of the request broke the protocol");
            accept.refused(TunnelFacts::new(state), &refusal);
            return respond.send_reset(reason(code));
        }
    };
    let responder = Responder::new(respond, parts.method == Method::HEAD, state.peer_limits());
    let responder = match dialect {
        Dialect::Envoy if parts.method == Method::CONNECT => responder.asked_by_envoy(Asking::of(&mut parts.headers)),
        _ => responder,
    };
    let mut responder = arrival::Responder::tcp(responder, Arriving::new(in_flight));
    if !responder.hold(&mut parts) {
        // Another tunnel may take it. spec: ER-3
        responder.reset(StreamCode::Rejected);
        return accept.refused(TunnelFacts::new(state), &StreamRefusal::heads());
    }
    tokio::spawn(accept.clone().accept(Arrival::Http(HttpArrival { parts, body, service, responder })));
}

/// Takes a request that opens a raw stream or a flow. spec: TB-12
fn accept_service<A: Accept>(
    stream_type: StreamType,
    (request, mut respond): (Request<RecvStream>, SendResponse<Bytes>),
    state: &Arc<TunnelState>,
    in_flight: InFlight,
    accept: &A,
) {
    let (mut parts, recv) = request.into_parts();
    let named = (take_service(&mut parts.headers), take_client(&mut parts.headers));
    let (service, client) = match named {
        (Ok(Some(service)), Ok(client)) if has_service_target(&parts.uri) => (service, client),
        _ => {
            debug!("a request for a raw stream or a flow broke the protocol");
            let refusal = StreamRefusal::reset(StreamCode::Protocol, "the head of the stream broke the protocol");
            accept.refused(TunnelFacts::new(state), &refusal);
            return respond.send_reset(reason(StreamCode::Protocol));
        }
    };
    let arrival = ServiceArrival::new(respond, RawRecv::new(recv, state));
    let arrival = match stream_type {
        StreamType::Flow => match state.begin_flow() {
            Some(count) => Arrival::Flow(FlowArrival::tcp(service, arrival, count, in_flight).of(client)),
            None => return refuse_flow(arrival, state, accept),
        },
        StreamType::Http | StreamType::Raw => Arrival::Raw(RawArrival::tcp(service, arrival, in_flight).of(client)),
    };
    tokio::spawn(accept.clone().accept(arrival));
}

/// One flow more than there may be. spec: ST-71
fn refuse_flow<A: Accept>(arrival: ServiceArrival, state: &TunnelState, accept: &A) {
    let refused = Refused { cause: OpenCause::Limit, reason: FlowError::Full(DEFAULT_FLOWS).to_string() };
    accept.refused(TunnelFacts::new(state), &StreamRefusal::full(refused.reason.clone()));
    // A stream that is gone needs no answer.
    drop(arrival.refuse(&refused));
}

/// The protocol that an extended CONNECT asks for, if it is one that an exchange can go on in. spec: ST-15
fn protocol(extensions: &http::Extensions) -> Option<Protocol> {
    Protocol::new(extensions.get::<h2::ext::Protocol>()?.as_str())
}

/// The answer to a CONNECT without a protocol, or with one of our own. spec: ST-25
fn not_implemented(mut respond: SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    // A stream that is gone needs no answer.
    let _ = respond.send_response(response, true);
}

/// A request, and the exported service that it is for.
type Admitted = (http::request::Parts, RecvBody, Option<ServiceName>);

/// Checks a request again, whoever checked it before, and gives it the shape that every service gets. spec: SE-8, TB-7
fn admit(request: Request<RecvStream>, dialect: Dialect, state: &TunnelState) -> Result<Admitted, StreamCode> {
    let ((mut parts, stream), limits) = (request.into_parts(), state.heads().takes());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let target = parts.method.as_str().len() + authority + path;
    let judged = head_rules(limits).judge(&parts.headers, target);
    judged.map_err(|violation| StreamError::Fields(violation).code())?;
    // What an Envoy passes on is its client's word.
    let service = match dialect {
        Dialect::Adit => take_service(&mut parts.headers)?,
        Dialect::Envoy => {
            parts.headers.remove(&SERVICE_FIELD);
            None
        }
    };
    if !matches!(parts.uri.scheme_str(), Some("http" | "https")) {
        return Err(StreamCode::Protocol);
    }
    let asked = protocol(&parts.extensions);
    check_http_target(&parts.method, &parts.uri, asked.is_some()).map_err(|_| StreamCode::Protocol)?;
    let length = check_content_length(&parts.headers).map_err(|_| StreamCode::Protocol)?;
    let body = if stream.is_end_stream() {
        RecvBody::empty()
    } else {
        let stream = Inflow::new(stream, state.small_frames());
        let stream = StreamBody::new(stream, length, trailer_rules(limits));
        RecvBody::http2(stream, TiedUpload::default(), None).watched(state.credit(), asked.is_some())
    };
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    if let Some(asked) = asked {
        parts.extensions.insert(asked);
    }
    Ok((parts, body, service))
}

/// The exported service that the request is for, if it names one: once, and by a name. spec: TB-6
fn take_service(fields: &mut HeaderMap) -> Result<Option<ServiceName>, StreamCode> {
    if fields.get_all(&SERVICE_FIELD).iter().nth(1).is_some() {
        return Err(StreamCode::Protocol);
    }
    let Some(name) = fields.remove(&SERVICE_FIELD) else { return Ok(None) };
    let name = name.to_str().ok().and_then(|name| ServiceName::new(name).ok());
    name.map(Some).ok_or(StreamCode::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator::serve::Services;

    /// The most bytes of a task of an exchange.
    const MAX_SIZE: usize = 1536;

    /// The size of the future that is spawned for every stream.
    fn size_of_task<F>(_: impl FnOnce(Services, Arrival) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_exchange_is_small() {
        let size = size_of_task(<Services as Accept>::accept);
        assert!(size <= MAX_SIZE, "{size} bytes");
    }
}
