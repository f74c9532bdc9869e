//! What a responder accepted: sums per cluster, then tunnels, what is not well first.

use std::collections::{BTreeMap, BTreeSet};

use adit::admin::{AcceptedTunnel, TunnelsReport};

use super::View;
use super::units::{age, bytes, count, more};
use crate::cli::table::table;

/// The most tunnels and clusters that are shown without being asked for.
const MAX_ROWS: usize = 20;

pub(super) fn show(report: &TunnelsReport, view: View) -> String {
    let tunnels = &report.accepted;
    let nodes: BTreeSet<_> = tunnels.iter().map(|tunnel| (&tunnel.tenant, &tunnel.node)).collect();
    let (tunnels_text, nodes_text) = (count(tunnels.len(), "tunnel"), count(nodes.len(), "node"));
    let mut text = format!("\n{tunnels_text} accepted from {nodes_text}{}\n", not_well(tunnels));
    let sums = sums(report);
    if sums.len() > 1 || tunnels.len() > MAX_ROWS {
        text += &clusters(sums, view);
        text += "\n";
    }
    text + &rows(tunnels, view)
}

/// `: 3 suspect, 1 draining`, if there are any.
fn not_well(tunnels: &[AcceptedTunnel]) -> String {
    let of = |health: &str| tunnels.iter().filter(|tunnel| tunnel.health == health).count();
    let parts =
        ["suspect", "draining"].into_iter().map(|health| (of(health), health)).filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts.map(|(number, health)| format!("{number} {health}")).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

#[derive(Debug, Default)]
struct Sum<'a> {
    nodes: BTreeSet<&'a str>,
    gone: usize,
    tunnels: usize,
    suspect: usize,
    draining: usize,
    in_flight: u64,
    rtt_ms: f64,
}

/// By tenant and cluster.
type Sums<'a> = BTreeMap<(&'a str, &'a str), Sum<'a>>;

fn sums(report: &TunnelsReport) -> Sums<'_> {
    let mut sums = Sums::new();
    for tunnel in &report.accepted {
        let sum = sums.entry((&tunnel.tenant, &tunnel.cluster)).or_default();
        sum.nodes.insert(&tunnel.node);
        sum.tunnels += 1;
        sum.suspect += usize::from(tunnel.health == "suspect");
        sum.draining += usize::from(tunnel.health == "draining");
        sum.in_flight += u64::from(tunnel.in_flight);
        sum.rtt_ms += tunnel.rtt_ms;
    }
    for gone in &report.gone {
        sums.entry((&gone.tenant, &gone.cluster)).or_default().gone += 1;
    }
    sums
}

fn clusters(sums: Sums<'_>, view: View) -> String {
    let mut sums: Vec<_> = sums.into_iter().collect();
    // The sort is stable: those of one kind stay in the order of their names.
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.suspect + sum.gone, sum.draining)));
    let shown = sums.iter().take(if view.all { usize::MAX } else { MAX_ROWS });
    let rows: Vec<_> = shown
        .map(|((tenant, cluster), sum)| {
            #[allow(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
            let rtt =
                if sum.tunnels == 0 { "-".to_owned() } else { format!("{:.1} ms", sum.rtt_ms / sum.tunnels as f64) };
            [
                (*cluster).to_owned(),
                (*tenant).to_owned(),
                sum.nodes.len().to_string(),
                sum.gone.to_string(),
                sum.tunnels.to_string(),
                sum.suspect.to_string(),
                sum.draining.to_string(),
                sum.in_flight.to_string(),
                rtt,
            ]
        })
        .collect();
    let heading = ["CLUSTER", "TENANT", "NODES", "GONE", "TUNNELS", "SUSPECT", "DRAINING", "BUSY", "RTT"];
    table(heading, &rows, view.width, &[0, 1]) + &more(sums.len() - rows.len(), "more cluster")
}

fn rank(tunnel: &AcceptedTunnel) -> u8 {
    match tunnel.health.as_str() {
        "healthy" => 2,
        "draining" => 1,
        _ => 0,
    }
}

fn rows(tunnels: &[AcceptedTunnel], view: View) -> String {
    let mut sorted: Vec<&AcceptedTunnel> = tunnels.iter().collect();
    sorted.sort_by_key(|tunnel| rank(tunnel));
    let shown = &sorted[..if view.all { sorted.len() } else { sorted.len().min(MAX_ROWS) }];
    let text = if view.wide { wide(shown) } else { narrow(shown, view.width) };
    text + &more(sorted.len() - shown.len(), "more tunnel")
}

fn narrow(tunnels: &[&AcceptedTunnel], width: usize) -> String {
    let row = |tunnel: &&AcceptedTunnel| {
        [
            tunnel.node.clone(),
            tunnel.cluster.clone(),
            tunnel.tenant.clone(),
            tunnel.health.clone(),
            tunnel.transport.clone(),
            age(tunnel.age_seconds),
            format!("{:.1} ms", tunnel.rtt_ms),
            tunnel.in_flight.to_string(),
        ]
    };
    let rows: Vec<_> = tunnels.iter().map(row).collect();
    table(["NODE", "CLUSTER", "TENANT", "HEALTH", "VIA", "AGE", "RTT", "BUSY"], &rows, width, &[0, 1, 2])
}

fn wide(tunnels: &[&AcceptedTunnel]) -> String {
    let row = |tunnel: &&AcceptedTunnel| {
        [
            tunnel.node.clone(),
            tunnel.cluster.clone(),
            tunnel.tenant.clone(),
            tunnel.health.clone(),
            tunnel.transport.clone(),
            tunnel.remote.clone(),
            age(tunnel.age_seconds),
            format!("{:.1} ms", tunnel.rtt_ms),
            tunnel.in_flight.to_string(),
            bytes(tunnel.sent_bytes),
            bytes(tunnel.received_bytes),
        ]
    };
    let rows: Vec<_> = tunnels.iter().map(row).collect();
    let heading = ["NODE", "CLUSTER", "TENANT", "HEALTH", "VIA", "REMOTE", "AGE", "RTT", "BUSY", "SENT", "RECEIVED"];
    table(heading, &rows, usize::MAX, &[])
}
