//! The directory in memory: what etcd said last, as a snapshot that is asked without waiting.
//!
//! Row 9, and sans-IO: time is an argument, etcd's events are values. One writer feeds it; everybody else reads. spec: FL-12
//!
//! * Who is in the fleet is a snapshot. Who has which name is an index that snapshots share, which is changed in place one name at a
//!   time: so an event and a lookup cost the same, however many tunnels the fleet has.
//! * What lives is decided when it is asked: a tunnel counts while the record of its responder is there with the same epoch. So
//!   the death or the restart of a responder takes all of its tunnels away at once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};

mod conflict;
mod few;
mod key;
mod lost;
mod names;
mod recent;
mod record;
mod snapshot;
mod starts;
mod table;

pub use key::{Key, MAX_PREFIX_BYTES, Prefix, PrefixError, TunnelKey};
pub use record::{
    Certified, MAX_ADDRESSES, MAX_TEXT_BYTES, MAX_VALUE_BYTES, RecordError, ResponderRecord, TunnelRecord,
};
pub use snapshot::{Snapshot, Standing, Taken};
pub use table::{Applied, Change, MAX_RESPONDERS, MAX_TUNNELS, Stored};

use crate::fleet::sibling::{Having, Perhaps, Sibling, Siblings};
use crate::id::{ClusterId, HostId, NodeId, Place, ResponderId, ServiceName, SpkiPin, TenantId};
use table::Table;

/// The directory as one responder sees it. Readers wait for nothing but the change of one name; who writes waits for other writers.
pub struct View {
    own: ResponderId,
    current: ArcSwap<Snapshot>,
    table: Mutex<Table>,
}

impl View {
    /// Nothing is known yet. `own` is the responder itself.
    pub fn new(prefix: Prefix, own: ResponderId) -> Self {
        let table = Mutex::new(Table::new(prefix, own.clone()));
        Self { own, current: ArcSwap::default(), table }
    }

    /// The responder itself.
    pub fn own(&self) -> &ResponderId {
        &self.own
    }

    /// What is known now. Wait-free.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Everything that etcd had at `revision`, in the place of what was known. `None`, and nothing changes, when the same
    /// etcd said something later already. Takes its time where there is much; for whoever applies changes, too.
    pub fn read_whole(&self, cluster: u64, revision: i64, all: Vec<Stored>) -> Option<Applied> {
        let empty = self.table().empty_for(cluster, revision)?;
        // Without the lock, which requests take as well: it lasts as long as there is much of it.
        let (next, applied) = empty.filled(revision, all);
        let mut table = self.table();
        let former = table.replace(next);
        self.publish(&table);
        drop(table);
        drop(former);
        Some(applied)
    }

    /// Whether changes from the next revision on are what is missing: it is the same etcd, and not at an earlier revision.
    pub fn follows(&self, cluster: u64, revision: i64) -> bool {
        self.table().follows(cluster, revision)
    }

    /// Takes the next whole read whatever its revision is: etcd was restored from a copy, or emptied. Until then everything
    /// stays as it is.
    pub fn begin_anew(&self) {
        self.table().begin_anew();
    }

    /// Events up to `revision`, in the order in which etcd tells them; it may tell some again.
    pub fn apply(&self, revision: i64, changes: Vec<Change>) -> Applied {
        let mut table = self.table();
        let applied = table.apply(revision, changes);
        self.publish(&table);
        applied
    }

    /// Etcd has just said that there is nothing else.
    pub fn is_current(&self, now: Instant) {
        let mut table = self.table();
        table.stand(Standing::Current);
        table.heard(now);
        self.publish(&table);
    }

    /// Etcd is not heard any more: what is known stays, and is marked.
    pub fn is_stale(&self) {
        let mut table = self.table();
        if table.snapshot().standing() == Standing::Current {
            table.stand(Standing::Stale);
            self.publish(&table);
        }
    }

    /// Whether a claim with this key does not fit to what the siblings have. A view that is stale refuses nothing.
    /// `issued` is of a certificate that proves the claim by its names.
    pub fn taken(&self, place: &Place, pin: Option<SpkiPin>, issued: Option<Certified>) -> Option<Taken> {
        self.snapshot().taken(&self.own, place, (pin, issued))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, table: &Table) {
        self.current.store(Arc::new(table.snapshot()));
    }
}

impl Siblings for View {
    fn having(&self, tenant: &TenantId, host: &HostId) -> Vec<Arc<Sibling>> {
        self.snapshot().having(&self.own, tenant, host)
    }

    fn having_for(&self, tenant: &TenantId, host: &HostId, service: Option<&ServiceName>) -> Vec<Having> {
        self.snapshot().having_for(&self.own, (tenant, host), service)
    }

    fn hear(&self, tenant: &TenantId, node: &NodeId) -> bool {
        self.snapshot().hear(&self.own, tenant, node)
    }

    fn perhaps_having(&self, tenant: &TenantId, host: &HostId) -> Vec<Perhaps> {
        self.snapshot().perhaps_having(&self.own, tenant, host)
    }

    fn has_known(&self, tenant: &TenantId, host: &HostId, now: Instant) -> bool {
        self.snapshot().has_known(tenant, host, now)
    }

    fn are_unread(&self) -> bool {
        self.snapshot().standing() == Standing::Empty
    }

    fn cluster_of(&self, tenant: &TenantId, host: &HostId) -> Option<ClusterId> {
        self.snapshot().cluster_of(tenant, host)
    }

    fn not_here(&self, id: &ResponderId, tenant: &TenantId, host: &HostId) {
        let mut table = self.table();
        table.doubt(id, tenant, host);
        self.publish(&table);
    }

    fn all(&self) -> Vec<Arc<Sibling>> {
        self.snapshot()
            .responders()
            .map(|(sibling, _)| sibling)
            .filter(|sibling| sibling.id != self.own)
            .cloned()
            .collect()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("own", &self.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
