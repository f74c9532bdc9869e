//! What an initiator is told of a responder to dial.

use std::time::Duration;

use crate::id::HostPort;
use crate::transport::TransportChoice;

/// How long a tunnel that fell back to TCP waits before QUIC is probed, unless the settings say otherwise.
pub const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Within which a tunnel that is well moves to another responder of the fleet, unless the settings say otherwise: a tenth of the
/// tunnels of all initiators each minute, if all of them move. spec: FL-63
pub const DEFAULT_REBALANCE: Duration = Duration::from_secs(600);

/// A responder to keep tunnels to.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `host:port` as configured; every address it resolves to is dialled.
    pub target: String,
    /// Tunnels per address, at least 1.
    pub count: u32,
    /// The name that the responder's certificate must have; by default the host of `target`.
    pub server_name: Option<String>,
    /// What carries its tunnels.
    pub transport: TransportChoice,
    /// Whether other responders of its fleet are dialled that it names, so that the tunnels are at distinct ones. Without a fleet
    /// nothing is named. spec: FL-62
    pub siblings: bool,
    /// The region whose responders come first; `None`: all are alike. spec: FL-61
    pub region: Option<String>,
    /// Within which a tunnel that is well moves to where it should be: a random time of it. [`DEFAULT_REBALANCE`] suits most.
    /// spec: FL-63
    pub rebalance: Duration,
}

impl Destination {
    /// This many tunnels to each address of a responder, over the best transport that works.
    pub fn new(responder: &HostPort, count: u32) -> Self {
        let transport = TransportChoice::default();
        Self {
            target: responder.to_string(),
            count,
            server_name: None,
            transport,
            siblings: true,
            region: None,
            rebalance: DEFAULT_REBALANCE,
        }
    }

    /// The name to verify: the configured one, else the host part of the target.
    pub(super) fn server_name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| {
            let host = self.target.rsplit_once(':').map_or(self.target.as_str(), |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        })
    }
}
