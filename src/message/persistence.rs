//! Whether an HTTP/1 connection may serve another exchange. RFC 9112 section 9.3.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, Version};

/// Whether the sender of this head keeps the connection open after the message: `Connection` decides, and without it
/// the version.
pub fn keeps_alive(version: Version, fields: &HeaderMap) -> bool {
    if !fields.contains_key(CONNECTION) {
        return version == Version::HTTP_11;
    }
    let close = has_token(fields, &CONNECTION, "close");
    !close && (version == Version::HTTP_11 || has_token(fields, &CONNECTION, "keep-alive"))
}

/// Whether a comma-separated field has a member that is `token`, parameters aside.
pub fn has_token(fields: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let members = fields.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members
        .filter_map(|member| member.split(|byte| *byte == b';').next())
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
