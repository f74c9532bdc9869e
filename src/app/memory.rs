//! What a responder knows over a restart: the nodes that were connected, so that requests for them are held until they are
//! back, and so that it is not called ready before; and the nodes that are gone, for people who ask.

mod gone;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{interval, sleep, timeout};
use tracing::warn;

use crate::fleet::Siblings;
use crate::id::{Claim, ClusterId, NodeId, TenantId};
use crate::lifecycle::{DrainWatch, ReadyGuard};
use crate::registry::{MAX_DEPARTED, RECONNECT_WINDOW};
use crate::responder::{Gone, GoneNodes, is_elsewhere};
use crate::routing::Directory;
use crate::transport::Tunnel;

use self::gone::Written;

/// The file of the nodes which are connected.
const NODES: &str = "nodes";
/// The file of the nodes which are gone.
const GONE: &str = "gone";
/// Of a node that was connected when the former process ended, and is not back in time.
const NOT_BACK: &str = "not back since the responder was restarted";

/// How often the file is brought up to date, if anything has changed.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often is looked whether everybody is back.
const LOOK: Duration = Duration::from_millis(50);
/// How many nodes are remembered. Each has two names in the registry.
const MAX_NODES: usize = MAX_DEPARTED / 2;
/// The longest line: three ids and two spaces.
const MAX_LINE: usize = 3 * 128 + 3;

/// The nodes that a responder knew when its former process ended, and where that is written down.
#[derive(Debug)]
pub(super) struct Memory {
    directory: Arc<Directory<Tunnel>>,
    gone: GoneNodes,
    /// Without one nothing is remembered.
    folder: Option<PathBuf>,
    before: Vec<Claim>,
    grace: Duration,
    ready: Option<ReadyGuard>,
}

impl Memory {
    /// Reads what is in the folder, if there is one, and tells the registry whom to expect.
    pub(super) fn load(
        (directory, gone): (Arc<Directory<Tunnel>>, GoneNodes),
        folder: Option<PathBuf>,
        grace: Duration,
        ready: Option<ReadyGuard>,
    ) -> Self {
        let mut before = Vec::new();
        if let Some(folder) = &folder {
            match read(&folder.join(NODES)) {
                Ok(nodes) => before = nodes,
                Err(error) => warn!(%error, "the nodes that were here before the restart are not known"),
            }
            if let Err(error) = gone::load(&folder.join(GONE), &gone) {
                warn!(%error, "the nodes that were gone before the restart are not known");
            }
        }
        for claim in &before {
            directory.registry().remember(claim, Instant::now());
        }
        Self { directory, gone, folder, before, grace, ready }
    }

    /// Keeps the files up to date until a drain is announced. What they hold then is what the next process reads. Its tasks
    /// end by themselves: dropping the handle means nothing. What `siblings` have can be reached here, too.
    pub(super) fn keep(self, siblings: Option<Arc<dyn Siblings>>, draining: DrainWatch) {
        let Self { directory, gone, folder, mut before, grace, ready } = self;
        if let Some(folder) = folder {
            let kept = Kept::new(&folder, &before, gone.clone());
            drop(tokio::spawn(kept.keep(Arc::clone(&directory), draining.clone())));
        }
        let started = SystemTime::now();
        drop(tokio::spawn(async move {
            tokio::select! {
                // Who is not back by then may never be.
                _ = timeout(grace, returned(&directory, siblings.as_deref(), &mut before)) => {
                    for claim in before.into_iter().filter(|claim| !is_reached(&directory, siblings.as_deref(), claim)) {
                        gone.remember(Gone { claim, since: started, reason: NOT_BACK.to_owned() });
                    }
                }
                () = draining.announced() => {}
            }
            if let Some(ready) = ready {
                ready.done();
            }
        }));
    }
}

/// Resolves when all of them have been back, here or at a sibling; if there were none, when anybody is there. One look asks for
/// one node that is missing, however many are.
async fn returned(directory: &Directory<Tunnel>, siblings: Option<&dyn Siblings>, missing: &mut Vec<Claim>) {
    let have_any =
        |siblings: &dyn Siblings| siblings.all().iter().any(|sibling| !sibling.draining && sibling.tunnels > 0);
    loop {
        while missing.pop_if(|claim| is_reached(directory, siblings, claim)).is_some() {}
        if missing.is_empty() && (!directory.registry().is_empty() || siblings.is_some_and(have_any)) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Whether a request for the node gets there from here.
fn is_reached(directory: &Directory<Tunnel>, siblings: Option<&dyn Siblings>, claim: &Claim) -> bool {
    directory.registry().counts(claim).node > 0 || siblings.is_some_and(|siblings| is_elsewhere(siblings, claim))
}

/// What is in the files, and should be.
struct Kept {
    file: PathBuf,
    /// Each node with when it was last there.
    known: BTreeMap<String, Instant>,
    written: BTreeSet<String>,
    gone: Written,
}

impl Kept {
    fn new(folder: &Path, before: &[Claim], gone: GoneNodes) -> Self {
        let now = Instant::now();
        let known: BTreeMap<_, _> = before.iter().map(|claim| (line(claim), now)).collect();
        let written = known.keys().cloned().collect();
        Self { file: folder.join(NODES), written, known, gone: Written::new(folder.join(GONE), gone) }
    }

    async fn keep(mut self, directory: Arc<Directory<Tunnel>>, draining: DrainWatch) {
        let mut ticks = interval(INTERVAL);
        let mut ends = false;
        while !ends {
            tokio::select! {
                // Before the tunnels drain, and so the last look.
                () = draining.announced() => ends = true,
                _ = ticks.tick() => {}
            }
            self.gone.refresh().await;
            self.look(&directory, Instant::now());
            if self.written.iter().eq(self.known.keys()) {
                continue;
            }
            let (file, lines) = (self.file.clone(), self.known.keys().cloned().collect::<BTreeSet<_>>());
            let text = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
            match tokio::task::spawn_blocking(move || write(&file, &text)).await {
                Ok(Ok(())) => self.written = lines,
                Ok(Err(error)) => warn!(%error, file = %self.file.display(), "cannot write down which nodes are here"),
                Err(_) => return,
            }
        }
    }

    /// Adds who is here and drops who has been away for too long, or is too many.
    fn look(&mut self, directory: &Directory<Tunnel>, now: Instant) {
        self.known.extend(directory.registry().snapshot().map(|live| (line(&live.place.claim), now)));
        self.known.retain(|_, seen| now.saturating_duration_since(*seen) < RECONNECT_WINDOW);
        while self.known.len() > MAX_NODES {
            self.known.pop_last();
        }
    }
}

/// Ids have no space in them.
fn line(Claim { tenant, cluster, node }: &Claim) -> String {
    format!("{tenant} {cluster} {node}")
}

fn claim(line: &str) -> Option<Claim> {
    let mut ids = line.split(' ');
    let (tenant, cluster, node) = (ids.next()?, ids.next()?, ids.next()?);
    let claim = Claim {
        tenant: TenantId::new(tenant).ok()?,
        cluster: ClusterId::new(cluster).ok()?,
        node: NodeId::new(node).ok()?,
    };
    ids.next().is_none().then_some(claim)
}

/// What is not a line of ids is passed over: at worst a node is waited for by nobody.
fn read(file: &Path) -> io::Result<Vec<Claim>> {
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    opened.take((MAX_NODES * MAX_LINE) as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(claim).take(MAX_NODES).collect())
}

/// Whole or not at all.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    out.write_all(text.as_bytes())?;
    drop(out);
    fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nodes");
        assert_eq!(read(&file).unwrap(), []);
        let nodes: Vec<_> =
            ["acme stores edge-1", "acme stores edge-2"].iter().filter_map(|line| claim(line)).collect();
        assert_eq!(nodes.len(), 2);
        write(&file, "acme stores edge-1\nacme stores edge-2\n").unwrap();
        assert_eq!(read(&file).unwrap(), nodes);
        fs::write(
            &file,
            "acme stores edge-1\n\n\u{0}x y\nacme stores\nacme sto:res e\nacme stores edge-2 more\nacme stores edge-2",
        )
        .unwrap();
        assert_eq!(read(&file).unwrap(), nodes);
        assert_eq!(nodes.iter().map(line).collect::<Vec<_>>(), ["acme stores edge-1", "acme stores edge-2"]);
    }
}
