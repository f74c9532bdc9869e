//! Envoy's reverse tunnels over TCP, without I/O: the HTTP/1.1 handshake of both ends, and the RPING phase of an idle
//! tunnel. Compatible with Envoy 1.40. spec: `5-envoy.md`
//!
//! ```text
//! initiator                                   responder
//! encode_request                       ──▶    RequestReader: a claim, or a Rejection
//! ResponseReader: Accepted, or why not ◀──    HandshakeRules::accept_bytes, or Rejection::encode
//! Echoer                               ◀──▶   Pinger: until either starts something else
//! ```
//!
//! After that, the connection carries HTTP/2 (inside TLS or not) with the responder as its client; this module has no
//! part in it. What a claim is worth is for `policy` to say, as with [`handshake`](super::handshake).
//!
//! What is Envoy's and what is ours stands in files of its own, so that either can be checked by reading it: the order
//! and the words of Envoy's checks in `checks.rs`, what we demand beyond them in `claim.rs`.

mod checks;
mod chunked;
mod claim;
mod dial;
mod echoer;
mod fields;
mod head;
mod in_use;
mod path;
mod pinger;
mod rejection;
mod request;
mod response;
mod rping;

use std::time::Duration;

pub use self::checks::HandshakeRules;
pub use self::dial::{RequestHead, encode_request, is_reserved};
pub use self::echoer::{EchoOutput, EchoSettings, Echoer};
pub use self::in_use::{InUse, InUseOutput};
pub use self::path::{PathError, RequestPath};
pub use self::pinger::{DeadReason, PingOutput, PingSettings, Pinger, Stop};
pub use self::rejection::{Counter, Rejection};
pub use self::request::{Request, RequestReader};
pub use self::response::{Accepted, HandshakeError, Refused, ResponseReader};

/// What the responder sends over an idle tunnel, and the initiator sends back. spec: EV-20
pub const PING: &[u8; 5] = b"RPING";
/// Where a handshake goes when nobody says otherwise. spec: EV-1
pub const DEFAULT_PATH: &str = "/reverse_connections/request";
/// The longest path of a handshake, in bytes. spec: EV-1
pub const MAX_PATH_BYTES: usize = 255;
/// The longest head of a request or response, in bytes. spec: EV-10
pub const MAX_HEAD_BYTES: usize = 60 * 1024;
/// The most fields of a head. spec: EV-10
pub const MAX_HEAD_FIELDS: usize = 100;
/// The most interim responses (1xx) before the one that counts. spec: EV-4
pub const MAX_INTERIM_RESPONSES: usize = 16;
/// The token of `upgrade` in upgrade mode. spec: EV-2
pub const UPGRADE_TOKEN: &str = "reverse-tunnel";
/// How long a responder waits for a complete request, unless told otherwise. spec: EV-16
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an initiator waits for a complete response, unless told otherwise. spec: EV-8
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The field names of the handshake. Envoy lets an operator change their prefix; these are the default ones.
/// spec: EV-1, EV-14
pub mod names {
    /// The claimed node.
    pub const NODE: &str = "x-envoy-reverse-tunnel-node-id";
    /// The claimed cluster.
    pub const CLUSTER: &str = "x-envoy-reverse-tunnel-cluster-id";
    /// The claimed tenant.
    pub const TENANT: &str = "x-envoy-reverse-tunnel-tenant-id";
    /// What the initiator calls the responder.
    pub const UPSTREAM_CLUSTER: &str = "x-envoy-reverse-tunnel-upstream-cluster-name";
    /// When the initiator began to dial: milliseconds since 1970, the same in every attempt of one episode.
    pub const INITIATION_TIME: &str = "x-envoy-reverse-tunnel-initiation-time";
    /// The initiator's thread, for logs.
    pub const WORKER: &str = "x-envoy-reverse-tunnel-worker-id";
    /// The initiator's number of the connection, for logs.
    pub const CONNECTION: &str = "x-envoy-reverse-tunnel-connection-id";
    /// Ours: why a handshake is rejected, for people.
    pub const REASON: &str = "x-adit-reason";
}
