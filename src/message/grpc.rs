//! gRPC: which requests are calls, how long a call may take, and how its client is told of a failure.
//!
//! A client of gRPC looks for a status of gRPC first and makes of anything else what it can; so a failure of our own is a
//! response without a body that has one, and a response that breaks off ends in trailers that have one. gRPC-Web, whose
//! trailers are part of its body, is HTTP like any other. Source: gRPC over HTTP2 (`doc/PROTOCOL-HTTP2.md` of gRPC).

use std::fmt::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode, request};

use crate::message::failure::{Cause, Failure, GRPC_STATUS, PROXY_STATUS, printable};
use crate::message::violation::Violation;

/// What a failed call is told beside that, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long a call may take.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What all calls have in common.
const MEDIA_TYPE: &[u8] = b"application/grpc";
/// The largest number in a `grpc-timeout`.
const MAX_TIMEOUT: u128 = 99_999_999;

/// Whether a request is a call: a POST of `application/grpc`, perhaps with a format or parameters behind it.
pub fn is_call(head: &request::Parts) -> bool {
    has_call(&head.method, &head.headers)
}

/// As [`is_call`], of a request that is not taken apart.
pub fn has_call(method: &Method, fields: &HeaderMap) -> bool {
    *method == Method::POST && fields.get(CONTENT_TYPE).is_some_and(|value| is_media_type(value.as_bytes()))
}

/// Whether the value of a Content-Type is that of a call.
pub fn is_media_type(value: &[u8]) -> bool {
    match value.split_at_checked(MEDIA_TYPE.len()) {
        Some((begin, rest)) => {
            begin.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        }
        None => false,
    }
}

/// How long a call may take; `None`: as long as it takes, or the field is none that can be read, which is for the target to
/// judge.
pub fn timeout(fields: &HeaderMap) -> Option<Duration> {
    let (number, unit) = fields.get(TIMEOUT)?.as_bytes().split_last().map(|(unit, number)| (number, unit))?;
    if !(1..=8).contains(&number.len()) || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// How long a call may take, without end where its client does not say; `otherwise` where what it says cannot be read.
pub fn limit(fields: &HeaderMap, otherwise: Duration) -> Duration {
    match fields.get_all(TIMEOUT).iter().count() {
        0 => Duration::MAX,
        1 => timeout(fields).unwrap_or(otherwise),
        _ => otherwise,
    }
}

/// Says that `left` is left of the time of a call, rounded down to what the field can say, and at least a nanosecond.
pub fn set_timeout(fields: &mut HeaderMap, left: Duration) {
    let units = [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm')];
    let fits = |&(number, _): &(u128, char)| number <= MAX_TIMEOUT;
    let seconds = (u128::from(left.as_secs()).min(MAX_TIMEOUT), 'S');
    let (number, unit) = units.into_iter().find(fits).unwrap_or(seconds);
    let text = format!("{}{unit}", number.max(1));
    fields.insert(TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter are field text"));
}

/// The status of gRPC that a cause has: one that says whether another try may help, as our status of HTTP does.
const fn status(cause: Cause) -> HeaderValue {
    use Cause as C;
    HeaderValue::from_static(match cause {
        // CANCELLED
        C::RequestCut => "1",
        // DEADLINE_EXCEEDED
        C::Deadline | C::BodyTimeout | C::Idle => "4",
        // PERMISSION_DENIED
        C::Denied => "7",
        // RESOURCE_EXHAUSTED
        C::HeadTooLarge | C::TunnelFull | C::ServiceFull | C::Quota | C::NotRead | C::TargetHeadTooLarge => "8",
        // UNIMPLEMENTED
        C::UnknownService | C::UpgradeRefused => "12",
        // INTERNAL
        C::BadRequest
        | C::NoHostId
        | C::PeerProtocol
        | C::TargetProtocol
        | C::UpgradeFailed
        | C::Loop
        | C::Internal => "13",
        // UNAVAILABLE
        C::UnknownHost
        | C::NoTunnel
        | C::UpstreamDown
        | C::TunnelLost
        | C::PeerReset
        | C::TargetDns
        | C::TargetRefused
        | C::TargetUnreachable
        | C::TargetTimeout
        | C::TargetClosed
        | C::TargetCut
        | C::TargetTlsCertificate
        | C::TargetTlsAlert
        | C::TargetTlsProtocol => "14",
    })
}

/// The response that tells a client that its call failed: a head with its status, and no body.
pub fn response(failure: &Failure) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    put_status(failure.cause(), &failure.details(), fields);
    let (head, _) = failure.response().into_parts();
    for name in [PROXY_STATUS, RETRY_AFTER] {
        if let Some(value) = head.headers.get(&name) {
            fields.insert(name, value.clone());
        }
    }
    response
}

/// The response that tells a client that its call broke a rule of HTTP.
pub fn refusal(violation: Violation) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(GRPC_STATUS, refusal_status(violation.status()));
    put_message(format_args!("{violation}"), "http_request_error", fields);
    fields.insert(PROXY_STATUS, violation.proxy_status());
    response
}

/// The status of gRPC of a rule that was broken, by the status that any other request is answered with.
const fn refusal_status(status: StatusCode) -> HeaderValue {
    HeaderValue::from_static(match status {
        // DEADLINE_EXCEEDED
        StatusCode::REQUEST_TIMEOUT => "4",
        // RESOURCE_EXHAUSTED
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => "8",
        // UNIMPLEMENTED
        StatusCode::NOT_IMPLEMENTED => "12",
        // UNAVAILABLE: sent again, it may be taken.
        StatusCode::TOO_EARLY => "14",
        // INTERNAL
        _ => "13",
    })
}

/// The trailers that end a response which broke off.
pub fn trailers(cause: Cause, details: &dyn fmt::Display) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    put_status(cause, details, &mut fields);
    fields
}

fn put_status(cause: Cause, details: &dyn fmt::Display, fields: &mut HeaderMap) {
    fields.insert(GRPC_STATUS, status(cause));
    put_message(details, cause.error_type(), fields);
}

fn put_message(details: impl fmt::Display, error_type: &str, fields: &mut HeaderMap) {
    let text = format!("adit: {} ({error_type})", printable(&details.to_string()));
    let message = HeaderValue::try_from(percent_encoded(&text)).expect("printable ASCII is always a field value");
    fields.insert(MESSAGE, message);
}

/// Of printable ASCII only the percent sign itself has to be encoded.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => encoded.write_str("%25").expect("writing to memory cannot fail"),
            c => encoded.push(c),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn call(method: &str, content_type: &str) -> request::Parts {
        let request = Request::builder().method(method).uri("/").header(CONTENT_TYPE, content_type);
        request.body(()).unwrap().into_parts().0
    }

    fn with_timeout(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_str(text).unwrap())])
    }

    #[test]
    fn a_call_that_breaks_a_rule_is_told_so_in_a_status_of_grpc() {
        let statuses = [
            (Violation::TooManyFields, "8"),
            (Violation::HeadTimeout, "4"),
            (Violation::Upgrade, "12"),
            (Violation::TooEarly, "14"),
            (Violation::BadHost, "13"),
        ];
        for (violation, status) in statuses {
            let response = refusal(violation);
            let fields = response.headers();
            assert_eq!((response.status(), &fields[GRPC_STATUS]), (StatusCode::OK, &status.parse().unwrap()));
            assert!(fields[MESSAGE].to_str().unwrap().contains(&violation.to_string().replace('%', "%25")));
            assert_eq!(fields[PROXY_STATUS], violation.proxy_status());
        }
    }

    #[test]
    fn calls_are_known_by_their_type_and_grpc_web_is_none() {
        for yes in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
            assert!(is_call(&call("POST", yes)), "{yes}");
        }
        for no in ["application/grpc-web", "application/grpc-web-text+proto", "application/json", "application/grp"] {
            assert!(!is_call(&call("POST", no)), "{no}");
        }
        assert!(!is_call(&call("GET", "application/grpc")));
    }

    #[test]
    fn a_timeout_is_read_in_every_unit_and_otherwise_left_to_the_target() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
        ] {
            assert_eq!(timeout(&with_timeout(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_timeout_that_cannot_be_read_is_not_as_good_as_none() {
        let otherwise = Duration::from_secs(60);
        assert_eq!(limit(&HeaderMap::new(), otherwise), Duration::MAX);
        assert_eq!(limit(&with_timeout("5S"), otherwise), Duration::from_secs(5));
        for wrong in ["", "S", "5", "1s", "123456789S", "-1S"] {
            assert_eq!(limit(&with_timeout(wrong), otherwise), otherwise, "{wrong:?}");
        }
        let mut twice = with_timeout("5H");
        twice.append(TIMEOUT, HeaderValue::from_static("6H"));
        assert_eq!(limit(&twice, otherwise), otherwise);
    }

    #[test]
    fn what_is_left_is_told_in_eight_digits() {
        for (left, expected) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(600), "600000m"),
            (Duration::from_secs(86_400 * 30), "2592000S"),
            (Duration::MAX, "99999999S"),
        ] {
            let mut fields = HeaderMap::new();
            set_timeout(&mut fields, left);
            assert_eq!(fields[TIMEOUT], expected);
            assert!(timeout(&fields).is_some());
        }
    }

    #[test]
    fn a_failed_call_has_a_status_and_names_the_cause() {
        let failure = Failure::new(Cause::NoTunnel, "100 % of edge-17\nis gone").retry_after(Duration::from_secs(1));
        let response = response(&failure);
        assert_eq!((response.status().as_u16(), response.body().len()), (200, 0));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        assert_eq!(response.headers()[GRPC_STATUS], "14");
        assert_eq!(response.headers()[MESSAGE], "adit: 100 %25 of edge-17?is gone (destination_unavailable)");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(response.headers()[PROXY_STATUS].to_str().unwrap().contains("error=destination_unavailable"));
    }

    #[test]
    fn what_an_initiator_says_of_its_target_is_understood_in_a_call_too() {
        let (head, _) = response(&Failure::new(Cause::TargetRefused, "no")).into_parts();
        assert_eq!(Cause::told_by_initiator(&head).map(|(cause, _)| cause), Some(Cause::TargetRefused));
    }
}
