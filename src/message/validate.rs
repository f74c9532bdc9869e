//! The strict message validator: one set of rules for every HTTP version, applied before anything enters a tunnel.
//!
//! Two parsers that read one message differently are what request smuggling is made of. Wherever the RFCs let a
//! recipient choose between repairing and rejecting, this rejects: nothing ambiguous is ever passed on for somebody
//! else to read in another way. The codecs of `egress` tokenize; the rules that need the whole head live here.

use bytes::Bytes;
use http::header::{EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri, Version};

use crate::message::authority;
use crate::message::connect;
use crate::message::cookie;
use crate::message::fields::{
    FieldRules, ends_in_space, is_connection_specific, is_forbidden_in_any_trailers, strip_hop_by_hop,
};
use crate::message::length::content_length;
use crate::message::upgrade::{self, Protocol};
use crate::message::violation::Violation;

pub use crate::message::authority::authority;

/// Longest request target accepted, bytes. RFC 9110 section 4.1 asks for at least 8,000.
pub const MAX_TARGET: usize = 16 * 1024;

/// Longest method accepted, bytes; the longest registered one has 16.
pub const MAX_METHOD: usize = 32;

/// How the end of an HTTP/1 request body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// The chunked coding.
    Chunked,
}

/// Finds the framing of an HTTP/1 request, or says why it has none that every reader would agree on.
pub fn request_framing(version: Version, fields: &HeaderMap) -> Result<Framing, Violation> {
    let length = content_length(fields)?;
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(length.filter(|length| *length > 0).map_or(Framing::None, Framing::Length));
    };
    if version != Version::HTTP_11 {
        return Err(Violation::CodingVersion);
    }
    if length.is_some() {
        return Err(Violation::LengthAndCoding);
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Violation::TransferEncoding);
    }
    Ok(Framing::Chunked)
}

/// Builds the URI of an HTTP/1 request in absolute form from its target and the authority in its Host field. Without
/// an authority (HTTP/1.0 only, see [`require_host`]) the URI has just a path.
///
/// Origin form, absolute form (`http`, `https`) and, for OPTIONS, `*` are accepted. That of CONNECT is an authority and
/// nothing else, see [`connect`].
pub fn http1_target(method: &Method, target: Bytes, host: Option<Authority>, scheme: Scheme) -> Result<Uri, Violation> {
    if method == Method::CONNECT {
        return connect::http1_target(target, host.as_ref());
    }
    check_method(method)?;
    check_target_bytes(&target)?;
    match target.first() {
        Some(b'/') => {}
        Some(b'*') if target.len() == 1 && method == Method::OPTIONS => {}
        Some(_) => return absolute_form(method, target, host.as_ref()),
        None => return Err(Violation::Target),
    }
    let path = PathAndQuery::from_maybe_shared(target).map_err(|_| Violation::Target)?;
    assemble(scheme, host, path)
}

/// Whether whoever sent this waits for `100 Continue` before the body. That is the service's to say, so the field goes on;
/// but where there is no body, or in HTTP/1.0, nobody waits, and it is removed. RFC 9110 section 10.1.1
///
/// # Errors
/// [`Violation::Expectation`]: something else is expected.
pub fn expects_continue<B>(request: &mut http::Request<B>, has_body: bool) -> Result<bool, Violation> {
    let has_interim = request.version() != Version::HTTP_10 && request.version() != Version::HTTP_09;
    let fields = request.headers_mut();
    let mut expectations = fields.get_all(EXPECT).iter();
    let Some(expectation) = expectations.next() else { return Ok(false) };
    if expectations.next().is_some() || !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Err(Violation::Expectation);
    }
    let expects = has_body && has_interim;
    if !expects {
        fields.remove(EXPECT);
    }
    Ok(expects)
}

/// HTTP/1.1 requests carry exactly one Host (RFC 9112 section 3.2); HTTP/1.0 ones may have none.
pub fn require_host(version: Version, host: Option<&Authority>) -> Result<(), Violation> {
    if host.is_none() && version == Version::HTTP_11 { Err(Violation::MissingHost) } else { Ok(()) }
}

/// Checks the head of an HTTP/2 request beyond what its codec does, and brings it into the shape HTTP/1 requests
/// have: Host removed, the authority in the URI, one Cookie. Returns the declared length. The URI of a CONNECT without a
/// protocol has an authority only, see [`connect`].
///
/// `scheme` is the connection's: `h2` shows none where the request has no `:authority` but a Host, which RFC 9113 section
/// 8.3.1 allows.
pub fn http2_request(
    parts: &mut http::request::Parts,
    scheme: &Scheme,
    max_fields: usize,
) -> Result<Option<u64>, Violation> {
    match parts.extensions.get::<Protocol>() {
        // RFC 8441 section 4
        Some(_) if parts.method != Method::CONNECT => return Err(Violation::Syntax),
        Some(protocol) if protocol.is_websocket() => upgrade::check_version(&parts.headers)?,
        Some(_) => {}
        None if parts.method == Method::CONNECT => {}
        None => check_method(&parts.method)?,
    }
    if parts.headers.len() > max_fields {
        return Err(Violation::TooManyFields);
    }
    http2_fields(&parts.headers)?;
    if connect::is_plain(parts) {
        let host = single_host(&parts.headers)?;
        return connect::http2_request(parts, host.as_ref()).map(|()| None);
    }
    parts.uri = http2_target(&parts.method, std::mem::take(&mut parts.uri), scheme, &parts.headers)?;
    parts.headers.remove(HOST);
    if parts.extensions.get::<Protocol>().is_some() {
        upgrade::strip_proofs(&mut parts.headers);
    }
    cookie::join(&mut parts.headers);
    content_length(&parts.headers)
}

/// Does with the head of a request that nobody sent, whose URI is absolute, what a codec does with one that it has read.
///
/// # Errors
/// The rule that it breaks.
pub fn unsent_request(head: &mut http::request::Parts, scheme: &Scheme, max_fields: usize) -> Result<(), Violation> {
    if head.method == Method::GET
        && let Some(offer) = upgrade::offered(&head.headers)?
    {
        head.method = Method::CONNECT;
        head.extensions.insert(offer.protocol);
    }
    strip_hop_by_hop(&mut head.headers);
    http2_request(head, scheme, max_fields).map(drop)
}

/// Checks a trailer section: nothing in it may change how the message is framed, routed or kept connected.
pub fn trailers(fields: &HeaderMap, max_fields: usize) -> Result<(), Violation> {
    let rules = FieldRules { max_fields, max_bytes: usize::MAX, forbids: is_forbidden_in_any_trailers };
    rules.judge(fields, 0).map_err(|violation| match violation {
        Violation::TooManyFields => violation,
        _ => Violation::Trailers,
    })
}

fn check_method(method: &Method) -> Result<(), Violation> {
    if method.as_str().len() > MAX_METHOD { Err(Violation::MethodTooLong) } else { Ok(()) }
}

/// Only visible ASCII, and no fragment: a fragment never belongs on the wire, and dropping it would change the request.
fn check_target_bytes(target: &[u8]) -> Result<(), Violation> {
    if target.len() > MAX_TARGET {
        return Err(Violation::TargetTooLong);
    }
    if target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') { Ok(()) } else { Err(Violation::Target) }
}

fn absolute_form(method: &Method, target: Bytes, host: Option<&Authority>) -> Result<Uri, Violation> {
    let is_server_wide = method == Method::OPTIONS && has_nothing_behind_its_authority(&target);
    let uri = Uri::from_maybe_shared(target).map_err(|_| Violation::Target)?;
    let mut parts = uri.into_parts();
    let scheme = parts.scheme.take().ok_or(Violation::Target)?;
    check_scheme(&scheme)?;
    let named = parts.authority.take().ok_or(Violation::Target)?;
    let named = authority::check(named)?;
    if host.is_some_and(|host| !authority::same(host, &named, &scheme)) {
        return Err(Violation::HostMismatch);
    }
    let path = if is_server_wide { PathAndQuery::from_static("*") } else { rooted(parts.path_and_query)? };
    assemble(scheme, Some(named), path)
}

/// Whether an absolute form has neither a path nor a query: of OPTIONS it means `*` then. RFC 9112 section 3.2.4
fn has_nothing_behind_its_authority(target: &[u8]) -> bool {
    let behind = target.windows(3).position(|bytes| bytes == b"://").map(|at| &target[at + 3..]);
    behind.is_some_and(|behind| !behind.iter().any(|byte| matches!(byte, b'/' | b'?')))
}

/// An absolute form without a path means `/`, also where it has a query. RFC 9110 section 4.2.3
fn rooted(path: Option<PathAndQuery>) -> Result<PathAndQuery, Violation> {
    match path {
        None => Ok(PathAndQuery::from_static("/")),
        Some(path) if path.as_str().starts_with('/') => Ok(path),
        // Its Display would write a slash of its own.
        Some(query) => PathAndQuery::try_from(format!("/{}", query.as_str())).map_err(|_| Violation::Target),
    }
}

fn check_scheme(scheme: &Scheme) -> Result<(), Violation> {
    if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS { Ok(()) } else { Err(Violation::Target) }
}

fn assemble(scheme: Scheme, authority: Option<Authority>, path: PathAndQuery) -> Result<Uri, Violation> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = authority.is_some().then_some(scheme);
    parts.authority = authority;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| Violation::Target)
}

fn http2_target(method: &Method, uri: Uri, scheme: &Scheme, fields: &HeaderMap) -> Result<Uri, Violation> {
    let parts = uri.into_parts();
    let scheme = match (parts.scheme, &parts.authority) {
        (Some(scheme), _) => scheme,
        (None, None) => scheme.clone(),
        (None, Some(_)) => return Err(Violation::Target),
    };
    check_scheme(&scheme)?;
    let path = parts.path_and_query.ok_or(Violation::Target)?;
    check_target_bytes(path.as_str().as_bytes())?;
    let is_server_wide = path.as_str() == "*" && method == Method::OPTIONS;
    if !is_server_wide && !path.as_str().starts_with('/') {
        return Err(Violation::Target);
    }
    let named = parts.authority.map(authority::check).transpose()?;
    let host = single_host(fields)?;
    let authority = match (named, host) {
        (Some(named), Some(host)) if !authority::same(&named, &host, &scheme) => return Err(Violation::HostMismatch),
        (Some(named), _) => named,
        (None, Some(host)) => host,
        (None, None) => return Err(Violation::MissingHost),
    };
    assemble(scheme, Some(authority), path)
}

fn single_host(fields: &HeaderMap) -> Result<Option<Authority>, Violation> {
    let mut hosts = fields.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(Violation::DuplicateHost);
    }
    authority(Bytes::copy_from_slice(host.as_bytes())).map(Some)
}

/// RFC 9113 section 8.2.1 and 8.2.2.
fn http2_fields(fields: &HeaderMap) -> Result<(), Violation> {
    for (name, value) in fields {
        if is_connection_specific(name) || (name == TE && value != "trailers") {
            return Err(Violation::ConnectionField);
        }
        if ends_in_space(value) {
            return Err(Violation::FieldWhitespace);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
