//! A real Envoy, where there is one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use adit::admin::client;
use adit::config::AdminAddress;
use anyhow::{Context as _, ensure};
use axum::http::Method;

use crate::eventually;

/// `$ADIT_ENVOY`, or what `tests/run` has installed.
pub(crate) fn find() -> Option<PathBuf> {
    let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/envoy-venv/bin/envoy");
    let program = std::env::var_os("ADIT_ENVOY").map_or_else(installed, PathBuf::from);
    program.is_file().then_some(program)
}

/// A running Envoy. Killed when dropped.
pub(crate) struct Envoy {
    child: Child,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts `program` in `folder` with this configuration and waits until it is ready.
    pub(crate) async fn start(program: &Path, folder: &Path, config: &str) -> anyhow::Result<Self> {
        let own = tempfile::tempdir_in(folder)?;
        let [file, admin_file] = ["envoy.yaml", "admin"].map(|name| own.path().join(name));
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin_file);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "critical"]);
        let child = command.current_dir(folder).stdin(Stdio::null()).spawn().context("cannot start Envoy")?;
        // Killed from here on, whatever fails.
        let mut envoy = Self { child, admin: SocketAddr::from(([127, 0, 0, 1], 0)) };
        eventually("Envoy is ready", async || {
            ensure!(envoy.child.try_wait()?.is_none(), "Envoy refused its configuration");
            // The file is there before the address is in it.
            let Some(address) = std::fs::read_to_string(&admin_file).ok().and_then(|text| text.parse().ok()) else {
                return Ok(false);
            };
            envoy.admin = address;
            Ok(envoy.ask("/ready").await.is_ok_and(|text| text.starts_with("LIVE")))
        })
        .await?;
        Ok(envoy)
    }

    async fn ask(&self, path: &str) -> anyhow::Result<String> {
        let (_, body) = client::request(&AdminAddress::Tcp(self.admin), Method::GET, path).await?;
        Ok(String::from_utf8(body.to_vec())?)
    }

    /// Where a listener of the file listens.
    pub(crate) async fn listener(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let listeners = self.ask("/listeners").await?;
        let address = listeners.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::"));
        Ok(address.with_context(|| format!("no listener {name} in {listeners}"))?.parse()?)
    }

    /// How many tunnels of this node it has.
    pub(crate) async fn tunnels(&self, node: &str) -> anyhow::Result<usize> {
        let name = format!("tunnels_by.nodes.{node}");
        let stats = self.ask(&format!("/stats?hidden=include&filter={name}")).await?;
        let count = stats.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(": "));
        Ok(count.unwrap_or("0").parse()?)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
