//! A real etcd on loopback, of one member.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running etcd, killed when dropped.
pub(crate) struct Etcd {
    pub(crate) address: SocketAddr,
    program: Child,
}

impl Etcd {
    /// Starts one that keeps its data in `folder`, and waits until it takes connections.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let binary = find().context(
            "there is no etcd here: install it (Debian: apt-get install etcd-server), or name the program in $ADIT_ETCD",
        )?;
        let (address, peers) = (free_address().await?, free_address().await?);
        let (client, peer) = (format!("http://{address}"), format!("http://{peers}"));
        let mut command = Command::new(&binary);
        command.args(["--name", "one", "--data-dir"]).arg(folder.join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("one={peer}")]).stdout(Stdio::null()).stderr(Stdio::null());
        let program = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut etcd = Self { address, program };
        etcd.takes_connections().await?;
        Ok(etcd)
    }

    async fn takes_connections(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            ensure!(self.program.try_wait()?.is_none(), "etcd has ended");
            ensure!(Instant::now() < deadline, "etcd does not answer within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// The one that `$ADIT_ETCD` names, or one that is installed.
fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ADIT_ETCD") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|candidate| candidate.is_file())
}

/// Etcd takes no port 0.
async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}
