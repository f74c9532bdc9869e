//! What `/tunnels` and `/ready` say. `adit status` reads the same types, so both ends agree.

use serde::{Deserialize, Serialize};

/// Whether the process takes traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Readiness {
    /// What start-up still waits for, or that it drains; empty when ready.
    pub missing: Vec<String>,
}

impl Readiness {
    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Every tunnel of this process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelsReport {
    /// Tunnels that the responder admitted, by tenant, node and slot.
    pub accepted: Vec<AcceptedTunnel>,
    /// Tunnels that the initiator keeps or wants, by address and slot.
    pub dialled: Vec<DialledTunnel>,
    /// Nodes that had a tunnel to this responder and have none now, the one that left last first.
    pub gone: Vec<GoneNode>,
}

/// A node without any tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GoneNode {
    /// The node.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Its tenant.
    pub tenant: String,
    /// Since its last tunnel ended.
    pub since_seconds: u64,
    /// Why that ended.
    pub reason: String,
}

/// A tunnel that the responder admitted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AcceptedTunnel {
    /// The responder's name for it.
    pub id: String,
    /// The admitted node.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Its tenant.
    pub tenant: String,
    /// Which of the node's tunnels it is.
    pub slot: u32,
    /// How often that slot has connected.
    pub generation: u64,
    /// `quic`, `tcp` or `envoy`.
    pub transport: String,
    /// `ip:port` of the initiator as seen from here.
    pub remote: String,
    /// `opening` (WELCOME has not left yet), `healthy`, `suspect` (also a tunnel of an Envoy that has not shown yet that it
    /// works) or `draining`.
    pub health: String,
    /// Since it was admitted.
    pub age_seconds: u64,
    /// Smoothed round trip.
    pub rtt_ms: f64,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests so far, those under way included.
    pub exchanges: u64,
    /// Packets lost in this direction so far; 0 when the transport does not know.
    pub lost_packets: u64,
    /// Bytes sent, headers of the transport included.
    pub sent_bytes: u64,
    /// Bytes received, likewise.
    pub received_bytes: u64,
}

/// A tunnel that the initiator keeps or wants.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DialledTunnel {
    /// The responder as configured.
    pub to: String,
    /// The address it resolved to, if it did.
    pub remote: Option<String>,
    /// Which of the tunnels to that address it is.
    pub slot: u32,
    /// How often the slot has connected.
    pub generation: u64,
    /// `connecting`, `connected`, `failed`, `recovered`, `backoff` or `cannot_connect`.
    pub state: String,
    /// `quic`, `tcp` or `envoy`; what is tried while there is none.
    pub transport: String,
    /// Since the state was entered.
    pub since_seconds: u64,
    /// Why it is not connected, and what to change.
    pub reason: Option<String>,
    /// Until the next attempt, while in backoff.
    pub retry_in_seconds: Option<u64>,
    /// The responder's name for the tunnel while there is one.
    pub id: Option<String>,
    /// The responder's own name while connected.
    pub responder: Option<String>,
    /// Smoothed round trip while connected.
    pub rtt_ms: Option<f64>,
    /// How often its tunnel was on another transport than the one before.
    pub switches: u64,
    /// Why the latest of those switches happened.
    pub switch_reason: Option<String>,
    /// Each transport that may carry it, the preferred first.
    pub paths: Vec<TransportPath>,
}

/// One transport of a [`DialledTunnel`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TransportPath {
    /// `quic`, `tcp` or `envoy`.
    pub transport: String,
    /// `untried`, `trying`, `up`, `failed`, `waiting_to_probe` or `standby`.
    pub state: String,
    /// Whether it carries the tunnel and owes a sign of life.
    pub suspect: bool,
    /// Since the state was entered.
    pub since_seconds: u64,
    /// For how long it carried the tunnel so far.
    pub up_seconds: u64,
    /// Why it failed or was left when it last was; stays when it works again.
    pub reason: Option<String>,
    /// Until it is probed, while it waits for that.
    pub probe_in_seconds: Option<u64>,
}
