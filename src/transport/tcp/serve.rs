//! The initiator's side: requests that the responder sends over HTTP/2, each answered by a service in a task of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::sync::mpsc;
use tracing::debug;

use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::fields;
use crate::message::interim::InformationalSink;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::{check_content_length, check_http_target};
use crate::transport::body::RecvBody;
use crate::transport::serve::Serve;
use crate::transport::state::{InFlight, TunnelState};
use crate::transport::tcp::body::{Http2Body, reason};
use crate::transport::tcp::fields::{check_fields, field_bytes};
use crate::transport::tcp::open::SERVICE;
use crate::transport::tcp::send::send_body;

/// Interim responses that may wait to be sent; a service that makes more loses the newest.
const MAX_PENDING_INFO: usize = 16;

/// Answers one request of the responder in a task of its own.
pub(super) fn answer_one<S: Serve>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    state: &Arc<TunnelState>,
    limits: Limits,
    service: S,
    names_services: bool,
) {
    let context = Context { _in_flight: state.begin(), limits, peer_limits: state.peer_limits(), names_services };
    tokio::spawn(answer(request, respond, context, service));
}

/// What is known of the tunnel that a request came through.
struct Context {
    _in_flight: InFlight,
    limits: Limits,
    peer_limits: PeerLimits,
    /// Whether the responder may name a service; what an Envoy passes on is its client's word.
    names_services: bool,
}

async fn answer<S: Serve>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    context: Context,
    mut service: S,
) {
    if request.method() == Method::CONNECT {
        return not_implemented(respond);
    }
    let (sink, mut interim) = mpsc::channel(MAX_PENDING_INFO);
    let request = match admit(request, &context, sink) {
        Ok(request) => request,
        Err(code) => {
            debug!(%code, "a request broke the protocol");
            return respond.send_reset(reason(code));
        }
    };
    let is_head = request.method() == Method::HEAD;
    let response = {
        let mut serving = pin!(service.serve(request));
        poll_fn(|cx| {
            let answer = serving.as_mut().poll(cx);
            while let Poll::Ready(Some(early)) = interim.poll_recv(cx) {
                // It can only fail when the stream is gone, which the poll below tells.
                let _ = respond.send_informational(early);
            }
            match answer {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                // The service is dropped then: the target sees the cancellation at once.
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    };
    match response {
        Some(Ok(response)) => deliver(respond, response, is_head, context.peer_limits).await,
        Some(Err(error)) => {
            debug!(%error, "the service failed");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        None => {}
    }
}

/// The answer to CONNECT, which version 1 leaves to a later one. spec: ST-25
fn not_implemented(mut respond: SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    // A stream that is gone needs no answer.
    let _ = respond.send_response(response, true);
}

/// Checks a request again, whoever checked it before, and gives it the shape that every service gets. spec: SE-8, TB-7
fn admit(
    request: Request<RecvStream>,
    context: &Context,
    interim: mpsc::Sender<Response<()>>,
) -> Result<Request<RecvBody>, StreamCode> {
    let (mut parts, stream) = request.into_parts();
    let limits = context.limits;
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let target = parts.method.as_str().len() + authority + path;
    check_fields(&parts.headers, target, limits).map_err(|error| error.code())?;
    let service = match context.names_services {
        true => take_service(&mut parts.headers)?,
        false => {
            parts.headers.remove(&SERVICE);
            None
        }
    };
    if !matches!(parts.uri.scheme_str(), Some("http" | "https")) {
        return Err(StreamCode::Protocol);
    }
    check_http_target(&parts.method, &parts.uri).map_err(|_| StreamCode::Protocol)?;
    let length = check_content_length(&parts.headers).map_err(|_| StreamCode::Protocol)?;
    let body = if stream.is_end_stream() {
        RecvBody::empty()
    } else {
        RecvBody::http2(Http2Body::new(stream, limits, None), length, None)
    };
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    if let Some(service) = service {
        parts.extensions.insert(service);
    }
    parts.extensions.insert(InformationalSink::new(move |early: Response<()>| {
        if early.status().is_informational() && early.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut head, ()) = early.into_parts();
            fields::strip_hop_by_hop(&mut head.headers);
            // A full queue means a service that makes more of them than anybody reads.
            let _ = interim.try_send(Response::from_parts(head, ()));
        }
    }));
    Ok(Request::from_parts(parts, body))
}

/// The exported service that the request is for, if it names one: once, and by a name. spec: TB-6
fn take_service(fields: &mut HeaderMap) -> Result<Option<ServiceName>, StreamCode> {
    if fields.get_all(&SERVICE).iter().nth(1).is_some() {
        return Err(StreamCode::Protocol);
    }
    let Some(name) = fields.remove(&SERVICE) else { return Ok(None) };
    let name = name.to_str().ok().and_then(|name| ServiceName::new(name).ok());
    name.map(Some).ok_or(StreamCode::Protocol)
}

async fn deliver<B>(mut respond: SendResponse<Bytes>, response: Response<B>, is_head: bool, peer_limits: PeerLimits)
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let end = is_head || body.is_end_stream();
    fields::strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(HOST);
    parts.version = Version::HTTP_2;
    parts.extensions = http::Extensions::new();
    let exceeds = field_bytes(&parts.headers) > peer_limits.head_bytes as usize
        || parts.headers.len() > peer_limits.head_fields as usize;
    if exceeds || parts.status.is_informational() {
        debug!("the response head is not one that the responder accepts");
        return respond.send_reset(if exceeds { Reason::ENHANCE_YOUR_CALM } else { Reason::INTERNAL_ERROR });
    }
    // A stream that is gone needs no answer.
    let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), end) else { return };
    if end {
        return;
    }
    if let Err(error) = send_body(&mut stream, body).await {
        debug!(%error, "a response was cut");
    }
}
