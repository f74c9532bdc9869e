//! What an initiator exports, what is down first; and what the nodes of a responder say is down.

use adit::admin::{AcceptedTunnel, ServiceReport};

use super::View;
use super::units::{age, count, more};
use crate::cli::table::table;

/// The most services that are shown without being asked for.
const MAX_ROWS: usize = 20;

pub(super) fn show(services: &[ServiceReport], view: View) -> String {
    let mut sorted: Vec<&ServiceReport> = services.iter().collect();
    sorted.sort_by_key(|service| service.state != "down");
    let down = services.iter().filter(|service| service.state == "down").count();
    let down = if down == 0 { String::new() } else { format!(": {down} down") };
    let row = |service: &&ServiceReport| {
        let refused = if service.refused == 0 { "-".to_owned() } else { service.refused.to_string() };
        [
            service.name.clone(),
            service.state.clone(),
            age(service.since_seconds),
            service.cause.clone().unwrap_or_else(|| "-".to_owned()),
            refused,
            service.target.clone(),
        ]
    };
    let shown = if view.all { sorted.len() } else { sorted.len().min(MAX_ROWS) };
    let rows: Vec<_> = sorted[..shown].iter().map(row).collect();
    let heading = ["SERVICE", "STATE", "FOR", "CAUSE", "REFUSED", "TARGET"];
    let mut text = format!("\n{}{down}\n", count(services.len(), "service"));
    text += &table(heading, &rows, view.width, &[0, 5]);
    text + &more(sorted.len() - shown, "more service")
}

/// What accepted tunnels say is down, each node once.
pub(super) fn down(tunnels: &[AcceptedTunnel], view: View) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for tunnel in tunnels {
        for down in &tunnel.down {
            rows.push([down.clone(), tunnel.node.clone(), tunnel.tenant.clone()]);
        }
    }
    rows.sort();
    rows.dedup();
    if rows.is_empty() {
        return String::new();
    }
    let shown = if view.all { rows.len() } else { rows.len().min(MAX_ROWS) };
    let text = format!("\n{} down\n", count(rows.len(), "service"));
    text + &table(["SERVICE", "NODE", "TENANT"], &rows[..shown], view.width, &[0, 1, 2])
        + &more(rows.len() - shown, "more service")
}
