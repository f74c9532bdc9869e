//! Which HTTP fields belong to one hop, and which may cross a tunnel or follow a body. spec: ST-17, ST-18, ST-24

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::message::name::{OWN, is_same};
use crate::message::trust::{is_claim, is_claim_in_response};
use crate::message::violation::Violation;

/// Says that a request came before its handshake was done, and may be sent again by somebody else. RFC 8470 section 5.1
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// Fields that speak of one connection (RFC 9110 section 7.6.1), whoever lists them. spec: ST-17
static CONNECTION_SPECIFIC: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a field is about one connection by its name alone. TE is not: `trailers` may travel on. spec: ST-17
pub fn is_connection_specific(name: &HeaderName) -> bool {
    CONNECTION_SPECIFIC.contains(name)
}

/// Removes what speaks of one hop only: the fields that `Connection` lists, the connection-specific ones, and `TE`
/// unless it says just `trailers`. Doing it twice changes nothing; where there is nothing to remove it costs one look at
/// each name. spec: ST-17
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    if !fields.iter().any(|(name, value)| is_connection_specific(name) || (name == TE && value != "trailers")) {
        return;
    }
    for name in listed_in_connection(fields) {
        fields.remove(name);
    }
    for name in &CONNECTION_SPECIFIC {
        fields.remove(name);
    }
    if fields.contains_key(TE) {
        let keeps_trailers = fields.get_all(TE).iter().any(lists_trailers);
        fields.remove(TE);
        if keeps_trailers {
            fields.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Whether a field must not be inside a tunnel's HEAD, INFO or TRAILERS: connection-specific ones, `TE` other than
/// `trailers`, and `Host`, whose place is the authority. spec: ST-17, ST-18
pub fn is_forbidden(name: &HeaderName, value: &HeaderValue) -> bool {
    match name {
        &TE => value != "trailers",
        &HOST => true,
        name => is_connection_specific(name),
    }
}

/// Whether a field must not be inside TRAILERS: what is forbidden everywhere, and Content-Length, which would come too
/// late to be checked. spec: ST-24
pub fn is_forbidden_in_trailers(name: &HeaderName, value: &HeaderValue) -> bool {
    name == CONTENT_LENGTH || is_forbidden(name, value)
}

/// Fields of a request that say who asks, how it is to be read, or what is to be done with it; in lower case.
const OF_HEADS: [&str; 21] = [
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "prefer",
    "proxy-authorization",
    "range",
    "via",
];

/// Whether a field must not be inside the trailers of a client's request: also those that a tunnel would let pass, but
/// that mean nothing behind a body or are of our own, who asks, how the body is to be read, and what is said of who sent it: a
/// target that adds trailers to the fields of the head would believe it, with `_` for `-`, too. RFC 9110 section 6.5.1
pub fn is_forbidden_in_any_trailers(name: &HeaderName, value: &HeaderValue) -> bool {
    let text = name.as_str();
    name == TE
        || is_for_no_trailers(name)
        || is_claim(name)
        || is_forbidden_in_trailers(name, value)
        || OF_HEADS.iter().any(|other| is_same(text.as_bytes(), other))
}

/// Whether a field means nothing behind a body, whoever sends it, or is of our own. spec: ST-29
fn is_for_no_trailers(name: &HeaderName) -> bool {
    name == TRAILER || name == EARLY_DATA || name.as_str().starts_with(OWN)
}

/// Removes from a trailer section what must not be in one. spec: ST-24
pub fn strip_from_trailers(fields: &mut HeaderMap) {
    strip(fields, is_forbidden_in_trailers);
}

/// Removes from the trailers of a response what must not be in them, or is no target's to say: what of a head would be removed
/// without a word must cost no whole response behind it.
pub fn strip_from_response_trailers(fields: &mut HeaderMap) {
    strip(fields, |name, value| {
        is_for_no_trailers(name) || is_claim_in_response(name) || is_forbidden_in_trailers(name, value)
    });
}

fn strip(fields: &mut HeaderMap, is_meant: fn(&HeaderName, &HeaderValue) -> bool) {
    // Empty, and then without memory of its own, for every sender that keeps the rules.
    let forbidden: Vec<HeaderName> =
        fields.iter().filter(|(name, value)| is_meant(name, value)).map(|(name, _)| name.clone()).collect();
    for name in forbidden {
        fields.remove(name);
    }
}

/// What a section of fields is held to.
#[derive(Debug, Clone, Copy)]
pub struct FieldRules {
    /// Most fields.
    pub max_fields: usize,
    /// Most bytes of names and values.
    pub max_bytes: usize,
    /// Which fields must not be there, such as [`is_forbidden`] and [`is_forbidden_in_trailers`].
    pub forbids: fn(&HeaderName, &HeaderValue) -> bool,
}

impl FieldRules {
    /// Judges a section; `others` is how many bytes of the same head are no fields.
    ///
    /// # Errors
    ///
    /// [`Violation::TooManyFields`], [`Violation::HeadTooLarge`], [`Violation::ConnectionField`] or
    /// [`Violation::FieldWhitespace`].
    pub fn judge(&self, fields: &HeaderMap, others: usize) -> Result<(), Violation> {
        if fields.len() > self.max_fields {
            return Err(Violation::TooManyFields);
        }
        if others.saturating_add(field_bytes(fields)) > self.max_bytes {
            return Err(Violation::HeadTooLarge);
        }
        for (name, value) in fields {
            if (self.forbids)(name, value) {
                return Err(Violation::ConnectionField);
            }
            // RFC 9113 section 8.2.1; the other bytes that it forbids cannot be in a value here. spec: ST-19
            if ends_in_space(value) {
                return Err(Violation::FieldWhitespace);
            }
        }
        Ok(())
    }
}

/// Bytes of the names and values of fields.
pub fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Whether a byte may stand in a token. RFC 9110 section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a value begins or ends with a space or tab.
pub fn ends_in_space(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())
}

fn listed_in_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let tokens = fields.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    // `TE` is judged by its value, not by being listed, as RFC 9110 section 10.1.4 makes every sender list it.
    tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()).filter(|name| name != TE).collect()
}

fn lists_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|&(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    // spec: ST-17
    #[test]
    fn what_speaks_of_one_hop_is_removed() {
        let mut fields = map(&[
            ("connection", "X-Hop , close, te"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip, Trailers"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut fields);
        assert_eq!(fields, map(&[("te", "trailers"), ("accept", "*/*")]));
    }

    // spec: ST-17
    #[test]
    fn te_without_trailers_is_removed() {
        let mut fields = map(&[("te", "gzip")]);
        strip_hop_by_hop(&mut fields);
        assert!(fields.is_empty());
    }

    // spec: ST-19, ST-24
    #[test]
    fn a_section_is_held_to_its_rules() {
        let rules = FieldRules { max_fields: 2, max_bytes: 16, forbids: is_forbidden_in_trailers };
        let judged = |lines: &[(&'static str, &'static str)]| rules.judge(&map(lines), 4);
        assert_eq!(judged(&[("a", "12345"), ("b", "12345")]), Ok(()));
        assert_eq!(judged(&[("a", "12345"), ("b", "123456")]), Err(Violation::HeadTooLarge));
        assert_eq!(judged(&[("a", ""), ("b", ""), ("c", "")]), Err(Violation::TooManyFields));
        assert_eq!(judged(&[("host", "a")]), Err(Violation::ConnectionField));
        for value in [" a", "a ", "\ta", "a\t"] {
            assert_eq!(judged(&[("a", value)]), Err(Violation::FieldWhitespace), "{value:?}");
        }
    }

    #[test]
    fn nothing_behind_a_body_says_who_sent_it() {
        let value = HeaderValue::from_static("6.6.6.6");
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded-client-cert",
            "x-real-ip",
            "trailer",
            "via",
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert!(is_forbidden_in_any_trailers(&name, &value), "{name}");
        }
        for name in
            ["authorization", "proxy_authorization", "cookie", "content-type", "content_type", "expect", "range"]
        {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert!(is_forbidden_in_any_trailers(&name, &value), "{name}");
        }
        assert!(is_forbidden_in_any_trailers(&HeaderName::from_static("adit-service"), &value));
        for name in ["grpc-status", "x-sum", "digest", "content-digest", "x-forward"] {
            assert!(!is_forbidden_in_any_trailers(&HeaderName::from_static(name), &value), "{name}");
        }
    }

    #[test]
    fn trailers_of_a_response_lose_what_is_no_targets_to_say() {
        let mut fields = map(&[
            ("grpc-status", "0"),
            ("x-envoy-upstream-service-time", "1"),
            ("set-cookie", "a=b"),
            ("x-envoy-internal", "true"),
            ("x_forwarded_for", "6.6.6.6"),
            ("adit-cause", "1"),
            ("trailer", "x"),
            ("content-length", "1"),
            ("connection", "close"),
        ]);
        strip_from_response_trailers(&mut fields);
        let kept = map(&[("grpc-status", "0"), ("x-envoy-upstream-service-time", "1"), ("set-cookie", "a=b")]);
        assert_eq!(fields, kept);
    }

    // spec: ST-18
    #[test]
    fn what_stripping_leaves_is_allowed_but_for_host() {
        for name in &CONNECTION_SPECIFIC {
            assert!(is_forbidden(name, &HeaderValue::from_static("x")), "{name}");
        }
        assert!(is_forbidden(&HOST, &HeaderValue::from_static("a")));
        assert!(is_forbidden(&TE, &HeaderValue::from_static("gzip")));
        assert!(!is_forbidden(&TE, &HeaderValue::from_static("trailers")));
        assert!(!is_forbidden(&http::header::ACCEPT, &HeaderValue::from_static("gzip")));
    }
}
