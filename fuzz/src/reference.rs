//! A naive reader of HTTP/1 requests, by the grammar of RFC 9112: all bytes at hand, line by line, nothing repaired.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Values of each field in their order, by lower-case name.
pub(crate) type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// What a request says, Host and Expect aside: the one is in the authority, the other is met hop by hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) authority: Option<String>,
    /// With the query.
    pub(crate) path: String,
    pub(crate) fields: Fields,
    /// `None`: broken or cut off.
    pub(crate) body: Option<Body>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// The requests of a connection, up to the first that is broken; one with a broken body is the last.
pub(crate) fn requests(mut bytes: &[u8]) -> Vec<Request> {
    let mut requests = Vec::new();
    while let Some((mut request, framing, rest)) = head(bytes) {
        let whole = body(framing, rest);
        request.body = whole.as_ref().map(|(body, _)| body.clone());
        requests.push(request);
        let Some((_, rest)) = whole else { break };
        bytes = rest;
    }
    requests
}

/// The lower-case name and the port of `host` or `host:port`.
pub(crate) fn authority(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    let literal = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    if (!is_name && literal().is_none()) || text.len() > 512 {
        return None;
    }
    let port = if port.is_empty() { default_port } else { digits(port.as_bytes())?.try_into().ok()? };
    Some((host.to_lowercase(), port))
}

enum Framing {
    Length(u64),
    Chunked,
}

fn head(mut bytes: &[u8]) -> Option<(Request, Framing, &[u8])> {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    let (first, rest) = line(bytes)?;
    let words: Vec<&str> = std::str::from_utf8(first).ok()?.split(' ').collect();
    let &[method, target, version @ ("HTTP/1.0" | "HTTP/1.1")] = &words[..] else { return None };
    let (mut fields, rest) = fields(rest)?;
    let host = one(fields.remove("host").as_deref())?.map(String::from_utf8).transpose().ok()?;
    let is_valid = host.as_ref().map_or(version == "HTTP/1.0", |host| authority(host, 80).is_some());
    if !is_token(method) || !is_valid {
        return None;
    }
    let (authority, path) = target_of(method, target, host)?;
    let framing = framing(version, &fields)?;
    fields.remove("expect");
    Some((Request { method: method.to_owned(), authority, path, fields, body: None }, framing, rest))
}

/// The authority and the path with the query.
fn target_of(method: &str, target: &str, host: Option<String>) -> Option<(Option<String>, String)> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Some((host, target.to_owned()));
    }
    let (scheme, rest) = target.split_once("://")?;
    let default_port = match scheme.to_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (named, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let place = authority(named, default_port)?;
    let differs = host.is_some_and(|host| authority(&host, default_port).as_ref() != Some(&place));
    let slash = if path.starts_with('/') { "" } else { "/" };
    (!differs).then(|| (Some(named.to_owned()), format!("{slash}{path}")))
}

fn framing(version: &str, fields: &Fields) -> Option<Framing> {
    let field = |name: &str| one(fields.get(name).map(Vec::as_slice));
    match (field("content-length")?, field("transfer-encoding")?) {
        (None, None) => Some(Framing::Length(0)),
        (Some(length), None) => digits(&length).map(Framing::Length),
        (None, Some(coding)) => {
            (version == "HTTP/1.1" && coding.eq_ignore_ascii_case(b"chunked")).then_some(Framing::Chunked)
        }
        (Some(_), Some(_)) => None,
    }
}

fn body(framing: Framing, bytes: &[u8]) -> Option<(Body, &[u8])> {
    match framing {
        Framing::Length(length) => {
            let (data, rest) = bytes.split_at_checked(length.try_into().ok()?)?;
            Some((Body { data: data.to_vec(), trailers: Fields::new() }, rest))
        }
        Framing::Chunked => chunked(bytes),
    }
}

fn chunked(mut bytes: &[u8]) -> Option<(Body, &[u8])> {
    let mut data = Vec::new();
    loop {
        let (size, rest) = line(bytes)?;
        let size = std::str::from_utf8(size.split(|&byte| byte == b';').next()?).ok()?;
        if !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (chunk, rest) = rest.split_at_checked(usize::from_str_radix(size, 16).ok()?)?;
        if chunk.is_empty() {
            let (trailers, rest) = fields(rest)?;
            return Some((Body { data, trailers }, rest));
        }
        data.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
}

/// Field lines up to the empty line, which is taken too.
fn fields(mut bytes: &[u8]) -> Option<(Fields, &[u8])> {
    let mut fields = Fields::new();
    loop {
        let (field, rest) = line(bytes)?;
        bytes = rest;
        if field.is_empty() {
            return Some((fields, bytes));
        }
        let colon = field.iter().position(|&byte| byte == b':')?;
        let name = std::str::from_utf8(&field[..colon]).ok().filter(|name| is_token(name))?;
        let value = trimmed(&field[colon + 1..]);
        fields.entry(name.to_lowercase()).or_default().push(value.to_vec());
    }
}

/// A line without its CR LF. No other control character but the tab may stand in one.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let is_clean = bytes[..end].iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control());
    is_clean.then_some((&bytes[..end], &bytes[end + 2..]))
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The value of a field that may stand once; `None` when it stands more often.
fn one(values: Option<&[Vec<u8>]>) -> Option<Option<Vec<u8>>> {
    match values {
        None => Some(None),
        Some([value]) => Some(Some(value.clone())),
        Some(_) => None,
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn digits(text: &[u8]) -> Option<u64> {
    let is_number = text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// What the head of a response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    /// The bytes of the body; `Some(None)`: all until the connection ends; `None`: in chunks. RFC 9112 section 6.3
    pub(crate) length: Option<Option<u64>>,
    pub(crate) keep_alive: bool,
}

/// The head of a response, and how many bytes it has. `is_head`: to a HEAD request.
pub(crate) fn response(bytes: &[u8], is_head: bool) -> Option<(Response, usize)> {
    let (first, rest) = line(bytes)?;
    let (version, rest_of_line) = first.split_at_checked(8)?;
    let is_new = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    let (code, reason) = rest_of_line.strip_prefix(b" ")?.split_at_checked(3)?;
    let status = digits(code).and_then(|code| u16::try_from(code).ok()).filter(|status| *status >= 100)?;
    if !matches!(reason.first(), None | Some(b' ')) {
        return None;
    }
    let (mut fields, rest) = fields(rest)?;
    let field = |name: &str| one(fields.get(name).map(Vec::as_slice));
    let declared = match (field("content-length")?, field("transfer-encoding")?) {
        (None, None) => Some(None),
        (Some(length), None) => Some(Some(digits(&length)?)),
        (None, Some(coding)) if is_new && coding.eq_ignore_ascii_case(b"chunked") => None,
        _ => return None,
    };
    let has_no_body = is_head || status < 200 || status == 204 || status == 304;
    let length = if has_no_body { Some(Some(0)) } else { declared };
    let says = |token: &str| {
        let lines = fields.get("connection").into_iter().flatten().flat_map(|value| value.split(|&byte| byte == b','));
        let mut members = lines.filter_map(|member| member.split(|&byte| byte == b';').next());
        members.any(|member| trimmed(member).eq_ignore_ascii_case(token.as_bytes()))
    };
    let keep_alive = length != Some(None) && !says("close") && (is_new || says("keep-alive"));
    if status < 200 || status == 204 {
        fields.remove("content-length");
    }
    Some((Response { status, fields, length, keep_alive }, bytes.len() - rest.len()))
}
