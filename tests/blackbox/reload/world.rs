//! Reloads, and requests that run beside them.

use crate::support::eventually::eventually;
use crate::support::site::{Responder, Running};

/// What may come of a reload, and the line that says it.
pub(super) const OUTCOMES: [(&str, &str); 3] = [
    ("applied", "other settings are in force"),
    ("unchanged", "the settings are what they were"),
    ("failed", "the settings stay as they are: nothing has changed"),
];

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// These changes, one a line.
    Applied(Vec<String>),
    Unchanged,
    /// The whole report.
    Failed(String),
}

impl Outcome {
    /// The changes; nothing else may have come of it.
    pub(crate) fn changes(self) -> Vec<String> {
        match self {
            Self::Applied(changes) => changes,
            other => panic!("not applied: {other:?}"),
        }
    }

    pub(crate) fn error(self) -> String {
        match self {
            Self::Failed(error) => error,
            other => panic!("taken: {other:?}"),
        }
    }
}

/// How many reloads there were with each outcome.
pub(super) async fn counted(running: &Running) -> [u64; 3] {
    let mut counted = [0; 3];
    for (count, (result, _)) in counted.iter_mut().zip(OUTCOMES) {
        *count = running.metric(&format!("adit_reloads_total{{result=\"{result}\"}}")).await;
    }
    counted
}

/// Asks it to read its file again, and waits until it has. Which result was counted; the log may leave lines out.
pub(super) async fn result_of_reload(running: &Running) -> &'static str {
    let before = counted(running).await;
    running.signal("HUP");
    eventually("what came of a reload", async || {
        let now = counted(running).await;
        (0..OUTCOMES.len()).find(|kind| now[*kind] > before[*kind]).map(|kind| OUTCOMES[kind].0)
    })
    .await
}

/// The ids of the tunnels that get new requests.
pub(super) async fn tunnels(responder: &Responder) -> Vec<String> {
    let accepted = responder.0.tunnels().await.accepted;
    accepted.into_iter().filter(|tunnel| tunnel.health != "draining").map(|tunnel| tunnel.id).collect()
}

/// Open descriptors of a process.
pub(super) fn descriptors(running: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap().count()
}
