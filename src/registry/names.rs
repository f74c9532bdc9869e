//! Tenant and name to what holds the name: sorted arrays behind atomic pointers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};

use super::cluster::Cluster;
use super::node::Node;
use crate::id::{HostId, TenantId};

/// How many arrays share the names; a power of two. A change copies one of them: 10 entries at 10,000 names.
pub(super) const SHARDS: usize = 1024;

/// All names. The methods that change something are called with the writers' lock held, so that none overwrites what
/// another has just stored.
pub(super) struct Names<H> {
    /// Keyed at random, so that nobody can choose names that share a shard.
    hasher: RandomState,
    shards: Box<[ArcSwap<Shard<H>>]>,
}

/// What a name stands for.
pub(super) enum Held<H> {
    Node(Arc<Node<H>>),
    Cluster(Arc<Cluster<H>>),
    /// It was one of them until this moment.
    Left(Instant),
}

/// A few names, sorted by hash.
pub(super) struct Shard<H>(Vec<(u64, Arc<Entry<H>>)>);

struct Entry<H> {
    tenant: TenantId,
    name: HostId,
    held: Held<H>,
}

impl<H> Names<H> {
    pub(super) fn new() -> Self {
        let empty = || ArcSwap::from_pointee(Shard(Vec::new()));
        Self { hasher: RandomState::new(), shards: std::iter::repeat_with(empty).take(SHARDS).collect() }
    }

    /// The hash under which [`Names::shard`] and [`Shard::find`] know the name.
    pub(super) fn hash(&self, tenant: &TenantId, name: &HostId) -> u64 {
        self.hasher.hash_one((tenant, name))
    }

    /// The names with this hash, as they are now. Wait-free.
    pub(super) fn shard(&self, hash: u64) -> Guard<Arc<Shard<H>>> {
        self.slot(hash).load()
    }

    /// All shards, each as it is when the iterator reaches it.
    pub(super) fn shards(&self) -> impl Iterator<Item = Arc<Shard<H>>> {
        self.shards.iter().map(ArcSwap::load_full)
    }

    /// What holds the name; for writers, since it counts a reference.
    pub(super) fn get(&self, tenant: &TenantId, name: &HostId) -> Option<Held<H>> {
        let hash = self.hash(tenant, name);
        self.shard(hash).find(hash, tenant, name).cloned()
    }

    pub(super) fn set(&self, tenant: &TenantId, name: &HostId, held: Held<H>) {
        let hash = self.hash(tenant, name);
        let next = self.shard(hash).with(hash, tenant, name, Some(held));
        self.slot(hash).store(Arc::new(next));
    }

    pub(super) fn clear(&self, tenant: &TenantId, name: &HostId) {
        let hash = self.hash(tenant, name);
        let next = self.shard(hash).with(hash, tenant, name, None);
        self.slot(hash).store(Arc::new(next));
    }

    fn slot(&self, hash: u64) -> &ArcSwap<Shard<H>> {
        &self.shards[hash as usize % SHARDS]
    }
}

impl<H> Shard<H> {
    pub(super) fn find(&self, hash: u64, tenant: &TenantId, name: &HostId) -> Option<&Held<H>> {
        self.position(hash, tenant, name).ok().map(|at| &self.0[at].1.held)
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Held<H>> {
        self.0.iter().map(|(_, entry)| &entry.held)
    }

    /// A copy in which the name stands for `held`, or for nothing.
    fn with(&self, hash: u64, tenant: &TenantId, name: &HostId, held: Option<Held<H>>) -> Self {
        let (before, after) = match self.position(hash, tenant, name) {
            Ok(at) => (&self.0[..at], &self.0[at + 1..]),
            Err(at) => self.0.split_at(at),
        };
        let entry = |held| (hash, Arc::new(Entry { tenant: tenant.clone(), name: name.clone(), held }));
        Self(before.iter().cloned().chain(held.map(entry)).chain(after.iter().cloned()).collect())
    }

    /// Where the name stands, or where it would be put.
    fn position(&self, hash: u64, tenant: &TenantId, name: &HostId) -> Result<usize, usize> {
        let start = self.0.partition_point(|(known, _)| *known < hash);
        let same_hash = self.0[start..].iter().take_while(|(known, _)| *known == hash);
        let found = same_hash.into_iter().position(|(_, entry)| entry.name == *name && entry.tenant == *tenant);
        found.map(|offset| start + offset).ok_or(start)
    }
}

impl<H> Clone for Held<H> {
    fn clone(&self) -> Self {
        match self {
            Self::Node(node) => Self::Node(Arc::clone(node)),
            Self::Cluster(cluster) => Self::Cluster(Arc::clone(cluster)),
            Self::Left(at) => Self::Left(*at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(shard: &Shard<()>, hash: u64, tenant: &str, name: &str) -> Option<Instant> {
        match shard.find(hash, &tenant.parse().unwrap(), &name.parse().unwrap()) {
            Some(Held::Left(at)) => Some(*at),
            _ => None,
        }
    }

    #[test]
    fn names_with_the_same_hash_are_told_apart() {
        let now = Instant::now();
        let mut shard = Shard::<()>(Vec::new());
        let names = [(7, "t", "a"), (7, "t", "b"), (7, "u", "a"), (6, "t", "a"), (8, "t", "a")];
        let moment = |i: usize| now + std::time::Duration::from_secs(i as u64);
        for (i, (hash, tenant, name)) in names.into_iter().enumerate() {
            shard = shard.with(hash, &tenant.parse().unwrap(), &name.parse().unwrap(), Some(Held::Left(moment(i))));
        }
        for (i, (hash, tenant, name)) in names.into_iter().enumerate() {
            assert_eq!(left(&shard, hash, tenant, name), Some(moment(i)));
        }
        assert_eq!(left(&shard, 7, "u", "b"), None);
        let cleared = shard.with(7, &"t".parse().unwrap(), &"b".parse().unwrap(), None);
        assert_eq!(left(&cleared, 7, "t", "b"), None);
        assert_eq!(left(&cleared, 7, "u", "a"), Some(moment(2)));
        assert_eq!(cleared.0.len(), names.len() - 1);
    }
}
