//! How QUIC is set up below HTTP/3.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{self, rustls::QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};

use super::early::{Noting, Tokens};
use crate::egress::Settings;
use crate::protocol::budgets::{DEFAULT_MAX_HANDSHAKES, HandshakeBudgets};
use crate::tls;

/// Streams of one direction that a client may have: its control stream, two of QPACK, and room for those that mean nothing.
const ONE_WAY: u32 = 8;
/// Silence after which a client is gone. It is asked for a sign of life three times before.
const SILENCE: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(8);

/// Datagrams that wait on a connection in each direction, bytes; the oldest give way.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// The configuration of QUIC under these settings; `tls` is one of [`http3_config`](crate::tls::http3_config).
pub(in crate::egress) fn server_config(
    tls: Arc<rustls::ServerConfig>,
    settings: &Settings,
    tokens: &Tokens,
) -> quinn::ServerConfig {
    let takes_early = settings.http3.early_data;
    let tls = if takes_early { Arc::new(tls::with_early_data(&tls)) } else { tls };
    let tls = Arc::new(QuicServerConfig::try_from(tls).expect("the provider has the cipher suite of initial packets"));
    let tls: Arc<dyn crypto::ServerConfig> = if takes_early { Arc::new(Noting(tls)) } else { tls };
    let mut config = quinn::ServerConfig::with_crypto(tls);
    tokens.serve(&mut config, takes_early);
    config
        .transport_config(Arc::new(transport(settings)))
        .max_incoming(2 * handshake_budgets().hello.all)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(16 << 20);
    config
}

fn transport(settings: &Settings) -> TransportConfig {
    let own = &settings.http3;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(own.max_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY))
        .stream_receive_window(VarInt::from_u32(own.stream_window))
        .receive_window(VarInt::from_u32(own.connection_window))
        .send_window(own.send_budget as u64)
        .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok())
        .keep_alive_interval(Some(KEEPALIVE))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .congestion_controller_factory(Arc::new(quinn::congestion::BbrConfig::default()));
    config
}

/// What there is room for before a connection is one.
pub(super) const fn handshake_budgets() -> HandshakeBudgets {
    HandshakeBudgets::over_quic(DEFAULT_MAX_HANDSHAKES)
}
