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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::envoy::{HandshakeRules, RequestReader};

    fn head() -> RequestHead {
        RequestHead {
            path: RequestPath::default(),
            upgrade: false,
            host: HeaderValue::from_static("127.0.0.1:10001"),
            claim: Claim {
                tenant: "tenant-x".parse().unwrap(),
                cluster: "cluster-a".parse().unwrap(),
                node: "node-1".parse().unwrap(),
            },
            upstream_cluster: Some(HeaderValue::from_static("responder")),
            initiated_at_ms: 1_795_205_571_796,
            worker: 0,
            connection: 0,
            additional: Vec::new(),
        }
    }

    // spec: EV-1
    #[test]
    fn a_request_has_the_bytes_of_an_envoy_1_40() {
        let expected = "GET /reverse_connections/request HTTP/1.1\r\n\
            host: 127.0.0.1:10001\r\n\
            x-envoy-reverse-tunnel-node-id: node-1\r\n\
            x-envoy-reverse-tunnel-cluster-id: cluster-a\r\n\
            x-envoy-reverse-tunnel-tenant-id: tenant-x\r\n\
            x-envoy-reverse-tunnel-upstream-cluster-name: responder\r\n\
            x-envoy-reverse-tunnel-initiation-time: 1795205571796\r\n\
            x-envoy-reverse-tunnel-worker-id: worker_0\r\n\
            x-envoy-reverse-tunnel-connection-id: 0\r\n\
            content-length: 0\r\n\r\n";
        assert_eq!(encode_request(&head()), expected);
        // What was counted on the wire.
        assert_eq!(expected.len(), 414);
    }

    // spec: EV-2, EV-3
    #[test]
    fn upgrade_and_more_fields_come_before_the_length_and_cannot_replace_the_others() {
        let field = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let additional = vec![
            field("authorization", "Bearer t"),
            field("content-length", "5"),
            field("x-envoy-reverse-tunnel-node-id", "victim"),
            field("transfer-encoding", "chunked"),
            field("x-site", "a"),
        ];
        let bytes = encode_request(&RequestHead { upgrade: true, upstream_cluster: None, additional, ..head() });
        let tail = "connection-id: 0\r\nauthorization: Bearer t\r\nx-site: a\r\n\
            connection: upgrade\r\nupgrade: reverse-tunnel\r\ncontent-length: 0\r\n\r\n";
        assert!(bytes.ends_with(tail.as_bytes()), "{bytes:?}");
        let rules = HandshakeRules { upgrade: true, ..HandshakeRules::default() };
        let request = RequestReader::new(rules).push(&bytes).unwrap().unwrap();
        assert_eq!(request.claim, head().claim);
        assert_eq!(request.token.as_deref(), Some(&b"t"[..]));
        assert_eq!(request.upstream_cluster, None);
    }
}
