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

/// What a process still has to do before it ends, as `GET /drain` says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainReport {
    /// When the process was started, in milliseconds since 1970: the one that follows on it has another number.
    pub started: u64,
    /// Whether it was asked to stop.
    pub draining: bool,
    /// Until what still runs is cut; 0 while it does not drain.
    pub seconds_left: f64,
    /// Tunnels that it has, of both roles.
    pub tunnels: usize,
    /// Requests and connections that run.
    pub running: u64,
    /// Nodes that have a tunnel here and at no other responder of the fleet that stays, as `tenant/node`; the first 100 of
    /// them. None where the responder is in no fleet.
    pub nowhere_else: Vec<String>,
    /// How many there are.
    pub nowhere_else_count: usize,
    /// How it ended: told by `GET /drain?until=end` alone, which is answered when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<DrainOutcome>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainOutcome {
    /// All that ran came to its own end.
    Finished,
    /// What still ran was cut: its time was over, or a second order has ended it.
    Cancelled,
}

/// Every tunnel of this process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelsReport {
    /// Tunnels that the responder admitted, by tenant, node and slot.
    pub accepted: Vec<AcceptedTunnel>,
    /// Tunnels that the initiator keeps or wants, by address and slot.
    pub dialled: Vec<DialledTunnel>,
    /// What the initiator exports, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceReport>,
    /// Nodes that had a tunnel to this responder and have none now, the one that left last first.
    pub gone: Vec<GoneNode>,
}

/// The fleet as this responder sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetReport {
    /// The name of this responder.
    pub id: String,
    /// What the keys of the fleet begin with.
    pub prefix: String,
    /// `current`, `stale` (etcd is not heard, and it is what etcd said last) or `empty` (nothing was read yet).
    pub view: String,
    /// Since etcd last said that this is all there is.
    pub view_age_seconds: Option<f64>,
    /// The revision of etcd up to which it knows everything.
    pub revision: i64,
    /// Tunnels of all responders.
    pub tunnels: usize,
    /// The member of etcd that it speaks with.
    pub etcd: Option<String>,
    /// Why it speaks with none, or why it writes nothing.
    pub trouble: Option<String>,
    /// Responders whose lease lives, by name.
    pub responders: Vec<FleetResponder>,
}

/// A responder of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetResponder {
    /// Its name.
    pub id: String,
    /// Whether it is the one that answers.
    pub is_this: bool,
    /// Where it stands.
    pub region: Option<String>,
    /// Its share of the work.
    pub weight: u16,
    /// Tunnels that it has.
    pub tunnels: u32,
    /// Whether it is leaving.
    pub draining: bool,
    /// Where siblings reach it.
    pub siblings_at: Vec<String>,
    /// Where initiators reach it.
    pub initiators_at: Vec<String>,
    /// Rises with each start of it.
    pub epoch: u64,
    /// What it runs.
    pub version: String,
}

/// A service of the initiator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub target: String,
    /// `up`, `down`, or `unknown` while nothing was asked of its target.
    pub state: String,
    /// Why it is down, in a word.
    pub cause: Option<String>,
    /// Since it is so.
    pub since_seconds: u64,
    /// Requests refused because a limit of its own was reached.
    pub refused: u64,
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
    /// Services of the node that are down, as it says, each with the cause in a word: `api: target_refused`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<String>,
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
    /// The responder's own name while connected; where it is one of a fleet, its name there.
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
