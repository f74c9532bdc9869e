//! UDP endpoints with bounded buffers and keys that survive a restart.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::{EndpointConfig, Runtime as _, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;

use crate::transport::quic::amplification::Bounded;
use crate::transport::quic::settings::WIDE_BYTES;

/// The shortest time between two stateless resets: none. quinn's default, 20 ms, makes a thousand initiators wait half a
/// minute for the word that their tunnel is gone, and it counts packets that are read in one turn as simultaneous. A reset
/// is smaller than the packet that asks for it; what the interval is for, two ends that reset each other for ever, ends by
/// itself, as each is smaller than the one before (RFC 9000 section 10.3.3).
const MIN_RESET_INTERVAL: Duration = Duration::ZERO;

/// The keys of an endpoint. Persisted by a responder, so that after a restart it can reset the tunnels of its former
/// self: an initiator then notices in one round trip instead of its idle timeout. RFC 9000 section 10.3.
#[derive(Clone)]
pub struct Keys {
    reset: [u8; 64],
    connection_id: u64,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(secret)")
    }
}

impl Keys {
    /// How many secret bytes make a set of keys.
    pub const BYTES: usize = 72;

    /// Splits `secret`, which must be random and kept with mode 0600.
    pub fn new(secret: &[u8; Self::BYTES]) -> Self {
        let (mut reset, mut connection_id) = ([0; 64], [0; 8]);
        reset.copy_from_slice(&secret[..64]);
        connection_id.copy_from_slice(&secret[64..]);
        Self { reset, connection_id: u64::from_be_bytes(connection_id) }
    }

    /// Keys that die with the process: right for an initiator, whose peers never need to outlive it.
    pub fn ephemeral() -> Self {
        let mut secret = [0; Self::BYTES];
        rand::fill(&mut secret);
        Self::new(&secret)
    }

    fn endpoint_config(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.reset)));
        let key = self.connection_id;
        config.min_reset_interval(MIN_RESET_INTERVAL);
        config.max_udp_payload_size(WIDE_BYTES).expect("more than the least of 1200 bytes");
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        config
    }
}

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a QUIC endpoint on {address}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// Turns a bound UDP socket into an endpoint; `server` makes it accept. Needs a tokio runtime.
pub fn bind(socket: UdpSocket, keys: &Keys, server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint, BindError> {
    let address = socket.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let open = || {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        // Only what accepts can be made to answer somebody who did not ask.
        let socket = if server.is_some() { Arc::new(Bounded::new(socket)) } else { socket };
        quinn::Endpoint::new_with_abstract_socket(keys.endpoint_config(), server, socket, Arc::new(TokioRuntime))
    };
    open().map_err(|source| BindError { address, source })
}
