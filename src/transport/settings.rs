//! What every transport is told in the same words: times, limits, drain and the admission of handshakes.

use std::time::Duration;

use crate::protocol::budgets::DEFAULT_MAX_HANDSHAKES;
use crate::protocol::limits::{DEFAULT_DRAIN_DEADLINE, Limits};
use crate::protocol::session::Timing;

/// Streams that a responder may have open on one connection, unless a transport is told otherwise.
pub(crate) const MAX_STREAMS: u32 = 4096;

/// Which algorithm decides how fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CongestionControl {
    /// Model-based; keeps its rate under random loss. The default: at 1 % loss, 50 ms and 100 Mbit/s it moved 8.4 MiB/s
    /// where CUBIC moved 0.3.
    #[default]
    Bbr,
    /// RFC 9438: yields to loss.
    Cubic,
    /// RFC 9002 appendix B: yields to loss, more slowly to recover.
    NewReno,
}

impl CongestionControl {
    /// The word in configuration and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
            Self::NewReno => "newreno",
        }
    }

    /// What Linux calls it, for sockets of TCP.
    pub(super) const fn kernel_name(self) -> &'static str {
        match self {
            Self::NewReno => "reno",
            other => other.label(),
        }
    }
}

/// Settings of a tunnel that mean the same over every transport, for either role. What only one transport knows is in
/// [`QuicSettings`](crate::transport::quic::QuicSettings) and [`TcpSettings`](crate::transport::tcp::TcpSettings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Handshake, keepalive, suspect and idle times.
    pub timing: Timing,
    /// Limits of message heads that this end accepts. Default [`Limits::OURS`]. spec: HS-15
    pub limits: Limits,
    /// How long exchanges under way may take once this end drains. Default
    /// [`DEFAULT_DRAIN_DEADLINE`], 30 s.
    pub drain_timeout: Duration,
    /// Connections in handshake that a responder has room for, per transport; the budgets of the stages follow from it, see
    /// [`HandshakeBudgets`](crate::protocol::budgets::HandshakeBudgets). Default 1024.
    pub max_handshakes: usize,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            limits: Limits::OURS,
            drain_timeout: DEFAULT_DRAIN_DEADLINE,
            max_handshakes: DEFAULT_MAX_HANDSHAKES,
        }
    }
}
