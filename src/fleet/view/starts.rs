//! Starts of responders that have tunnels, under small numbers: a million tunnels name a few of them.

use std::collections::HashMap;

use crate::id::ResponderId;

/// One start of a responder, by a number that no other start ever has in the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Start(u64);

/// All starts that have tunnels.
#[derive(Debug, Default)]
pub(super) struct Starts {
    known: HashMap<(ResponderId, u64), (Start, u32)>,
    next: u64,
}

impl Starts {
    /// One tunnel more of it.
    pub(super) fn add(&mut self, responder: &ResponderId, epoch: u64) -> Start {
        let (start, tunnels) = self.known.entry((responder.clone(), epoch)).or_insert_with(|| {
            self.next += 1;
            (Start(self.next), 0)
        });
        *tunnels += 1;
        *start
    }

    /// One tunnel less.
    pub(super) fn remove(&mut self, responder: &ResponderId, epoch: u64) {
        let key = (responder.clone(), epoch);
        if let Some((_, tunnels)) = self.known.get_mut(&key) {
            *tunnels -= 1;
            if *tunnels == 0 {
                self.known.remove(&key);
            }
        }
    }

    /// Its number and how many tunnels it has; `None`: it has none.
    pub(super) fn find(&self, responder: &ResponderId, epoch: u64) -> Option<(Start, u32)> {
        self.known.get(&(responder.clone(), epoch)).copied()
    }
}
