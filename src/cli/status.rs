//! `adit status`: the tunnels of a running adit.

use std::process::ExitCode;

use adit::admin::client::request;
use adit::admin::{AcceptedTunnel, DialledTunnel, TransportPath, TunnelsReport};
use adit::config::AdminAddress;
use anyhow::{Context as _, bail};
use http::{Method, StatusCode};

use super::say;
use super::table::table;

pub(super) fn status(admin: &AdminAddress, json: bool) -> anyhow::Result<ExitCode> {
    let (tunnels, readiness) = super::small_runtime()?.block_on(ask(admin))?;
    if json {
        say(&tunnels);
        return Ok(ExitCode::SUCCESS);
    }
    let tunnels: TunnelsReport = serde_json::from_str(&tunnels).context("/tunnels is not what it should be")?;
    say(&show(&tunnels, &readiness));
    Ok(ExitCode::SUCCESS)
}

/// The texts of `/tunnels` and `/ready`.
async fn ask(admin: &AdminAddress) -> anyhow::Result<(String, String)> {
    let (status, tunnels) = request(admin, Method::GET, "/tunnels").await?;
    if status != StatusCode::OK {
        bail!("{admin} answered {status} to /tunnels; is it the admin listener of an adit?");
    }
    let (_, readiness) = request(admin, Method::GET, "/ready").await?;
    Ok((String::from_utf8(tunnels.to_vec())?, String::from_utf8_lossy(&readiness).into_owned()))
}

pub(super) fn show(tunnels: &TunnelsReport, readiness: &str) -> String {
    let mut text = match readiness.trim() {
        "ready" => "ready\n".to_owned(),
        missing => format!("not ready, missing: {}\n", missing.replace('\n', ", ")),
    };
    if !tunnels.accepted.is_empty() {
        text += &format!("\n{} accepted\n{}", count(tunnels.accepted.len()), accepted(&tunnels.accepted));
    }
    if !tunnels.dialled.is_empty() {
        text += &format!("\n{} dialled\n{}", count(tunnels.dialled.len()), dialled(&tunnels.dialled));
    }
    if tunnels.accepted.is_empty() && tunnels.dialled.is_empty() {
        text += "no tunnels\n";
    }
    text
}

fn count(tunnels: usize) -> String {
    if tunnels == 1 { "1 tunnel".to_owned() } else { format!("{tunnels} tunnels") }
}

fn accepted(tunnels: &[AcceptedTunnel]) -> String {
    let row = |tunnel: &AcceptedTunnel| {
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
    let heading =
        ["NODE", "CLUSTER", "TENANT", "HEALTH", "TRANSPORT", "REMOTE", "AGE", "RTT", "IN FLIGHT", "SENT", "RECEIVED"];
    table(heading, &rows)
}

fn dialled(tunnels: &[DialledTunnel]) -> String {
    let row = |tunnel: &DialledTunnel| {
        let retry = tunnel.retry_in_seconds.map(|seconds| format!(" (next try in {})", age(seconds)));
        [
            tunnel.to.clone(),
            tunnel.remote.clone().unwrap_or_else(|| "-".to_owned()),
            tunnel.slot.to_string(),
            tunnel.state.clone(),
            tunnel.transport.clone(),
            age(tunnel.since_seconds),
            tunnel.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            format!("{}{}", tunnel.reason.as_deref().unwrap_or_default(), retry.unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = tunnels.iter().map(row).collect();
    table(["TO", "REMOTE", "SLOT", "STATE", "TRANSPORT", "FOR", "RTT", "REASON"], &rows) + &paths(tunnels)
}

/// How each transport does, for tunnels that may use more than one.
fn paths(tunnels: &[DialledTunnel]) -> String {
    let row = |tunnel: &DialledTunnel, path: &TransportPath| {
        let probe = path.probe_in_seconds.map(|seconds| format!(" (next try in {})", age(seconds)));
        [
            tunnel.to.clone(),
            tunnel.slot.to_string(),
            path.transport.clone(),
            if path.suspect { format!("{}, suspect", path.state) } else { path.state.clone() },
            age(path.since_seconds),
            age(path.up_seconds),
            format!("{}{}", path.reason.as_deref().unwrap_or_default(), probe.unwrap_or_default()),
        ]
    };
    let free = tunnels.iter().filter(|tunnel| tunnel.paths.len() > 1);
    let rows: Vec<_> = free.flat_map(|tunnel| tunnel.paths.iter().map(move |path| row(tunnel, path))).collect();
    if rows.is_empty() {
        return String::new();
    }
    "\nhow they are carried\n".to_owned()
        + &table(["TO", "SLOT", "TRANSPORT", "STATE", "FOR", "CARRIED", "LAST FAILURE"], &rows)
}

/// The two largest units.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}
