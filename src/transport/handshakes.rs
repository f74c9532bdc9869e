//! Room for connections that are not tunnels yet. Each is in one stage of its handshake, and each stage has a budget, with
//! a share of it per address prefix: where one is used up, the oldest gives way to whoever is new, because an honest peer
//! gets on and a stranger who holds a place does not. spec: SE-21

mod table;

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::table::Stage;
use self::table::{Entry, Handle, Table};
use crate::net::Prefix;
use crate::protocol::budgets::{EVICTION_INTERVAL, HandshakeBudgets};
use crate::telemetry::StageMetrics;

/// The connections of one listener that are in handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handshakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table<Arc<Signals>>>,
}

/// What a connection is told.
#[derive(Debug, Default)]
struct Signals {
    gave_way: CancellationToken,
    granted: Notify,
}

impl Handle for Arc<Signals> {
    fn evict(&self) {
        self.gave_way.cancel();
    }

    fn grant(&self) {
        self.granted.notify_one();
    }
}

/// A place in a stage, until it is dropped or has to be given up.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    stage: Stage,
    key: u64,
    prefix: Prefix,
    signals: Arc<Signals>,
}

/// Waits for a place, until it is dropped.
struct Waiting {
    shared: Arc<Shared>,
    stage: Stage,
    number: u64,
}

/// The place went to somebody newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GaveWay(pub(crate) Stage);

impl Handshakes {
    /// Nobody is in handshake yet.
    pub(crate) fn new(budgets: HandshakeBudgets) -> Self {
        Self(Arc::new(Shared { table: Mutex::new(Table::new(budgets)) }))
    }

    /// The same, whose places are counted. To be called before anybody has one.
    pub(crate) fn counting(self, metrics: &StageMetrics) -> Self {
        self.0.table().count_with(metrics);
        self
    }

    /// Other budgets from now on; who has a place keeps it for now.
    pub(crate) fn resize(&self, budgets: HandshakeBudgets) {
        self.0.table().set_budgets(budgets);
    }

    /// Whether there are so many that an address which dials over QUIC must prove itself.
    pub(crate) fn is_under_pressure(&self) -> bool {
        self.0.table().is_under_pressure()
    }

    /// A place in one of the first two stages, in which nobody waits: the oldest gives way at once.
    pub(crate) fn enter(&self, stage: Stage, from: IpAddr) -> Seat {
        let (prefix, signals) = (Prefix::of(from), Arc::<Signals>::default());
        let key = self.0.table().force(stage, prefix, now(), Arc::clone(&signals));
        Seat { shared: Arc::clone(&self.0), stage, key, prefix, signals }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table<Arc<Signals>>> {
        // Every change of the table is whole: a panic elsewhere leaves nothing half-done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A place in the next stage instead of this one. Where there is no room it waits for it, in this one; of those who
    /// wait the newest and one drawn by lot are served in turn. Cancel safe.
    pub(crate) async fn advance(&mut self, to: Stage) -> Result<(), GaveWay> {
        let shared = Arc::clone(&self.shared);
        let entry = match to {
            Stage::Silent | Stage::Hello => {
                Entry::In(shared.table().force(to, self.prefix, now(), Arc::clone(&self.signals)))
            }
            Stage::Tls | Stage::Claim => shared.table().enter(to, self.prefix, now(), Arc::clone(&self.signals)),
        };
        let key = match entry {
            Entry::In(key) => key,
            Entry::Waits(number) => {
                let waiting = Waiting { shared: Arc::clone(&shared), stage: to, number };
                self.hold(waiting.granted(&self.signals)).await?
            }
        };
        shared.table().leave(self.stage, self.key, now());
        (self.stage, self.key) = (to, key);
        self.check()
    }

    /// What comes of `work`, unless the place has to be given up before. Drops `work` then.
    pub(crate) async fn hold<F: Future>(&self, work: F) -> Result<F::Output, GaveWay> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.signals.gave_way.cancelled() => Err(GaveWay(self.stage)),
        }
    }

    fn check(&self) -> Result<(), GaveWay> {
        if self.signals.gave_way.is_cancelled() { Err(GaveWay(self.stage)) } else { Ok(()) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.table().leave(self.stage, self.key, now());
    }
}

impl Waiting {
    /// Resolves with the key of the place. The newest looks from time to time whether somebody is old enough to give way,
    /// for all.
    async fn granted(self, signals: &Signals) -> u64 {
        loop {
            let is_newest = self.shared.table().is_newest(self.stage, self.number);
            if is_newest {
                let _ = timeout(EVICTION_INTERVAL, signals.granted.notified()).await;
            } else {
                signals.granted.notified().await;
            }
            let mut table = self.shared.table();
            table.relieve(self.stage, now());
            if let Some(key) = table.granted(self.stage, self.number) {
                return key;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.table().give_up(self.stage, self.number, now());
    }
}

/// The time by the clock of the runtime; in tests that may be one moved by hand.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
