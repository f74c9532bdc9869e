//! `host` or `host:port`, and when two of them are the same.

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::uri::{Authority, Scheme};

use crate::message::violation::Violation;

/// Reads the value of a Host field. Empty is malformed: nothing here is addressed by an empty name.
pub fn authority(text: Bytes) -> Result<Authority, Violation> {
    check(Authority::from_maybe_shared(text).map_err(|_| Violation::BadHost)?)
}

/// Narrows what the `http` crate accepts: no user info, a name of letters, digits, `-`, `.`, `_`, `~` or an IPv6
/// literal, a port that is a number.
pub(super) fn check(authority: Authority) -> Result<Authority, Violation> {
    let (host, port) = split(authority.as_str()).ok_or(Violation::BadHost)?;
    if is_host(host) && is_port(port) { Ok(authority) } else { Err(Violation::BadHost) }
}

/// Whether both name the same host and port; a missing port is the default one of `scheme`.
pub(super) fn same(one: &Authority, other: &Authority, scheme: &Scheme) -> bool {
    let port = |authority: &Authority| authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

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
            let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !host.is_empty() && host.bytes().all(is_name_byte)
        }
    }
}

fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}
