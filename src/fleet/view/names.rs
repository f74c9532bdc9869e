//! Which name is on which responder: an index in parts, each behind a lock that is held for one name at a time.
//!
//! A lookup asks one name, so one part is all that it needs to agree with itself. Flat tables rather than a tree that shares what has
//! not changed: of a million names each step down a tree is memory that no cache has, and here there are two.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

use super::few::Few;
use super::record::Certified;
use super::starts::Start;
use crate::id::{Claim, HostId, InstanceId, ServiceName, SpkiPin, TenantId, TunnelId};

/// Into how many parts the names go: enough that a reader seldom meets the writer, and that a part grows quickly.
const PARTS: usize = 256;

/// A name within its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) tenant: TenantId,
    pub(super) host: HostId,
}

/// A tunnel of the directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) start: Start,
    pub(super) tunnel: TunnelId,
    pub(super) claim: Claim,
    pub(super) instance: InstanceId,
    pub(super) pin: Option<SpkiPin>,
    pub(super) issued: Option<Certified>,
    /// Its responder does not hear it.
    pub(super) suspect: bool,
    /// The revisions at which it was first and last written.
    pub(super) created: i64,
    pub(super) modified: i64,
}

/// What is down at the node of a tunnel. Most have nothing down, so that it is kept beside the entries and not in them. spec: FL-8
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Down {
    pub(super) services: Vec<ServiceName>,
    /// All that is exported of HTTP.
    pub(super) http: bool,
}

/// What stands under a name.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Tunnels of the node that has this name.
    node: Few<OfNode>,
    /// Who has members of the cluster that has this name.
    cluster: Few<Members>,
    /// Who said that the name is not there.
    doubted: Few<Start>,
}

/// A tunnel of a node, and whose it is, so that a lookup need not follow it.
#[derive(Debug)]
pub(super) struct OfNode {
    pub(super) start: Start,
    pub(super) entry: Arc<Entry>,
}

/// Members of a cluster on one start of a responder.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) start: Start,
    /// Boxed: it is larger than all else under a name, and most names are of no cluster.
    tally: Box<Tally>,
}

/// The tunnels of these members.
#[derive(Debug, Default)]
struct Tally {
    tunnels: u32,
    /// How many of them came at which revision.
    created: BTreeMap<i64, u32>,
    /// In how many of them a service is down; of those in which it is in none nothing is kept.
    down: BTreeMap<ServiceName, u32>,
    /// In how many all that is exported of HTTP.
    http_down: u32,
}

/// The index. One writer; a clone is the same index.
#[derive(Debug, Clone)]
pub(super) struct Names(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    hasher: RandomState,
    parts: Box<[RwLock<Part>]>,
}

type Part = HashTable<(Name, Held)>;

impl Name {
    pub(super) fn new(tenant: &TenantId, host: impl Into<HostId>) -> Self {
        Self { tenant: tenant.clone(), host: host.into() }
    }

    fn is(&self, (tenant, host): (&str, &str)) -> bool {
        self.host.as_str() == host && self.tenant.as_str() == tenant
    }
}

impl Default for Names {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| RwLock::default()).collect();
        Self(Arc::new(Parts { hasher: RandomState::new(), parts }))
    }
}

impl Names {
    /// What `look` sees under a name; `None` where there is nothing. Nobody changes the name meanwhile, so it should be short.
    pub(super) fn get<T>(&self, name: (&str, &str), look: impl FnOnce(&Held) -> T) -> Option<T> {
        let hash = self.0.hash(name);
        let part = self.0.read(hash);
        part.find(hash, |(known, _)| known.is(name)).map(|(_, held)| look(held))
    }

    /// `look` is asked of the node's name and of the cluster's, when it is there.
    pub(super) fn insert(&self, (entry, down): (&Arc<Entry>, Option<&Down>), mut look: impl FnMut(&Name, &Held)) {
        let Claim { tenant, node, cluster } = &entry.claim;
        let node = Name::new(tenant, node);
        self.update(&node, |held| {
            held.trust(entry.start);
            held.node.push(OfNode { start: entry.start, entry: Arc::clone(entry) });
            look(&node, held);
        });
        let cluster = Name::new(tenant, cluster);
        self.update(&cluster, |held| {
            held.trust(entry.start);
            match held.cluster.iter_mut().find(|members| members.start == entry.start) {
                Some(members) => members.tally.enter(entry.created, down),
                None => {
                    let mut tally = Box::<Tally>::default();
                    tally.enter(entry.created, down);
                    held.cluster.push(Members { start: entry.start, tally });
                }
            }
            look(&cluster, held);
        });
    }

    /// Likewise, when it is gone; `down` is what was down when it came.
    pub(super) fn remove(&self, (entry, down): (&Arc<Entry>, Option<&Down>), mut look: impl FnMut(&Name, &Held)) {
        let Claim { tenant, node, cluster } = &entry.claim;
        let node = Name::new(tenant, node);
        self.update(&node, |held| {
            held.node.retain(|of| !Arc::ptr_eq(&of.entry, entry));
            look(&node, held);
        });
        let cluster = Name::new(tenant, cluster);
        self.update(&cluster, |held| {
            if let Some(members) = held.cluster.iter_mut().find(|members| members.start == entry.start) {
                members.tally.leave(entry.created, down);
            }
            held.cluster.retain(|members| members.tally.tunnels > 0);
            look(&cluster, held);
        });
    }

    /// Forgets that this start of a responder has the name, until that is said anew.
    pub(super) fn doubt(&self, name: &Name, start: Start) {
        let key = (name.tenant.as_str(), name.host.as_str());
        if self.get(key, |held| held.has(start) && !held.is_doubted(start)) == Some(true) {
            self.update(name, |held| held.doubted.push(start));
        }
    }

    fn update(&self, name: &Name, change: impl FnOnce(&mut Held)) {
        let key = (name.tenant.as_str(), name.host.as_str());
        let hash = self.0.hash(key);
        let mut part = self.0.write(hash);
        if let Ok(mut found) = part.find_entry(hash, |(known, _)| known.is(key)) {
            let held = &mut found.get_mut().1;
            change(held);
            held.forget_needless_doubts();
            if held.is_empty() {
                found.remove();
            }
            return;
        }
        let mut held = Held::default();
        change(&mut held);
        if !held.is_empty() {
            let rehash = |(name, _): &(Name, Held)| self.0.hash((name.tenant.as_str(), name.host.as_str()));
            part.insert_unique(hash, (name.clone(), held), rehash);
        }
    }
}

impl Members {
    /// The revision at which the first of them came.
    pub(super) fn since(&self) -> i64 {
        self.tally.created.first_key_value().map_or(i64::MAX, |(created, _)| *created)
    }

    /// Whether this service is down in all of their tunnels; `None`: all that a request which names none could mean. spec: CT-61
    pub(super) fn is_down(&self, service: Option<&ServiceName>) -> bool {
        let down = service.map_or(self.tally.http_down, |service| self.tally.down.get(service).copied().unwrap_or(0));
        down >= self.tally.tunnels
    }
}

impl Tally {
    fn enter(&mut self, created: i64, down: Option<&Down>) {
        self.tunnels += 1;
        *self.created.entry(created).or_default() += 1;
        if let Some(Down { services, http }) = down {
            services.iter().for_each(|service| *self.down.entry(service.clone()).or_default() += 1);
            self.http_down += u32::from(*http);
        }
    }

    fn leave(&mut self, created: i64, down: Option<&Down>) {
        self.tunnels -= 1;
        one_less(&mut self.created, &created);
        if let Some(Down { services, http }) = down {
            services.iter().for_each(|service| one_less(&mut self.down, service));
            self.http_down -= u32::from(*http);
        }
    }
}

/// Counts one less, and forgets what there is none of.
fn one_less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Parts {
    fn hash(&self, name: (&str, &str)) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The table within goes by the lowest and the highest bits.
    fn part(&self, hash: u64) -> &RwLock<Part> {
        &self.parts[(hash >> 40) as usize % PARTS]
    }

    /// What a panic left half-changed is one name, which the next word on it mends.
    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Part> {
        self.part(hash).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Part> {
        self.part(hash).write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    pub(super) fn node(&self) -> &[OfNode] {
        self.node.as_slice()
    }

    pub(super) fn cluster(&self) -> &[Members] {
        self.cluster.as_slice()
    }

    pub(super) fn is_doubted(&self, start: Start) -> bool {
        self.doubted.as_slice().contains(&start)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.node().is_empty() && self.cluster().is_empty()
    }

    pub(super) fn has(&self, start: Start) -> bool {
        self.node().iter().any(|of| of.start == start) || self.cluster().iter().any(|members| members.start == start)
    }

    /// The directory says anew that it is there.
    fn trust(&mut self, start: Start) {
        self.doubted.retain(|doubted| *doubted != start);
    }

    fn forget_needless_doubts(&mut self) {
        if !self.doubted.as_slice().is_empty() {
            let mut doubted = std::mem::take(&mut self.doubted);
            doubted.retain(|start| self.has(*start));
            self.doubted = doubted;
        }
    }
}
