//! `Max-Forwards`: how many proxies may hand on a TRACE or an OPTIONS, which somebody sends to find out where it gets lost.
//! RFC 9110 section 7.6.2
//!
//! A tunnel with both its ends is one proxy here, as it is in `Via`: the listener that takes the request counts.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, MAX_FORWARDS, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue, Method, Response, Version, request};

use crate::message::failure::{Cause, Failure};
use crate::message::trust::is_claim;

/// The most that is handed on, whatever was asked for.
const MOST: u64 = u32::MAX as u64;

/// Counts this proxy, in a head that came from a client and of which nothing was changed yet. An answer: the request goes no
/// further, and this is what its last recipient says. With other methods the field means nothing, and stays as it is.
///
/// # Errors
///
/// [`Cause::BadRequest`]: the field is there more than once, or is no decimal number. Where it is there, somebody counts.
pub fn count(head: &mut request::Parts) -> Result<Option<Response<Bytes>>, Failure> {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) || !head.headers.contains_key(MAX_FORWARDS) {
        return Ok(None);
    }
    match left(&head.headers)? {
        0 if head.method == Method::TRACE => Ok(Some(traced(head))),
        0 => Ok(Some(Response::new(Bytes::new()))),
        left => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from((left - 1).min(MOST)));
            Ok(None)
        }
    }
}

fn left(fields: &HeaderMap) -> Result<u64, Failure> {
    let mut values = fields.get_all(MAX_FORWARDS).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            // What is beyond all numbers is a number all the same.
            Ok(str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
        }
        _ => Err(Failure::new(Cause::BadRequest, "Max-Forwards is there more than once, or is no decimal number")),
    }
}

/// The answer to a TRACE: its head as it came, but for what its sender may not have written, or should not see on a screen.
/// RFC 9110 section 9.3.8
fn traced(head: &request::Parts) -> Response<Bytes> {
    let version = if head.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut text = String::new();
    write!(text, "TRACE {} {version}\r\n", head.uri).expect("writing to memory cannot fail");
    let mut text = text.into_bytes();
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_secret(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    response
}

/// Whether a field is not shown: credentials, and what a proxy in front says of the client.
fn is_secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name) || is_claim(name)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: Method, values: &[&str]) -> request::Parts {
        let mut request = Request::builder().method(method).uri("http://h/a?b");
        for value in values {
            request = request.header("max-forwards", *value);
        }
        request
            .header("x-a", "1")
            .header("cookie", "secret")
            .header("x-forwarded-for", "192.0.2.7")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    // spec: ST-81
    #[test]
    fn each_proxy_counts_once_and_the_last_one_answers() {
        for method in [Method::OPTIONS, Method::TRACE] {
            for (value, expected) in [
                ("1", "0"),
                ("10", "9"),
                ("007", "6"),
                ("4294967295", "4294967294"),
                ("4294967297", "4294967295"),
                ("99999999999999999999999999", "4294967295"),
            ] {
                let mut head = head(method.clone(), &[value]);
                assert!(count(&mut head).unwrap().is_none(), "{value}");
                assert_eq!(head.headers[MAX_FORWARDS], expected, "{value}");
            }
        }
        let answer = count(&mut head(Method::OPTIONS, &["0"])).unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 0));
        let answer = count(&mut head(Method::TRACE, &["00"])).unwrap().unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "message/http");
        assert_eq!(answer.body(), "TRACE http://h/a?b HTTP/1.1\r\nmax-forwards: 00\r\nx-a: 1\r\n\r\n");
    }

    // spec: ST-81
    #[test]
    fn what_is_no_number_is_refused_where_somebody_counts_and_nothing_elsewhere() {
        for values in [&["x"][..], &[""], &["-1"], &["+1"], &["1.0"], &["1, 2"], &["1", "1"]] {
            let failure = count(&mut head(Method::TRACE, values)).unwrap_err();
            assert_eq!(failure.cause(), Cause::BadRequest, "{values:?}");
            for method in [Method::GET, Method::POST, Method::CONNECT] {
                let mut head = head(method, values);
                assert!(count(&mut head).unwrap().is_none());
                assert_eq!(head.headers.get_all(MAX_FORWARDS).iter().collect::<Vec<_>>(), values);
            }
        }
        let mut head = head(Method::TRACE, &[]);
        assert!(count(&mut head).unwrap().is_none() && !head.headers.contains_key(MAX_FORWARDS));
    }
}
