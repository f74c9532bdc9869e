//! Every knob of a QUIC tunnel, with defaults that were measured (see the README's figures).

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::protocol::budgets::{STREAM_WINDOW, TUNNEL_WINDOW};
use crate::transport::quic::credit::Credit;
use crate::transport::settings::{CongestionControl, MAX_STREAMS, TunnelSettings};

/// What QUIC alone knows of a tunnel, for either role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuicSettings {
    /// Congestion control of what this end sends; default BBR.
    pub congestion: CongestionControl,
    /// Bytes that a peer may have under way on one stream. Default 2 MiB; with loss, more than about 2.4 MB makes quinn
    /// give up the connection ("too many gaps").
    pub stream_receive_window: u32,
    /// Bytes that a peer may have under way on the connection beside what streams hold that nobody reads: the credit grows
    /// for [`HELD_BYTES`](crate::protocol::budgets::HELD_BYTES) of that, and with readers who are steady for
    /// [`COVERED_BYTES`](crate::protocol::budgets::COVERED_BYTES). Default 16 MiB, so that this end holds 56 MiB for a peer
    /// whose streams are not read, and 272 MiB at the very most. spec: SE-9
    pub receive_window: u32,
    /// Bytes that this end keeps for retransmission. Default 16 MiB.
    pub send_window: u64,
    /// Streams that the responder may have open at first; raised with load. Default 128.
    pub initial_streams: u32,
    /// The most streams it may ever have open. Default 4096.
    pub max_streams: u32,
    /// Round-trip time assumed before the first sample. Default 100 ms.
    pub initial_rtt: Duration,
    /// UDP socket buffers to ask for, bytes each way. Default 4 MiB.
    pub socket_buffer: usize,
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            congestion: CongestionControl::default(),
            stream_receive_window: STREAM_WINDOW,
            receive_window: TUNNEL_WINDOW,
            send_window: 16 << 20,
            initial_streams: 128,
            max_streams: MAX_STREAMS,
            initial_rtt: Duration::from_millis(100),
            socket_buffer: 4 << 20,
        }
    }
}

/// Both halves of the settings, as this transport hands them on.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) tunnel: TunnelSettings,
    pub(super) quic: QuicSettings,
}

impl Settings {
    /// What the control stream's driver keeps the connection's credit by.
    pub(super) const fn credit(&self) -> Credit {
        Credit(self.quic.receive_window)
    }

    /// The initiator's transport: it accepts the responder's streams and keeps the path alive.
    pub(super) fn initiator_transport(&self) -> Arc<TransportConfig> {
        let mut config = self.transport();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(self.quic.initial_streams))
            .keep_alive_interval(Some(self.tunnel.timing.keepalive_interval))
            // WELCOME says how long silence may last; the shorter of two limits would count. spec: OV-8
            .max_idle_timeout(None);
        Arc::new(config)
    }

    /// The responder's transport: the one stream it accepts is the control stream. spec: CT-1
    pub(super) fn responder_transport(&self) -> Arc<TransportConfig> {
        let mut config = self.transport();
        config.max_concurrent_bidi_streams(VarInt::from_u32(1));
        Arc::new(config)
    }

    /// That of a responder that dials a sibling: it opens streams, takes none, and keeps the path alive. spec: FL-36
    pub(super) fn asking_transport(&self) -> Arc<TransportConfig> {
        let mut config = self.transport();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .keep_alive_interval(Some(self.tunnel.timing.keepalive_interval));
        Arc::new(config)
    }

    /// That of a responder that a sibling has dialled: beside the control stream it takes those of requests.
    pub(super) fn asked_transport(&self) -> Arc<TransportConfig> {
        let mut config = self.transport();
        config.max_concurrent_bidi_streams(VarInt::from_u32(self.quic.initial_streams));
        Arc::new(config)
    }

    fn transport(&self) -> TransportConfig {
        let mut config = TransportConfig::default();
        config
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(self.quic.stream_receive_window))
            .receive_window(VarInt::from_u32(self.quic.receive_window))
            .send_window(self.quic.send_window)
            .initial_rtt(self.quic.initial_rtt)
            // Twice, so that the session notices first and says why.
            .max_idle_timeout(IdleTimeout::try_from(self.tunnel.timing.idle_timeout * 2).ok())
            .datagram_receive_buffer_size(Some(1 << 20))
            .datagram_send_buffer_size(1 << 20)
            .congestion_controller_factory(match self.quic.congestion {
                CongestionControl::Bbr => Arc::new(quinn::congestion::BbrConfig::default())
                    as Arc<dyn quinn::congestion::ControllerFactory + Send + Sync>,
                CongestionControl::Cubic => Arc::new(quinn::congestion::CubicConfig::default()),
                CongestionControl::NewReno => Arc::new(quinn::congestion::NewRenoConfig::default()),
            });
        config
    }
}
