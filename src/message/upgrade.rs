//! What goes on in another protocol than HTTP: WebSocket, and other Upgrades. RFC 9110 section 7.8, RFC 6455, RFC 8441, RFC
//! 9220.
//!
//! Inside this program, and in a tunnel, the wish is an extended CONNECT, whatever the client and the target speak: a request
//! with the method CONNECT and a [`Protocol`] among its extensions. Where the answer is 2xx, what follows it is bytes both
//! ways. The fields by which an Upgrade of HTTP/1.1 proves that its answer is none of a cache belong to one hop: each end of
//! HTTP/1.1 has a key of its own. spec: ST-15, ST-25

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};

use crate::message::fields::is_token_byte;
use crate::message::name::OWN;
use crate::message::persistence::has_token;
use crate::message::violation::Violation;

/// The field of a response to an extended CONNECT inside a tunnel that says: the target has answered as if nothing but the
/// request had been sent, and this is its answer. spec: ST-43
pub const DECLINED_FIELD: HeaderName = HeaderName::from_static("adit-declined");

/// An extension of a response to an extended CONNECT: the target has answered as if nothing but the request had been sent.
/// Only whoever came with an Upgrade of HTTP/1.1 can be told so.
#[derive(Debug, Clone, Copy)]
pub struct Declined;

/// The longest name of a protocol, bytes. spec: ST-15
const MAX_PROTOCOL_BYTES: usize = 64;
/// The only version of WebSocket. RFC 6455 section 4.1.
const WEBSOCKET_VERSION: &str = "13";
/// What the key is joined with. RFC 6455 section 1.3.
const WEBSOCKET_ID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The protocol that an extended CONNECT asks for: an extension of its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(Box<str>);

impl Protocol {
    /// A name, perhaps with a version behind a slash; `None`: it is none, or one of our own. spec: ST-15, TB-12
    pub fn new(text: &str) -> Option<Self> {
        let tokens = || text.split('/');
        let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_token_byte);
        let is_sound = text.len() <= MAX_PROTOCOL_BYTES && tokens().count() <= 2 && tokens().all(is_token);
        let is_own = text.get(..OWN.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(OWN));
        (is_sound && !is_own).then(|| Self(text.into()))
    }

    /// WebSocket.
    pub fn websocket() -> Self {
        Self("websocket".into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this one; the case of letters does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }

    /// Whether it is WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.is("websocket")
    }
}

/// An Upgrade that the sender of an HTTP/1.1 request offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// To what.
    pub protocol: Protocol,
    /// The key of a WebSocket.
    pub key: Option<HeaderValue>,
}

/// What the fields of an HTTP/1.1 request offer to go on with; `None`: nothing that needs an answer. Of a list WebSocket is
/// taken, else the first. HTTP/2 in clear is an offer for this one connection, which everybody may ignore (RFC 9113 section
/// 3.1), and with it what stands beside it.
///
/// # Errors
///
/// It is one that nobody could accept.
pub fn offered(fields: &HeaderMap) -> Result<Option<Offer>, Violation> {
    if !fields.contains_key(UPGRADE) || !has_token(fields, &CONNECTION, "upgrade") {
        return Ok(None);
    }
    if has_token(fields, &UPGRADE, "websocket") {
        check_version(fields)?;
        return Ok(Some(Offer { protocol: Protocol::websocket(), key: Some(key(fields)?) }));
    }
    if has_token(fields, &UPGRADE, "h2c") {
        return Ok(None);
    }
    let first = fields.get(UPGRADE).and_then(|value| value.to_str().ok()?.split(',').next());
    let protocol = first.and_then(|first| Protocol::new(first.trim())).ok_or(Violation::Upgrade)?;
    Ok(Some(Offer { protocol, key: None }))
}

/// A WebSocket is one of version 13, however it is asked for.
///
/// # Errors
///
/// [`Violation::WebSocketVersion`].
pub fn check_version(fields: &HeaderMap) -> Result<(), Violation> {
    let mut versions = fields.get_all(SEC_WEBSOCKET_VERSION).iter();
    match (versions.next(), versions.next()) {
        (Some(version), None) if version == WEBSOCKET_VERSION => Ok(()),
        _ => Err(Violation::WebSocketVersion),
    }
}

/// Takes out what proves an Upgrade of HTTP/1.1, which an extended CONNECT has no use for. spec: ST-44
pub fn strip_proofs(fields: &mut HeaderMap) {
    fields.remove(SEC_WEBSOCKET_KEY);
    fields.remove(SEC_WEBSOCKET_ACCEPT);
}

/// The key: 16 bytes in base64, once.
fn key(fields: &HeaderMap) -> Result<HeaderValue, Violation> {
    let mut keys = fields.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16) => Ok(key.clone()),
        _ => Err(Violation::WebSocketKey),
    }
}

/// A key of these random bytes.
pub fn new_key(random: [u8; 16]) -> HeaderValue {
    HeaderValue::try_from(BASE64.encode(random)).expect("base64 is field text")
}

/// The answer to a key. RFC 6455 section 4.2.2.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), WEBSOCKET_ID].concat());
    HeaderValue::try_from(BASE64.encode(hash)).expect("base64 is field text")
}

/// Makes the fields of a request ask a target of HTTP/1.1 for the protocol; `key` is there for a WebSocket.
pub fn ask(protocol: &Protocol, key: Option<&HeaderValue>, fields: &mut HeaderMap) {
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let name = HeaderValue::from_str(protocol.as_str()).expect("tokens and a slash are field text");
    fields.insert(UPGRADE, name);
    if let Some(key) = key {
        fields.insert(SEC_WEBSOCKET_KEY, key.clone());
        fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(WEBSOCKET_VERSION));
    }
}

/// Whether a 101 of a target says that it goes on in the protocol that it was asked for; what only says so is taken out.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn take_answer(protocol: &Protocol, key: Option<&HeaderValue>, fields: &mut HeaderMap) -> Result<(), &'static str> {
    if !has_token(fields, &CONNECTION, "upgrade") || !has_token(fields, &UPGRADE, protocol.as_str()) {
        return Err("the target switched to another protocol than it was asked for");
    }
    let accepted = fields.remove(SEC_WEBSOCKET_ACCEPT);
    if key.is_some_and(|key| accepted != Some(accept(key))) {
        return Err("the target accepted another WebSocket than it was asked for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(field).collect()
    }

    fn offer(upgrade: &'static str, more: &[(&'static str, &'static str)]) -> Result<Option<Offer>, Violation> {
        offered(&fields(&[&[("connection", "keep-alive, Upgrade"), ("upgrade", upgrade)], more].concat()))
    }

    const SOUND: [(&str, &str); 2] = [("sec-websocket-key", KEY), ("sec-websocket-version", "13")];

    #[test]
    fn a_websocket_is_taken_wherever_it_stands_in_the_list() {
        for list in ["websocket", "WebSocket", "h2c, websocket", "foo/1, websocket"] {
            let offer = offer(list, &SOUND).unwrap().unwrap();
            assert!(offer.protocol.is_websocket() && offer.key.is_some(), "{list}");
        }
        assert_eq!(offer("TLS/1.3, x", &[]).unwrap().unwrap().protocol.as_str(), "TLS/1.3");
        assert_eq!(offer("h2c, x", &[]), Ok(None));
        assert_eq!(offered(&fields(&[("upgrade", "websocket")])), Ok(None), "not for this connection");
        for none in ["", "a b", "a/b/c", "adit-raw", "Adit-flow"] {
            assert_eq!(offer(none, &[]), Err(Violation::Upgrade), "{none:?}");
        }
    }

    #[test]
    fn a_websocket_needs_its_version_and_a_key() {
        let key = SOUND[0];
        for versions in [&[][..], &[("sec-websocket-version", "8")], &[SOUND[1], SOUND[1]]] {
            assert_eq!(offer("websocket", &[&[key], versions].concat()), Err(Violation::WebSocketVersion));
        }
        for keys in [&[][..], &[("sec-websocket-key", "short")], &[key, key]] {
            assert_eq!(offer("websocket", &[&[SOUND[1]], keys].concat()), Err(Violation::WebSocketKey));
        }
    }

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn a_key_has_its_answer() {
        let key = HeaderValue::from_static(KEY);
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(BASE64.decode(new_key([7; 16])).unwrap(), [7; 16]);
        let answer = |accepted| {
            let mut fields =
                fields(&[("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-accept", accepted)]);
            take_answer(&Protocol::websocket(), Some(&key), &mut fields).map(|()| fields)
        };
        assert!(!answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").unwrap().contains_key(SEC_WEBSOCKET_ACCEPT));
        assert!(answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOO=").is_err());
        assert!(take_answer(&Protocol::new("x").unwrap(), None, &mut fields(&[("connection", "upgrade")])).is_err());
    }
}
