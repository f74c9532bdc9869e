//! One request, one answer; no I/O.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::admin::guard::Guard;
use crate::admin::{AdminState, DrainReport, Draining, Filter, ReloadFault, Reloading};
use crate::config::Difference;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The version of the text format that Prometheus asks for.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PATHS: &str = "/metrics, /healthz, /ready, /tunnels, /fleet, /config, /drain (GET and POST) and (POST) /reload";

type Answer = Response<Full<Bytes>>;

/// What becomes of a request.
pub(super) enum Reply {
    /// It is answered.
    Now(Answer),
    /// It is answered with what comes of this, see [`reloaded`].
    After(Reloading),
    /// It is answered when the process has drained, see [`drained`].
    AtEnd(Draining),
}

/// What the listener says to this request.
pub(super) fn answer<B>(request: &Request<B>, state: &dyn AdminState, guard: Guard) -> Reply {
    match refusal(request, guard) {
        Some(refusal) => Reply::Now(refusal),
        None if request.uri().path() == "/reload" => Reply::After(state.reload()),
        None if request.uri().path() == "/drain" && request.method() != Method::POST => match request.uri().query() {
            None | Some("") => Reply::Now(json(&state.drain_report())),
            Some("until=end") => Reply::AtEnd(state.drained()),
            Some(_) => Reply::Now(plain(StatusCode::BAD_REQUEST, "GET /drain takes until=end, or nothing")),
        },
        None => Reply::Now(route(request.uri().path(), request.uri().query().unwrap_or_default(), state)),
    }
}

/// What is said to a request for nothing that there is, or that may not ask for it.
fn refusal<B>(request: &Request<B>, guard: Guard) -> Option<Answer> {
    if let Some(reason) = guard.refuse(request) {
        return Some(plain(StatusCode::FORBIDDEN, reason));
    }
    let path = request.uri().path();
    let Some(allowed) = allowed_methods(path) else {
        return Some(plain(StatusCode::NOT_FOUND, &format!("nothing here; there are {PATHS}")));
    };
    if !allowed.split(", ").any(|method| method == request.method().as_str()) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} takes {allowed}"));
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return Some(answer);
    }
    None
}

/// What changed, or why nothing did.
pub(super) fn reloaded(outcome: Result<Difference, ReloadFault>) -> Answer {
    match outcome {
        Ok(difference) if difference.is_empty() => plain(StatusCode::OK, "nothing changes"),
        Ok(difference) => plain(StatusCode::OK, &difference.to_string()),
        Err(fault) => plain(fault.status(), &fault.to_string()),
    }
}

/// How it ended.
pub(super) fn drained(report: &DrainReport) -> Answer {
    json(report)
}

/// Whether the path is one that stays answered whoever else is connected.
pub(super) fn is_about_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/ready")
}

/// What is said to everything else when all places are taken.
pub(super) fn full() -> Answer {
    plain(StatusCode::SERVICE_UNAVAILABLE, "too many connections; only /healthz and /ready are answered now")
}

fn allowed_methods(path: &str) -> Option<&'static str> {
    match path {
        "/metrics" | "/healthz" | "/ready" | "/tunnels" | "/fleet" | "/config" => Some("GET, HEAD"),
        "/drain" => Some("GET, HEAD, POST"),
        "/reload" => Some("POST"),
        _ => None,
    }
}

fn route(path: &str, query: &str, state: &dyn AdminState) -> Answer {
    match path {
        "/metrics" => respond(StatusCode::OK, PROMETHEUS, state.metrics()),
        "/ready" => readiness(query, state),
        "/tunnels" => tunnels(query, state),
        "/fleet" => match state.fleet() {
            Some(report) => json(&report),
            None => plain(StatusCode::NOT_FOUND, "this process is in no fleet; expected fleet: in its file"),
        },
        "/config" => json(&state.config()),
        "/drain" => {
            state.drain();
            plain(StatusCode::ACCEPTED, "draining")
        }
        _ => plain(StatusCode::OK, "ok"),
    }
}

fn tunnels(query: &str, state: &dyn AdminState) -> Answer {
    match Filter::parse(query) {
        Ok(filter) => {
            let mut report = state.tunnels();
            filter.apply(&mut report);
            json(&report)
        }
        Err(wrong) => plain(StatusCode::BAD_REQUEST, &wrong),
    }
}

/// A balancer in front of an egress asks for tunnels, too; one in front of the tunnel listener must not.
fn readiness(query: &str, state: &dyn AdminState) -> Answer {
    let wanted = match query.strip_prefix("tunnels=").map(str::parse::<usize>) {
        Some(Ok(wanted)) => wanted,
        None if query.is_empty() => 0,
        _ => return plain(StatusCode::BAD_REQUEST, "/ready takes tunnels=N, the least number of tunnels that are up"),
    };
    let mut missing = state.readiness().missing;
    if wanted > 0 {
        let up = state.tunnels_up();
        if up < wanted {
            missing.push(format!("tunnels: {up} of {wanted} are up"));
        }
    }
    match missing.is_empty() {
        true => plain(StatusCode::OK, "ready"),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, &missing.join("\n")),
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    respond(status, TEXT, format!("{text}\n"))
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(value) {
        Ok(text) => respond(StatusCode::OK, JSON, format!("{text}\n")),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
