//! Bodies of the fuzz targets: each takes any bytes and panics when its property does not hold. See `README.md`.

mod beginning;
mod capsules;
mod client_source;
mod config;
mod envoy;
mod fleet_records;
mod flow_ops;
mod host_header;
mod http2_guard;
mod http3;
mod http_datagram;
mod identity;
mod reference;
mod registry_ops;
#[cfg(test)]
mod replay;
mod request_head;
mod response_head;
mod service_stream;
mod session_ops;
mod sibling;
mod stream;
mod template;
mod traffic_rules;

use adit::message::fields as fields_of_hops;
use adit::protocol::control::{Drain, Frame, FrameError, FrameReader};
use adit::protocol::datagram::Datagram;
use adit::protocol::handshake::{Hello, Refusal, Welcome};
use adit::protocol::varint;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HOST, HeaderName, HeaderValue};

pub use self::beginning::{client_hello, proxy_header};
pub use self::capsules::capsules;
pub use self::client_source::client_source;
pub use self::config::config;
pub use self::envoy::envoy_handshake;
pub use self::fleet_records::fleet_records;
pub use self::flow_ops::flow_ops;
pub use self::host_header::host_header;
pub use self::http_datagram::http_datagram;
pub use self::http2_guard::http2_guard;
pub use self::http3::{http3_control, http3_early, http3_request};
pub use self::identity::spki_pin;
pub use self::registry_ops::registry_ops;
pub use self::request_head::request_head;
pub use self::response_head::response_head;
pub use self::service_stream::service_stream;
pub use self::session_ops::session_ops;
pub use self::sibling::sibling;
pub use self::stream::stream_header;
pub use self::template::{template_eval, template_parse};
pub use self::traffic_rules::traffic_rules;

/// An integer has one encoding, and reading it takes just that.
pub fn varint(data: &[u8]) {
    let mut rest = data;
    match varint::decode(&mut rest) {
        Ok(Some(value)) => {
            let mut out = Vec::new();
            varint::encode(&mut out, value);
            assert_eq!(out, data[..data.len() - rest.len()]);
            assert_eq!(out.len(), varint::size(value));
        }
        Ok(None) => assert!(rest == data && data.len() < 8),
        Err(_) => {}
    }
}

/// Every message that decodes has one form, which decodes to the same message.
pub fn handshake(data: &[u8]) {
    if let Ok(hello) = Hello::decode(data) {
        assert_eq!(Hello::decode(&encoded(|out| hello.encode(out))), Ok(hello));
    }
    if let Ok(welcome) = Welcome::decode(data) {
        assert_eq!(Welcome::decode(&encoded(|out| welcome.encode(out))), Ok(welcome));
    }
    if let Ok(refusal) = Refusal::decode(data) {
        assert_eq!(Refusal::decode(&encoded(|out| refusal.encode(out))), Ok(refusal));
    }
    if let Ok(drain) = Drain::decode(data) {
        assert_eq!(Drain::decode(&encoded(|out| drain.encode(out))), Ok(drain));
    }
}

/// Any split of a control stream gives the same frames or the same error; each frame round trips. The first byte says
/// how the rest is split.
pub fn control(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = read_frames(std::iter::once(bytes));
    let split = read_frames(bytes.chunks(usize::from(cut).max(1)));
    assert_eq!(whole, split, "the split changes the answer");
    for frame in whole.0 {
        let bytes = encoded(|out| frame.encode(out));
        assert_eq!(read_frames(std::iter::once(&bytes[..])), (vec![frame], None));
    }
}

fn read_frames<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut reader, mut frames) = (FrameReader::new(), Vec::new());
    for mut chunk in chunks {
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(chunk.is_empty(), "a reader that wants more has taken what there was");
    }
    (frames, None)
}

/// A datagram has one encoding.
pub fn datagram(data: &[u8]) {
    if let Ok(datagram) = Datagram::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(encoded(|out| datagram.encode(out)), data);
    }
}

/// Stripping is idempotent, and what it leaves crosses a tunnel. The bytes are lines of `name: value`.
pub fn headers(data: &[u8]) {
    let mut fields = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields_of_hops::strip_hop_by_hop(&mut fields);
    let once = fields.clone();
    fields_of_hops::strip_hop_by_hop(&mut fields);
    assert_eq!(fields, once);
    fields.remove(HOST);
    assert!(!fields.iter().any(|(name, value)| fields_of_hops::is_forbidden(name, value)));
    stream::crosses_unchanged(fields);
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    encode(&mut out);
    out
}
