//! What the head of a message over HTTP/2 must not be, whatever HTTP/2 itself would let pass. spec: TB-7

use http::HeaderMap;

use crate::message::fields;
use crate::protocol::limits::Limits;
use crate::protocol::stream::StreamError;
use crate::protocol::wire::Malformed;

/// Bytes of the names and values of fields.
pub(super) fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Judges the fields of a head, an interim head or trailers; `target` is how many bytes of the head are no fields.
pub(super) fn check_fields(fields: &HeaderMap, target: usize, limits: Limits) -> Result<(), StreamError> {
    limit("the head's fields", fields.len(), limits.head_fields)?;
    limit("the head's size", target + field_bytes(fields), limits.head_bytes)?;
    for (name, value) in fields {
        if fields::is_forbidden(name, value) {
            return Err(Malformed::Forbidden("field of one connection").into());
        }
        // ST-19; the other bytes that it forbids are no HTTP/2 either.
        if value.as_bytes().trim_ascii().len() != value.len() {
            return Err(Malformed::Invalid("field value").into());
        }
    }
    Ok(())
}

fn limit(what: &'static str, actual: usize, max: usize) -> Result<(), StreamError> {
    if actual > max {
        return Err(StreamError::Limit { what, actual: actual as u64, max: max as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::protocol::code::StreamCode;

    fn judged(name: &'static str, value: &'static [u8]) -> Result<(), StreamCode> {
        let mut fields = HeaderMap::new();
        fields.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        check_fields(&fields, 10, Limits { head_bytes: 32, head_fields: 1 }).map_err(|e| e.code())
    }

    // spec: TB-7
    #[test]
    fn a_head_obeys_the_rules_of_our_own_frames() {
        assert_eq!(judged("x-some", b"0123456789abcdef"), Ok(()), "32 bytes");
        assert_eq!(judged("x-some", b"0123456789abcdefg"), Err(StreamCode::Limit));
        assert_eq!(judged("x", b"a\xff b"), Ok(()));
        for value in [&b" a"[..], b"a ", b"\ta", b"a\t"] {
            assert_eq!(judged("x", value), Err(StreamCode::Protocol));
        }
        for name in ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"] {
            assert_eq!(judged(name, b"x"), Err(StreamCode::Protocol), "{name}");
        }
        assert_eq!(judged("te", b"trailers"), Ok(()));
    }
}
