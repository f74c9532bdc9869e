use std::collections::BTreeSet;

use super::*;
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::protocol::envoy::Counter as EnvoyHandshake;
use crate::telemetry::{DestinationState, Direction, Entrance, FleetSight, HandshakeFailure, Moved};

const CAUSES: &[&str] = &["no_tunnel", "target_refused"];

/// Everything that can be counted, registered once.
fn everything() -> Metrics {
    let metrics = Metrics::new();
    for role in [Role::Initiator, Role::Responder] {
        metrics.tunnels(role);
        metrics.udp_buffers(role, 4096, 2048);
    }
    for side in [Side::Egress, Side::Target] {
        drop(metrics.exchanges(side, CAUSES).begin());
        metrics.exchanges(side, CAUSES).policies().rule("no-admin".to_owned(), "deny").decided();
        metrics.flows(side);
        metrics.targets(side).target("api").set(true);
    }
    metrics.destinations();
    metrics.stages(HandshakeListener::Quic);
    metrics.limits(Entrance::Egress);
    metrics.shares();
    metrics.hops();
    metrics.process();
    metrics.reloaded(None);
    metrics.certificate("ca", 60.0);
    metrics.fleet();
    metrics.fleet_sight(FleetSight { responders: 3, tunnels: 7, age: None, is_stale: true });
    metrics
}

#[track_caller]
fn assert_samples(metrics: &Metrics, samples: &[&str]) {
    let text = metrics.render();
    for sample in samples {
        assert!(text.lines().any(|line| line == *sample), "no line {sample:?} in\n{text}");
    }
}

/// Dashboards and alerts hang on this list: a change here is a change for operators.
#[test]
fn the_list_of_metrics_is_the_promised_one() {
    let listed: Vec<String> = TABLE
        .iter()
        .map(|metric| format!("{} {} {{{}}}", metric.kind.label(), metric.name, metric.labels.join(",")))
        .collect();
    let promised = "\
gauge adit_tunnels_open {role}
gauge adit_tunnels_by_transport {role,transport}
counter adit_tunnels_opened_total {role}
counter adit_tunnels_closed_total {role,reason}
counter adit_handshakes_refused_total {role,code}
counter adit_handshakes_failed_total {role,reason}
gauge adit_handshakes_open {listener,stage}
counter adit_envoy_handshakes_total {result}
gauge adit_streams_held_back {role}
counter adit_streams_not_read_total {role,reason}
counter adit_exchanges_total {side,status}
histogram adit_exchange_duration_seconds {side}
histogram adit_exchange_first_byte_seconds {side}
counter adit_exchange_attempts_total {side}
counter adit_exchanges_failed_total {side,cause}
gauge adit_exchanges_in_flight {side}
counter adit_exchange_body_bytes_total {side,direction}
gauge adit_flows_open {side}
counter adit_flows_refused_total {side,limit}
counter adit_flow_datagrams_total {side,direction}
counter adit_flow_datagrams_dropped_total {side,reason}
gauge adit_targets_down {side,target}
gauge adit_initiator_destinations {state}
counter adit_initiator_transport_switches_total {from,to}
counter adit_initiator_tunnels_moved_total {cause}
counter adit_listener_limits_total {listener,limit}
counter adit_policy_decisions_total {side,rule,action}
counter adit_shares_exceeded_total {of,limit}
counter adit_shares_waited_total {of,cause}
gauge adit_fleet_connections_open {direction}
counter adit_fleet_dials_failed_total {}
counter adit_fleet_hops_total {result}
gauge adit_fleet_responders {}
gauge adit_fleet_tunnels {}
gauge adit_fleet_view_age_seconds {}
gauge adit_fleet_view_stale {}
counter adit_fleet_writes_total {result}
counter adit_fleet_etcd_lost_total {}
counter adit_fleet_records_ignored_total {}
counter adit_fleet_tunnels_overruled_total {}
gauge adit_udp_socket_buffer_bytes {role,direction}
counter adit_log_lines_dropped_total {}
gauge adit_build_info {version,protocol}
gauge adit_certificate_seconds_left {certificate}
counter adit_reloads_total {result}
gauge adit_config_loaded_timestamp_seconds {}
gauge process_cpu_seconds_total {}
gauge process_resident_memory_bytes {}
gauge process_virtual_memory_bytes {}
gauge process_threads {}
gauge process_start_time_seconds {}
gauge process_open_fds {}
gauge process_max_fds {}";
    assert_eq!(listed.join("\n"), promised);
}

#[test]
fn what_is_scraped_is_the_table_with_help_and_nothing_else() {
    let text = everything().render();
    let scraped: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let helped: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    let types: Vec<String> = TABLE.iter().map(|metric| format!("{} {}", metric.name, metric.kind.label())).collect();
    let helps: Vec<String> = TABLE.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
    assert_eq!(scraped, types.iter().map(String::as_str).collect());
    assert_eq!(helped, helps.iter().map(String::as_str).collect());
}

#[test]
fn names_follow_the_rule() {
    for metric in TABLE {
        // Prometheus' own names for what a process takes; processor time has fractions, which a counter here has not.
        if metric.name.starts_with("process_") {
            continue;
        }
        assert!(metric.name.starts_with("adit_"), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{}", metric.name);
    }
}

/// A scrape of both roles in one process stays small, whatever traffic does.
#[test]
fn there_are_few_time_series() {
    let text = everything().render();
    let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert!(series < 250, "{series}");
}

#[test]
fn two_instances_count_apart() {
    let (one, other) = (Metrics::new(), Metrics::new());
    let _tunnel = one.tunnels(Role::Responder).opened("quic");
    other.tunnels(Role::Responder);
    assert_samples(&one, &["adit_tunnels_open{role=\"responder\"} 1"]);
    assert_samples(&other, &["adit_tunnels_open{role=\"responder\"} 0"]);
}

#[test]
fn open_tunnels_are_those_opened_and_not_closed() {
    let metrics = Metrics::new();
    let tunnels = metrics.tunnels(Role::Responder);
    let (drained, lost, _open) = (tunnels.opened("quic"), tunnels.opened("tcp"), tunnels.opened("tcp"));
    drained.closed(CloseCode::Done);
    drop(lost);
    assert_samples(
        &metrics,
        &[
            "adit_tunnels_open{role=\"responder\"} 1",
            "adit_tunnels_by_transport{role=\"responder\",transport=\"quic\"} 0",
            "adit_tunnels_by_transport{role=\"responder\",transport=\"tcp\"} 1",
            "adit_tunnels_by_transport{role=\"responder\",transport=\"envoy\"} 0",
            "adit_tunnels_opened_total{role=\"responder\"} 3",
            "adit_tunnels_closed_total{role=\"responder\",reason=\"done\"} 1",
            "adit_tunnels_closed_total{role=\"responder\",reason=\"lost\"} 1",
        ],
    );
}

#[test]
fn handshakes_that_open_no_tunnel_count_by_code_or_reason() {
    let metrics = Metrics::new();
    let tunnels = metrics.tunnels(Role::Initiator);
    tunnels.refused(RefusalCode::Forbidden);
    tunnels.handshake_failed(HandshakeFailure::Tls);
    assert_samples(
        &metrics,
        &[
            "adit_handshakes_refused_total{role=\"initiator\",code=\"forbidden\"} 1",
            "adit_handshakes_refused_total{role=\"initiator\",code=\"quota\"} 0",
            "adit_handshakes_failed_total{role=\"initiator\",reason=\"tls\"} 1",
        ],
    );
}

// spec: EV-18
#[test]
fn handshakes_of_envoys_are_counted_by_their_names_at_a_responder_only() {
    let metrics = Metrics::new();
    metrics.tunnels(Role::Initiator).envoy_handshake(EnvoyHandshake::Accepted);
    assert!(!metrics.render().contains("adit_envoy_handshakes_total{"));
    let tunnels = metrics.tunnels(Role::Responder);
    tunnels.envoy_handshake(EnvoyHandshake::Accepted);
    tunnels.envoy_handshake(EnvoyHandshake::ParseError);
    for kind in EnvoyHandshake::ALL {
        let count = u8::from(matches!(kind, EnvoyHandshake::Accepted | EnvoyHandshake::ParseError));
        assert_samples(&metrics, &[&format!("adit_envoy_handshakes_total{{result=\"{}\"}} {count}", kind.name())]);
    }
}

#[test]
fn every_exchange_ends_in_exactly_one_class() {
    let metrics = Metrics::new();
    let exchanges = metrics.exchanges(Side::Egress, CAUSES);

    let mut complete = exchanges.begin();
    complete.responded(204);
    complete.complete();
    drop(complete);

    let mut refused = exchanges.begin();
    refused.fail("target_refused");
    refused.fail("no_tunnel");
    refused.responded(502);
    refused.complete();
    drop(refused);

    drop(exchanges.begin());
    exchanges.begin().fail("not in the list");
    let _running = exchanges.begin();
    assert_samples(
        &metrics,
        &[
            "adit_exchanges_total{side=\"egress\",status=\"2xx\"} 1",
            "adit_exchanges_total{side=\"egress\",status=\"5xx\"} 1",
            "adit_exchanges_total{side=\"egress\",status=\"none\"} 2",
            "adit_exchanges_failed_total{side=\"egress\",cause=\"target_refused\"} 1",
            "adit_exchanges_failed_total{side=\"egress\",cause=\"no_tunnel\"} 0",
            "adit_exchanges_failed_total{side=\"egress\",cause=\"cancelled\"} 1",
            "adit_exchanges_failed_total{side=\"egress\",cause=\"other\"} 1",
            "adit_exchanges_in_flight{side=\"egress\"} 1",
            "adit_exchange_duration_seconds_count{side=\"egress\"} 4",
        ],
    );
}

#[test]
fn a_status_outside_the_classes_does_not_panic() {
    let metrics = Metrics::new();
    let mut odd = metrics.exchanges(Side::Target, &[]).begin();
    odd.responded(u16::MAX);
    drop(odd);
    assert_samples(&metrics, &["adit_exchanges_total{side=\"target\",status=\"5xx\"} 1"]);
}

#[test]
fn body_bytes_count_by_direction() {
    let metrics = Metrics::new();
    let exchanges = metrics.exchanges(Side::Target, &[]);
    exchanges.body_bytes(Direction::Request, 1000);
    exchanges.body_bytes(Direction::Request, 24);
    assert_samples(
        &metrics,
        &[
            "adit_exchange_body_bytes_total{side=\"target\",direction=\"request\"} 1024",
            "adit_exchange_body_bytes_total{side=\"target\",direction=\"response\"} 0",
        ],
    );
}

#[test]
fn durations_survive_upkeep() {
    let metrics = Metrics::new();
    let exchanges = metrics.exchanges(Side::Target, &[]);
    for _ in 0..3 {
        drop(exchanges.begin());
        metrics.upkeep();
    }
    assert_samples(
        &metrics,
        &[
            "adit_exchange_duration_seconds_count{side=\"target\"} 3",
            "adit_exchange_duration_seconds_bucket{side=\"target\",le=\"30\"} 3",
        ],
    );
}

#[test]
fn switches_count_by_direction() {
    let metrics = Metrics::new();
    let destinations = metrics.destinations();
    destinations.switched("quic", "tcp");
    destinations.switched("quic", "tcp");
    destinations.switched("quic", "carrier pigeon");
    assert_samples(
        &metrics,
        &[
            "adit_initiator_transport_switches_total{from=\"quic\",to=\"tcp\"} 2",
            "adit_initiator_transport_switches_total{from=\"tcp\",to=\"quic\"} 0",
        ],
    );
}

#[test]
fn moves_count_by_cause() {
    let metrics = Metrics::new();
    metrics.destinations().moved(Moved::Suspect);
    let series = |cause: &str, count: u32| format!("adit_initiator_tunnels_moved_total{{cause=\"{cause}\"}} {count}");
    let samples: Vec<String> = [("planned", 0), ("drained", 0), ("suspect", 1), ("lost", 0)]
        .map(|(cause, count)| series(cause, count))
        .to_vec();
    assert_samples(&metrics, &samples.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_destination_is_in_one_state_at_a_time() {
    let metrics = Metrics::new();
    let destinations = metrics.destinations();
    let (mut first, gone) = (destinations.begin(), destinations.begin());
    first.set(DestinationState::Backoff);
    first.set(DestinationState::Recovered);
    drop(gone);
    assert_eq!(first.state(), DestinationState::Recovered);
    for state in DestinationState::ALL {
        let count = u8::from(state == DestinationState::Recovered);
        assert_samples(&metrics, &[&format!("adit_initiator_destinations{{state=\"{}\"}} {count}", state.label())]);
        assert_eq!(serde_json::to_value(state).unwrap(), state.label(), "one word everywhere");
    }
}
