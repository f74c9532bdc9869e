//! What the directory said at one revision: immutable, so that whoever asks never waits.

use std::collections::{BTreeMap, HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use super::names::{Entry, Held, Name, Names};
use crate::fleet::sibling::Sibling;
use crate::id::{HostId, Place, ResponderId, SpkiPin, TenantId};

/// Whether the view is what etcd says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing was read yet.
    #[default]
    Empty,
    /// It follows etcd.
    Current,
    /// Etcd is not heard: it is what etcd said last.
    Stale,
}

/// Why a claim would not fit to what the directory says of other responders. spec: FL-16
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    /// The claimed node is the name of a cluster.
    #[error("the node's name is the name of a cluster at another responder of the fleet; rename the node")]
    NodeIsCluster,
    /// The claimed cluster is the name of a node.
    #[error("the cluster's name is the name of a node at another responder of the fleet; rename the cluster")]
    ClusterIsNode,
    /// The node is connected elsewhere with another key.
    #[error(
        "the node is connected to another responder of the fleet with another key; stop the other one, or give this one its own name"
    )]
    OtherKey,
}

/// What the directory said at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) names: Names,
    pub(super) live: Arc<BTreeMap<ResponderId, Arc<Live>>>,
    pub(super) standing: Standing,
    /// The revision of etcd up to which it knows everything.
    pub(super) revision: i64,
    /// When etcd last said that this is all.
    pub(super) heard: Option<Instant>,
    /// Tunnels in it, of all responders.
    pub(super) tunnels: usize,
}

/// A responder whose lease lives.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) sibling: Arc<Sibling>,
    pub(super) version: String,
    /// The revision of its record.
    pub(super) modified: i64,
}

impl Snapshot {
    /// Whether it is what etcd says.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The revision of etcd up to which it knows everything.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// When etcd last said that this is all there is.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// How many tunnels are in it, those of this responder included.
    pub fn tunnels(&self) -> usize {
        self.tunnels
    }

    /// The live responders and what they run, in the order of their names.
    pub fn responders(&self) -> impl Iterator<Item = (&Arc<Sibling>, &str)> {
        self.live.values().map(|live| (&live.sibling, live.version.as_str()))
    }

    /// The record of a responder whose lease lives.
    pub fn responder(&self, id: &ResponderId) -> Option<&Arc<Sibling>> {
        self.live.get(id).map(|live| &live.sibling)
    }

    /// Who has the node, else who has members of the cluster, best first; `own` is left out. spec: FL-15
    pub fn having(&self, own: &ResponderId, tenant: &TenantId, host: &HostId) -> Vec<Arc<Sibling>> {
        let name = Name { tenant: tenant.clone(), host: host.clone() };
        let Some(held) = self.names.get(&name) else { return Vec::new() };
        let nodes = held.node.iter().map(|entry| (&entry.key.responder, entry.key.epoch));
        let mut found = self.siblings(own, held, nodes);
        if found.is_empty() {
            found = self.siblings(own, held, held.cluster.iter().map(|members| (&members.responder, members.epoch)));
        }
        found.sort_by_cached_key(|sibling| {
            let load = u64::from(sibling.tunnels) * u64::from(u16::MAX) / u64::from(sibling.weight.max(1));
            (sibling.draining, load, turn(&name, &sibling.id))
        });
        found
    }

    /// Each once, where this start of it lives and was not found without the name.
    fn siblings<'a>(
        &self,
        own: &ResponderId,
        held: &Held,
        holders: impl Iterator<Item = (&'a ResponderId, u64)>,
    ) -> Vec<Arc<Sibling>> {
        let mut found: Vec<Arc<Sibling>> = Vec::new();
        for (id, epoch) in holders {
            let Some(sibling) = self.responder(id).filter(|sibling| sibling.epoch == epoch) else { continue };
            if id != own && !held.is_doubted(id, epoch) && !found.iter().any(|known| Arc::ptr_eq(known, sibling)) {
                found.push(Arc::clone(sibling));
            }
        }
        found
    }

    /// Whether a claim with this key does not fit to what others have. A view that is stale refuses nothing. spec: FL-16
    pub fn taken(&self, own: &ResponderId, place: &Place, pin: Option<SpkiPin>) -> Option<Taken> {
        let claim = &place.claim;
        if self.standing != Standing::Current {
            return None;
        }
        let node = self.names.get(&Name::new(&claim.tenant, &claim.node));
        let cluster = self.names.get(&Name::new(&claim.tenant, &claim.cluster));
        let is_elsewhere = |id: &ResponderId, epoch: u64| id != own && self.is_live(id, epoch);
        if node.is_some_and(|held| held.cluster.iter().any(|one| is_elsewhere(&one.responder, one.epoch))) {
            return Some(Taken::NodeIsCluster);
        }
        let is_other = |entry: &Entry| is_elsewhere(&entry.key.responder, entry.key.epoch);
        if cluster.is_some_and(|held| held.node.iter().any(|entry| is_other(entry))) {
            return Some(Taken::ClusterIsNode);
        }
        // An instance that shows its next certificate shows it to one responder after the other.
        let is_somebody_else = |entry: &Entry| entry.pin != pin && entry.instance != place.instance;
        let has_other_key = |held: &Held| held.node.iter().any(|entry| is_other(entry) && is_somebody_else(entry));
        node.is_some_and(has_other_key).then_some(Taken::OtherKey)
    }

    /// Tunnels of `own` under this name that came later to the directory than what they do not fit to. spec: FL-17
    pub(super) fn overruled(&self, own: &ResponderId, name: &Name) -> Vec<Arc<Entry>> {
        let Some(held) = self.names.get(name) else { return Vec::new() };
        let live = || held.node.iter().filter(|entry| self.is_live(&entry.key.responder, entry.key.epoch));
        let of_own = live().filter(|entry| entry.key.responder == *own);
        let others = held.cluster.iter().filter(|one| one.responder != *own && self.is_live(&one.responder, one.epoch));
        let cluster_since = others.map(|one| one.created).min();
        let is_later = |entry: &&Arc<Entry>| {
            let first = |other: &&Arc<Entry>| {
                let is_somebody_else = other.pin != entry.pin && other.instance != entry.instance;
                other.key.responder != *own && is_somebody_else && other.created < entry.created
            };
            live().any(|other| first(&other)) || cluster_since.is_some_and(|since| since < entry.created)
        };
        of_own.filter(is_later).cloned().collect()
    }

    fn is_live(&self, id: &ResponderId, epoch: u64) -> bool {
        self.responder(id).is_some_and(|sibling| sibling.epoch == epoch)
    }
}

/// Whose turn it is among those with the same load: another one for another name.
fn turn(name: &Name, id: &ResponderId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, id).hash(&mut hasher);
    hasher.finish()
}

/// How many tunnels each start of each responder has.
pub(super) type Counts = HashMap<(ResponderId, u64), u32>;
