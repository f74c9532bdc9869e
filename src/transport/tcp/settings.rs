//! Every knob of a tunnel over TCP.

use std::time::Duration;

use crate::protocol::limits::Limits;
use crate::protocol::session::Timing;
use crate::transport::quic::QuicSettings;

/// Settings of the TCP side of a tunnel, for either role.
#[derive(Debug, Clone)]
pub struct TcpSettings {
    /// Bytes that a peer may have under way on one stream. Default 2 MiB.
    pub stream_window: u32,
    /// Bytes that a peer may have under way on the connection: its memory budget here. Default 16 MiB.
    pub connection_window: u32,
    /// Bytes of one stream that this end keeps for sending. Default 512 KiB.
    pub send_buffer: usize,
    /// The most streams the responder may have open at once. Default 4096.
    pub max_streams: u32,
    /// Handshake, keepalive, suspect and idle times.
    pub timing: Timing,
    /// How long exchanges under way may take once this end drains. Default 30 s.
    pub drain_timeout: Duration,
    /// Limits of message heads that this end accepts.
    pub limits: Limits,
    /// How long sent bytes may stay unacknowledged before the kernel gives up the connection (TCP_USER_TIMEOUT). The
    /// idle timeout by default: a dead path then leaves no socket behind.
    pub user_timeout: Duration,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self::beside(&QuicSettings::default())
    }
}

impl TcpSettings {
    /// The settings of TCP tunnels that stand beside QUIC ones: the same times, limits and memory.
    pub fn beside(quic: &QuicSettings) -> Self {
        Self {
            stream_window: quic.stream_receive_window,
            connection_window: quic.receive_window,
            send_buffer: 512 << 10,
            max_streams: quic.max_streams,
            timing: quic.timing,
            drain_timeout: quic.drain_timeout,
            limits: quic.limits,
            user_timeout: quic.timing.idle_timeout,
        }
    }

    /// What the frames around small pieces of bodies that nobody reads yet may cost beside the window, bytes; the
    /// connection ends beyond.
    pub(super) const fn data_frame_budget(&self) -> usize {
        self.connection_window as usize
    }

    /// What HTTP/2 counts of a head is larger than what we do: 32 bytes a field on top (RFC 9113 section 6.5.2).
    pub(super) fn header_list_size(&self) -> u32 {
        u32::try_from(self.limits.head_bytes + 32 * (self.limits.head_fields + 8)).unwrap_or(u32::MAX)
    }
}
