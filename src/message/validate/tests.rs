use http::{HeaderName, HeaderValue};

use super::*;

fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    let mut map = HeaderMap::new();
    for (name, value) in lines.iter().map(field) {
        map.append::<HeaderName>(name, value);
    }
    map
}

fn framing(lines: &[(&str, &str)]) -> Result<Framing, Violation> {
    request_framing(Version::HTTP_11, &fields(lines))
}

fn host(text: &str) -> Result<Authority, Violation> {
    authority(Bytes::copy_from_slice(text.as_bytes()))
}

fn target(method: Method, text: &str, named: Option<&str>) -> Result<String, Violation> {
    let named = named.map(|text| host(text).unwrap());
    let uri = http1_target(&method, Bytes::copy_from_slice(text.as_bytes()), named, Scheme::HTTP)?;
    Ok(uri.to_string())
}

#[test]
fn a_body_is_framed_by_one_length_or_by_chunked_alone() {
    assert_eq!(framing(&[]), Ok(Framing::None));
    assert_eq!(framing(&[("content-length", "0")]), Ok(Framing::None));
    assert_eq!(framing(&[("content-length", "7")]), Ok(Framing::Length(7)));
    assert_eq!(framing(&[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked));
}

#[test]
fn every_ambiguous_framing_is_rejected() {
    let table: [(&[(&str, &str)], Violation); 12] = [
        (&[("content-length", "5"), ("transfer-encoding", "chunked")], Violation::LengthAndCoding),
        (&[("content-length", "0"), ("transfer-encoding", "chunked")], Violation::LengthAndCoding),
        (&[("content-length", "5"), ("content-length", "6")], Violation::ContentLength),
        (&[("content-length", "5"), ("content-length", "5")], Violation::ContentLength),
        (&[("content-length", "5, 5")], Violation::ContentLength),
        (&[("content-length", "+5")], Violation::ContentLength),
        (&[("content-length", "0x5")], Violation::ContentLength),
        (&[("content-length", "")], Violation::ContentLength),
        (&[("content-length", "18446744073709551616")], Violation::ContentLength),
        (&[("transfer-encoding", "gzip, chunked")], Violation::TransferEncoding),
        (&[("transfer-encoding", "chunked"), ("transfer-encoding", "identity")], Violation::TransferEncoding),
        (&[("transfer-encoding", "xchunked")], Violation::TransferEncoding),
    ];
    for (lines, expected) in table {
        assert_eq!(framing(lines), Err(expected), "{lines:?}");
    }
}

#[test]
fn http_1_0_has_no_transfer_encoding() {
    let chunked = fields(&[("transfer-encoding", "chunked")]);
    assert_eq!(request_framing(Version::HTTP_10, &chunked), Err(Violation::CodingVersion));
}

#[test]
fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    for good in ["example.com", "example.com:8080", "example.com:", "127.0.0.1", "[::1]", "[::1]:443", "a_b-c.d~"] {
        assert!(host(good).is_ok(), "{good}");
    }
    for bad in
        ["", ":80", "a:b", "a:65536", "a:+1", "user@a", "a/b", "a b", "[::1", "::1", "[zz]", "[::1]x", "a%2e", "a,b"]
    {
        assert_eq!(host(bad), Err(Violation::BadHost), "{bad}");
    }
}

#[test]
fn http_1_1_needs_a_host_and_http_1_0_does_not() {
    assert_eq!(require_host(Version::HTTP_11, None), Err(Violation::MissingHost));
    assert_eq!(require_host(Version::HTTP_10, None), Ok(()));
    assert_eq!(target(Method::GET, "/a?b", None).as_deref(), Ok("/a?b"));
}

#[test]
fn every_target_form_becomes_one_absolute_uri() {
    assert_eq!(target(Method::GET, "/a?b=c", Some("h:81")).as_deref(), Ok("http://h:81/a?b=c"));
    assert_eq!(target(Method::GET, "http://h/a", Some("H:80")).as_deref(), Ok("http://h/a"));
    assert_eq!(target(Method::GET, "https://h", Some("h:443")).as_deref(), Ok("https://h/"));
    let parts =
        http1_target(&Method::OPTIONS, Bytes::from_static(b"*"), Some(host("h").unwrap()), Scheme::HTTP).unwrap();
    assert_eq!((parts.path(), parts.authority().map(Authority::as_str)), ("*", Some("h")));
    for (asked, meant) in [("http://h", "*"), ("http://h:80", "*"), ("http://h/", "/"), ("http://h?x", "/")] {
        let uri = http1_target(&Method::OPTIONS, Bytes::from_static(asked.as_bytes()), None, Scheme::HTTP).unwrap();
        assert_eq!((uri.path(), uri.host()), (meant, Some("h")), "OPTIONS {asked}");
    }
    let rooted = target(Method::GET, "http://h?x", None).unwrap();
    assert_eq!(rooted, "http://h/?x", "one slash, also where the target has a query and no path");
}

#[test]
fn a_target_that_is_not_what_its_method_allows_is_rejected() {
    assert_eq!(target(Method::GET, "*", Some("h")), Err(Violation::Target));
    assert_eq!(target(Method::GET, "h:80", Some("h")), Err(Violation::Target));
    assert_eq!(target(Method::GET, "ftp://h/", Some("h")), Err(Violation::Target));
    assert_eq!(target(Method::GET, "/a#b", Some("h")), Err(Violation::Target));
    assert_eq!(target(Method::GET, "/\u{e9}", Some("h")), Err(Violation::Target));
    assert_eq!(target(Method::GET, "", Some("h")), Err(Violation::Target));
    assert_eq!(target(Method::GET, "http://user@h/", Some("h")), Err(Violation::BadHost));
    assert_eq!(target(Method::GET, "http://h/", Some("other")), Err(Violation::HostMismatch));
    assert_eq!(target(Method::GET, "http://h:81/", Some("h")), Err(Violation::HostMismatch));
    assert_eq!(target(Method::CONNECT, "h:80", Some("h")), Ok("h:80".to_owned()));
    assert_eq!(target(Method::CONNECT, "/", Some("h")), Err(Violation::ConnectTarget));
    assert_eq!(target(Method::GET, &format!("/{}", "a".repeat(MAX_TARGET)), Some("h")), Err(Violation::TargetTooLong));
    let long = Method::from_bytes(&[b'A'; MAX_METHOD + 1]).unwrap();
    assert_eq!(target(long, "/", Some("h")), Err(Violation::MethodTooLong));
}

fn http2(uri: &str, lines: &[(&str, &str)]) -> Result<(String, Option<u64>), Violation> {
    let mut request = http::Request::builder().uri(uri).body(()).unwrap();
    *request.headers_mut() = fields(lines);
    let (mut parts, ()) = request.into_parts();
    let length = http2_request(&mut parts, &Scheme::HTTP, 3)?;
    assert!(!parts.headers.contains_key(HOST), "Host must not be kept beside the authority");
    Ok((parts.uri.to_string(), length))
}

#[test]
fn http2_requests_take_the_shape_of_http1_requests() {
    assert_eq!(http2("http://h/a", &[("content-length", "4")]), Ok(("http://h/a".into(), Some(4))));
    assert_eq!(http2("http://h/a", &[("host", "H:80")]), Ok(("http://h/a".into(), None)));
    assert_eq!(http2("https://h/a", &[("te", "trailers")]), Ok(("https://h/a".into(), None)));
    assert_eq!(http2("/a", &[("host", "h")]), Ok(("http://h/a".into(), None)), "Host in place of :authority");
    assert_eq!(http2("/a", &[]), Err(Violation::MissingHost));
}

#[test]
fn http2_requests_with_conflicting_or_forbidden_fields_are_rejected() {
    let table: [(&[(&str, &str)], Violation); 9] = [
        (&[("host", "other")], Violation::HostMismatch),
        (&[("host", "h"), ("host", "h")], Violation::DuplicateHost),
        (&[("connection", "close")], Violation::ConnectionField),
        (&[("transfer-encoding", "chunked")], Violation::ConnectionField),
        (&[("keep-alive", "1")], Violation::ConnectionField),
        (&[("proxy-connection", "1")], Violation::ConnectionField),
        (&[("te", "gzip")], Violation::ConnectionField),
        (&[("content-length", "1"), ("content-length", "1")], Violation::ContentLength),
        (&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], Violation::TooManyFields),
    ];
    for (lines, expected) in table {
        assert_eq!(http2("http://h/", lines), Err(expected), "{lines:?}");
    }
    assert_eq!(http2("ftp://h/", &[]), Err(Violation::Target));
    assert_eq!(http2("http://user@h/", &[]), Err(Violation::BadHost));
}

#[test]
fn http2_values_may_not_hide_behind_white_space() {
    let mut request = http::Request::builder().uri("http://h/").body(()).unwrap();
    request.headers_mut().insert("x", HeaderValue::from_bytes(b"a ").unwrap());
    assert_eq!(http2_request(&mut request.into_parts().0, &Scheme::HTTP, 3), Err(Violation::FieldWhitespace));
}

#[test]
fn trailers_cannot_frame_route_or_manage_the_connection() {
    assert_eq!(trailers(&fields(&[("grpc-status", "0")]), 1), Ok(()));
    assert_eq!(trailers(&fields(&[("a", "0"), ("b", "0")]), 1), Err(Violation::TooManyFields));
    for name in ["content-length", "transfer-encoding", "host", "connection", "te", "trailer", "upgrade"] {
        assert_eq!(trailers(&fields(&[(name, "0")]), 1), Err(Violation::Trailers), "{name}");
    }
}

#[test]
fn each_violation_has_the_status_its_rfc_names() {
    assert_eq!(Violation::HeadTooLarge.status(), 431);
    assert_eq!(Violation::TooManyFields.status(), 431);
    assert_eq!(Violation::TargetTooLong.status(), 414);
    assert_eq!(Violation::Connect.status(), 501);
    assert_eq!(Violation::MethodTooLong.status(), 501);
    assert_eq!(Violation::Version.status(), 505);
    assert_eq!(Violation::HeadTimeout.status(), 408);
    assert_eq!(Violation::LengthAndCoding.status(), 400);
    let expected = "adit; error=http_request_error; details=\"CONNECT is not supported\"";
    assert_eq!(Violation::Connect.proxy_status(), expected);
}
