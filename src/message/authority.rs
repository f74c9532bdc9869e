//! `host` or `host:port`: what is one, what names the host in it, and when two are the same.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use bytes::Bytes;
use http::uri::{Authority, Scheme};

use crate::message::violation::Violation;

/// Reads the value of a Host field. Empty is malformed: nothing here is addressed by an empty name.
pub fn authority(text: Bytes) -> Result<Authority, Violation> {
    check(Authority::from_maybe_shared(text).map_err(|_| Violation::BadHost)?)
}

/// Longest authority, bytes: more can be in no tunnel. spec: ST-12
pub const MAX_BYTES: usize = 512;

/// Narrows what the `http` crate accepts: at most [`MAX_BYTES`], no user info, a name of letters, digits, `-`, `.`, `_`, `~` or an IPv6
/// literal, a port that is a number.
pub(super) fn check(authority: Authority) -> Result<Authority, Violation> {
    let is_plain = !authority.as_str().bytes().any(|byte| SUB_DELIMITERS.contains(&byte));
    let fits = authority.as_str().len() <= MAX_BYTES;
    if fits && is_plain && is_authority(authority.as_str()) { Ok(authority) } else { Err(Violation::BadHost) }
}

/// Whether both name the same host and port; a missing port is the default one of `scheme`.
pub(super) fn same(one: &Authority, other: &Authority, scheme: &Scheme) -> bool {
    let port = |authority: &Authority| authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

/// A host and perhaps a port. No user information, whose `@` could hide the host, and no percent signs, which no
/// resolver reads; the other bytes of a name are those of RFC 3986 section 3.2.2. spec: ST-12
pub fn is_authority(text: &str) -> bool {
    split(text).is_some_and(|(host, port)| is_host(host) && is_port(port))
}

/// The authority without its port; all of it where it has none.
pub fn host_of(authority: &str) -> &str {
    match split(authority) {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    }
}

/// The host of an authority in the spelling that is compared: without the dot that ends a name in the DNS, and an IPv6 literal
/// as RFC 5952 writes it. In the case in which it came.
pub fn host_name(authority: &str) -> Cow<'_, str> {
    let host = host_of(authority);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()) {
        Some(literal) => Cow::Owned(format!("[{literal}]")),
        None => Cow::Borrowed(host.strip_suffix('.').unwrap_or(host)),
    }
}

/// What a name may have beside letters, digits and `-._~`.
const SUB_DELIMITERS: &[u8] = b"!$&'()*+,;=";

/// `host` and the digits after its colon, if any; `None` when the brackets of an IPv6 literal do not match.
fn split(text: &str) -> Option<(&str, &str)> {
    let name_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(name_end);
    if rest.is_empty() { Some((host, "")) } else { Some((host, rest.strip_prefix(':')?)) }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_name_byte =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || SUB_DELIMITERS.contains(&byte);
            !host.is_empty() && host.bytes().all(is_name_byte)
        }
    }
}

fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ST-12
    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for good in ["a", "a:1", "a.b-c_d~e", "a:", "[::1]", "[::1]:65535", "a!$&'()*+,;=b:80"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in
            ["", ":80", "a:b", "a:65536", "a:+1", "a:b:80", "::1", "[::1", "[::1]x", "[a]", "u@a", "a%41", "a/", "a b"]
        {
            assert!(!is_authority(bad), "{bad}");
        }
    }

    #[test]
    fn a_host_field_takes_plain_names_only() {
        let read = |text: &'static str| authority(Bytes::from_static(text.as_bytes())).is_ok();
        assert!(read("a.b:80") && read("[::1]:80"));
        assert!(!read("a!b") && !read("") && !read("u@a"));
    }

    // spec: ST-12
    #[test]
    fn an_authority_is_no_longer_than_a_tunnel_takes() {
        assert!(authority("a".repeat(MAX_BYTES).into()).is_ok());
        assert_eq!(authority("a".repeat(MAX_BYTES + 1).into()), Err(Violation::BadHost));
    }

    #[test]
    fn the_host_of_an_authority_is_without_its_port() {
        for (text, host) in [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a:b", "a:b")] {
            assert_eq!(host_of(text), host);
        }
    }
}
