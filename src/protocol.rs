//! The wire, without I/O: codecs and state machines. See `proto-spec/`.
//!
//! Row 3: no tokio, quinn, sockets, files, clocks, randomness or metrics. Bytes and time come in as arguments, bytes
//! and events go out, so everything here is tested by hand-moved clocks and fuzzed without a network.
//!
//! * [`session`] drives one tunnel's control stream: [`handshake`] first, then the frames of [`control`].
//! * [`stream`] reads and writes the messages of one request stream; [`datagram`] the header of one UDP payload.
//! * [`capsule`] and [`http_datagram`] are the datagrams of CONNECT-UDP, on a stream and in QUIC.
//! * [`envoy`] is another wire: Envoy's reverse tunnels over TCP.
//! * [`fleet`] is what siblings say to each other before that of a tunnel; [`roster`] what they tell initiators of each other.
//! * [`code`] knows every number that ends something;
//!   [`limits`] every bound of the wire, [`budgets`] what one party may hold of what others need; [`varint`] and [`wire`] the alphabet that all of them share.

pub(crate) mod allowance;
pub mod budgets;
pub mod capsule;
pub mod code;
pub mod control;
pub mod datagram;
pub mod envoy;
pub mod fleet;
pub mod flows;
pub mod goaway;
pub mod handshake;
pub mod health;
pub mod http2;
pub mod http_datagram;
pub mod limits;
pub mod reauth;
pub mod roster;
pub mod session;
pub mod stream;
pub mod tcp;
pub mod varint;
pub mod wire;

/// What both ends must agree on in TLS to speak this protocol. spec: OV-2
pub const ALPN: &[u8] = b"adit/1";

/// The one version that this code speaks. spec: OV-3
pub const VERSION: u32 = 1;
