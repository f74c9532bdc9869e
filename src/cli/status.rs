//! `adit status`: the tunnels of a running adit, what is not well first.

use std::process::ExitCode;

use adit::admin::client::request;
use adit::admin::{Filter, TunnelsReport};
use adit::config::AdminAddress;
use anyhow::{Context as _, bail};
use clap::Args;
use http::{Method, StatusCode};

use super::say;

mod accepted;
mod dialled;
mod gone;
mod services;
mod units;

/// How wide a terminal is taken to be that does not say it.
const COLUMNS: usize = 80;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Its admin listener: ip:port, localhost:port, or a path of a Unix socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: AdminAddress,
    /// Print what the admin listener says, as JSON
    #[arg(long)]
    json: bool,
    /// Only the tunnels of this node
    #[arg(long)]
    node: Option<String>,
    /// Only those of this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Only those of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only those in this state: healthy, suspect or draining; connected, backoff, cannot_connect, …; gone
    #[arg(long)]
    state: Option<String>,
    /// Every tunnel, however many there are
    #[arg(long)]
    all: bool,
    /// Lines as long as they need to be, with addresses and bytes
    #[arg(long)]
    wide: bool,
}

/// How much is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Columns of the terminal.
    pub(super) width: usize,
    /// Whether lines may be wider than that, and hold more.
    pub(super) wide: bool,
    /// Whether every tunnel is shown.
    pub(super) all: bool,
}

pub(super) fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let StatusArgs { admin, json, node, cluster, tenant, state, all, wide } = args;
    let filter = Filter { node, cluster, tenant, state };
    let (tunnels, readiness) = super::small_runtime()?.block_on(ask(&admin, &filter))?;
    if json {
        say(&tunnels);
        return Ok(ExitCode::SUCCESS);
    }
    let tunnels: TunnelsReport = serde_json::from_str(&tunnels).context("/tunnels is not what it should be")?;
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(COLUMNS);
    let width = if wide { usize::MAX } else { columns };
    say(&show(&tunnels, &readiness, View { width, wide, all: all || !filter.is_empty() }));
    Ok(ExitCode::SUCCESS)
}

/// The texts of `/tunnels` and `/ready`.
async fn ask(admin: &AdminAddress, filter: &Filter) -> anyhow::Result<(String, String)> {
    let query = filter.query();
    let path = if query.is_empty() { "/tunnels".to_owned() } else { format!("/tunnels?{query}") };
    let (status, tunnels) = request(admin, Method::GET, &path).await?;
    if status != StatusCode::OK {
        bail!("{admin} answered {status} to {path}; is it the admin listener of an adit?");
    }
    let (_, readiness) = request(admin, Method::GET, "/ready").await?;
    Ok((String::from_utf8(tunnels.to_vec())?, String::from_utf8_lossy(&readiness).into_owned()))
}

pub(super) fn show(report: &TunnelsReport, readiness: &str, view: View) -> String {
    let mut text = match readiness.trim() {
        "ready" => "ready\n".to_owned(),
        missing => format!("not ready, missing: {}\n", missing.replace('\n', ", ")),
    };
    if !report.accepted.is_empty() {
        text += &accepted::show(report, view);
        text += &services::down(&report.accepted, view);
    }
    if !report.gone.is_empty() {
        text += &gone::show(&report.gone, view);
    }
    if !report.dialled.is_empty() {
        text += &dialled::show(&report.dialled, view);
    }
    if !report.services.is_empty() {
        text += &services::show(&report.services, view);
    }
    if report.accepted.is_empty() && report.dialled.is_empty() {
        text += "no tunnels\n";
    }
    text
}
