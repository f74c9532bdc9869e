//! The initiator's request. spec: EV-1, EV-2, EV-3

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue};

use crate::id::Claim;
use crate::protocol::envoy::path::RequestPath;
use crate::protocol::envoy::{UPGRADE_TOKEN, names};

/// What an initiator says. Every part is of a type that cannot break out of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Where it goes; both ends must agree.
    pub path: RequestPath,
    /// Whether to ask for an upgrade; both ends must agree.
    pub upgrade: bool,
    /// Address and port that are dialled.
    pub host: HeaderValue,
    /// Who it claims to be.
    pub claim: Claim,
    /// What it calls the responder; `None` leaves the field out.
    pub upstream_cluster: Option<HeaderValue>,
    /// When it began to dial: milliseconds since 1970, the same in every attempt of one episode.
    pub initiated_at_ms: u64,
    /// Its thread, for the responder's logs.
    pub worker: u32,
    /// Its number of the connection, for the responder's logs.
    pub connection: u64,
    /// More fields, in this order, such as `authorization`. Those that are [reserved](is_reserved) are left out.
    pub additional: Vec<(HeaderName, HeaderValue)>,
}

/// Whether a field is written by [`encode_request`] itself, or would change how the request is read: not for
/// [`RequestHead::additional`]. spec: EV-3
pub fn is_reserved(name: &HeaderName) -> bool {
    let is_framing = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE].contains(name);
    is_framing || name.as_str().starts_with("x-envoy-reverse-tunnel-")
}

/// The request as Envoy 1.40 writes it, byte for byte. spec: EV-1
pub fn encode_request(head: &RequestHead) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(format!("GET {} HTTP/1.1\r\n", head.path).as_bytes());
    let mut put = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.put_slice(part);
        }
    };
    put("host", head.host.as_bytes());
    put(names::NODE, head.claim.node.as_str().as_bytes());
    put(names::CLUSTER, head.claim.cluster.as_str().as_bytes());
    put(names::TENANT, head.claim.tenant.as_str().as_bytes());
    if let Some(name) = &head.upstream_cluster {
        put(names::UPSTREAM_CLUSTER, name.as_bytes());
    }
    put(names::INITIATION_TIME, head.initiated_at_ms.to_string().as_bytes());
    put(names::WORKER, format!("worker_{}", head.worker).as_bytes());
    put(names::CONNECTION, head.connection.to_string().as_bytes());
    for (name, value) in head.additional.iter().filter(|(name, _)| !is_reserved(name)) {
        put(name.as_str(), value.as_bytes());
    }
    if head.upgrade {
        put("connection", b"upgrade");
        put("upgrade", UPGRADE_TOKEN.as_bytes());
    }
    put("content-length", b"0");
    out.put_slice(b"\r\n");
    out.freeze()
}
