//! What an intermediary changes on its way: hop-by-hop fields go, `Via`, `Forwarded` and `X-Forwarded-For` grow, the
//! authority gets one home. RFC 9110 section 7.6, RFC 7239.
//!
//! What a request says of its client (see [`trust`]) counts only from a sender who is trusted: there
//! it is passed on and extended. From anybody else it is removed, and what we have seen ourselves is said in its place.
//! There are two forms to say it in, see [`Forms`].

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version, request, response};

use crate::message::failure::{Cause, Failure};
use crate::message::fields::{EARLY_DATA, is_token_byte, strip_hop_by_hop};
use crate::message::named::{self, X_FORWARDED_FOR, address as address_in, first_proto, in_forwarded};
use crate::message::trust::{self, Trust, is_claim, is_claim_in_response, is_disguised_claim, is_x_forwarded};

/// Its only value.
pub const IN_EARLY_DATA: HeaderValue = HeaderValue::from_static("1");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How often a request may have come through adit before, by its `Via`.
pub const MAX_PASSES: usize = 16;
/// The most addresses that are said anew: those nearest to us. One byte of a list is up to eleven of the other form.
const MAX_SAID_ANEW: usize = 64;
/// How much memory the elements of a thread's requests share; it is used again once they are all gone.
const ELEMENTS_BYTES: usize = 4 * 1024;
/// How long an element is at most, apart from its host, unless that is quoted.
const USUAL_ELEMENT_BYTES: usize = 80;

thread_local! {
    /// Where elements are written, so that not each of them is an allocation.
    static ELEMENTS: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(ELEMENTS_BYTES));
}

/// How the request reached us, as `Forwarded` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Whoever sent the request.
    pub remote: SocketAddr,
    /// Where it was sent to; the authority of a request that names none, which only HTTP/1.0 may. RFC 9112 section 3.3.
    pub local: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Who may say on whose behalf a request comes.
    pub trust: &'a Trust,
    /// How it is told.
    pub forms: Forms,
}

impl Hop<'_> {
    fn is_trusted(&self) -> bool {
        self.trust.covers(self.remote.ip())
    }
}

/// In which forms a target is told on whose behalf a request comes.
///
/// A form that is not written is not passed on either, whoever wrote it: a proxy in front that speaks one form often hands
/// on the other one as its clients wrote it. So the form has to be one that every trusted sender writes or removes: what is
/// passed on of it is believed. What a trusted sender says in the older form alone is said anew in the other
/// one (RFC 7239 section 7.4).
///
/// Where both are written they say the same: what came in one form only is said anew in the other, and where they name different
/// senders nobody knows which was written by whom, so that both say `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forms {
    /// In both.
    #[default]
    Both,
    /// `Forwarded`, as RFC 7239 has it.
    Rfc7239,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    X,
    /// In none.
    None,
}

impl Forms {
    const fn has_forwarded(self) -> bool {
        matches!(self, Self::Both | Self::Rfc7239)
    }

    const fn has_x(self) -> bool {
        matches!(self, Self::Both | Self::X)
    }
}

/// Prepares a received request head for the tunnel.
///
/// Afterwards the URI has scheme, authority and path, `Host` is gone, and no field concerns this hop only.
///
/// # Errors
///
/// The request names no authority that can be read, or goes round in circles: [`MAX_PASSES`].
pub fn request(head: &mut request::Parts, hop: &Hop<'_>) -> Result<(), Failure> {
    normalise_authority(head, hop)?;
    strip_hop_by_hop(&mut head.headers);
    if head.headers.contains_key(EARLY_DATA) {
        // Whoever says so is believed, as it costs nobody else: the target may ask to be asked again. No intermediary removes
        // it, and anything in it means the same. RFC 8470 section 5.1
        head.headers.insert(EARLY_DATA, IN_EARLY_DATA);
    }
    refuse_loop(&head.headers)?;
    append_via(&mut head.headers, head.version);
    // A trusted proxy may hand on what its clients wrote with `_` in place of `-`, which many targets take for the same.
    trust::strip(&mut head.headers, if hop.is_trusted() { is_disguised_claim } else { is_claim });
    tell(head, hop);
    Ok(())
}

/// Says in the forms that are wanted on whose behalf the request comes, and nothing in the others.
fn tell(head: &mut request::Parts, hop: &Hop<'_>) {
    let fields = &mut head.headers;
    if hop.is_trusted() {
        agree(fields, hop);
    }
    if hop.forms.has_forwarded() {
        let host = head.uri.authority().map_or("", Authority::as_str);
        fields.append(FORWARDED, forwarded(hop, host));
    } else {
        fields.remove(FORWARDED);
    }
    if hop.forms.has_x() {
        let remote = address(hop, fields);
        fields.insert(X_FORWARDED_FOR, remote);
        fields.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto(hop)));
    } else {
        trust::strip(fields, is_x_forwarded);
    }
}

/// Has the forms that are written say the same of what a trusted sender has said.
fn agree(fields: &mut HeaderMap, hop: &Hop<'_>) {
    let forms = hop.forms;
    match (fields.contains_key(FORWARDED), fields.contains_key(X_FORWARDED_FOR)) {
        (false, true) if forms.has_forwarded() => say_anew(fields),
        (true, false) if forms == Forms::Both => say_anew_in_x(fields),
        (true, true) if forms == Forms::Both && !named::agree(fields, hop.trust) => {
            fields.insert(FORWARDED, HeaderValue::from_static("for=unknown"));
            fields.insert(X_FORWARDED_FOR, HeaderValue::from_static("unknown"));
        }
        _ => {}
    }
}

/// Says in `X-Forwarded-For` and `X-Forwarded-Proto` what a trusted sender has said in `Forwarded` only.
fn say_anew_in_x(fields: &mut HeaderMap) {
    let mut last: Vec<Option<IpAddr>> = in_forwarded(fields).take(MAX_SAID_ANEW).collect();
    last.reverse();
    let value = written(USUAL_ELEMENT_BYTES * last.len(), |room| {
        for (at, node) in last.iter().enumerate() {
            room.write_str(if at == 0 { "" } else { ", " })?;
            match node {
                Some(address) => write!(room, "{address}")?,
                None => room.write_str("unknown")?,
            }
        }
        Ok(())
    });
    fields.insert(X_FORWARDED_FOR, value);
    if let Some(proto) = first_proto(fields) {
        fields.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto));
    }
}

/// Says in `Forwarded` what a trusted sender has said in `X-Forwarded-For` only. RFC 7239 section 7.4; what is no address is
/// `unknown` (section 6.2).
fn say_anew(fields: &mut HeaderMap) {
    let said = fields.get_all(X_FORWARDED_FOR);
    let elements = said.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let elements = elements.map(|element| str::from_utf8(element).unwrap_or("?").trim());
    // Empty ones say nothing. RFC 9110 section 5.6.1.2
    let mut last: Vec<&str> = elements.rev().filter(|element| !element.is_empty()).take(MAX_SAID_ANEW).collect();
    last.reverse();
    if last.is_empty() {
        return;
    }
    let value = written(USUAL_ELEMENT_BYTES * last.len(), |room| {
        for (at, element) in last.iter().enumerate() {
            room.write_str(if at == 0 { "" } else { ", " })?;
            write_node(room, address_in(element))?;
        }
        Ok(())
    });
    fields.insert(FORWARDED, value);
}

/// Prepares a response head that came out of a tunnel for the client. It has no field of a hop: the tunnel refuses such
/// a head (ST-17), and the codec that writes it takes nothing over that speaks of a connection. What only requests say of
/// a client is no target's to say.
pub fn response(head: &mut response::Parts) {
    trust::strip(&mut head.headers, is_claim_in_response);
    head.headers.remove(EARLY_DATA);
    append_via(&mut head.headers, head.version);
}

/// Moves the authority from `Host` into the URI. Where both exist the URI wins: RFC 9112 section 3.2.2, and
/// RFC 9113 section 8.3.1 whose conflict the validator has already refused.
fn normalise_authority(head: &mut request::Parts, hop: &Hop<'_>) -> Result<(), Failure> {
    let host = head.headers.remove(HOST);
    if head.uri.authority().is_some() && head.uri.scheme().is_some() && head.uri.path_and_query().is_some() {
        return Ok(());
    }
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    if uri.authority.is_none() {
        uri.authority = Some(authority_of(host.as_ref(), hop.local)?);
    }
    uri.scheme.get_or_insert(if hop.tls { Scheme::HTTPS } else { Scheme::HTTP });
    uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(uri).map_err(|error| Failure::new(Cause::BadRequest, error.to_string()))?;
    Ok(())
}

fn authority_of(host: Option<&HeaderValue>, local: SocketAddr) -> Result<Authority, Failure> {
    let authority = match host {
        Some(host) => Authority::try_from(host.as_bytes()),
        None => Authority::try_from(local.to_string()),
    };
    authority.map_err(|_| Failure::new(Cause::BadRequest, "Host is not an authority"))
}

/// A request that leads back to where it came from, by a rule or a target, would do so until its head is too large. Every
/// adit has the same name in `Via`; several in a row are no loop, so many are.
fn refuse_loop(fields: &HeaderMap) -> Result<(), Failure> {
    let elements = fields.get_all(VIA).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let ours = elements.filter(|element| element.trim_ascii().ends_with(b" adit")).count();
    if ours < MAX_PASSES {
        return Ok(());
    }
    let details = format!("the request has come through adit {ours} times: it goes round in circles");
    Err(Failure::new(Cause::Loop, details))
}

/// Appends ourselves to `Via`, with the version the message was received in. RFC 9110 sections 7.6.3 and 2.5: a
/// version without a minor number has the minor number 0 there.
fn append_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => "1.0 adit",
        Version::HTTP_2 => "2.0 adit",
        Version::HTTP_3 => "3.0 adit",
        _ => "1.1 adit",
    };
    headers.append(VIA, HeaderValue::from_static(via));
}

/// How the request came to us, whatever its target says.
const fn proto(hop: &Hop<'_>) -> &'static str {
    if hop.tls { "https" } else { "http" }
}

/// One element of `Forwarded`. RFC 7239 section 4; an IPv6 address has brackets and therefore quotes (section 6).
fn forwarded(hop: &Hop<'_>, host: &str) -> HeaderValue {
    written(USUAL_ELEMENT_BYTES + host.len(), |room| write_element(room, hop, host, proto(hop)))
}

/// The value of `X-Forwarded-For`: those on whose behalf the request comes, as trusted senders said, and its sender.
fn address(hop: &Hop<'_>, fields: &HeaderMap) -> HeaderValue {
    let said = fields.get_all(X_FORWARDED_FOR);
    let length: usize = said.iter().map(|value| value.len() + 2).sum();
    written(USUAL_ELEMENT_BYTES + length, |room| {
        for value in said {
            room.extend_from_slice(value.as_bytes());
            room.write_str(", ")?;
        }
        write!(room, "{}", hop.remote.ip().to_canonical())
    })
}

/// A value in the memory that the elements of a thread share.
fn written(bytes: usize, write: impl FnOnce(&mut BytesMut) -> fmt::Result) -> HeaderValue {
    let value = ELEMENTS.with_borrow_mut(|room| {
        room.reserve(bytes);
        write(room).expect("writing to memory cannot fail");
        room.split().freeze()
    });
    HeaderValue::from_maybe_shared(value).expect("addresses, authorities, schemes and field values are field text")
}

fn write_element(element: &mut BytesMut, hop: &Hop<'_>, host: &str, proto: &str) -> fmt::Result {
    write_node(element, Some(hop.remote.ip().to_canonical()))?;
    if !host.is_empty() {
        element.write_str(";host=")?;
        write_value(element, host)?;
    }
    write!(element, ";proto={proto}")
}

/// Who it came from. RFC 7239 section 6.
fn write_node(element: &mut BytesMut, node: Option<IpAddr>) -> fmt::Result {
    match node {
        Some(IpAddr::V4(ip)) => write!(element, "for={ip}"),
        Some(IpAddr::V6(ip)) => write!(element, "for=\"[{ip}]\""),
        None => element.write_str("for=unknown"),
    }
}

/// A token as it is, anything else quoted. RFC 9110 section 5.6.
fn write_value(element: &mut BytesMut, value: &str) -> fmt::Result {
    if value.bytes().all(is_token_byte) {
        return element.write_str(value);
    }
    element.write_char('"')?;
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            element.write_char('\\')?;
        }
        element.write_char(c)?;
    }
    element.write_char('"')
}

#[cfg(test)]
mod tests;
