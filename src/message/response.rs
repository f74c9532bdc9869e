//! From bytes to the head of an HTTP/1 response, read as strictly as requests are.
//!
//! Sans-IO. A response that two readers could end at different places is refused, not repaired: what is left of it on
//! a connection that is used again would be taken for the response to somebody else's request.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Response, StatusCode, Version};

use crate::message::length::{content_length, strip_where_none};
use crate::message::persistence::keeps_alive;
use crate::message::section::{MAX_FIELDS, SectionEnd, append};
use crate::message::violation::Violation;

/// What every HTTP/1 response begins with.
const START: &[u8] = b"HTTP/";

/// How the end of a response body is found. RFC 9112 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, whatever the fields say.
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the connection closes.
    Close,
}

/// The head of a response, interim or final.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and fields, those of the hop included.
    pub response: Response<()>,
    /// How the body ends.
    pub framing: Framing,
    /// The connection may serve another exchange once the body has ended.
    pub keep_alive: bool,
}

/// Finds and reads the heads of the responses to one request. Each byte is looked at a bounded number of times,
/// however slowly it arrives.
#[derive(Debug)]
pub struct ResponseReader {
    is_head: bool,
    max_bytes: usize,
    max_fields: usize,
    section: SectionEnd,
}

impl ResponseReader {
    /// Reads responses to a HEAD request if `is_head`, to another one otherwise. A head has at most `max_bytes` bytes and
    /// `max_fields` fields, and never more than [`MAX_FIELDS`].
    pub fn new(is_head: bool, max_bytes: usize, max_fields: usize) -> Self {
        let max_fields = max_fields.min(MAX_FIELDS);
        // The status line is one more.
        Self { is_head, max_bytes, max_fields, section: SectionEnd::new(max_fields + 1) }
    }

    /// Takes the next head out of `buf`, if it is complete. `buf` must have grown at its end only.
    ///
    /// # Errors
    ///
    /// The bytes cannot become a head that every reader would read the same way, or the head breaks a limit.
    pub fn read(&mut self, buf: &mut BytesMut) -> Result<Option<ResponseHead>, Violation> {
        self.read_into(buf, &mut HeaderMap::new())
    }

    /// As [`Self::read`]; the fields of a head that is complete take the memory of `room`, and what is in it goes.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_into(&mut self, buf: &mut BytesMut, room: &mut HeaderMap) -> Result<Option<ResponseHead>, Violation> {
        let begun = buf.len().min(START.len());
        if buf[..begun] != START[..begun] {
            return Err(Violation::Syntax);
        }
        let end = self.section.find(buf)?;
        if end.unwrap_or(buf.len()) > self.max_bytes {
            return Err(Violation::HeadTooLarge);
        }
        end.map(|end| self.parse(buf.split_to(end).freeze(), std::mem::take(room))).transpose()
    }

    /// The most bytes of a head, and the most fields.
    pub const fn limits(&self) -> (usize, usize) {
        (self.max_bytes, self.max_fields)
    }

    fn parse(&self, bytes: Bytes, mut fields: HeaderMap) -> Result<ResponseHead, Violation> {
        let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut room).map_err(violation)?;
        if status != httparse::Status::Complete(bytes.len()) {
            return Err(Violation::Syntax);
        }
        if parsed.headers.len() > self.max_fields {
            return Err(Violation::TooManyFields);
        }
        let (Some(minor), Some(code)) = (parsed.version, parsed.code) else { return Err(Violation::Syntax) };
        fields.clear();
        fields.reserve(parsed.headers.len());
        parsed.headers.iter().try_for_each(|line| append(&mut fields, &bytes, line))?;
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(code).map_err(|_| Violation::Syntax)?;
        *response.version_mut() = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        *response.headers_mut() = fields;
        self.finish(response)
    }

    fn finish(&self, mut response: Response<()>) -> Result<ResponseHead, Violation> {
        let (version, status, fields) = (response.version(), response.status(), response.headers());
        let framing = framing(version, fields)?;
        let has_none = self.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = if has_none { Framing::None } else { framing };
        let keep_alive = framing != Framing::Close && keeps_alive(version, fields);
        strip_where_none(status, response.headers_mut());
        Ok(ResponseHead { response, framing, keep_alive })
    }
}

/// The framing that the fields declare, for a response that may have a body.
fn framing(version: Version, fields: &HeaderMap) -> Result<Framing, Violation> {
    let length = content_length(fields)?;
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(match length {
            None => Framing::Close,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
        });
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

fn violation(error: httparse::Error) -> Violation {
    match error {
        httparse::Error::TooManyHeaders => Violation::TooManyFields,
        httparse::Error::Version => Violation::Version,
        _ => Violation::Syntax,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(is_head: bool, text: &str) -> Result<Option<ResponseHead>, Violation> {
        ResponseReader::new(is_head, 1024, 10).read(&mut BytesMut::from(text))
    }

    fn read(text: &str) -> Result<Option<ResponseHead>, Violation> {
        read_as(false, text)
    }

    fn head(text: &str) -> ResponseHead {
        read(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_split_anywhere_reads_the_same_and_leaves_what_follows() {
        let text = b"HTTP/1.1 404 Not here\r\nContent-Length: 3\r\nX-A:  b \r\n\r\nabc";
        for split in 0..text.len() - 3 {
            let (mut buf, mut reader) = (BytesMut::from(&text[..split]), ResponseReader::new(false, 1024, 10));
            assert!(reader.read(&mut buf).unwrap().is_none(), "{split}");
            buf.extend_from_slice(&text[split..]);
            let head = reader.read(&mut buf).unwrap().unwrap();
            assert_eq!((head.response.status().as_u16(), head.framing), (404, Framing::Length(3)));
            assert_eq!(head.response.headers()["x-a"], "b");
            assert_eq!(&buf[..], b"abc");
        }
    }

    #[test]
    fn the_end_of_the_body_is_where_method_status_and_fields_say() {
        let framing = |rest: &str| head(&format!("HTTP/1.1 {rest}\r\n\r\n")).framing;
        assert_eq!(framing("200 OK\r\ncontent-length: 5"), Framing::Length(5));
        assert_eq!(framing("200 OK\r\ncontent-length: 0"), Framing::None);
        assert_eq!(framing("200 OK\r\nTransfer-Encoding: Chunked"), Framing::Chunked);
        assert_eq!(framing("200 OK"), Framing::Close);
        assert_eq!(framing("200"), Framing::Close);
        for status in ["100", "103", "204", "304"] {
            assert_eq!(framing(&format!("{status} x\r\ncontent-length: 5")), Framing::None, "{status}");
            assert_eq!(framing(&format!("{status} x\r\ntransfer-encoding: chunked")), Framing::None, "{status}");
        }
        let no_content = head("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\nx: y\r\n\r\n").response;
        assert_eq!(
            no_content.headers().keys().collect::<Vec<_>>(),
            ["x"],
            "HTTP/2 and HTTP/3 would take it for a cut body"
        );
        let to_head = read_as(true, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(to_head.framing, Framing::None);
    }

    #[test]
    fn the_connection_is_kept_as_version_fields_and_framing_say() {
        let keeps = |text: &str| head(&format!("HTTP/{text}\r\n\r\n")).keep_alive;
        assert!(keeps("1.1 200 OK\r\ncontent-length: 1"));
        assert!(keeps("1.1 204 No Content"));
        assert!(keeps("1.0 200 OK\r\ncontent-length: 1\r\nconnection: Keep-Alive"));
        assert!(!keeps("1.1 200 OK\r\ncontent-length: 1\r\nconnection: x, Close"));
        assert!(!keeps("1.0 200 OK\r\ncontent-length: 1"));
        assert!(!keeps("1.1 200 OK"));
        assert!(!keeps("1.1 200 OK\r\nconnection: keep-alive"));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked", Violation::LengthAndCoding),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1", Violation::ContentLength),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1, 1", Violation::ContentLength),
            ("HTTP/1.1 200 OK\r\ncontent-length: +1", Violation::ContentLength),
            ("HTTP/1.1 204 No\r\ncontent-length: x", Violation::ContentLength),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked", Violation::TransferEncoding),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
                Violation::TransferEncoding,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity", Violation::TransferEncoding),
            ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked", Violation::CodingVersion),
            ("HTTP/1.1 200 OK\r\na: b\r\n c", Violation::Syntax),
            ("HTTP/1.1 200 OK\r\na : b", Violation::Syntax),
            ("HTTP/1.1 200 OK\r\n: b", Violation::Syntax),
            ("HTTP/1.1 200 OK\r\na: \0", Violation::Syntax),
            ("HTTP/1.1 200 OK\r\na: b\rc", Violation::Syntax),
            ("HTTP/1.1 200 OK\na: b", Violation::BareLineFeed),
            ("HTTP/1.1 200 OK\r\na: b\nc: d", Violation::BareLineFeed),
            ("HTTP/1.1 099 OK", Violation::Syntax),
            ("HTTP/1.1 20 OK", Violation::Syntax),
            ("HTTP/1.1 2000 OK", Violation::Syntax),
            ("HTTP/1.1  200 OK", Violation::Syntax),
            ("HTTP/1.2 200 OK", Violation::Version),
            ("HTTP/2 200 OK", Violation::Version),
            ("\r\nHTTP/1.1 200 OK", Violation::Syntax),
        ];
        for (text, expected) in table {
            assert_eq!(read(&format!("{text}\r\n\r\n")).unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused_at_its_first_byte() {
        for text in ["S", "SSH-2.0", "\r\n", "HTP", "\x16\x03"] {
            assert_eq!(read(text).unwrap_err(), Violation::Syntax, "{text:?}");
        }
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(1024));
        assert_eq!(read(&endless).unwrap_err(), Violation::HeadTooLarge);
        for count in [11, 300] {
            let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
            let mut reader = ResponseReader::new(false, 1 << 16, 10);
            assert_eq!(reader.read(&mut BytesMut::from(many.as_str())).unwrap_err(), Violation::TooManyFields);
        }
    }
}
