//! Which HTTP fields may cross a tunnel. spec: ST-17, ST-18

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};

/// Fields that speak of one connection (RFC 9110 section 7.6.1), whoever lists them. spec: ST-17
static CONNECTION_SPECIFIC: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what speaks of one hop only: the fields that `Connection` lists, the connection-specific ones, and `TE`
/// unless it says just `trailers`. Doing it twice changes nothing. spec: ST-17
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
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
        name => CONNECTION_SPECIFIC.contains(name),
    }
}

/// Whether a field must not be inside TRAILERS: what is forbidden everywhere, and Content-Length, which would come too
/// late to be checked. spec: ST-24
pub fn is_forbidden_in_trailers(name: &HeaderName, value: &HeaderValue) -> bool {
    name == CONTENT_LENGTH || is_forbidden(name, value)
}

/// Removes from a trailer section what must not be in one. spec: ST-24
pub fn strip_from_trailers(fields: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> = fields
        .iter()
        .filter(|(name, value)| is_forbidden_in_trailers(name, value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in forbidden {
        fields.remove(name);
    }
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
