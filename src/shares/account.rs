//! What one tenant or one node has under way, and what it may have.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::bucket::Bucket;
use super::common::Common;
use super::passage::{Passage, Way};
use super::settings::{Rate, Share};
use crate::id::{Claim, TenantId};
use crate::message::failure::{Cause, Failure};
use crate::telemetry::{ShareLimit, ShareOwner};

/// When to come again where nobody knows when there is room: an exchange ends when it ends.
const ROOM_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Tenant(TenantId),
    Node(Box<Claim>),
    /// It goes on through a sibling. spec: FL-53
    Way(Box<Way>),
}

/// What begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An exchange of a request for a response.
    Exchange,
    /// A raw stream, which is an exchange, too.
    Stream,
    /// A flow of datagrams.
    Flow,
}

/// The account of one tenant or node, or of a way through a sibling. It lives as long as it has something under way, or is not as
/// good as new.
#[derive(Debug)]
pub struct Account {
    owner: Owner,
    /// Its name among the turns.
    number: u64,
    weight: AtomicU32,
    /// Something bounds what may begin; what may move.
    is_limited: AtomicBool,
    is_metered: AtomicBool,
    exchanges: AtomicU32,
    streams: AtomicU32,
    flows: AtomicU32,
    limits: Mutex<Limits>,
    /// All that goes through the sibling, of the account of a way.
    passage: Option<Arc<Passage>>,
    /// How often the limits were changed.
    changes: Arc<AtomicU64>,
    common: Arc<Common>,
}

/// What it may have, and what is left of its rates.
#[derive(Debug, Default)]
struct Limits {
    share: Share,
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// A share is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    owner: Owner,
    limit: ShareLimit,
    number: u64,
    /// When to come again: a request is in the bucket then, or somebody may have ended.
    pub retry_after: Duration,
}

impl Exceeded {
    /// Whether it is that of one node of a tunnel here: another one of its tenant may have something left.
    pub const fn is_of_node(&self) -> bool {
        matches!(self.owner, Owner::Node(..))
    }

    /// Whether it is that of a way through a sibling: another sibling may have something left. spec: FL-53
    pub const fn is_of_way(&self) -> bool {
        matches!(self.owner, Owner::Way(..))
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, number, .. } = self;
        match self.limit {
            _ if matches!(owner, Owner::Way(_)) => {
                write!(f, "{owner} has its part of what goes through there: {number}")
            }
            ShareLimit::InFlight => write!(f, "{owner} has its {number} requests under way already"),
            ShareLimit::Requests => write!(f, "{owner} has had its {number} requests a second"),
            ShareLimit::Streams => write!(f, "{owner} has its {number} raw streams under way already"),
            ShareLimit::Flows => write!(f, "{owner} has its {number} flows open already"),
        }
    }
}

impl std::error::Error for Exceeded {}

impl From<Exceeded> for Failure {
    fn from(exceeded: Exceeded) -> Self {
        // As of a tunnel that has no room: another sibling may have. spec: FL-53
        let cause = if matches!(exceeded.owner, Owner::Way(_)) { Cause::TunnelFull } else { Cause::Quota };
        Self::new(cause, exceeded.to_string()).retry_after(exceeded.retry_after)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Node(claim) => write!(f, "node {}", claim.node),
            Self::Way(way) => write!(f, "{} at the sibling {}", way.host_id, way.sibling),
        }
    }
}

impl Owner {
    const fn kind(&self) -> ShareOwner {
        match self {
            Self::Tenant(_) => ShareOwner::Tenant,
            Self::Node(_) => ShareOwner::Node,
            Self::Way(_) => ShareOwner::Sibling,
        }
    }
}

impl Account {
    pub(super) fn new(owner: Owner, number: u64, common: Arc<Common>) -> Self {
        Self {
            owner,
            number,
            weight: AtomicU32::new(1),
            is_limited: AtomicBool::default(),
            is_metered: AtomicBool::default(),
            exchanges: AtomicU32::default(),
            streams: AtomicU32::default(),
            flows: AtomicU32::default(),
            limits: Mutex::default(),
            passage: None,
            changes: Arc::default(),
            common,
        }
    }

    /// The account of a way through a sibling, through which all of that goes.
    pub(super) fn through(mut self, passage: Arc<Passage>) -> Self {
        self.passage = Some(passage);
        self.is_limited.store(true, Ordering::Relaxed);
        self
    }

    /// Whether it is that of this tenant.
    pub(super) fn is_of(&self, tenant: &TenantId) -> bool {
        matches!(&self.owner, Owner::Tenant(own) if own == tenant)
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Goes by these limits from now on. What is under way stays, and what is left of the rates.
    pub(super) fn set(&self, share: Share, weight: u32, now: Instant) {
        let mut limits = self.lock();
        let is_other_rate = limits.share.bytes != share.bytes;
        limits.share = share;
        change(&mut limits.requests, share.requests, now);
        change(&mut limits.bytes, share.bytes, now);
        self.weight.store(weight, Ordering::Relaxed);
        self.is_limited.store(share != Share { bytes: share.bytes, ..Share::default() }, Ordering::Relaxed);
        self.is_metered.store(share.bytes.is_some(), Ordering::Relaxed);
        // Whoever waits for a rate looks again; under the same one it has waited for nothing.
        if is_other_rate {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.exchanges.load(Ordering::Relaxed) == 0 && self.flows.load(Ordering::Relaxed) == 0
    }

    /// Whether a new one would be the same.
    pub(super) fn is_as_new(&self, now: Instant) -> bool {
        let mut limits = self.lock();
        let Limits { requests, bytes, .. } = &mut *limits;
        self.is_idle() && [requests, bytes].into_iter().flatten().all(|bucket| bucket.is_full(now))
    }

    /// Something begins; [`Account::leave`] says when it is over.
    ///
    /// # Errors
    /// The share is used up, and nothing has begun.
    pub(super) fn enter(&self, what: What, now: Instant) -> Result<(), Exceeded> {
        if self.is_limited.load(Ordering::Relaxed) {
            // Who begins is counted before the lock is given back.
            let mut limits = self.lock();
            if let Err((limit, number, retry_after)) = self.check(&mut limits, what, now) {
                if let Some(metrics) = self.common.metrics() {
                    metrics.exceeded(self.owner.kind(), limit);
                }
                return Err(Exceeded { owner: self.owner.clone(), limit, number, retry_after });
            }
            self.count(what);
        } else {
            self.count(what);
        }
        Ok(())
    }

    fn check(&self, limits: &mut Limits, what: What, now: Instant) -> Result<(), (ShareLimit, u64, Duration)> {
        if let Some(passage) = &self.passage {
            let is_flow = what == What::Flow;
            let own = if is_flow { &self.flows } else { &self.exchanges };
            let checked = passage.check(is_flow, own.load(Ordering::Relaxed));
            return checked.map_err(|(limit, number)| (limit, number.into(), ROOM_RETRY_AFTER));
        }
        let Share { in_flight, streams, flows, .. } = limits.share;
        let counted = |count: &AtomicU32, most: Option<u32>, limit| match most {
            Some(most) if count.load(Ordering::Relaxed) >= most => Err((limit, u64::from(most), ROOM_RETRY_AFTER)),
            _ => Ok(()),
        };
        if what == What::Flow {
            return counted(&self.flows, flows, ShareLimit::Flows);
        }
        if what == What::Stream {
            counted(&self.streams, streams, ShareLimit::Streams)?;
        }
        counted(&self.exchanges, in_flight, ShareLimit::InFlight)?;
        // The last one, since it takes what it finds.
        match (&mut limits.requests, limits.share.requests) {
            (Some(bucket), Some(rate)) => {
                bucket.take_one(now).map_err(|wait| (ShareLimit::Requests, rate.per_second, wait))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, what: What) {
        for count in self.counts(what) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has begun is over.
    pub(super) fn leave(&self, what: What) {
        for count in self.counts(what) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What has begun is no request of its second after all.
    pub(super) fn unspend(&self, what: What) {
        // A flow took nothing of that rate.
        if what != What::Flow
            && let Some(bucket) = self.lock().requests.as_mut()
        {
            bucket.give_back(1);
        }
    }

    fn counts(&self, what: What) -> impl Iterator<Item = &AtomicU32> {
        let own = match what {
            What::Exchange => [Some(&self.exchanges), None],
            What::Stream => [Some(&self.exchanges), Some(&self.streams)],
            What::Flow => [Some(&self.flows), None],
        };
        let of_passage = self.passage.as_ref().map(|passage| passage.counts(what == What::Flow));
        own.into_iter().chain(of_passage.into_iter().flatten()).flatten()
    }

    /// Books bytes that are about to move; how long they have to wait for that.
    pub(super) fn book(&self, bytes: u64, now: impl Fn() -> Instant) -> Duration {
        if !self.is_metered.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let wait = self.lock().bytes.as_mut().map_or(Duration::ZERO, |bucket| bucket.book(bytes, now()));
        if wait > Duration::ZERO
            && let Some(metrics) = self.common.metrics()
        {
            metrics.waited_for_rate(self.owner.kind());
        }
        wait
    }

    /// Takes bytes that move now or not at all; `false`: not at all.
    pub(super) fn admit(&self, bytes: u64, now: impl Fn() -> Instant) -> bool {
        if !self.is_metered.load(Ordering::Relaxed) {
            return true;
        }
        self.lock().bytes.as_mut().is_none_or(|bucket| bucket.take_some(bytes, now()))
    }

    /// Gives back bytes that were booked and did not move.
    pub(super) fn give_back(&self, bytes: u64) {
        if let Some(bucket) = self.lock().bytes.as_mut() {
            bucket.give_back(bytes);
        }
    }

    /// How often the limits were changed.
    pub(super) const fn changes(&self) -> &Arc<AtomicU64> {
        &self.changes
    }

    /// Takes a turn of this cost, where there are several tenants that take turns; what is returned resolves when it has
    /// come. `None`: it is now.
    pub(super) fn turn(&self, cost: u64) -> Option<oneshot::Receiver<()>> {
        if !self.common.is_contended() {
            return None;
        }
        self.common.take(self.number, self.weight.load(Ordering::Relaxed), cost)
    }

    fn lock(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.common.forget(self.number);
    }
}

/// Goes by another rate, or by none.
fn change(bucket: &mut Option<Bucket>, rate: Option<Rate>, now: Instant) {
    match (bucket.as_mut(), rate) {
        (Some(bucket), Some(rate)) => bucket.change(rate, now),
        (_, rate) => *bucket = rate.map(|rate| Bucket::full(rate, now)),
    }
}
