//! Fair shares: what each tenant and each node may have of a responder, and whose turn it is when several want all of it.
//!
//! * What may *begin* is bounded: exchanges, raw streams and flows under way, and requests a second. What is beyond is refused
//!   with 429 and the time to come again: for a rate, when there is room.
//! * What may *move* is bounded: bytes a second. What is beyond waits, which whoever sends it feels as back-pressure. It is
//!   not cut for that, as far as there is room to keep it (SE-11).
//! * What is *contended*, the thread that moves everything, is shared by weight: tenants take turns, see `turns`. There are
//!   turns only while more than one tenant uses the responder.
//!
//! What goes on through a sibling of the fleet is bounded without anybody's word: a node that hangs there leaves room on the
//! connection for all others behind it. spec: FL-53
//!
//! Without limits and with one tenant all of this costs an exchange a comparison of names and two counts.
//!
//! Row 6: uses the rows above it. `settings`, `bucket` and `turns` are pure, with the time as an argument.

mod account;
mod bucket;
mod common;
mod passage;
mod settings;
mod stake;
mod turns;
mod wait;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use self::account::Owner;
use self::common::Common;
use self::passage::{Passage, Way};
use crate::id::{Claim, HostId, ResponderId, TenantId};
use crate::telemetry::ShareMetrics;

pub use self::account::{Account, Exceeded, What};
pub use self::settings::{
    DEFAULT_WEIGHT, MAX_WEIGHT, NodePattern, NodeShare, PatternError, Rate, Share, ShareSettings, TenantShare,
};
pub use self::stake::{Meter, Stake};
pub use self::wait::Wait;

/// For how long several tenants take turns after one that is alone would need none: some seconds without others are no rest.
const CALM: Duration = Duration::from_secs(10);
/// How many accounts there may be before those that are as good as new are taken out.
const FIRST_SWEEP: usize = 1_024;

/// The accounts of all tenants and nodes of a responder.
#[derive(Debug, Default)]
pub struct Shares {
    /// The tenant that uses the responder alone.
    sole: ArcSwapOption<Account>,
    has_nodes: AtomicBool,
    books: Mutex<Books>,
    common: Arc<Common>,
}

#[derive(Debug, Default)]
struct Books {
    settings: ShareSettings,
    tenants: HashMap<TenantId, Arc<Account>>,
    nodes: HashMap<Claim, Arc<Account>>,
    ways: HashMap<Way, Arc<Account>>,
    /// All that goes through each sibling.
    passages: HashMap<ResponderId, Arc<Passage>>,
    /// The number of the account that was made last.
    last_number: u64,
    /// The tenant that began something last as one of several, by its number, and when.
    last: Option<(u64, Instant)>,
    contended_until: Option<Instant>,
    /// At how many accounts the next sweep is.
    sweep_at: usize,
}

impl Shares {
    /// Accounts without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes by these settings from now on. What is under way stays, and so does what is left of each rate.
    pub fn update(&self, settings: ShareSettings) {
        let (mut books, now) = (self.lock(), now());
        if books.settings == settings {
            return;
        }
        self.has_nodes.store(settings.has_nodes(), Ordering::Relaxed);
        for (tenant, account) in &books.tenants {
            let (share, weight) = settings.tenant(tenant);
            account.set(share, weight, now);
        }
        for (claim, account) in &books.nodes {
            account.set(settings.node(claim), DEFAULT_WEIGHT, now);
        }
        books.settings = settings;
    }

    /// Counts into these metrics from here on; the first call decides.
    pub fn count_with(&self, metrics: ShareMetrics) {
        self.common.count_with(metrics);
    }

    /// The account of a tenant that is about to begin something.
    pub fn tenant(&self, tenant: &TenantId) -> Arc<Account> {
        match &*self.sole.load() {
            Some(sole) if sole.is_of(tenant) => Arc::clone(sole),
            _ => self.tenant_of_several(tenant),
        }
    }

    fn tenant_of_several(&self, tenant: &TenantId) -> Arc<Account> {
        let (mut books, now) = (self.lock(), now());
        let account = books.tenant(tenant, &self.common, now);
        let is_contended = books.note(&account, now);
        self.common.contend(is_contended);
        // Under the lock, so that no sweep takes it for one that nobody knows.
        self.sole.store(Some(Arc::clone(&account)).filter(|_| !is_contended));
        account
    }

    /// The account of a node to which something is about to go; `None`: no node is limited.
    pub fn node(&self, claim: &Claim) -> Option<Arc<Account>> {
        self.has_nodes.load(Ordering::Relaxed).then(|| self.lock().node(claim, &self.common, now()))
    }

    /// The account of what goes on to a node or cluster through a sibling. spec: FL-53
    pub fn way(&self, sibling: &ResponderId, (tenant, host_id): (&TenantId, &HostId)) -> Arc<Account> {
        let way = Way { sibling: sibling.clone(), tenant: tenant.clone(), host_id: host_id.clone() };
        self.lock().way(way, &self.common, now())
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn tenant(&mut self, tenant: &TenantId, common: &Arc<Common>, now: Instant) -> Arc<Account> {
        if let Some(account) = self.tenants.get(tenant) {
            return Arc::clone(account);
        }
        let account = Arc::new(self.open(Owner::Tenant(tenant.clone()), common, now));
        let (share, weight) = self.settings.tenant(tenant);
        account.set(share, weight, now);
        self.tenants.insert(tenant.clone(), Arc::clone(&account));
        account
    }

    fn node(&mut self, claim: &Claim, common: &Arc<Common>, now: Instant) -> Arc<Account> {
        if let Some(account) = self.nodes.get(claim) {
            return Arc::clone(account);
        }
        let account = Arc::new(self.open(Owner::Node(Box::new(claim.clone())), common, now));
        account.set(self.settings.node(claim), DEFAULT_WEIGHT, now);
        self.nodes.insert(claim.clone(), Arc::clone(&account));
        account
    }

    fn way(&mut self, way: Way, common: &Arc<Common>, now: Instant) -> Arc<Account> {
        if let Some(account) = self.ways.get(&way) {
            return Arc::clone(account);
        }
        let account = self.open(Owner::Way(Box::new(way.clone())), common, now);
        let passage = Arc::clone(self.passages.entry(way.sibling.clone()).or_default());
        let account = Arc::new(account.through(passage));
        self.ways.insert(way, Arc::clone(&account));
        account
    }

    fn accounts(&self) -> usize {
        self.tenants.len() + self.nodes.len() + self.ways.len()
    }

    /// A new account. Names come from requests: from time to time those are swept out that nobody needs to remember.
    fn open(&mut self, owner: Owner, common: &Arc<Common>, now: Instant) -> Account {
        if self.accounts() >= self.sweep_at.max(FIRST_SWEEP) {
            let is_needed = |account: &Arc<Account>| Arc::strong_count(account) > 1 || !account.is_as_new(now);
            self.tenants.retain(|_, account| is_needed(account));
            self.nodes.retain(|_, account| is_needed(account));
            self.ways.retain(|_, account| is_needed(account));
            // Of none that has an account.
            self.passages.retain(|_, passage| Arc::strong_count(passage) > 1);
            self.sweep_at = 2 * self.accounts();
        }
        self.last_number += 1;
        Account::new(owner, self.last_number, Arc::clone(common))
    }

    /// A tenant begins something. Whether there are others beside it, or were a moment ago.
    fn note(&mut self, account: &Account, now: Instant) -> bool {
        let before = self.last.replace((account.number(), now));
        let is_other = before.is_some_and(|(other, at)| other != account.number() && now < at + CALM);
        let is_over = self.contended_until.is_none_or(|until| now >= until);
        // What others have under way, such as downloads, counts as well.
        let is_beside = || {
            let others = self.tenants.values().filter(|other| other.number() != account.number());
            others.into_iter().any(|other| !other.is_idle())
        };
        if is_other || (is_over && is_beside()) {
            self.contended_until = Some(now + CALM);
            return true;
        }
        !is_over
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
