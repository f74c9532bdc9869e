//! One app of the demo, running in its own task.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use adit::app::App;
use adit::config::{self, AdminAddress};
use adit::lifecycle::Drain;
use anyhow::Context as _;
use tokio::task::JoinHandle;

/// A running app and the addresses it got.
pub(super) struct Side {
    egress: Option<SocketAddr>,
    tunnels: Option<SocketAddr>,
    admin: Option<AdminAddress>,
    drain: Drain,
    drain_timeout: Duration,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Side {
    /// Starts what the file says.
    pub(super) async fn start(file: &Path) -> anyhow::Result<Self> {
        let checked = config::load(file, &config::Process)?;
        let drain_timeout = checked.drain_timeout;
        let app = App::build(checked).await?;
        let (egress, tunnels, admin) =
            (app.egress_addresses().first().copied(), app.tunnel_address(), app.admin_address());
        let drain = Drain::new();
        let running = app.run(drain.clone());
        let task = tokio::spawn(async move { Ok(running.await?) });
        Ok(Self { egress, tunnels, admin, drain, drain_timeout, task })
    }

    pub(super) fn egress_address(&self) -> anyhow::Result<SocketAddr> {
        self.egress.context("no egress listener")
    }

    pub(super) fn tunnel_address(&self) -> anyhow::Result<SocketAddr> {
        self.tunnels.context("no tunnel listener")
    }

    pub(super) fn admin_address(&self) -> anyhow::Result<AdminAddress> {
        self.admin.clone().context("no admin listener")
    }

    /// Returns when the app ended by itself, and why. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Ok(())) => "without a reason".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        }
    }

    /// Drains and waits for the end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.drain.begin(self.drain_timeout);
        self.task.await?
    }
}
