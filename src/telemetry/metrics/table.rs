//! Names, labels and help of every metric. `adit_<thing>_<unit>`, `_total` for what only rises.

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    #[cfg(test)]
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// Upper bounds of the duration buckets, in seconds: a local answer, a WAN round trip or three, a slow target, a
/// deadline. Few, because every bound is a time series.
pub(super) const DURATION_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// What can carry a tunnel.
pub(super) const TRANSPORTS: [&str; 3] = ["quic", "tcp", "envoy"];
/// From which transport to which a slot that may use both can go.
pub(super) const WAYS: [[&str; 2]; 2] = [["quic", "tcp"], ["tcp", "quic"]];

macro_rules! table {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order they are documented.
        pub(super) const TABLE: &[Metric] = &[$($id),*];
    };
}

table! {
    TUNNELS_OPEN = Gauge "adit_tunnels_open" ["role"]
        "Tunnels that are open now; opened minus closed.";
    TUNNELS_BY_TRANSPORT = Gauge "adit_tunnels_by_transport" ["role", "transport"]
        "Tunnels that are open now, by what carries them.";
    TUNNELS_OPENED = Counter "adit_tunnels_opened_total" ["role"]
        "Tunnels whose handshake ended in a welcome.";
    TUNNELS_CLOSED = Counter "adit_tunnels_closed_total" ["role", "reason"]
        "Tunnels that were open and ended, by close code; lost: without one.";
    HANDSHAKES_REFUSED = Counter "adit_handshakes_refused_total" ["role", "code"]
        "Handshakes that ended in a refusal: sent by a responder, received by an initiator.";
    HANDSHAKES_FAILED = Counter "adit_handshakes_failed_total" ["role", "reason"]
        "Handshakes that ended in neither welcome nor refusal: tls, timeout, protocol or gave_way.";
    HANDSHAKES_OPEN = Gauge "adit_handshakes_open" ["listener", "stage"]
        "Connections that are not open yet; silent: sent nothing, hello: began, tls: in TLS, claim: a claim or a decision is awaited.";
    ENVOY_HANDSHAKES = Counter "adit_envoy_handshakes_total" ["result"]
        "Handshakes of Envoy initiators at a responder, by the names of reverse_tunnel.handshake in Envoy.";
    STREAMS_HELD_BACK = Gauge "adit_streams_held_back" ["role"]
        "Streams whose consumers have not come back for more of what arrives.";
    STREAMS_ENDED = Counter "adit_streams_not_read_total" ["role", "reason"]
        "Streams ended because they were not read; bound: too many were held back, rate: too slow for too long.";
    EXCHANGES = Counter "adit_exchanges_total" ["side", "status"]
        "Exchanges that ended, by class of the status; none: no response was sent.";
    EXCHANGE_DURATION = Histogram "adit_exchange_duration_seconds" ["side"]
        "From the head of the request to the end of the exchange.";
    EXCHANGE_FIRST_BYTE = Histogram "adit_exchange_first_byte_seconds" ["side"]
        "From the head of the request to the head of its final response.";
    EXCHANGE_ATTEMPTS = Counter "adit_exchange_attempts_total" ["side"]
        "Tunnels that requests were sent into; more than exchanges where some were tried again.";
    EXCHANGES_FAILED = Counter "adit_exchanges_failed_total" ["side", "cause"]
        "Exchanges that did not end as they should, by cause; each also counts in adit_exchanges_total.";
    EXCHANGES_IN_FLIGHT = Gauge "adit_exchanges_in_flight" ["side"]
        "Exchanges that began and have not ended.";
    BODY_BYTES = Counter "adit_exchange_body_bytes_total" ["side", "direction"]
        "Bytes of message bodies, without heads and framing.";
    FLOWS_OPEN = Gauge "adit_flows_open" ["side"]
        "Flows of datagrams that are open now.";
    FLOWS_REFUSED = Counter "adit_flows_refused_total" ["side", "limit"]
        "Flows that there was no room for, or that had to give way (gave_way), by the limit.";
    DATAGRAMS = Counter "adit_flow_datagrams_total" ["side", "direction"]
        "Datagrams of flows that were passed on; request: towards the site.";
    DATAGRAMS_DROPPED = Counter "adit_flow_datagrams_dropped_total" ["side", "reason"]
        "Datagrams that were dropped; no_flow: no room for a flow, barred: none could be opened just before, queue: too many wait, rate: beyond the bytes a second of its tenant or node, socket: the system did not take it, malformed: in no capsule of RFC 9298.";
    TARGETS_DOWN = Gauge "adit_targets_down" ["side", "target"]
        "1: down; a service of an initiator (target), by its name, or a server that rules forward to (egress), as it is written.";
    DESTINATIONS = Gauge "adit_initiator_destinations" ["state"]
        "Tunnels that an initiator is configured to keep, by the state each is in.";
    SWITCHES = Counter "adit_initiator_transport_switches_total" ["from", "to"]
        "How often a tunnel came up on another transport than the one before it had.";
    TUNNELS_MOVED = Counter "adit_initiator_tunnels_moved_total" ["cause"]
        "Tunnels that went to another responder of the fleet; planned: the other one should have it, drained: the former one leaves, suspect: it is not heard, lost: it has ended.";
    LISTENER_LIMITS = Counter "adit_listener_limits_total" ["listener", "limit"]
        "How often listeners refused, cut or could not accept a connection, or had to let more wait, by the limit.";
    POLICY_DECISIONS = Counter "adit_policy_decisions_total" ["side", "rule", "action"]
        "What rules of policies have decided, by the name of the rule, else its priority; the last rule is not counted.";
    SHARES_EXCEEDED = Counter "adit_shares_exceeded_total" ["of", "limit"]
        "What was refused because the share of a tenant or a node was used up, or that of a node of the connection to a sibling, by the limit; a request tries a node on several tunnels.";
    SHARES_WAITED = Counter "adit_shares_waited_total" ["of", "cause"]
        "How often something had to wait; bytes: for a rate, turn: for other tenants.";
    HOP_CONNECTIONS = Gauge "adit_fleet_connections_open" ["direction"]
        "Connections between this responder and its siblings; out: it asks there, in: it is asked.";
    HOP_DIALS_FAILED = Counter "adit_fleet_dials_failed_total" []
        "How often a sibling could not be dialled, or was another than the one that was meant.";
    HOPS = Counter "adit_fleet_hops_total" ["result"]
        "What was sent on through a sibling (through), and how much of that came back because it has no tunnel there (not_here).";
    FLEET_RESPONDERS = Gauge "adit_fleet_responders" []
        "Responders of the fleet whose lease lives, this one among them.";
    FLEET_TUNNELS = Gauge "adit_fleet_tunnels" []
        "Tunnels in the directory of the fleet, those of this responder among them.";
    FLEET_VIEW_AGE = Gauge "adit_fleet_view_age_seconds" []
        "Since etcd last said that the view of the fleet is all there is; +Inf: never.";
    FLEET_VIEW_STALE = Gauge "adit_fleet_view_stale" []
        "1: etcd is not heard, and the view is what it said last.";
    FLEET_WRITES = Counter "adit_fleet_writes_total" ["result"]
        "Transactions that this responder sent to etcd; ok: done, failed: not done, or not known.";
    FLEET_LOST = Counter "adit_fleet_etcd_lost_total" []
        "How often etcd could not be reached, or was lost.";
    FLEET_IGNORED = Counter "adit_fleet_records_ignored_total" []
        "Keys and values in the directory of the fleet that cannot be used, or are beyond its bounds.";
    FLEET_OVERRULED = Counter "adit_fleet_tunnels_overruled_total" []
        "Tunnels closed because another responder of the fleet had the name first, with another key.";
    UDP_BUFFER = Gauge "adit_udp_socket_buffer_bytes" ["role", "direction"]
        "UDP socket buffer that the kernel granted, in usable bytes; 4194304 is asked for.";
    LOG_LINES_DROPPED = Counter "adit_log_lines_dropped_total" []
        "Log lines that were not written, because standard error did not take them.";
    BUILD_INFO = Gauge "adit_build_info" ["version", "protocol"]
        "Always 1; the labels say which build runs.";
    CERTIFICATE_LEFT = Gauge "adit_certificate_seconds_left" ["certificate"]
        "Until the first certificate of this kind ends: what the responder, the initiator or an egress shows, a service, a fleet (siblings and etcd) is shown, or a CA.";
    RELOADS = Counter "adit_reloads_total" ["result"]
        "How often other settings were asked for while the process ran; failed: they could not be used, and nothing changed.";
    CONFIG_LOADED = Gauge "adit_config_loaded_timestamp_seconds" []
        "When the settings that are in force were read last, in seconds since 1970.";
    PROCESS_CPU = Gauge "process_cpu_seconds_total" []
        "Processor time used so far, in the kernel too.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory in use.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space in use.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the process began, in seconds since 1970.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "File descriptors in use.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "File descriptors that may be in use.";
}
