//! How connections to a target are made and kept, and what they may bring.

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::limits;
use crate::tls::TargetTls;

/// How long a target may take to accept a connection.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept. Targets often give up after 60 to 75 s; ours should be gone before.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most unused connections kept per target. So many are there only after so many exchanges at once.
pub const DEFAULT_MAX_IDLE: usize = 1024;
/// How long an exchange waits for one of the connections that its target may have: those that come in a crowd find one, and
/// nobody's deadline is spent on it.
pub const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// The most bytes in the head of a target's response.
pub const DEFAULT_HEAD_BYTES: usize = limits::DEFAULT_HEAD_BYTES as usize;
/// The most fields in the head of a target's response.
pub const DEFAULT_HEAD_FIELDS: usize = limits::DEFAULT_HEAD_FIELDS as usize;

/// How connections to a target are made and kept.
#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// Gives up dialling, TLS included; default 5 s. A request that waits for a connection waits no longer than this.
    pub connect_timeout: Duration,
    /// Closes a connection unused for this long; default 60 s. Longer than the target's own limit costs retries.
    pub idle_timeout: Duration,
    /// The most unused HTTP/1.1 connections kept; default 1024. As many are kept as were in use at once within the idle
    /// timeout, up to this bound; beyond it, connections close after their exchange and each costs its exchange a new one.
    /// Each costs a socket here and one at the target.
    pub max_idle: usize,
    /// How many HTTP/1.1 connections there are at most, provided that there are no more exchanges at once; `None`, the
    /// default: nobody counts. One that is too old for an exchange is then closed instead of kept beside a new one.
    pub max_connections: Option<usize>,
    /// The most bytes in a response head or trailer section; default 64 KiB. Beyond: 502.
    pub head_bytes: usize,
    /// The most fields in a response head or trailer section; default 100, and never more than 256. Beyond: 502.
    pub head_fields: usize,
    /// How a target over TLS is told from others; needed for `https://` and `h2://`, and without meaning elsewhere.
    pub tls: Option<TargetTls>,
    /// The most flows of datagrams open at once, each with a socket of its own; default 1024. Beyond: refused with `limit`.
    pub max_flows: usize,
    /// The address that datagrams come from, as the target sees it; port 0, and `None`: any. With a port, of several flows the
    /// target speaks to the newest.
    pub flow_from: Option<SocketAddr>,
    /// Ends a flow of datagrams in which nothing came or went for this long; default 120 s.
    pub flow_idle_timeout: Duration,
}

impl TargetSettings {
    /// The same for a target that is to have no more connections than this, unused ones among them.
    pub(crate) fn within(self, connections: Option<u32>) -> Self {
        let Some(most) = connections else { return self };
        Self { max_idle: self.max_idle.min(most as usize), max_connections: Some(most as usize), ..self }
    }
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            max_idle: DEFAULT_MAX_IDLE,
            max_connections: None,
            head_bytes: DEFAULT_HEAD_BYTES,
            head_fields: DEFAULT_HEAD_FIELDS,
            tls: None,
            flow_from: None,
            max_flows: limits::DEFAULT_FLOWS,
            flow_idle_timeout: limits::DEFAULT_FLOW_IDLE_TIMEOUT,
        }
    }
}
