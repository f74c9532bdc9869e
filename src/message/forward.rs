//! What an intermediary changes on its way: hop-by-hop fields go, `Via`, `Forwarded` and `X-Forwarded-For` grow, the
//! authority gets one home. RFC 9110 section 7.6, RFC 7239.
//!
//! What a request says of its client (see [`trust`]) counts only from a sender who is trusted: there
//! it is passed on and extended. From anybody else it is removed, and what we have seen ourselves is said in its place.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version, request, response};

use crate::message::failure::{Cause, Failure};
use crate::message::fields::{is_token_byte, strip_hop_by_hop};
use crate::message::trust::{self, is_claim, is_claim_in_response};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How much memory the elements of a thread's requests share; it is used again once they are all gone.
const ELEMENTS_BYTES: usize = 4 * 1024;
/// How long an element is at most, apart from its host, unless that is quoted.
const USUAL_ELEMENT_BYTES: usize = 80;

thread_local! {
    /// Where elements are written, so that not each of them is an allocation.
    static ELEMENTS: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(ELEMENTS_BYTES));
}

/// How the request reached us, as `Forwarded` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    /// Whoever sent the request.
    pub remote: SocketAddr,
    /// Where it was sent to; the authority of a request that names none, which only HTTP/1.0 may. RFC 9112 section 3.3.
    pub local: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whether whoever sent it may say on whose behalf.
    pub is_trusted: bool,
}

/// Prepares a received request head for the tunnel.
///
/// Afterwards the URI has scheme, authority and path, `Host` is gone, and no field concerns this hop only.
pub fn request(head: &mut request::Parts, hop: &Hop) -> Result<(), Failure> {
    normalise_authority(head, hop)?;
    strip_hop_by_hop(&mut head.headers);
    append_via(&mut head.headers, head.version);
    if !hop.is_trusted {
        trust::strip(&mut head.headers, is_claim);
    }
    let host = head.uri.authority().map_or("", Authority::as_str);
    head.headers.append(FORWARDED, forwarded(hop, host));
    let remote = address(hop, &head.headers);
    head.headers.insert(X_FORWARDED_FOR, remote);
    head.headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto(hop)));
    Ok(())
}

/// Prepares a response head that came out of a tunnel for the client. It has no field of a hop: the tunnel refuses such
/// a head (ST-17), and the codec that writes it takes nothing over that speaks of a connection. What only requests say of
/// a client is no target's to say.
pub fn response(head: &mut response::Parts) {
    trust::strip(&mut head.headers, is_claim_in_response);
    append_via(&mut head.headers, head.version);
}

/// Moves the authority from `Host` into the URI. Where both exist the URI wins: RFC 9112 section 3.2.2, and
/// RFC 9113 section 8.3.1 whose conflict the validator has already refused.
fn normalise_authority(head: &mut request::Parts, hop: &Hop) -> Result<(), Failure> {
    let host = head.headers.remove(HOST);
    if head.uri.authority().is_some() && head.uri.scheme().is_some() && head.uri.path_and_query().is_some() {
        return Ok(());
    }
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    if uri.authority.is_none() {
        uri.authority = Some(authority_of(host.as_ref(), hop.local)?);
    }
    uri.scheme.get_or_insert(if hop.tls { Scheme::HTTPS } else { Scheme::HTTP });
    uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(uri).map_err(|error| Failure::new(Cause::BadRequest, error.to_string()))?;
    Ok(())
}

fn authority_of(host: Option<&HeaderValue>, local: SocketAddr) -> Result<Authority, Failure> {
    let authority = match host {
        Some(host) => Authority::try_from(host.as_bytes()),
        None => Authority::try_from(local.to_string()),
    };
    authority.map_err(|_| Failure::new(Cause::BadRequest, "Host is not an authority"))
}

/// Appends ourselves to `Via`, with the version the message was received in. RFC 9110 sections 7.6.3 and 2.5: a
/// version without a minor number has the minor number 0 there.
fn append_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => "1.0 adit",
        Version::HTTP_2 => "2.0 adit",
        Version::HTTP_3 => "3.0 adit",
        _ => "1.1 adit",
    };
    headers.append(VIA, HeaderValue::from_static(via));
}

/// How the request came to us, whatever its target says.
const fn proto(hop: &Hop) -> &'static str {
    if hop.tls { "https" } else { "http" }
}

/// One element of `Forwarded`. RFC 7239 section 4; an IPv6 address has brackets and therefore quotes (section 6).
fn forwarded(hop: &Hop, host: &str) -> HeaderValue {
    written(USUAL_ELEMENT_BYTES + host.len(), |room| write_element(room, hop, host, proto(hop)))
}

/// The value of `X-Forwarded-For`: those on whose behalf the request comes, as trusted senders said, and its sender.
fn address(hop: &Hop, fields: &HeaderMap) -> HeaderValue {
    let said = fields.get_all(X_FORWARDED_FOR);
    let length: usize = said.iter().map(|value| value.len() + 2).sum();
    written(USUAL_ELEMENT_BYTES + length, |room| {
        for value in said {
            room.extend_from_slice(value.as_bytes());
            room.write_str(", ")?;
        }
        write!(room, "{}", hop.remote.ip().to_canonical())
    })
}

/// A value in the memory that the elements of a thread share.
fn written(bytes: usize, write: impl FnOnce(&mut BytesMut) -> fmt::Result) -> HeaderValue {
    let value = ELEMENTS.with_borrow_mut(|room| {
        room.reserve(bytes);
        write(room).expect("writing to memory cannot fail");
        room.split().freeze()
    });
    HeaderValue::from_maybe_shared(value).expect("addresses, authorities, schemes and field values are field text")
}

fn write_element(element: &mut BytesMut, hop: &Hop, host: &str, proto: &str) -> fmt::Result {
    match hop.remote.ip().to_canonical() {
        IpAddr::V4(ip) => write!(element, "for={ip}")?,
        IpAddr::V6(ip) => write!(element, "for=\"[{ip}]\"")?,
    }
    if !host.is_empty() {
        element.write_str(";host=")?;
        write_value(element, host)?;
    }
    write!(element, ";proto={proto}")
}

/// A token as it is, anything else quoted. RFC 9110 section 5.6.
fn write_value(element: &mut BytesMut, value: &str) -> fmt::Result {
    if value.bytes().all(is_token_byte) {
        return element.write_str(value);
    }
    element.write_char('"')?;
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            element.write_char('\\')?;
        }
        element.write_char(c)?;
    }
    element.write_char('"')
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hop(remote: &str) -> Hop {
        Hop {
            remote: remote.parse().unwrap(),
            local: "198.51.100.1:8085".parse().unwrap(),
            tls: false,
            is_trusted: false,
        }
    }

    fn trusted(remote: &str) -> Hop {
        Hop { is_trusted: true, ..hop(remote) }
    }

    fn values(head: &request::Parts, name: &str) -> Vec<String> {
        head.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    fn forwarded_request(request: Request<()>, hop: &Hop) -> request::Parts {
        let (mut head, ()) = request.into_parts();
        super::request(&mut head, hop).unwrap();
        head
    }

    fn origin_form() -> request::Builder {
        Request::get("/a?b=c").header(HOST, "example.com:8080")
    }

    #[test]
    fn the_authority_moves_from_host_into_the_uri() {
        let head = forwarded_request(origin_form().body(()).unwrap(), &hop("192.0.2.1:5"));
        assert_eq!(head.uri, "http://example.com:8080/a?b=c");
        assert!(!head.headers.contains_key(HOST));
    }

    #[test]
    fn the_uri_wins_over_host() {
        let request = Request::get("https://uri.example/").header(HOST, "host.example").body(()).unwrap();
        let head = forwarded_request(request, &hop("192.0.2.1:5"));
        assert_eq!(head.uri, "https://uri.example/");
        assert!(!head.headers.contains_key(HOST));
        assert_eq!(head.headers[FORWARDED], "for=192.0.2.1;host=uri.example;proto=http", "as it came, not as it says");
    }

    #[test]
    fn options_star_keeps_its_star() {
        let request = Request::options("*").header(HOST, "example.com").body(()).unwrap();
        let head = forwarded_request(request, &hop("192.0.2.1:5"));
        assert_eq!(head.uri.path(), "*");
        assert_eq!(head.uri.authority().unwrap(), "example.com");
    }

    #[test]
    fn a_request_without_a_host_is_for_the_address_it_came_to() {
        let head = forwarded_request(Request::get("/a").body(()).unwrap(), &hop("192.0.2.1:5"));
        assert_eq!(head.uri, "http://198.51.100.1:8085/a");
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let (mut head, ()) = Request::get("/").header(HOST, "a b").body(()).unwrap().into_parts();
        let failure = request(&mut head, &hop("192.0.2.1:5")).unwrap_err();
        assert_eq!(failure.cause(), Cause::BadRequest);
    }

    #[test]
    fn fields_of_this_hop_stay_here() {
        let request = origin_form()
            .header("connection", "x-hop, close")
            .header("x-hop", "1")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .body(())
            .unwrap();
        let head = forwarded_request(request, &hop("192.0.2.1:5"));
        for gone in ["connection", "x-hop", "transfer-encoding"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(head.headers["te"], "trailers");
    }

    fn claims() -> Request<()> {
        origin_form()
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-for", "203.0.113.10, 203.0.113.11")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "shop.example")
            .header("x-forwarded-client-cert", "URI=spiffe://admin")
            .header("x-real-ip", "203.0.113.9")
            .header("x-envoy-internal", "true")
            .header("x_forwarded_for", "203.0.113.9")
            .header("forwarded", "for=203.0.113.9")
            .header("x-request-id", "7")
            .body(())
            .unwrap()
    }

    #[test]
    fn what_an_untrusted_sender_says_of_a_client_is_replaced_by_what_was_seen() {
        let head = forwarded_request(claims(), &hop("192.0.2.1:5"));
        assert_eq!(values(&head, "forwarded"), ["for=192.0.2.1;host=\"example.com:8080\";proto=http"]);
        assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&head, "x-request-id"), ["7"]);
        let others =
            ["x-forwarded-host", "x-forwarded-client-cert", "x-real-ip", "x-envoy-internal", "x_forwarded_for"];
        for gone in others {
            assert_eq!(values(&head, gone), [""; 0], "{gone}");
        }
    }

    #[test]
    fn what_a_trusted_sender_says_of_a_client_is_passed_on_and_extended() {
        let head = forwarded_request(claims(), &trusted("[2001:db8::1]:5"));
        let forwarded = ["for=203.0.113.9", "for=\"[2001:db8::1]\";host=\"example.com:8080\";proto=http"];
        assert_eq!(values(&head, "forwarded"), forwarded);
        assert_eq!(values(&head, "x-forwarded-for"), ["203.0.113.9, 203.0.113.10, 203.0.113.11, 2001:db8::1"]);
        for (kept, value) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-client-cert", "URI=spiffe://admin"),
            ("x-real-ip", "203.0.113.9"),
            ("x-envoy-internal", "true"),
        ] {
            assert_eq!(values(&head, kept), [value], "{kept}");
        }
    }

    #[test]
    fn a_sender_who_says_nothing_is_told_of_all_the_same() {
        for hop in [hop("192.0.2.1:5"), trusted("192.0.2.1:5")] {
            let head = forwarded_request(origin_form().body(()).unwrap(), &Hop { tls: true, ..hop });
            assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.1"]);
            assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
            assert_eq!(values(&head, "forwarded"), ["for=192.0.2.1;host=\"example.com:8080\";proto=https"]);
        }
    }

    #[test]
    fn via_tells_the_version_received_and_keeps_what_was_there() {
        let mut request = origin_form().header(VIA, "1.0 before").body(()).unwrap();
        *request.version_mut() = Version::HTTP_2;
        let head = forwarded_request(request, &hop("192.0.2.1:5"));
        let via: Vec<_> = head.headers.get_all(VIA).iter().collect();
        assert_eq!(via, ["1.0 before", "2.0 adit"]);
    }

    #[test]
    fn forwarded_is_appended_and_quotes_what_is_no_token() {
        let request = origin_form().header(FORWARDED, "for=203.0.113.9").body(()).unwrap();
        let head = forwarded_request(request, &trusted("[2001:db8::1]:5"));
        let elements: Vec<_> = head.headers.get_all(FORWARDED).iter().collect();
        assert_eq!(elements, ["for=203.0.113.9", "for=\"[2001:db8::1]\";host=\"example.com:8080\";proto=http"]);
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_is_told_as_ipv4() {
        let head = forwarded_request(origin_form().body(()).unwrap(), &hop("[::ffff:192.0.2.7]:5"));
        assert!(head.headers[FORWARDED].to_str().unwrap().starts_with("for=192.0.2.7;"));
    }

    #[test]
    fn a_response_gets_via_and_says_nothing_of_a_client() {
        let claims = http::Response::builder().header("x-forwarded-client-cert", "a").header("forwarded", "for=b");
        let (mut head, ()) = claims.body(()).unwrap().into_parts();
        response(&mut head);
        assert_eq!(head.headers[VIA], "1.1 adit");
        assert_eq!(head.headers.len(), 1);
    }
}
