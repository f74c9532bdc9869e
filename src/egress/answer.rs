//! The answers a codec gives on its own.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_VERSION};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::message::grpc;
use crate::message::violation::Violation;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The answer to a request that broke a rule; `is_call`: it is one of gRPC, whose clients look for a status of their own first.
pub(super) fn rejection(violation: Violation, is_call: bool) -> Response<Bytes> {
    if is_call {
        return grpc::refusal(violation);
    }
    let mut response = answer(violation.status(), violation.proxy_status(), &violation.to_string());
    if violation == Violation::WebSocketVersion {
        // RFC 6455 section 4.4
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

/// The answer when what the service answered cannot be passed on.
pub(super) fn unwritable() -> Response<Bytes> {
    let cause = HeaderValue::from_static("adit; error=http_protocol_error");
    answer(StatusCode::BAD_GATEWAY, cause, "the response cannot be passed on")
}

fn answer(status: StatusCode, cause: HeaderValue, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{status}: {text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(PROXY_STATUS, cause);
    response
}
