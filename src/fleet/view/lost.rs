//! Responders whose records are gone although they did not say that they leave. They are dead, or cut off from etcd, with tunnels
//! and connections that live on: so what they had is still known for a while, as the last resort. spec: FL-24

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::names::Name;
use crate::fleet::sibling::Sibling;
use crate::id::ResponderId;

/// How many of them are known; beyond, the one that was lost first is forgotten. spec: FL-24
pub(super) const MAX_LOST: usize = 16;
/// How long each is known.
const KEPT: Duration = Duration::from_secs(3600);
/// How long after its return: in this time it has written what it has.
const BACK: Duration = Duration::from_secs(10);

/// One of them, as it was last.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) sibling: Arc<Sibling>,
    /// The nodes and the clusters that it had, but for those of which it has said since that they are not there.
    names: Mutex<HashSet<Name>>,
}

/// All of them, as their writer has them.
#[derive(Debug, Default)]
pub(super) struct Lost {
    missing: Vec<(Arc<Missing>, Until)>,
}

/// Until when one is known. Whoever loses and finds has no clock, so that is settled when etcd is next heard.
#[derive(Debug, Clone, Copy)]
enum Until {
    Since,
    Returned,
    At { time: Instant, is_back: bool },
}

impl Missing {
    /// Whether it had the name.
    pub(super) fn had(&self, name: &Name) -> bool {
        self.names().contains(name)
    }

    /// It has said that the name is not there.
    pub(super) fn has_not(&self, name: &Name) {
        self.names().remove(name);
    }

    /// Plain values: nothing that a panic elsewhere could leave half-changed.
    fn names(&self) -> MutexGuard<'_, HashSet<Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lost {
    /// It is gone, and had these names.
    pub(super) fn lose(&mut self, sibling: Arc<Sibling>, names: HashSet<Name>) {
        self.missing.retain(|(missing, _)| missing.sibling.id != sibling.id);
        if self.missing.len() >= MAX_LOST {
            self.missing.remove(0);
        }
        self.missing.push((Arc::new(Missing { sibling, names: Mutex::new(names) }), Until::Since));
    }

    /// It has a record again; or it has left, and says so.
    pub(super) fn found(&mut self, id: &ResponderId) {
        for (_, until) in self.missing.iter_mut().filter(|(missing, _)| missing.sibling.id == *id) {
            if !matches!(until, Until::At { is_back: true, .. }) {
                *until = Until::Returned;
            }
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn look(&mut self, now: Instant) {
        for (_, until) in &mut self.missing {
            *until = match *until {
                Until::Since => Until::At { time: now + KEPT, is_back: false },
                Until::Returned => Until::At { time: now + BACK, is_back: true },
                at @ Until::At { .. } => at,
            };
        }
        self.missing.retain(|(_, until)| !matches!(until, Until::At { time, .. } if *time <= now));
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    /// For whoever asks.
    pub(super) fn shared(&self) -> Arc<[Arc<Missing>]> {
        self.missing.iter().map(|(missing, _)| Arc::clone(missing)).collect()
    }
}
