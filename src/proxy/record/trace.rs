//! The trace that a request belongs to. W3C Trace Context, section 3.2.

use http::HeaderMap;

/// Length of version 00: `vv-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// The trace id of a valid `traceparent`, if the request brought exactly one.
pub(super) fn trace_id(fields: &HeaderMap) -> Option<&str> {
    let mut values = fields.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { of_value(value) }
}

/// A version above 00 may have more behind a further dash; `ff` is none. Ids of zeros only are invalid.
fn of_value(value: &str) -> Option<&str> {
    let known = value.as_bytes().get(..LENGTH)?;
    let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (version, trace, parent, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let dashes = [known[2], known[35], known[52]] == [b'-'; 3];
    let digits = [version, trace, parent, flags].into_iter().all(is_hex);
    let ends = match value.as_bytes().get(LENGTH) {
        None => true,
        Some(next) => version != b"00" && *next == b'-',
    };
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == b'0');
    let valid = dashes && digits && ends && version != b"ff" && !is_zero(trace) && !is_zero(parent);
    valid.then(|| &value[3..35])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_trace_id_of_a_valid_field_is_found() {
        for value in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes-later",
        ] {
            assert_eq!(of_value(value), Some(TRACE), "{value}");
        }
    }

    #[test]
    fn what_breaks_the_rules_names_no_trace() {
        for value in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of_value(value), None, "{value}");
        }
    }

    #[test]
    fn two_fields_name_no_trace() {
        let mut fields = HeaderMap::new();
        let value: http::HeaderValue = format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap();
        fields.append("traceparent", value.clone());
        assert_eq!(trace_id(&fields), Some(TRACE));
        fields.append("traceparent", value);
        assert_eq!(trace_id(&fields), None);
    }
}
