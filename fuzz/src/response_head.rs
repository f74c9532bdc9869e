//! Heads of HTTP/1 responses beside a naive reader of the same bytes.

use adit::message::response::{Framing, ResponseReader};
use bytes::BytesMut;
use http::HeaderMap;

use crate::reference::{Fields, Response, response};

const MAX_BYTES: usize = 512;
const MAX_FIELDS: usize = 8;

/// Each head that is taken is one that the naive reader finds in the same place, and its body ends where that says; a head that is
/// whole is taken or refused, never waited for; no split matters, and nothing grows beyond the limits.
///
/// The first byte says whether it answers a HEAD (its highest bit), and how the rest is split.
pub fn response_head(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let (is_head, step) = (choice & 0x80 != 0, usize::from(choice & 0x7f).max(1));
    let whole = read(is_head, bytes, bytes.len().max(1));
    assert_eq!(read(is_head, bytes, step), whole, "the split changes the answer");
    let (heads, end) = whole;
    let mut rest = bytes;
    for head in &heads {
        let (expected, length) = response(rest, is_head).expect("a head that the naive reader finds");
        assert_eq!(*head, expected);
        assert!(length <= MAX_BYTES && head.fields.values().map(Vec::len).sum::<usize>() <= MAX_FIELDS);
        rest = &rest[length..];
    }
    let ends_here = heads.last().is_some_and(|head| head.status >= 200);
    match end {
        End::Final => assert!(ends_here),
        End::Waits => {
            assert!(!ends_here && rest.len() <= MAX_BYTES, "{} bytes wait", rest.len());
            assert!(!rest.windows(4).any(|bytes| bytes == b"\r\n\r\n"), "a whole head waits");
        }
        End::Refused => assert!(!ends_here),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A response that is none of 1xx was there.
    Final,
    /// More bytes are needed.
    Waits,
    /// They cannot become a response that everybody reads alike.
    Refused,
}

/// The heads up to the first that is final.
fn read(is_head: bool, bytes: &[u8], step: usize) -> (Vec<Response>, End) {
    let (mut reader, mut buffer, mut heads) =
        (ResponseReader::new(is_head, MAX_BYTES, MAX_FIELDS), BytesMut::new(), Vec::new());
    for chunk in bytes.chunks(step) {
        buffer.extend_from_slice(chunk);
        loop {
            let head = match reader.read(&mut buffer) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(_) => return (heads, End::Refused),
            };
            let status = head.response.status().as_u16();
            heads.push(Response {
                status,
                fields: fields(head.response.headers()),
                length: match head.framing {
                    Framing::None => Some(Some(0)),
                    Framing::Length(length) => Some(Some(length)),
                    Framing::Close => Some(None),
                    Framing::Chunked => None,
                },
                keep_alive: head.keep_alive,
            });
            if status >= 200 {
                return (heads, End::Final);
            }
        }
    }
    (heads, End::Waits)
}

fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in map {
        fields.entry(name.to_string()).or_default().push(value.as_bytes().to_vec());
    }
    fields
}
