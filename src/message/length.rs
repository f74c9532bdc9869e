//! The length that a message declares.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};

use crate::message::violation::Violation;

/// Most digits of a length: as many always fit into 64 bits. spec: ST-24
pub const MAX_DIGITS: usize = 19;

/// The declared length of a message: at most one field with decimal digits only, no sign, no list, no overflow.
/// RFC 9110 section 8.6 would let equal repetitions pass; two parsers need not agree on "equal", so they do not.
///
/// # Errors
///
/// [`Violation::ContentLength`]: there is a field, and it is not that.
pub fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Violation> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Violation::ContentLength);
    }
    decimal(length.as_bytes()).map(Some).ok_or(Violation::ContentLength)
}

/// How long the body of a response is, where its head says so and means it: after HEAD and in a 304 the field is about
/// another response. A field that is no length says nothing. RFC 9110 section 8.6.
pub fn of_response(answers_head: bool, status: StatusCode, fields: &HeaderMap) -> Option<u64> {
    if answers_head || status == StatusCode::NOT_MODIFIED {
        return None;
    }
    content_length(fields).ok().flatten()
}

/// How long the body of a response is that came through a tunnel. After HEAD, and with 204 and 304, there is none, whatever
/// the fields say of another one; `None`: until it ends. spec: ST-26
///
/// # Errors
/// [`Violation::ContentLength`]: there is a field, and it is no length.
pub fn of_tunnelled_response(
    answers_head: bool,
    status: StatusCode,
    fields: &HeaderMap,
) -> Result<Option<u64>, Violation> {
    if answers_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Some(0));
    }
    content_length(fields)
}

/// Takes away a length where there must be none: HTTP/2 and HTTP/3 take a 204 with one for a body that was cut. RFC 9110
/// section 8.6
pub fn strip_where_none(status: StatusCode, fields: &mut HeaderMap) {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        fields.remove(CONTENT_LENGTH);
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        digit.is_ascii_digit().then(|| value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(lengths: &[&'static str]) -> HeaderMap {
        lengths.iter().map(|&length| (CONTENT_LENGTH, HeaderValue::from_static(length))).fold(
            HeaderMap::new(),
            |mut fields, (name, value)| {
                fields.append(name, value);
                fields
            },
        )
    }

    // spec: ST-24
    #[test]
    fn a_length_is_one_field_of_digits() {
        assert_eq!(content_length(&fields(&[])), Ok(None));
        assert_eq!(content_length(&fields(&["9999999999999999999"])), Ok(Some(9_999_999_999_999_999_999)));
        for bad in [&["+5"][..], &["-5"], &["5 "], &["0x5"], &[""], &["5, 5"], &["5", "5"], &["10000000000000000000"]] {
            if bad == ["10000000000000000000"] {
                assert_eq!(bad[0].len(), MAX_DIGITS + 1);
            }
            assert_eq!(content_length(&fields(bad)), Err(Violation::ContentLength), "{bad:?}");
        }
    }

    // spec: ST-26
    #[test]
    fn a_response_without_a_body_has_none_whatever_it_says() {
        let five = fields(&["5"]);
        assert_eq!(of_tunnelled_response(false, StatusCode::OK, &five), Ok(Some(5)));
        assert_eq!(of_tunnelled_response(false, StatusCode::OK, &fields(&[])), Ok(None));
        assert_eq!(of_tunnelled_response(true, StatusCode::OK, &five), Ok(Some(0)));
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            assert_eq!(of_tunnelled_response(false, status, &five), Ok(Some(0)), "{status}");
        }
        let twice = of_tunnelled_response(false, StatusCode::OK, &fields(&["5", "5"]));
        assert_eq!(twice, Err(Violation::ContentLength));
    }

    #[test]
    fn the_length_of_a_response_is_not_that_of_another_one() {
        let five = fields(&["5"]);
        assert_eq!(of_response(false, StatusCode::OK, &five), Some(5));
        assert_eq!(of_response(true, StatusCode::OK, &five), None);
        assert_eq!(of_response(false, StatusCode::NOT_MODIFIED, &five), None);
        assert_eq!(of_response(false, StatusCode::OK, &fields(&["+5"])), None);
    }
}
