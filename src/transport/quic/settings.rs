//! Every knob of a QUIC tunnel, with defaults that were measured (see the README's figures).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::net::{self, SendRoom};
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

/// How large the datagrams of a connection may become. What its path carries QUIC finds out, up to this. RFC 9000 section
/// 14.3
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datagrams {
    /// What an Ethernet carries.
    Ordinary,
    /// Up to [`WIDE_BYTES`].
    Wide,
}

/// Ten of them are one send of 64 KiB at most, which is as many as quinn hands to the kernel at a time.
pub(super) const WIDE_BYTES: u16 = 6_550;
/// What IPv6 and UDP put in front.
const HEADERS_BYTES: u32 = 48;

impl Datagrams {
    /// Towards this address: wide where the link that leads there carries them, as jumbo frames in a data centre do. To try
    /// it everywhere would cost each path of 1500 bytes a dozen lost probes, time and again.
    pub(super) fn towards(peer: SocketAddr) -> Self {
        let wide = u32::from(WIDE_BYTES) + HEADERS_BYTES;
        if net::link_mtu(peer).is_some_and(|mtu| mtu >= wide) { Self::Wide } else { Self::Ordinary }
    }
}

/// One configuration for each kind of link.
#[derive(Debug, Clone)]
pub(super) struct Either<T> {
    ordinary: T,
    wide: T,
}

impl<T> Either<T> {
    pub(super) fn new(make: impl Fn(Datagrams) -> T) -> Self {
        Self { ordinary: make(Datagrams::Ordinary), wide: make(Datagrams::Wide) }
    }

    pub(super) const fn ordinary(&self) -> &T {
        &self.ordinary
    }

    /// That for the link which leads to this address.
    pub(super) fn towards(&self, peer: SocketAddr) -> &T {
        match Datagrams::towards(peer) {
            Datagrams::Ordinary => &self.ordinary,
            Datagrams::Wide => &self.wide,
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

    /// What the streams of a connection share of what it keeps for retransmission.
    pub(super) fn send_room(&self) -> Arc<SendRoom> {
        SendRoom::new(self.quic.send_window)
    }

    /// The initiator's transport: it accepts the responder's streams and keeps the path alive.
    pub(super) fn initiator_transport(&self, datagrams: Datagrams) -> Arc<TransportConfig> {
        let mut config = self.transport(datagrams);
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(self.quic.initial_streams))
            .keep_alive_interval(Some(self.tunnel.timing.keepalive_interval))
            // WELCOME says how long silence may last; the shorter of two limits would count. spec: OV-8
            .max_idle_timeout(None);
        Arc::new(config)
    }

    /// The responder's transport: the one stream it accepts is the control stream. spec: CT-1
    pub(super) fn responder_transport(&self, datagrams: Datagrams) -> Arc<TransportConfig> {
        let mut config = self.transport(datagrams);
        config.max_concurrent_bidi_streams(VarInt::from_u32(1));
        Arc::new(config)
    }

    /// That of a responder that dials a sibling: it opens streams, takes none, and keeps the path alive. spec: FL-36
    pub(super) fn asking_transport(&self, datagrams: Datagrams) -> Arc<TransportConfig> {
        let mut config = self.transport(datagrams);
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .keep_alive_interval(Some(self.tunnel.timing.keepalive_interval));
        Arc::new(config)
    }

    /// That of a responder that a sibling has dialled: beside the control stream it takes those of requests.
    pub(super) fn asked_transport(&self, datagrams: Datagrams) -> Arc<TransportConfig> {
        let mut config = self.transport(datagrams);
        config.max_concurrent_bidi_streams(VarInt::from_u32(self.quic.initial_streams));
        Arc::new(config)
    }

    fn transport(&self, datagrams: Datagrams) -> TransportConfig {
        let mut config = TransportConfig::default();
        if datagrams == Datagrams::Wide {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(WIDE_BYTES);
            config.mtu_discovery_config(Some(discovery));
        }
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
