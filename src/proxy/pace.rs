//! How an exchange must move: what keeps parties that do nothing from holding streams, connections and memory for ever.

use std::time::Duration;

/// How long an exchange, or one side of it, may rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Until a response begins: how long the sender of the request may deliver nothing of its body while it is its turn.
    /// Default 60 s; 408.
    pub body_idle: Duration,
    /// Until a response begins: the fewest bytes of the body per second, over `body_idle` of the sender's own time. Default
    /// 16, which no typist stays below for a minute; 0 asks for no rate. 408.
    pub body_rate: u64,
    /// Once a response has begun: how long nothing may move in either direction. Default 5 min; the response is cut.
    pub exchange_idle: Duration,
    /// How long nothing may move in either direction of a CONNECT; it is cut. Default [`Duration::MAX`]: as long as both
    /// ends like.
    pub connect_idle: Duration,
    /// Until a response begins: the time for it counts from the start, whoever's turn it is, and the sender of the request may
    /// be silent for as long as that once something of its body has come, which has to come within `body_idle`. Default no.
    pub whole: bool,
}

impl Pace {
    /// No limits: for a program's own requests.
    pub const NONE: Self = Self {
        body_idle: Duration::MAX,
        body_rate: 0,
        exchange_idle: Duration::MAX,
        connect_idle: Duration::MAX,
        whole: false,
    };

    /// The bytes that must come in each `body_idle` of the sender's time.
    pub(super) fn least_bytes(&self) -> u64 {
        self.body_rate.saturating_mul(self.body_idle.as_secs())
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            body_idle: Duration::from_secs(60),
            body_rate: 16,
            exchange_idle: Duration::from_secs(300),
            connect_idle: Duration::MAX,
            whole: false,
        }
    }
}
