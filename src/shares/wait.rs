//! Waiting for the time at which something may move on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use super::account::Account;
use super::turns::{LEAST_COST, READ_COST};

/// How soon who waits for a rate notices that it was changed.
const LOOK: Duration = Duration::from_secs(1);
/// What a turn takes at most, for who has to say how long it may last.
const LONGEST_TURN: Duration = Duration::from_secs(2);

/// Resolves when what was held may go on. Dropped, it gives its place up, and what it was charged.
#[derive(Debug)]
pub struct Wait(Kind);

#[derive(Debug)]
enum Kind {
    Rate(Box<Rate>),
    Turn(oneshot::Receiver<()>),
}

#[derive(Debug)]
struct Rate {
    sleep: Pin<Box<Sleep>>,
    until: Instant,
    changes: Arc<AtomicU64>,
    seen: u64,
    /// Until it has moved on.
    owed: Option<Owed>,
}

/// What was charged for something that has not moved yet.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) tenant: Arc<Account>,
    pub(super) node: Option<Arc<Account>>,
    pub(super) bytes: u64,
}

impl Wait {
    /// Until a rate allows it, or is changed: `changes` counts how often it was.
    pub(super) fn for_rate(wait: Duration, changes: Arc<AtomicU64>, owed: Owed) -> Self {
        let now = Instant::now();
        let until = now.checked_add(wait).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        let seen = changes.load(Ordering::Relaxed);
        let sleep = Box::pin(sleep_until(until.min(now + LOOK)));
        Self(Kind::Rate(Box::new(Rate { sleep, until, changes, seen, owed: Some(owed) })))
    }

    /// Until this tenant's turn of this cost; `None`: it is now.
    pub(super) fn for_turn(tenant: &Account, cost: u64) -> Option<Self> {
        tenant.turn(cost.max(LEAST_COST)).map(|hears| Self(Kind::Turn(hears)))
    }

    /// Until the turn of reading one more request of a connection whose requests were this tenant's so far. `None`: it is
    /// now.
    pub fn to_read(tenant: &Account) -> Option<Self> {
        Self::for_turn(tenant, READ_COST)
    }

    /// When it is over at the latest, as far as is known now.
    pub fn until(&self) -> Instant {
        match &self.0 {
            Kind::Rate(rate) => rate.until,
            Kind::Turn(_) => Instant::now() + LONGEST_TURN,
        }
    }
}

impl Rate {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.until || self.changes.load(Ordering::Relaxed) != self.seen {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.until.min(now + LOOK));
        }
    }
}

impl Drop for Rate {
    fn drop(&mut self) {
        if let Some(Owed { tenant, node, bytes }) = self.owed.take() {
            tenant.give_back(bytes);
            if let Some(node) = node {
                node.give_back(bytes);
            }
        }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Kind::Rate(rate) = &mut self.0 {
            ready!(rate.poll(cx));
            // It moves: nothing is given back. Others may want the thread as much.
            match rate.owed.take().and_then(|owed| Self::for_turn(&owed.tenant, owed.bytes)) {
                Some(turn) => *self = turn,
                None => return Poll::Ready(()),
            }
        }
        match &mut self.0 {
            // Whoever would have told it may be gone.
            Kind::Turn(hears) => Pin::new(hears).poll(cx).map(drop),
            Kind::Rate(_) => Poll::Ready(()),
        }
    }
}
