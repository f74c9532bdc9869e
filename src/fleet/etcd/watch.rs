//! Hearing of changes.

use tokio::sync::mpsc;
use tonic::Streaming;

use super::end_of;
use super::error::EtcdError;
use super::messages::{Event, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, WatchWish};
use crate::fleet::view::Change;

/// Etcd's number for the event of a key that is gone.
const DELETE: i32 = 1;

/// A watch that runs. Ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<WatchResponse>,
    wishes: mpsc::Sender<WatchRequest>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Changes, in order. Everything up to the revision has been told then; without one, more of the same revision follows.
    Changes(Option<i64>, Vec<Change>),
    /// There is nothing new. With a revision: everything up to that was told.
    Nothing(Option<i64>),
    /// The revision that was asked for is not kept any more: only a whole read helps.
    Compacted,
}

impl Watch {
    /// The way for what is wished, with the first wish in it.
    pub(super) fn wishes(prefix: &str, from: i64) -> (mpsc::Sender<WatchRequest>, mpsc::Receiver<WatchRequest>) {
        let (wishes, requests) = mpsc::channel(4);
        let create = WatchCreateRequest {
            key: prefix.into(),
            range_end: end_of(prefix.as_bytes()),
            start_revision: from,
            progress_notify: true,
            fragment: true,
        };
        let sent = wishes.try_send(WatchRequest { request: Some(WatchWish::Create(create)) });
        debug_assert!(sent.is_ok(), "there is room for the first");
        (wishes, requests)
    }

    pub(super) fn new(stream: Streaming<WatchResponse>, wishes: mpsc::Sender<WatchRequest>) -> Self {
        Self { stream, wishes }
    }

    /// Asks for a word, also where nothing has changed.
    pub fn ask(&self) {
        // Where there is no room, an earlier question is not even sent.
        let _ = self.wishes.try_send(WatchRequest { request: Some(WatchWish::Progress(WatchProgressRequest {})) });
    }

    /// What comes next.
    ///
    /// # Errors
    /// The watch is over.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Heard, EtcdError> {
        loop {
            let response = self.stream.message().await.map_err(EtcdError::status("Watch"))?;
            let Some(response) = response else {
                return Err(EtcdError::WatchEnded("the connection was closed".to_owned()));
            };
            if let Some(heard) = heard(response)? {
                return Ok(heard);
            }
        }
    }
}

fn heard(response: WatchResponse) -> Result<Option<Heard>, EtcdError> {
    if response.compact_revision > 0 {
        return Ok(Some(Heard::Compacted));
    }
    if response.canceled {
        return Err(EtcdError::WatchEnded(response.cancel_reason));
    }
    if response.created {
        return Ok(None);
    }
    if response.events.is_empty() {
        // Etcd before 3.4.25 answers a question at once, with a revision whose changes may still be on their way.
        let told = response.header.filter(|_| response.watch_id >= 0);
        return Ok(Some(Heard::Nothing(told.map(|header| header.revision))));
    }
    let changes: Vec<Change> = response.events.into_iter().filter_map(change).collect();
    // The header may know of later changes, which come in the next answer.
    let last = changes.iter().map(revision).max().filter(|_| !response.fragment);
    Ok(Some(Heard::Changes(last, changes)))
}

fn change(event: Event) -> Option<Change> {
    let kv = event.kv?;
    Some(match event.kind {
        DELETE => Change::Gone { key: kv.key, modified: kv.mod_revision },
        _ => Change::Put(kv.into()),
    })
}

fn revision(change: &Change) -> i64 {
    match change {
        Change::Put(stored) => stored.modified,
        Change::Gone { modified, .. } => *modified,
    }
}
