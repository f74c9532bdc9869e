//! Which name is on which responder: an index whose copies share what has not changed.

use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::key::TunnelKey;
use crate::id::{Claim, HostId, InstanceId, ResponderId, SpkiPin, TenantId};

/// A name within its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) tenant: TenantId,
    pub(super) host: HostId,
}

/// A tunnel of the directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: TunnelKey,
    pub(super) claim: Claim,
    pub(super) instance: InstanceId,
    pub(super) pin: Option<SpkiPin>,
    /// The revisions at which it was first and last written.
    pub(super) created: i64,
    pub(super) modified: i64,
}

/// What stands under a name.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    /// Tunnels of the node that has this name.
    pub(super) node: Vec<Arc<Entry>>,
    /// Who has members of the cluster that has this name.
    pub(super) cluster: Vec<Members>,
    /// Who said that the name is not there, at which epoch.
    doubted: Vec<(ResponderId, u64)>,
}

/// Members of a cluster on one start of a responder.
#[derive(Debug, Clone)]
pub(super) struct Members {
    pub(super) responder: ResponderId,
    pub(super) epoch: u64,
    tunnels: u32,
    /// The first revision at which it had one since it had none.
    pub(super) created: i64,
}

/// The index. A clone costs as much as one of an `Arc`.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(HashTrieMapSync<Name, Arc<Held>>);

impl Name {
    pub(super) fn new(tenant: &TenantId, host: impl Into<HostId>) -> Self {
        Self { tenant: tenant.clone(), host: host.into() }
    }
}

impl Names {
    pub(super) fn get(&self, name: &Name) -> Option<&Held> {
        self.0.get(name).map(Arc::as_ref)
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        let Claim { tenant, node, cluster } = &entry.claim;
        self.update(Name::new(tenant, node), |held| {
            held.trust(&entry.key);
            held.node.push(Arc::clone(entry));
        });
        self.update(Name::new(tenant, cluster), |held| {
            held.trust(&entry.key);
            match held.cluster.iter_mut().find(|members| members.is_of(&entry.key)) {
                Some(members) => members.tunnels += 1,
                None => held.cluster.push(Members::first(entry)),
            }
        });
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let Claim { tenant, node, cluster } = &entry.claim;
        self.update(Name::new(tenant, node), |held| held.node.retain(|other| other.key != entry.key));
        self.update(Name::new(tenant, cluster), |held| {
            if let Some(members) = held.cluster.iter_mut().find(|members| members.is_of(&entry.key)) {
                members.tunnels -= 1;
            }
            held.cluster.retain(|members| members.tunnels > 0);
        });
    }

    /// Forgets that this start of a responder has the name, until that is said anew.
    pub(super) fn doubt(&mut self, name: &Name, responder: &ResponderId, epoch: u64) {
        if self.get(name).is_some_and(|held| held.has(responder, epoch) && !held.is_doubted(responder, epoch)) {
            self.update(name.clone(), |held| held.doubted.push((responder.clone(), epoch)));
        }
    }

    fn update(&mut self, name: Name, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.0.get_mut(&name) {
            let held = Arc::make_mut(held);
            change(held);
            held.forget_needless_doubts();
            let is_empty = held.is_empty();
            if is_empty {
                self.0.remove_mut(&name);
            }
        } else {
            let mut held = Held::default();
            change(&mut held);
            if !held.is_empty() {
                self.0.insert_mut(name, Arc::new(held));
            }
        }
    }
}

impl Held {
    pub(super) fn is_doubted(&self, responder: &ResponderId, epoch: u64) -> bool {
        self.doubted.iter().any(|(id, of)| id == responder && *of == epoch)
    }

    fn is_empty(&self) -> bool {
        self.node.is_empty() && self.cluster.is_empty()
    }

    fn has(&self, responder: &ResponderId, epoch: u64) -> bool {
        self.node.iter().any(|entry| entry.key.responder == *responder && entry.key.epoch == epoch)
            || self.cluster.iter().any(|members| members.responder == *responder && members.epoch == epoch)
    }

    /// The directory says anew that it is there.
    fn trust(&mut self, key: &TunnelKey) {
        self.doubted.retain(|(id, epoch)| *id != key.responder || *epoch != key.epoch);
    }

    fn forget_needless_doubts(&mut self) {
        if !self.doubted.is_empty() {
            let mut doubted = std::mem::take(&mut self.doubted);
            doubted.retain(|(id, epoch)| self.has(id, *epoch));
            self.doubted = doubted;
        }
    }
}

impl Members {
    fn first(entry: &Entry) -> Self {
        let TunnelKey { responder, epoch, .. } = &entry.key;
        Self { responder: responder.clone(), epoch: *epoch, tunnels: 1, created: entry.created }
    }

    fn is_of(&self, key: &TunnelKey) -> bool {
        self.responder == key.responder && self.epoch == key.epoch
    }
}
