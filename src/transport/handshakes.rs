//! Room for connections that are not tunnels yet. Each is in one stage of its handshake, and each stage has a budget, with
//! a share of it per address prefix: where one is used up, the oldest gives way to whoever is new, because an honest peer
//! gets on and a stranger who holds a place does not. spec: SE-21

mod table;

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(super) use self::table::Stage;
use self::table::Table;
use crate::net::Prefix;
use crate::protocol::budgets::HandshakeBudgets;

/// How often who waits for room looks whether somebody has become old enough to give way.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The connections of one listener that are in handshake. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Handshakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table<CancellationToken>>,
    /// Told when a place of that stage is free; who came last is served first.
    freed: [Notify; Stage::ALL.len()],
}

/// A place in a stage, until it is dropped or has to be given up.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    stage: Stage,
    key: u64,
    prefix: Prefix,
    gave_way: CancellationToken,
}

/// The place went to somebody newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GaveWay(pub(super) Stage);

impl Handshakes {
    /// Nobody is in handshake yet.
    pub(super) fn new(budgets: HandshakeBudgets) -> Self {
        Self(Arc::new(Shared { table: Mutex::new(Table::new(budgets)), freed: Default::default() }))
    }

    /// Other budgets from now on; who has a place keeps it for now.
    pub(super) fn resize(&self, budgets: HandshakeBudgets) {
        self.0.table().set_budgets(budgets);
    }

    /// Whether there are so many that an address which dials over QUIC must prove itself.
    pub(super) fn is_under_pressure(&self) -> bool {
        self.0.table().is_under_pressure()
    }

    /// A place in one of the first two stages, in which nobody waits: the oldest gives way at once.
    pub(super) fn enter(&self, stage: Stage, from: IpAddr) -> Seat {
        let (prefix, gave_way) = (Prefix::of(from), CancellationToken::new());
        let key = self.0.table().force(stage, prefix, now(), gave_way.clone());
        Seat { shared: Arc::clone(&self.0), stage, key, prefix, gave_way }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table<CancellationToken>> {
        // Every change of the table is whole: a panic elsewhere leaves nothing half-done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A place in the next stage instead of this one. Waits for it, in this one, where all there are younger than the
    /// grace of the stage. Cancel safe.
    pub(super) async fn advance(&mut self, to: Stage) -> Result<(), GaveWay> {
        let shared = Arc::clone(&self.shared);
        while !self.try_advance(to) {
            // A stage that is left wakes one of those who wait; time that passes lets another give way.
            let freed = timeout(LOOK_INTERVAL, shared.freed[to as usize].notified());
            let _ = self.hold(freed).await?;
        }
        self.check()
    }

    fn try_advance(&mut self, to: Stage) -> bool {
        let mut table = self.shared.table();
        let Some(key) = table.enter(to, self.prefix, now(), || self.gave_way.clone()) else { return false };
        let left = table.leave(self.stage, self.key);
        drop(table);
        if left {
            self.shared.freed[self.stage as usize].notify_last();
        }
        (self.stage, self.key) = (to, key);
        true
    }

    /// What comes of `work`, unless the place has to be given up before. Drops `work` then.
    pub(super) async fn hold<F: Future>(&self, work: F) -> Result<F::Output, GaveWay> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.gave_way.cancelled() => Err(GaveWay(self.stage)),
        }
    }

    fn check(&self) -> Result<(), GaveWay> {
        if self.gave_way.is_cancelled() { Err(GaveWay(self.stage)) } else { Ok(()) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.shared.table().leave(self.stage, self.key) {
            self.shared.freed[self.stage as usize].notify_last();
        }
    }
}

/// The time by the clock of the runtime; in tests that may be one moved by hand.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
