//! CONNECT: bytes both ways between its sender and what its authority names. RFC 9110 section 9.3.6
//!
//! Inside this program it is a request with the method CONNECT, without a [`Protocol`], whose URI is an authority and nothing
//! else. Where the answer is 2xx, what follows it is bytes both ways: neither has a body.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{Method, Request, Uri, request};

use crate::message::authority;
use crate::message::upgrade::Protocol;
use crate::message::violation::Violation;

/// Whether a request is a CONNECT that asks for bytes, and not for another protocol of HTTP's.
pub fn is_plain(head: &request::Parts) -> bool {
    head.method == Method::CONNECT && head.extensions.get::<Protocol>().is_none()
}

/// As [`is_plain`], of a whole request.
pub fn is_plain_request<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none()
}

/// The URI of an HTTP/1 CONNECT. `host`: the authority in its Host field.
///
/// # Errors
///
/// [`Violation::ConnectTarget`]: the target is not a host and a port; [`Violation::HostMismatch`].
pub(super) fn http1_target(target: Bytes, host: Option<&Authority>) -> Result<Uri, Violation> {
    let named = Authority::from_maybe_shared(target).map_err(|_| Violation::ConnectTarget)?;
    uri(named, host)
}

/// Brings the head of an HTTP/2 or HTTP/3 CONNECT into the shape that one of HTTP/1 has.
///
/// # Errors
///
/// As [`http1_target`] and [`check_fields`].
pub(super) fn http2_request(head: &mut request::Parts, host: Option<&Authority>) -> Result<(), Violation> {
    check_fields(&head.headers)?;
    let named = std::mem::take(&mut head.uri).into_parts().authority.ok_or(Violation::ConnectTarget)?;
    head.uri = uri(named, host)?;
    head.headers.remove(HOST);
    // There is no body to wait for.
    head.headers.remove(EXPECT);
    Ok(())
}

/// What follows a CONNECT is no body, so nothing may say how long it is.
///
/// # Errors
///
/// [`Violation::ConnectLength`].
pub fn check_fields(fields: &HeaderMap) -> Result<(), Violation> {
    let says_length = fields.contains_key(CONTENT_LENGTH) || fields.contains_key(TRANSFER_ENCODING);
    if says_length { Err(Violation::ConnectLength) } else { Ok(()) }
}

/// There is no default port: it must be there, and be one that can be connected to.
fn uri(named: Authority, host: Option<&Authority>) -> Result<Uri, Violation> {
    let named = authority::check(named).map_err(|_| Violation::ConnectTarget)?;
    if matches!(named.port_u16(), None | Some(0)) {
        return Err(Violation::ConnectTarget);
    }
    if host.is_some_and(|host| !is_same(host, &named)) {
        return Err(Violation::HostMismatch);
    }
    Ok(Uri::from(named))
}

/// Some senders leave the port out in Host.
fn is_same(host: &Authority, named: &Authority) -> bool {
    host.host().eq_ignore_ascii_case(named.host()) && host.port_u16().is_none_or(|port| named.port_u16() == Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(target: &'static str, host: Option<&'static str>) -> Result<String, Violation> {
        let host = host.map(Authority::from_static);
        http1_target(Bytes::from_static(target.as_bytes()), host.as_ref()).map(|uri| uri.to_string())
    }

    // spec: ST-65
    #[test]
    fn the_target_is_a_host_and_a_port() {
        for good in ["ssh:22", "a.b-c_d:65535", "[::1]:1"] {
            assert_eq!(target(good, None).as_deref(), Ok(good));
        }
        for bad in
            ["ssh", "ssh:", "ssh:0", "ssh:65536", "ssh:x", ":22", "", "u@ssh:22", "/", "ssh:22/", "http://ssh:22", "*"]
        {
            assert_eq!(target(bad, None), Err(Violation::ConnectTarget), "{bad:?}");
        }
    }

    #[test]
    fn host_names_the_same_or_is_not_there() {
        for same in ["ssh:22", "SSH:22", "ssh"] {
            assert!(target("ssh:22", Some(same)).is_ok(), "{same}");
        }
        for other in ["ssh:23", "web:22", "web"] {
            assert_eq!(target("ssh:22", Some(other)), Err(Violation::HostMismatch), "{other}");
        }
    }

    #[test]
    fn nothing_says_how_long_what_follows_is() {
        let head = |name: &str, value: &str| {
            let request = Request::builder().method("CONNECT").uri("ssh:22").header(name, value).body(());
            request.unwrap().into_parts().0
        };
        for (name, value) in [("content-length", "0"), ("content-length", "5"), ("transfer-encoding", "chunked")] {
            assert_eq!(http2_request(&mut head(name, value), None), Err(Violation::ConnectLength), "{name}: {value}");
        }
        for name in ["expect", "host"] {
            let mut head = head(name, if name == "host" { "ssh:22" } else { "100-continue" });
            assert_eq!(http2_request(&mut head, None), Ok(()));
            assert!(head.headers.is_empty() && head.uri == "ssh:22");
        }
    }
}
