//! Every duration of the machine, and what an operator says of the choice.

use std::time::Duration;

/// How the tunnels of a destination find their responders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::initiator) struct SpreadSettings {
    /// Whether responders that others have named are dialled at all.
    pub(in crate::initiator) follows: bool,
    /// Another number wherever tunnels show, trust or are dialled otherwise than before: what was in vain then may not be now.
    pub(in crate::initiator) manner: u64,
    /// Whose responders come first.
    pub(in crate::initiator) region: Option<String>,
    /// Within which a tunnel moves that is well where it is. spec: FL-63
    pub(in crate::initiator) pace: Duration,
    /// Within which one moves that has just come up where another one of the destination is already. Default 1 s.
    pub(in crate::initiator) soon: Duration,
    /// For how long a tunnel has just come up. Default 30 s.
    pub(in crate::initiator) young: Duration,
    /// How long a tunnel that was well goes on beside the one in its place, so that the fleet knows of that before. Default 1 s.
    /// spec: FL-63
    pub(in crate::initiator) overlap: Duration,
    /// How long a responder may give no tunnel until another one is tried beside it, and how long each address is tried: the
    /// first time. Each failure doubles it for this responder, so that a slow path is found too. Default 2 s. spec: FL-64, FL-65
    pub(in crate::initiator) patience: Duration,
    /// To how much it grows. Default 16 s.
    pub(in crate::initiator) most_patience: Duration,
    /// How long all addresses of a responder are tried. Default 30 s. spec: FL-65
    pub(in crate::initiator) whole: Duration,
    /// The same for a tunnel that is suspect. Default 3 s.
    pub(in crate::initiator) doubt: Duration,
    /// How long one that could not be reached is left alone while there is no tunnel: whoever has nothing asks everybody again. Default
    /// 3 s. spec: FL-64
    pub(in crate::initiator) rest: Duration,
    /// How long one that could not be reached is left alone: the first time, and at most. Default 10 s and 10 min.
    pub(in crate::initiator) retry: (Duration, Duration),
}

impl Default for SpreadSettings {
    fn default() -> Self {
        Self {
            follows: true,
            manner: 0,
            region: None,
            pace: crate::initiator::settings::DEFAULT_REBALANCE,
            soon: Duration::from_secs(1),
            young: Duration::from_secs(30),
            overlap: Duration::from_secs(1),
            patience: Duration::from_secs(2),
            most_patience: Duration::from_secs(16),
            whole: Duration::from_secs(30),
            doubt: Duration::from_secs(3),
            rest: Duration::from_secs(3),
            retry: (Duration::from_secs(10), Duration::from_secs(600)),
        }
    }
}
