//! Keeps web pages out: a browser on the machine would otherwise carry their requests to the loopback listener.
//!
//! Two ways are closed. A page whose DNS name is made to point at 127.0.0.1 (DNS rebinding) sends its own name as
//! Host, so a listener on loopback answers loopback names and addresses only. A page that posts blindly across sites
//! has an Origin other than Host, so such a POST is refused.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Request};

use crate::admin::socket::Listener;
use crate::config::AdminAddress;

/// What may be asked of a listener for reading only.
const READABLE: [&str; 3] = ["/metrics", "/healthz", "/ready"];

/// What the listener asks of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guard {
    loopback_only: bool,
    read_only: bool,
}

impl Guard {
    /// A listener elsewhere than on loopback is reached by names that only its operator knows.
    pub(super) fn for_listener(listener: &Listener) -> Self {
        let is_loopback = matches!(listener.address(), AdminAddress::Tcp(address) if address.ip().is_loopback());
        Self { loopback_only: is_loopback, read_only: listener.is_read_only() }
    }

    /// Why the request is refused, if it is.
    pub(super) fn refuse<B>(self, request: &Request<B>) -> Option<&'static str> {
        if self.loopback_only && !names_loopback(request) {
            return Some(
                "this listener answers to localhost, 127.0.0.1 and [::1] only; the Host of the request is another",
            );
        }
        if self.read_only && !READABLE.contains(&request.uri().path()) {
            return Some("this listener is for /metrics, /healthz and /ready only; the admin listener has the rest");
        }
        if request.method() != Method::GET && is_cross_origin(request.headers()) {
            return Some("a web page of another origin may not ask for this");
        }
        None
    }
}

fn names_loopback<B>(request: &Request<B>) -> bool {
    let stated = request.uri().authority().cloned().or_else(|| stated_host(request.headers()));
    stated.is_some_and(|authority| is_loopback(authority.host()))
}

fn stated_host(headers: &HeaderMap) -> Option<Authority> {
    let mut values = headers.get_all(HOST).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    Authority::try_from(only.as_bytes()).ok()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether an Origin is stated that is not this listener; tools state none.
fn is_cross_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let same = |host: Authority| origin.as_bytes().strip_prefix(b"http://") == Some(host.as_str().as_bytes());
    !stated_host(headers).is_some_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Guard = Guard { loopback_only: true, read_only: false };
    const ELSEWHERE: Guard = Guard { loopback_only: false, read_only: false };

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let start = Request::builder().method(method).uri("/metrics");
        headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn loopback_answers_to_loopback_names_only() {
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1:9901", "127.9.9.9", "[::1]:9901"] {
            assert_eq!(LOOPBACK.refuse(&request(Method::GET, &[("host", host)])), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "", "a b"] {
            assert!(LOOPBACK.refuse(&request(Method::GET, &[("host", host)])).is_some(), "{host}");
        }
        assert!(LOOPBACK.refuse(&request(Method::GET, &[])).is_some());
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert!(LOOPBACK.refuse(&request(Method::GET, &two)).is_some());
    }

    #[test]
    fn a_listener_elsewhere_answers_to_any_name() {
        assert_eq!(ELSEWHERE.refuse(&request(Method::GET, &[("host", "adit.example.com")])), None);
    }

    #[test]
    fn pages_of_other_origins_may_not_post() {
        let post = |origin| request(Method::POST, &[("host", "localhost:9901"), ("origin", origin)]);
        assert!(LOOPBACK.refuse(&post("http://evil.example")).is_some());
        assert!(LOOPBACK.refuse(&post("http://localhost:9902")).is_some());
        assert!(ELSEWHERE.refuse(&post("null")).is_some());
        assert_eq!(LOOPBACK.refuse(&post("http://localhost:9901")), None);
        assert_eq!(LOOPBACK.refuse(&request(Method::POST, &[("host", "localhost:9901")])), None);
    }
}
