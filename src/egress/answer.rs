//! The answers a codec gives on its own.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::message::violation::Violation;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The answer to a request that broke a rule.
pub(super) fn rejection(violation: Violation) -> Response<Bytes> {
    answer(violation.status(), violation.proxy_status(), &violation.to_string())
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
