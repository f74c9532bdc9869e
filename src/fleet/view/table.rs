//! From what etcd says, event by event, to the next snapshot. One writer; no clock, no I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::conflict::{Judge, Verdict};
use super::key::{Key, Prefix, TunnelKey};
use super::lost::{Lost, MAX_LOST};
use super::names::{Down, Entry, Held, Name};
use super::record::{RecordError, ResponderRecord, TunnelRecord};
use super::snapshot::{Live, Snapshot, Standing};
use super::starts::{Start, Starts};
use crate::fleet::sibling::Sibling;
use crate::id::{HostId, Place, ResponderId, TenantId, TunnelId};

/// The most responders of a fleet that are known. spec: FL-18
pub const MAX_RESPONDERS: usize = 1024;
/// The most tunnels of a fleet that are known. spec: FL-18
pub const MAX_TUNNELS: usize = 4 << 20;

/// No etcd has this id.
const NO_CLUSTER: u64 = 0;

/// A key and its value as etcd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The whole key, with its prefix.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision at which the key came to be.
    pub created: i64,
    /// The revision at which it got this value.
    pub modified: i64,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has this value now.
    Put(Stored),
    /// A key is gone: deleted, or with its lease.
    Gone {
        /// The whole key.
        key: Vec<u8>,
        /// The revision of the end.
        modified: i64,
    },
}

/// What became of events.
#[derive(Debug, Default)]
pub struct Applied {
    /// Tunnels of this responder that must end: their name belonged to somebody else before. spec: FL-17
    pub overruled: Vec<TunnelId>,
    /// Keys and values that are none of the directory, or beyond its bounds.
    pub ignored: u64,
    /// What was wrong with the last of them.
    pub fault: Option<String>,
}

/// The directory as its writer has it.
#[derive(Debug)]
pub(super) struct Table {
    prefix: Prefix,
    own: ResponderId,
    /// Which etcd it is; another one has other revisions.
    cluster: u64,
    entries: HashMap<(Start, TunnelId), Arc<Entry>>,
    /// Of those of them at whose node anything is down.
    down: HashMap<(Start, TunnelId), Box<Down>>,
    responders: BTreeMap<ResponderId, Arc<Live>>,
    starts: Starts,
    /// Those of this responder.
    own_starts: HashSet<Start>,
    lost: Lost,
    snapshot: Snapshot,
}

impl Table {
    pub(super) fn new(prefix: Prefix, own: ResponderId) -> Self {
        Self {
            prefix,
            own,
            cluster: NO_CLUSTER,
            entries: HashMap::new(),
            down: HashMap::new(),
            responders: BTreeMap::new(),
            starts: Starts::default(),
            own_starts: HashSet::new(),
            lost: Lost::default(),
            snapshot: Snapshot::default(),
        }
    }

    /// The snapshot of now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// A table for everything that etcd had at `revision`. `None` when that is older than what is known of the same etcd: a
    /// member that lags behind was asked. spec: FL-13
    pub(super) fn empty_for(&self, cluster: u64, revision: i64) -> Option<Self> {
        let is_known = cluster == self.cluster && revision < self.snapshot.revision;
        (!is_known).then(|| Self { cluster, ..Self::new(self.prefix.clone(), self.own.clone()) })
    }

    /// It, with all of that in it.
    pub(super) fn filled(mut self, revision: i64, all: Vec<Stored>) -> (Self, Applied) {
        let applied = self.apply(revision, all.into_iter().map(Change::Put).collect());
        (self, applied)
    }

    /// Puts another one in its place, which is returned. When etcd was heard, how it stands, and what was there lately holds on.
    pub(super) fn replace(&mut self, mut next: Self) -> Self {
        (next.snapshot.heard, next.snapshot.standing) = (self.snapshot.heard, self.snapshot.standing);
        next.snapshot.recent = self.snapshot.recent.clone();
        let gone = self.responders.keys().filter(|id| !next.responders.contains_key(*id));
        self.lose(&gone.take(MAX_LOST).cloned().collect::<Vec<_>>());
        next.lost = std::mem::take(&mut self.lost);
        next.responders.keys().for_each(|id| next.lost.found(id));
        next.snapshot.lost = next.lost.shared();
        std::mem::replace(self, next)
    }

    /// The records of responders go. Whoever has not said that he leaves may live on, with all that he had. spec: FL-24
    fn lose(&mut self, gone: &[ResponderId]) {
        let live = gone.iter().filter(|id| **id != self.own).filter_map(|id| self.responders.get(id));
        let lost: Vec<Arc<Sibling>> =
            live.map(|live| Arc::clone(&live.sibling)).filter(|sibling| !sibling.draining).collect();
        let start = |sibling: &Arc<Sibling>| self.starts.find(&sibling.id, sibling.epoch).map(|(start, _)| start);
        let mut names: HashMap<Start, HashSet<Name>> =
            lost.iter().filter_map(start).map(|start| (start, HashSet::new())).collect();
        if !names.is_empty() {
            for entry in self.entries.values() {
                if let Some(names) = names.get_mut(&entry.start) {
                    names.extend(names_of(entry));
                }
            }
        }
        for sibling in lost {
            let names = start(&sibling).and_then(|start| names.remove(&start)).unwrap_or_default();
            self.lost.lose(sibling, names);
        }
    }

    pub(super) fn follows(&self, cluster: u64, revision: i64) -> bool {
        cluster == self.cluster && revision >= self.snapshot.revision
    }

    pub(super) fn begin_anew(&mut self) {
        self.cluster = NO_CLUSTER;
    }

    /// Events up to `revision`, in etcd's order. Those that are known already change nothing. spec: FL-12
    pub(super) fn apply(&mut self, revision: i64, changes: Vec<Change>) -> Applied {
        let mut applied = Applied::default();
        let mut touched = Touched::default();
        for change in changes {
            if let Err(fault) = self.change(change, &mut touched) {
                applied.ignored += 1;
                applied.fault = Some(fault);
            }
        }
        self.renew_counts(&touched.responders);
        self.snapshot.revision = self.snapshot.revision.max(revision);
        self.snapshot.tunnels = self.entries.len();
        applied.overruled = self.overruled(touched);
        applied
    }

    /// Tunnels of this responder that lose their names, of those that may do so by what has changed. spec: FL-17
    fn overruled(&self, touched: Touched) -> Vec<TunnelId> {
        let Some(own) = self.own_start() else { return Vec::new() };
        let mut names = touched.names;
        if touched.lives_otherwise {
            let of_own = self.entries.values().filter(|entry| entry.start == own);
            names.extend(of_own.flat_map(|entry| names_of(entry)));
        }
        let judge = Judge { live: &self.snapshot.starts, own };
        let (mut lost, mut clusters) = (HashSet::new(), HashSet::new());
        for name in names {
            let verdict = self.snapshot.names.get((name.tenant.as_str(), name.host.as_str()), |held| judge.of(held));
            let Verdict { nodes, cluster } = verdict.unwrap_or_default();
            lost.extend(nodes);
            if cluster {
                clusters.insert(name);
            }
        }
        if !clusters.is_empty() {
            let of_own = self.entries.values().filter(|entry| entry.start == own);
            let of_them = of_own.filter(|entry| clusters.contains(&names_of(entry)[1]));
            lost.extend(of_them.map(|entry| entry.tunnel));
        }
        lost.into_iter().collect()
    }

    /// The start of this responder that lives, if it has tunnels.
    fn own_start(&self) -> Option<Start> {
        let live = self.responders.get(&self.own)?;
        self.starts.find(&self.own, live.sibling.epoch).map(|(start, _)| start)
    }

    pub(super) fn stand(&mut self, standing: Standing) {
        self.snapshot.standing = standing;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.snapshot.heard = Some(now);
        if !self.lost.is_empty() {
            self.lost.look(now);
            self.snapshot.lost = self.lost.shared();
        }
    }

    /// A responder said that the name is not there.
    pub(super) fn doubt(&mut self, id: &ResponderId, tenant: &TenantId, host: &HostId) {
        let name = Name::new(tenant, host.clone());
        for missing in self.snapshot.lost.iter().filter(|missing| missing.sibling.id == *id) {
            missing.has_not(&name);
        }
        let Some(live) = self.responders.get(id) else { return };
        if let Some((start, _)) = self.starts.find(id, live.sibling.epoch) {
            self.snapshot.names.doubt(&name, start);
        }
    }

    fn change(&mut self, change: Change, touched: &mut Touched) -> Result<(), String> {
        let (key, modified) = match &change {
            Change::Put(stored) => (&stored.key, stored.modified),
            Change::Gone { key, modified } => (key, *modified),
        };
        // Of somebody else who has keys below the prefix, such as another fleet. spec: FL-3
        if modified <= self.snapshot.revision || !self.prefix.has(key) {
            return Ok(());
        }
        let parsed = self.prefix.parse(key);
        let parsed = parsed.ok_or_else(|| format!("{} is no key of the directory", key.escape_ascii()))?;
        match (parsed, change) {
            (Key::Responder(id), Change::Put(stored)) => {
                let before = self.epoch(&id);
                let put = self.put_responder(id.clone(), &stored).map_err(|error| named_key(&stored.key, &error));
                touched.lives_otherwise |= before != self.epoch(&id);
                touched.responders.insert(id);
                put
            }
            (Key::Responder(id), Change::Gone { .. }) => {
                if self.responders.get(&id).is_some_and(|live| live.modified <= modified) {
                    // Its tunnels go with it, in this order: what it had is still there now.
                    self.lose(std::slice::from_ref(&id));
                    self.responders.remove(&id);
                    touched.lives_otherwise = true;
                }
                touched.responders.insert(id);
                Ok(())
            }
            (Key::Tunnel(key), Change::Put(stored)) => {
                self.put_tunnel(&key, &stored, touched).map_err(|error| named_key(&stored.key, &error))
            }
            (Key::Tunnel(key), Change::Gone { .. }) => {
                if self.entry(&key).is_some_and(|entry| entry.modified <= modified) {
                    self.remove_tunnel(&key, touched);
                }
                Ok(())
            }
        }
    }

    fn epoch(&self, id: &ResponderId) -> Option<u64> {
        self.responders.get(id).map(|live| live.sibling.epoch)
    }

    fn entry(&self, key: &TunnelKey) -> Option<&Arc<Entry>> {
        let (start, _) = self.starts.find(&key.responder, key.epoch)?;
        self.entries.get(&(start, key.tunnel))
    }

    fn put_responder(&mut self, id: ResponderId, stored: &Stored) -> Result<(), Fault> {
        let known = self.responders.get(&id);
        if known.is_some_and(|live| live.modified >= stored.modified) {
            return Ok(());
        }
        if known.is_none() && self.responders.len() >= MAX_RESPONDERS {
            return Err(Fault::Full("responders"));
        }
        let record = match ResponderRecord::decode(&stored.value) {
            Ok(record) => record,
            Err(error) => {
                self.responders.remove(&id);
                return Err(error.into());
            }
        };
        let ResponderRecord { epoch, version, siblings, initiators, region, weight, draining } = record;
        let (siblings_at, initiators_at, tunnels) = (siblings, initiators, 0);
        let sibling = Sibling { id: id.clone(), siblings_at, initiators_at, region, weight, epoch, draining, tunnels };
        let live = Live { sibling: Arc::new(sibling), version, modified: stored.modified };
        self.lost.found(&id);
        self.responders.insert(id, Arc::new(live));
        Ok(())
    }

    fn put_tunnel(&mut self, key: &TunnelKey, stored: &Stored, touched: &mut Touched) -> Result<(), Fault> {
        let known = self.entry(key).cloned();
        if known.as_ref().is_some_and(|entry| entry.modified >= stored.modified) {
            return Ok(());
        }
        if known.is_none() && self.entries.len() >= MAX_TUNNELS {
            return Err(Fault::Full("tunnels"));
        }
        let record = match TunnelRecord::decode(&stored.value) {
            Ok(record) => record,
            Err(error) => {
                self.remove_tunnel(key, touched);
                return Err(error.into());
            }
        };
        let TunnelKey { responder, epoch, tunnel } = key;
        let (created, modified) = (stored.created, stored.modified);
        let Place { claim, instance, .. } = record.place;
        let start = match &known {
            Some(entry) => entry.start,
            None => self.starts.add(responder, *epoch),
        };
        let TunnelRecord { key: pin, issued, suspect, down: mut services, http_down: http, .. } = record;
        // A name that is there twice is one service.
        services.sort();
        services.dedup();
        let down = (http || !services.is_empty()).then(|| Box::new(Down { services, http }));
        let former_down = self.down.remove(&(start, *tunnel));
        let entry = Entry { start, tunnel: *tunnel, claim, instance, pin, issued, suspect, created, modified };
        let entry = Arc::new(entry);
        let is_own = *responder == self.own;
        // The new one first: a record that is written again must not leave its names for a moment.
        let with_down = (&entry, down.as_deref());
        self.snapshot.names.insert(with_down, |name, held| touched.name(is_own, name, held, &self.own_starts));
        if let Some(former) = known {
            let with_down = (&former, former_down.as_deref());
            self.snapshot.names.remove(with_down, |name, held| touched.name(is_own, name, held, &self.own_starts));
        }
        if let Some(down) = down {
            self.down.insert((start, *tunnel), down);
        }
        if is_own {
            self.own_starts.insert(start);
        }
        touched.responders.insert(responder.clone());
        self.entries.insert((start, *tunnel), entry);
        Ok(())
    }

    fn remove_tunnel(&mut self, key: &TunnelKey, touched: &mut Touched) {
        let TunnelKey { responder, epoch, tunnel } = key;
        let Some((start, _)) = self.starts.find(responder, *epoch) else { return };
        let Some(entry) = self.entries.remove(&(start, *tunnel)) else { return };
        let down = self.down.remove(&(start, *tunnel));
        let (recent, heard) = (&self.snapshot.recent, self.snapshot.heard);
        self.snapshot.names.remove((&entry, down.as_deref()), |name, held| {
            touched.name(false, name, held, &self.own_starts);
            if let Some(heard) = heard.filter(|_| held.is_empty()) {
                recent.push(name, heard);
            }
        });
        self.starts.remove(responder, *epoch);
        if self.starts.find(responder, *epoch).is_none() {
            self.own_starts.remove(&start);
        }
        touched.responders.insert(responder.clone());
    }

    /// Siblings say how many tunnels they have.
    fn renew_counts(&mut self, touched: &HashSet<ResponderId>) {
        for id in touched {
            let Some(live) = self.responders.get_mut(id) else { continue };
            let tunnels = self.starts.find(id, live.sibling.epoch).map_or(0, |(_, tunnels)| tunnels);
            if live.sibling.tunnels != tunnels {
                let sibling = Arc::new(Sibling { tunnels, ..(*live.sibling).clone() });
                *live = Arc::new(Live { sibling, version: live.version.clone(), modified: live.modified });
            }
        }
        if !touched.is_empty() {
            let start = |live: &Arc<Live>| {
                let (start, _) = self.starts.find(&live.sibling.id, live.sibling.epoch)?;
                Some((start, Arc::clone(&live.sibling)))
            };
            self.snapshot.starts = Arc::new(self.responders.values().filter_map(start).collect());
            self.snapshot.live = Arc::new(self.responders.clone());
            self.snapshot.lost = self.lost.shared();
        }
    }
}

/// What a batch of events was about.
#[derive(Default)]
struct Touched {
    responders: HashSet<ResponderId>,
    /// Names under which this responder has something.
    names: HashSet<Name>,
    /// Another start of a responder lives, or none.
    lives_otherwise: bool,
}

impl Touched {
    fn name(&mut self, is_own: bool, name: &Name, held: &Held, own: &HashSet<Start>) {
        if (is_own || own.iter().any(|start| held.has(*start))) && !self.names.contains(name) {
            self.names.insert(name.clone());
        }
    }
}

/// The name of its node and that of its cluster.
fn names_of(entry: &Entry) -> [Name; 2] {
    let claim = &entry.claim;
    [Name::new(&claim.tenant, &claim.node), Name::new(&claim.tenant, &claim.cluster)]
}

/// Why an event changes nothing.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("there are too many {0} in the directory")]
    Full(&'static str),
}

fn named_key(key: &[u8], error: &Fault) -> String {
    format!("{} {error}", key.escape_ascii())
}
