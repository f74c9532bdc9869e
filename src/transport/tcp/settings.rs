//! Every knob of a tunnel over TCP.

use std::time::Duration;

use h2::{client, server};

use crate::message::h2::guard::{Guard, Role};
use crate::net::{Guarded, Paced, Tuning};
use crate::protocol::budgets::{STREAM_WINDOW, TUNNEL_WINDOW};
use crate::transport::settings::{CongestionControl, MAX_STREAMS, TunnelSettings};
use crate::transport::tcp::wire::Wire;

/// How many streams that this end has reset are remembered, so that what is still under way on them is dropped quietly.
const MAX_REMEMBERED_RESETS: usize = 1024;

/// What TCP alone knows of a tunnel, for either role.
#[derive(Debug, Clone)]
pub struct TcpSettings {
    /// Bytes that a peer may have under way on one stream. Default 2 MiB.
    pub stream_window: u32,
    /// Bytes that a peer may have under way on the connection beside what streams hold that nobody reads: the credit grows
    /// for [`HELD_BYTES`](crate::protocol::budgets::HELD_BYTES) of that, and with readers who are steady for
    /// [`COVERED_BYTES`](crate::protocol::budgets::COVERED_BYTES). Default 16 MiB, so that this end holds 56 MiB for a peer
    /// whose streams are not read, and 272 MiB at the very most. spec: SE-9
    pub connection_window: u32,
    /// Bytes of one stream that this end keeps for sending. Default 512 KiB.
    pub send_buffer: usize,
    /// The most streams the responder may have open at once. Default 4096.
    pub max_streams: u32,
    /// Congestion control of what this end sends, where the kernel has it and lets this process use it; default BBR.
    pub congestion: CongestionControl,
    /// How long sent bytes may stay unacknowledged before the kernel gives up the connection (TCP_USER_TIMEOUT). `None`,
    /// the default: the idle timeout, so that a dead path leaves no socket behind.
    pub user_timeout: Option<Duration>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            stream_window: STREAM_WINDOW,
            connection_window: TUNNEL_WINDOW,
            send_buffer: 512 << 10,
            max_streams: MAX_STREAMS,
            congestion: CongestionControl::default(),
            user_timeout: None,
        }
    }
}

/// What HTTP/2 reads and writes.
pub(super) type Http2Wire = Guarded<Paced<Wire>>;

/// Both halves of the settings, as this transport hands them on.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) tunnel: TunnelSettings,
    pub(super) tcp: TcpSettings,
}

impl Settings {
    /// What a tunnel asks of its socket.
    pub(super) fn tuning(&self) -> Tuning {
        Tuning {
            user_timeout: self.tcp.user_timeout.unwrap_or(self.tunnel.timing.idle_timeout),
            congestion: self.tcp.congestion.kernel_name(),
        }
    }

    /// HTTP/2 as the responder speaks it, to our initiators and to Envoy's.
    pub(super) fn http2_client(&self) -> client::Builder {
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(self.tcp.stream_window)
            .initial_connection_window_size(self.tcp.connection_window)
            .data_frame_budget(self.data_frame_budget())
            .max_header_list_size(self.header_list_size())
            .max_concurrent_reset_streams(MAX_REMEMBERED_RESETS)
            .max_send_buffer_size(self.tcp.send_buffer);
        builder
    }

    /// HTTP/2 as the initiator speaks it, to our responders and to Envoy's.
    pub(super) fn http2_server(&self) -> server::Builder {
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(self.tcp.stream_window)
            .initial_connection_window_size(self.tcp.connection_window)
            .data_frame_budget(self.data_frame_budget())
            .max_header_list_size(self.header_list_size())
            .max_concurrent_streams(self.tcp.max_streams)
            // A responder passes on what its clients cancel, many at once: that is no attack on this end. What it may
            // have open at all bounds it.
            .max_pending_accept_reset_streams(self.tcp.max_streams as usize)
            .max_concurrent_reset_streams(MAX_REMEMBERED_RESETS)
            .max_send_buffer_size(self.tcp.send_buffer);
        builder
    }

    /// The stream below HTTP/2, on which a malformed head costs its stream and no other, and a flood of control frames the
    /// connection. spec: ST-34, SE-13
    pub(super) fn guarded(&self, wire: Wire, role: Role) -> Http2Wire {
        let paced = match role {
            Role::Client => Paced::at_client(wire),
            Role::Server => Paced::at_server(wire),
        };
        Guarded::new(paced, Guard::new(role, self.header_list_size() as usize))
    }

    /// What the frames around small pieces of bodies that nobody reads yet may cost beside the window, bytes; the
    /// connection ends beyond.
    const fn data_frame_budget(&self) -> usize {
        self.tcp.connection_window as usize
    }

    /// What HTTP/2 counts of a head is larger than what we do: 32 bytes a field on top (RFC 9113 section 6.5.2).
    fn header_list_size(&self) -> u32 {
        let limits = self.tunnel.limits;
        u32::try_from(limits.head_bytes + 32 * (limits.head_fields + 8)).unwrap_or(u32::MAX)
    }
}
