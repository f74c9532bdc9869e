//! One app of the demo, running in its own task.

use std::net::SocketAddr;
use std::path::Path;

use adit::app::App;
use adit::config::{self, AdminAddress};
use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running app and the addresses it got.
pub(super) struct Side {
    egress: Option<SocketAddr>,
    tunnels: Option<SocketAddr>,
    admin: Option<AdminAddress>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Side {
    /// Starts what the file says.
    pub(super) async fn start(file: &Path) -> anyhow::Result<Self> {
        let app = App::build(config::load(file, &config::Process)?).await?;
        let (egress, tunnels, admin) =
            (app.egress_addresses().first().copied(), app.tunnel_address(), app.admin_address());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { Ok(app.run(stopped).await?) });
        Ok(Self { egress, tunnels, admin, stop, task })
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
        self.stop.cancel();
        self.task.await?
    }
}
