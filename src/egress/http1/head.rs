//! From bytes to a request head.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::TE;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Version};

use crate::message::connect;
use crate::message::persistence::{has_token, keeps_alive};
use crate::message::section::{MAX_FIELDS, SectionEnd, append};
use crate::message::upgrade::{self, Offer};
use crate::message::validate::{self, Framing};
use crate::message::violation::Violation;

/// A request head that passed validation.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request<()>,
    pub(super) framing: Framing,
    /// The sender waits for `100 Continue`.
    pub(super) expects: bool,
    pub(super) terms: Terms,
    /// What the sender offers to go on with.
    pub(super) offer: Option<Offer>,
}

/// What a request lets its response do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) version: Version,
    /// HEAD: the response has no body.
    pub(super) is_head: bool,
    /// The connection may serve another request.
    pub(super) keep_alive: bool,
    /// The sender reads trailers.
    pub(super) takes_trailers: bool,
}

/// Finds and reads heads. Each byte is looked at a bounded number of times, however slowly it arrives.
#[derive(Debug)]
pub(super) struct HeadReader {
    scheme: Scheme,
    max_bytes: usize,
    max_fields: usize,
    section: SectionEnd,
}

impl HeadReader {
    pub(super) fn new(scheme: Scheme, max_bytes: usize, max_fields: usize) -> Self {
        let max_fields = max_fields.min(MAX_FIELDS);
        Self { scheme, max_bytes, max_fields, section: SectionEnd::new(max_fields + 1) }
    }

    /// Other bounds, bytes and fields, for the head that comes next; for when nothing of one was looked at.
    pub(super) fn bound(&mut self, (max_bytes, max_fields): (usize, usize)) {
        let max_fields = max_fields.min(MAX_FIELDS);
        self.max_bytes = max_bytes;
        if max_fields != self.max_fields && self.section.is_at_start() {
            self.max_fields = max_fields;
            self.section = SectionEnd::new(max_fields + 1);
        }
    }

    /// Takes the next head out of `buf`, if it is complete.
    pub(super) fn read(&mut self, buf: &mut BytesMut) -> Result<Option<Head>, Violation> {
        if self.section.is_at_start() && !begin(buf)? {
            return Ok(None);
        }
        let end = self.section.find(buf)?;
        if end.unwrap_or(buf.len()) > self.max_bytes {
            return Err(Violation::HeadTooLarge);
        }
        end.map(|end| self.parse(buf.split_to(end).freeze())).transpose()
    }

    fn parse(&self, bytes: Bytes) -> Result<Head, Violation> {
        let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(&bytes, &mut room).map_err(violation)?;
        if status != httparse::Status::Complete(bytes.len()) {
            return Err(Violation::Syntax);
        }
        if parsed.headers.len() > self.max_fields {
            return Err(Violation::TooManyFields);
        }
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Violation::Syntax);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Violation::Syntax)?;
        let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let (host, fields) = split_host(&bytes, parsed.headers)?;
        let uri =
            validate::http1_target(&method, bytes.slice_ref(target.as_bytes()), host.clone(), self.scheme.clone())?;
        validate::require_host(version, host.as_ref())?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = fields;
        finish(request)
    }
}

/// Drops the empty lines a sender may put before a request (RFC 9112 section 2.2), and tells early when what follows
/// cannot be a request line.
fn begin(buf: &mut BytesMut) -> Result<bool, Violation> {
    while buf.starts_with(b"\r\n") {
        buf.advance(2);
    }
    match buf.first() {
        None => Ok(false),
        Some(b'\r') if buf.len() == 1 => Ok(false),
        Some(b'\n') => Err(Violation::BareLineFeed),
        Some(byte) if byte.is_ascii_graphic() => Ok(true),
        Some(_) => Err(Violation::Syntax),
    }
}

fn violation(error: httparse::Error) -> Violation {
    match error {
        httparse::Error::TooManyHeaders => Violation::TooManyFields,
        httparse::Error::Version => Violation::Version,
        _ => Violation::Syntax,
    }
}

/// Host goes into the URI, so that nothing after this can read another one.
fn split_host(bytes: &Bytes, lines: &[httparse::Header<'_>]) -> Result<(Option<Authority>, HeaderMap), Violation> {
    let mut host = None;
    // Host leaves; Via, Forwarded, X-Forwarded-For and -Proto come.
    let mut fields = HeaderMap::with_capacity(lines.len() + 3);
    for line in lines {
        if line.name.eq_ignore_ascii_case("host") {
            let authority = validate::authority(bytes.slice_ref(line.value))?;
            if host.replace(authority).is_some() {
                return Err(Violation::DuplicateHost);
            }
        } else {
            append(&mut fields, bytes, line)?;
        }
    }
    Ok((host, fields))
}

fn finish(mut request: Request<()>) -> Result<Head, Violation> {
    let version = request.version();
    if request.method() == Method::CONNECT {
        connect::check_fields(request.headers())?;
    }
    let framing = validate::request_framing(version, request.headers())?;
    let offer = offer(&request, framing)?;
    let terms = Terms {
        version,
        is_head: request.method() == Method::HEAD,
        keep_alive: keeps_alive(version, request.headers()),
        takes_trailers: version == Version::HTTP_11 && has_token(request.headers(), &TE, "trailers"),
    };
    let expects = validate::expects_continue(&mut request, framing != Framing::None)?;
    Ok(Head { request, framing, expects, terms, offer })
}

/// An Upgrade is carried as an extended CONNECT, which has neither another method nor a body of its own. HTTP/1.0 has none
/// (RFC 9110 section 7.8).
fn offer(request: &Request<()>, framing: Framing) -> Result<Option<Offer>, Violation> {
    if request.version() != Version::HTTP_11 {
        return Ok(None);
    }
    let offer = upgrade::offered(request.headers())?;
    if offer.is_some() && (request.method() != Method::GET || framing != Framing::None) {
        return Err(Violation::Upgrade);
    }
    Ok(offer)
}

#[cfg(test)]
mod tests {
    use http::header::EXPECT;

    use super::*;

    fn reader() -> HeadReader {
        HeadReader::new(Scheme::HTTP, 4096, 10)
    }

    fn read(text: &str) -> Result<Option<Head>, Violation> {
        reader().read(&mut BytesMut::from(text))
    }

    fn head(text: &str) -> Head {
        read(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_split_anywhere_reads_the_same_and_leaves_what_follows() {
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A:  b \r\n\r\nabc";
        for split in 0..text.len() - 3 {
            let (mut buf, mut reader) = (BytesMut::from(&text[..split]), reader());
            assert!(reader.read(&mut buf).unwrap().is_none(), "{split}");
            buf.extend_from_slice(&text[split..]);
            let head = reader.read(&mut buf).unwrap().unwrap();
            assert_eq!(head.request.uri(), "http://h/a?b");
            assert_eq!(head.request.headers()["x-a"], "b");
            assert_eq!(head.framing, Framing::Length(3));
            assert_eq!(&buf[..], b"abc");
        }
    }

    #[test]
    fn pipelined_heads_come_one_by_one() {
        let one = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n";
        let (mut buf, mut reader) = (BytesMut::from(format!("{one}{one}").as_str()), reader());
        assert!(reader.read(&mut buf).unwrap().is_some());
        assert!(reader.read(&mut buf).unwrap().is_some());
        assert!(reader.read(&mut buf).unwrap().is_none());
    }

    #[test]
    fn the_connection_is_kept_as_version_and_connection_field_say() {
        let keeps =
            |version: &str, line: &str| head(&format!("GET / {version}\r\nHost: h\r\n{line}\r\n")).terms.keep_alive;
        assert!(keeps("HTTP/1.1", ""));
        assert!(!keeps("HTTP/1.1", "Connection: x, Close\r\n"));
        assert!(!keeps("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
        assert!(!keeps("HTTP/1.0", ""));
        assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    }

    #[test]
    fn an_expectation_is_passed_on_where_there_is_a_body_and_an_unknown_one_is_rejected() {
        let head = head("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n");
        assert!(head.expects && head.request.headers().contains_key(EXPECT));
        for none in [
            "PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
        ] {
            let head = self::head(none);
            assert!(!head.expects && !head.request.headers().contains_key(EXPECT), "{none:?}");
        }
        let unknown = read("PUT / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\n\r\n");
        assert_eq!(unknown.unwrap_err(), Violation::Expectation);
    }

    #[test]
    fn an_upgrade_is_taken_along_or_refused_and_not_forgotten() {
        let of = |method: &str, version: &str, lines: &str| {
            let text = format!("{method} / HTTP/{version}\r\nHost: h\r\n{lines}\r\n");
            read(&text).map(|head| head.unwrap().offer.map(|offer| offer.protocol.as_str().to_owned()))
        };
        let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let other = "Connection: keep-alive, upgrade\r\nUpgrade: TLS/1.3, x\r\n";
        for (lines, protocol) in [(websocket, "websocket"), (other, "TLS/1.3")] {
            assert_eq!(of("GET", "1.1", lines), Ok(Some(protocol.to_owned())));
            assert_eq!(of("GET", "1.0", lines), Ok(None), "HTTP/1.0 has none");
            assert_eq!(of("POST", "1.1", lines), Err(Violation::Upgrade));
            assert_eq!(of("GET", "1.1", &format!("{lines}Content-Length: 1\r\n")), Err(Violation::Upgrade));
        }
        for none in ["Upgrade: websocket\r\n", "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n"] {
            assert_eq!(of("GET", "1.1", none), Ok(None), "{none:?}");
        }
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "a".repeat(4096));
        assert_eq!(read(&endless).unwrap_err(), Violation::HeadTooLarge);
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(10));
        assert_eq!(read(&many).unwrap_err(), Violation::TooManyFields);
        let more = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(300));
        assert_eq!(read(&more).unwrap_err(), Violation::TooManyFields);
    }
}
