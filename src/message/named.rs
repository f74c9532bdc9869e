//! Whom `Forwarded` (RFC 7239) and `X-Forwarded-For` name, read from the end, since whoever hands a request on writes behind
//! what was there.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

use crate::message::trust::Trust;

/// The older form.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// From the end; one that cannot be read is `None`, and so is a value with quotes that stay open.
pub(super) fn in_forwarded(fields: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    fields.get_all(FORWARDED).iter().rev().flat_map(|value| {
        let elements = value.to_str().ok().and_then(|text| parts(text, ','));
        let read = |elements: Vec<&str>| elements.into_iter().rev().map(named).collect();
        elements.map_or_else(|| vec![None], read)
    })
}

/// How the first one who is named came, if that is `http` or `https`.
pub(super) fn first_proto(fields: &HeaderMap) -> Option<&'static str> {
    let text = fields.get(FORWARDED)?.to_str().ok()?;
    let proto = parameter(parts(text, ',')?.first()?, "proto")?;
    ["http", "https"].into_iter().find(|known| proto.eq_ignore_ascii_case(known))
}

/// From the end.
pub(super) fn in_x_forwarded_for(fields: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    fields.get_all(X_FORWARDED_FOR).iter().rev().flat_map(|value| match value.to_str() {
        Ok(text) => text.rsplit(',').map(|element| address(element.trim())).collect(),
        Err(_) => vec![None],
    })
}

/// What one form says of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    By(IpAddr),
    /// What cannot be read, or names nobody.
    Unclear,
}

/// The first from the end who is not trusted, or the very first.
pub(super) fn client(elements: impl Iterator<Item = Option<IpAddr>>, trust: &Trust) -> Said {
    let mut said = Said::Nothing;
    for element in elements {
        match element {
            Some(address) if trust.covers(address) => said = Said::By(address),
            Some(address) => return Said::By(address),
            None => return Said::Unclear,
        }
    }
    said
}

/// Whether both forms, which are both there, name the same senders as far as both go, and the same client. What only the longer one
/// has is no contradiction unless the shorter one ends among those who are trusted: a client can write such a one.
pub(super) fn agree(fields: &HeaderMap, trust: &Trust) -> bool {
    in_forwarded(fields).zip(in_x_forwarded_for(fields)).all(|(one, other)| one == other)
        && client(in_forwarded(fields), trust) == client(in_x_forwarded_for(fields), trust)
}

fn named(element: &str) -> Option<IpAddr> {
    address(parameter(element, "for")?)
}

fn parameter<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = parts(element, ';')?.into_iter().filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    Some(value.trim().trim_matches('"'))
}

/// Splits where no quotes are open; `None` where some stay open.
fn parts(text: &str, at: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|letter| {
        let escapes = is_quoted && !is_escaped && letter == '\\';
        if letter == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = escapes;
        letter == at && !is_quoted
    });
    let parts = parts.collect();
    (!is_quoted).then_some(parts)
}

/// An address as it stands there: perhaps with a port; one of IPv6 in brackets, or not.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}
