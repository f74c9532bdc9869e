//! The payloads of HEAD, INFO and TRAILERS, both directions side by side. spec: ST-10 to ST-23
//!
//! A head is read straight into `http` types: names in the table are cloned from statics, values share the memory of
//! the received bytes. Every part has one encoding, so a name or method that has an index must use it.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode};

use crate::id::ServiceName;
use crate::message::authority;
use crate::message::fields;
use crate::message::length;
use crate::protocol::handshake::identifier;
use crate::protocol::limits;
use crate::protocol::limits::Limits;
use crate::protocol::stream::Text;
use crate::protocol::stream::names;
use crate::protocol::stream::{RequestHead, RequestView, ResponseHead, StreamError};
use crate::protocol::tcp;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Malformed, put_sized};

/// The methods with an index, in order; the first one has index 1. spec: ST-11
pub static METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Fields whose values must not show in logs. spec: SE-7
static SECRETS: [HeaderName; 4] = [AUTHORIZATION, COOKIE, SET_COOKIE, PROXY_AUTHORIZATION];

/// The index that says: length and bytes follow. spec: ST-11, ST-16
const LITERAL: u8 = 0;

/// Bits of the first byte of a HEAD. spec: ST-10
const FLAG_END: u8 = 0b001;
const FLAG_SERVICE: u8 = 0b010;
const FLAG_PROTOCOL: u8 = 0b100;

/// The flags of a HEAD, by name. spec: ST-10, ST-20
pub const HEAD_FLAGS: [(&str, u8); 3] = [("end", FLAG_END), ("service", FLAG_SERVICE), ("protocol", FLAG_PROTOCOL)];

/// Guesses the number of fields from the length of a head, so that the map need not grow while it is filled.
const USUAL_FIELD_BYTES: usize = 16;
/// A guess reserves no more than this many fields, whatever the length.
const MAX_PREPARED_FIELDS: usize = 32;

const SCHEME_HTTP: u8 = 1;
const SCHEME_HTTPS: u8 = 2;

pub(super) fn put_request(head: &RequestView<'_>, end: bool, out: &mut BytesMut) {
    let mut flags = if end { FLAG_END } else { 0 };
    if head.service.is_some() {
        flags |= FLAG_SERVICE;
    }
    if head.protocol.is_some() {
        flags |= FLAG_PROTOCOL;
    }
    out.put_u8(flags);
    put_method(head.method, out);
    out.put_u8(if *head.scheme == Scheme::HTTPS { SCHEME_HTTPS } else { SCHEME_HTTP });
    put_sized(out, head.authority.as_bytes());
    put_sized(out, head.path.as_bytes());
    if let Some(service) = head.service {
        put_sized(out, service.as_str().as_bytes());
    }
    if let Some(protocol) = head.protocol {
        put_sized(out, protocol.as_bytes());
    }
    put_fields(head.fields, fields::is_forbidden, out);
}

/// Reads the payload of a request's HEAD; the flag is END. spec: ST-10
pub(super) fn read_request(payload: &Bytes, limits: &Limits) -> Result<(RequestHead, bool), StreamError> {
    let mut cursor = Cursor::new(payload);
    let flags = read_flags(&mut cursor, FLAG_END | FLAG_SERVICE | FLAG_PROTOCOL)?;
    let method = read_method(&mut cursor)?;
    let scheme = read_scheme(&mut cursor)?;
    let authority = read_authority(&mut cursor, payload)?;
    let path = read_path(&mut cursor, payload)?;
    let service = match flags & FLAG_SERVICE {
        0 => None,
        _ => Some(identifier(cursor.sized()?, "service name", ServiceName::new)?),
    };
    let protocol = match flags & FLAG_PROTOCOL {
        0 => None,
        _ => Some(read_protocol(&mut cursor)?),
    };
    check_target(&method, &authority, &path, protocol.is_some())?;
    let fields = read_fields(&mut cursor, payload, limits)?;
    Ok((RequestHead { method, scheme, authority, path, service, protocol, fields }, flags & FLAG_END != 0))
}

pub(super) fn put_response(head: &ResponseHead, end: bool, out: &mut BytesMut) {
    out.put_u8(if end { FLAG_END } else { 0 });
    put_info(head, out);
}

/// Reads the payload of a response's HEAD; the flag is END. spec: ST-20
pub(super) fn read_response(payload: &Bytes, limits: &Limits) -> Result<(ResponseHead, bool), StreamError> {
    let mut cursor = Cursor::new(payload);
    let flags = read_flags(&mut cursor, FLAG_END)?;
    let status = read_status(&mut cursor)?;
    if status.is_informational() {
        return Err(Malformed::Invalid("status").into());
    }
    let fields = read_fields(&mut cursor, payload, limits)?;
    Ok((ResponseHead { status, fields }, flags & FLAG_END != 0))
}

pub(super) fn put_info(head: &ResponseHead, out: &mut BytesMut) {
    varint::encode(out, head.status.as_u16().into());
    put_fields(&head.fields, fields::is_forbidden, out);
}

/// Reads the payload of an INFO frame. spec: ST-21
pub(super) fn read_info(payload: &Bytes, limits: &Limits) -> Result<ResponseHead, StreamError> {
    let mut cursor = Cursor::new(payload);
    let status = read_status(&mut cursor)?;
    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::Invalid("status").into());
    }
    Ok(ResponseHead { status, fields: read_fields(&mut cursor, payload, limits)? })
}

pub(super) fn put_trailers(fields: &HeaderMap, out: &mut BytesMut) {
    put_fields(fields, fields::is_forbidden_in_trailers, out);
}

/// Reads the payload of a TRAILERS frame: at least one field, and no Content-Length. spec: ST-23, ST-24
pub(super) fn read_trailers(payload: &Bytes, limits: &Limits) -> Result<HeaderMap, StreamError> {
    let fields = read_fields(&mut Cursor::new(payload), payload, limits)?;
    if fields.contains_key(CONTENT_LENGTH) {
        return Err(Malformed::Forbidden("content-length").into());
    }
    if fields.is_empty() { Err(Malformed::Missing("field").into()) } else { Ok(fields) }
}

/// Appends every field that may stand here, values without spaces around them. spec: ST-16 to ST-19
fn put_fields(fields: &HeaderMap, is_forbidden: fn(&HeaderName, &HeaderValue) -> bool, out: &mut BytesMut) {
    let is_left_out = |name, value| is_forbidden(name, value) || tcp::is_own_field(name);
    for (name, value) in fields.iter().filter(|(name, value)| !is_left_out(name, value)) {
        match names::index_of(name.as_str().as_bytes()) {
            Some(index) => out.put_u8(index),
            None => {
                out.put_u8(LITERAL);
                put_sized(out, name.as_str().as_bytes());
            }
        }
        put_sized(out, value.as_bytes().trim_ascii());
    }
}

/// Reads fields to the end of `payload`, of which `cursor` is the rest. spec: ST-7, ST-16 to ST-19
fn read_fields(cursor: &mut Cursor<'_>, payload: &Bytes, limits: &Limits) -> Result<HeaderMap, StreamError> {
    // One more than there seem to be: whoever passes the message on adds Via.
    let expected = cursor.len().div_ceil(USUAL_FIELD_BYTES).min(MAX_PREPARED_FIELDS) + 1;
    let mut fields = HeaderMap::with_capacity(expected);
    while !cursor.is_empty() {
        if fields.len() >= limits.head_fields {
            return Err(too_many_fields(limits));
        }
        let name = read_name(cursor)?;
        let value = read_value(cursor.sized()?, &name, payload)?;
        if fields::is_forbidden(&name, &value) {
            return Err(Malformed::Forbidden("connection-specific field or Host").into());
        }
        fields.try_append(name, value).map_err(|_| too_many_fields(limits))?;
    }
    Ok(fields)
}

fn too_many_fields(limits: &Limits) -> StreamError {
    let max = limits.head_fields as u64;
    StreamError::Limit { what: "the number of fields", actual: max + 1, max }
}

fn read_name(cursor: &mut Cursor<'_>) -> Result<HeaderName, Malformed> {
    const INVALID: Malformed = Malformed::Invalid("field name");
    match cursor.byte()? {
        LITERAL => {
            let name = cursor.sized()?;
            if names::index_of(name).is_some() {
                return Err(INVALID);
            }
            HeaderName::from_lowercase(name).map_err(|_| INVALID)
        }
        index => names::by_index(index).cloned().ok_or(INVALID),
    }
}

/// A value shares the memory of the head that it came in. spec: ST-19, SE-7
fn read_value(value: &[u8], name: &HeaderName, payload: &Bytes) -> Result<HeaderValue, Malformed> {
    const INVALID: Malformed = Malformed::Invalid("field value");
    if value.trim_ascii().len() != value.len() {
        return Err(INVALID);
    }
    let mut value = HeaderValue::from_maybe_shared(payload.slice_ref(value)).map_err(|_| INVALID)?;
    value.set_sensitive(SECRETS.contains(name));
    Ok(value)
}

fn read_flags(cursor: &mut Cursor<'_>, known: u8) -> Result<u8, Malformed> {
    let flags = cursor.byte()?;
    if flags & !known == 0 { Ok(flags) } else { Err(Malformed::Invalid("flag")) }
}

fn read_status(cursor: &mut Cursor<'_>) -> Result<StatusCode, Malformed> {
    const INVALID: Malformed = Malformed::Invalid("status");
    let number = u16::try_from(cursor.varint()?).map_err(|_| INVALID)?;
    StatusCode::from_u16(number).map_err(|_| INVALID)
}

fn put_method(method: &Method, out: &mut BytesMut) {
    match METHODS.iter().position(|known| known == method) {
        Some(at) => out.put_u8(at as u8 + 1),
        None => {
            out.put_u8(LITERAL);
            put_sized(out, method.as_str().as_bytes());
        }
    }
}

fn read_method(cursor: &mut Cursor<'_>) -> Result<Method, Malformed> {
    const INVALID: Malformed = Malformed::Invalid("method");
    match cursor.byte()? {
        LITERAL => {
            let name = cursor.sized()?;
            let method = Method::from_bytes(name).map_err(|_| INVALID)?;
            if name.len() > limits::MAX_METHOD_BYTES || METHODS.contains(&method) { Err(INVALID) } else { Ok(method) }
        }
        index => METHODS.get(usize::from(index) - 1).cloned().ok_or(INVALID),
    }
}

fn read_scheme(cursor: &mut Cursor<'_>) -> Result<Scheme, Malformed> {
    match cursor.byte()? {
        SCHEME_HTTP => Ok(Scheme::HTTP),
        SCHEME_HTTPS => Ok(Scheme::HTTPS),
        _ => Err(Malformed::Invalid("scheme")),
    }
}

fn read_authority(cursor: &mut Cursor<'_>, payload: &Bytes) -> Result<Text, Malformed> {
    match Text::of(cursor.sized()?, payload) {
        Some(text) if text.len() <= limits::MAX_AUTHORITY_BYTES && is_none_or_authority(&text) => Ok(text),
        _ => Err(Malformed::Invalid("authority")),
    }
}

/// Nothing, or a host and perhaps a port. spec: ST-12
fn is_none_or_authority(text: &str) -> bool {
    text.is_empty() || authority::is_authority(text)
}

/// A name and perhaps a version, as in RFC 9110 section 7.8. spec: ST-15
fn read_protocol(cursor: &mut Cursor<'_>) -> Result<String, Malformed> {
    let protocol = ascii(cursor.sized()?, "protocol", |byte| fields::is_token_byte(byte) || byte == b'/')?.to_owned();
    let tokens = || protocol.split('/');
    let valid = tokens().count() <= 2 && tokens().all(|token| !token.is_empty());
    if valid && protocol.len() <= limits::MAX_PROTOCOL_BYTES {
        Ok(protocol)
    } else {
        Err(Malformed::Invalid("protocol"))
    }
}

/// Visible ASCII without `#`, which no request target may carry, and without `<` and `>`. spec: ST-13
fn read_path(cursor: &mut Cursor<'_>, payload: &Bytes) -> Result<Text, Malformed> {
    let path = ascii(cursor.sized()?, "path", is_path_byte)?;
    Text::of(path.as_bytes(), payload).ok_or(Malformed::Invalid("path"))
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"#<>".contains(&byte)
}

/// Text of the bytes that `allowed` accepts, all of them ASCII.
fn ascii<'a>(bytes: &'a [u8], what: &'static str, allowed: impl Fn(u8) -> bool) -> Result<&'a str, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(allowed) => Ok(text),
        _ => Err(Malformed::Invalid(what)),
    }
}

/// Which path goes with which method. spec: ST-13, ST-15
fn check_target(method: &Method, authority: &str, path: &str, extended: bool) -> Result<(), Malformed> {
    let connect = method == Method::CONNECT;
    if extended && !connect {
        return Err(Malformed::Forbidden("protocol"));
    }
    if connect && authority.is_empty() {
        return Err(Malformed::Invalid("authority"));
    }
    let valid = match path {
        "" => connect && !extended,
        "*" => method == Method::OPTIONS,
        path => path.starts_with('/') && (!connect || extended),
    };
    if valid { Ok(()) } else { Err(Malformed::Invalid("path")) }
}

/// Whether a request that came as HTTP/2 has a target that a HEAD could carry: the same rules as for our own frames, so
/// that no more gets through over one transport than over the other. `is_extended`: it is an extended CONNECT. spec: ST-12,
/// ST-13, TB-7
pub fn check_http_target(method: &Method, uri: &http::Uri, is_extended: bool) -> Result<(), Malformed> {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if method.as_str().len() > limits::MAX_METHOD_BYTES {
        return Err(Malformed::Invalid("method"));
    }
    if authority.len() > limits::MAX_AUTHORITY_BYTES || !is_none_or_authority(authority) {
        return Err(Malformed::Invalid("authority"));
    }
    ascii(path.as_bytes(), "path", is_path_byte)?;
    check_target(method, authority, path, is_extended)
}

/// The length that a request's fields promise: one field of digits that fit into 64 bits whatever they are, or none.
/// spec: ST-24
pub fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Malformed> {
    length::content_length(fields).map_err(|_| Malformed::Invalid("content-length"))
}
