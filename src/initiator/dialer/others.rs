//! What the destinations of one initiator know of each other: where their tunnels are, and whether one of them moves.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::ResponderId;
use crate::initiator::snapshot::Key;

/// What all destinations have in common.
#[derive(Debug)]
pub(super) struct Others {
    at: Mutex<HashMap<Key, HashSet<ResponderId>>>,
    /// Held by the destination of which a tunnel moves: one at a time does. spec: FL-63
    moving: Arc<Semaphore>,
}

impl Default for Others {
    fn default() -> Self {
        Self { at: Mutex::default(), moving: Arc::new(Semaphore::new(1)) }
    }
}

impl Others {
    /// The right to move a tunnel, if nobody has it.
    pub(super) fn may_move(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.moving).try_acquire_owned().ok()
    }

    /// The tunnels of this destination are at these responders.
    pub(super) fn are(&self, of: &Key, at: HashSet<ResponderId>) {
        let mut all = self.at();
        if at.is_empty() {
            all.remove(of);
        } else {
            all.insert(of.clone(), at);
        }
    }

    /// Where those of other destinations are.
    pub(super) fn beside(&self, of: &Key) -> HashSet<ResponderId> {
        self.at().iter().filter(|(key, _)| *key != of).flat_map(|(_, at)| at).cloned().collect()
    }

    fn at(&self) -> MutexGuard<'_, HashMap<Key, HashSet<ResponderId>>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
