//! What every transport is told in the same words: times, limits, drain and the admission of handshakes.

use std::time::Duration;

use crate::protocol::limits::{DEFAULT_DRAIN_DEADLINE, Limits};
use crate::protocol::session::Timing;

/// Bytes that a peer may have under way on one stream, unless a transport is told otherwise. With loss, more than about
/// 2.4 MB makes quinn give up the connection ("too many gaps").
pub(super) const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes that a peer may have under way on one connection, unless a transport is told otherwise: its memory budget here.
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams that a responder may have open on one connection, unless a transport is told otherwise.
pub(super) const MAX_STREAMS: u32 = 4096;

/// Settings of a tunnel that mean the same over every transport, for either role. What only one transport knows is in
/// [`QuicSettings`](crate::transport::quic::QuicSettings) and [`TcpSettings`](crate::transport::tcp::TcpSettings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Handshake, keepalive, suspect and idle times.
    pub timing: Timing,
    /// Limits of message heads that this end accepts.
    pub limits: Limits,
    /// How long exchanges under way may take once this end drains. Default
    /// [`DEFAULT_DRAIN_DEADLINE`], 30 s.
    pub drain_timeout: Duration,
    /// Handshakes that may run at once on a responder. From a half on, addresses that dial over QUIC must prove themselves;
    /// from all of them on, new connections are refused. Default 1024.
    pub max_handshakes: usize,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            limits: Limits::default(),
            drain_timeout: DEFAULT_DRAIN_DEADLINE,
            max_handshakes: 1024,
        }
    }
}
