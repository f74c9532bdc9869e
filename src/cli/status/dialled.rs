//! What an initiator dials: one row per tunnel that it wants, why it is missing, and how each transport does.

use std::collections::HashMap;

use adit::admin::{DialledTunnel, TransportPath};

use super::View;
use super::units::{age, count, more};
use crate::cli::table::{table, wrapped};

/// The most tunnels that are shown without being asked for.
const MAX_ROWS: usize = 20;

pub(super) fn show(tunnels: &[DialledTunnel], view: View) -> String {
    let mut sorted: Vec<(u32, &DialledTunnel)> = numbered(tunnels);
    sorted.sort_by_key(|(_, tunnel)| is_up(tunnel));
    let missing = sorted.iter().filter(|(_, tunnel)| !is_up(tunnel)).count();
    let missing = if missing == 0 { String::new() } else { format!(": {missing} not connected") };
    let shown = &sorted[..if view.all { sorted.len() } else { sorted.len().min(MAX_ROWS) }];
    let mut text = format!("\n{} dialled{missing}\n", count(tunnels.len(), "tunnel"));
    text += &rows(shown, view);
    text += &more(sorted.len() - shown.len(), "more tunnel");
    text + &reasons(shown, view) + &paths(shown, view)
}

/// Counted from 0 for each address: on the wire a tunnel that may change its transport takes two numbers.
fn numbered(tunnels: &[DialledTunnel]) -> Vec<(u32, &DialledTunnel)> {
    let mut next: HashMap<(&str, Option<&str>), u32> = HashMap::new();
    let mut numbered = Vec::with_capacity(tunnels.len());
    for tunnel in tunnels {
        let number = next.entry((&tunnel.to, tunnel.remote.as_deref())).or_default();
        numbered.push((*number, tunnel));
        *number += 1;
    }
    numbered
}

fn is_up(tunnel: &DialledTunnel) -> bool {
    matches!(tunnel.state.as_str(), "connected" | "recovered")
}

fn rows(tunnels: &[(u32, &DialledTunnel)], view: View) -> String {
    let row = |(number, tunnel): &(u32, &DialledTunnel)| {
        let remote = tunnel.remote.as_ref().filter(|remote| **remote != tunnel.to);
        [
            tunnel.to.clone(),
            remote.cloned().unwrap_or_else(|| "-".to_owned()),
            number.to_string(),
            tunnel.state.clone(),
            tunnel.transport.clone(),
            age(tunnel.since_seconds),
            tunnel.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            tunnel.responder.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = tunnels.iter().map(row).collect();
    let heading = ["TO", "ADDRESS", "NO", "STATE", "VIA", "FOR", "RTT", "RESPONDER"];
    table(heading, &rows, view.width, &[0, 1, 7])
}

/// Why tunnels are not connected; those of one cause together.
fn reasons(tunnels: &[(u32, &DialledTunnel)], view: View) -> String {
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for (number, tunnel) in tunnels.iter().filter(|(_, tunnel)| !is_up(tunnel)) {
        let Some(reason) = &tunnel.reason else { continue };
        let retry = tunnel.retry_in_seconds.map(|seconds| format!(" (next try in {})", age(seconds)));
        let who = format!("{} no {number}{}", tunnel.to, retry.unwrap_or_default());
        match said.iter_mut().find(|(other, _)| other == reason) {
            Some((_, all)) => all.push(who),
            None => said.push((reason.clone(), vec![who])),
        }
    }
    let one = |(reason, who): (String, Vec<String>)| {
        wrapped(&who.join(", "), "", view.width) + &wrapped(&reason, "  ", view.width)
    };
    let text: String = said.into_iter().map(one).collect();
    if text.is_empty() { text } else { format!("\nwhy\n{text}") }
}

/// How each transport does, for tunnels that may use more than one.
fn paths(tunnels: &[(u32, &DialledTunnel)], view: View) -> String {
    let row = |number: &u32, tunnel: &DialledTunnel, path: &TransportPath| {
        let probe = path.probe_in_seconds.map(|seconds| format!(" (next try in {})", age(seconds)));
        [
            tunnel.to.clone(),
            number.to_string(),
            path.transport.clone(),
            if path.suspect { format!("{}, suspect", path.state) } else { path.state.clone() },
            age(path.since_seconds),
            age(path.up_seconds),
            format!("{}{}", path.reason.as_deref().unwrap_or_default(), probe.unwrap_or_default()),
        ]
    };
    let free = tunnels.iter().filter(|(_, tunnel)| tunnel.paths.len() > 1);
    let rows: Vec<_> =
        free.flat_map(|(number, tunnel)| tunnel.paths.iter().map(move |path| row(number, tunnel, path))).collect();
    if rows.is_empty() {
        return String::new();
    }
    "\nhow they are carried\n".to_owned()
        + &table(["TO", "NO", "VIA", "STATE", "FOR", "CARRIED", "LAST FAILURE"], &rows, view.width, &[0, 6])
}
