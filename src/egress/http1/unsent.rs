//! What a listener says of the head of a request that nobody sent: the same as of one that comes.

use bytes::BytesMut;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Method, request};

use super::head::HeadReader;
use crate::egress::Settings;
use crate::message::violation::Violation;

/// Reads the head as it would come over HTTP/1.1. Its URI is absolute, that of a CONNECT an authority; it brings its own Host or
/// gets that of the URI.
///
/// # Errors
/// The rule that it breaks.
pub(in crate::egress) fn check_unsent(
    head: &request::Parts,
    scheme: &Scheme,
    settings: &Settings,
) -> Result<(), Violation> {
    let mut text = BytesMut::from(&written(head)[..]);
    let mut reader = HeadReader::new(scheme.clone(), settings.max_head_bytes, settings.max_head_fields);
    reader.read(&mut text)?.map(drop).ok_or(Violation::Syntax)
}

fn written(head: &request::Parts) -> Vec<u8> {
    let authority = head.uri.authority().map_or("", Authority::as_str);
    let has_host = head.headers.contains_key(HOST);
    let target = match head.uri.path_and_query() {
        _ if head.method == Method::CONNECT => authority.to_owned(),
        // Which one counts is for the reader to say.
        _ if has_host => head.uri.to_string(),
        Some(path) => path.to_string(),
        None => "/".to_owned(),
    };
    let mut text = format!("{} {target} HTTP/1.1\r\n", head.method).into_bytes();
    let mut field =
        |name: &str, value: &[u8]| text.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    if !has_host {
        field("host", authority.as_bytes());
    }
    head.headers.iter().for_each(|(name, value)| field(name.as_str(), value.as_bytes()));
    text.extend_from_slice(b"\r\n");
    text
}
