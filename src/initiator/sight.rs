//! What the slots of one destination tell whoever decides where they go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::initiator::spread::{Condition, Why};
use crate::protocol::roster::Roster;

/// What was said last of a fleet; `None` in it: that the responder is in none any more.
type News = Option<Option<Arc<Roster>>>;

/// Where the slots of one destination say things.
#[derive(Debug, Default)]
pub(super) struct Sight {
    news: Mutex<News>,
    changed: Notify,
}

impl Sight {
    /// Resolves when something was said since it was last looked at; for one listener. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What was said of a fleet, once.
    pub(super) fn news(&self) -> News {
        locked(&self.news).take()
    }

    /// A responder has said who is in its fleet, or that it is in none any more.
    pub(super) fn learn(&self, roster: Option<Arc<Roster>>) {
        *locked(&self.news) = Some(roster);
        self.changed.notify_one();
    }
}

/// What one slot does.
#[derive(Debug)]
pub(super) struct Watched {
    sight: Arc<Sight>,
    condition: Mutex<Condition>,
    /// It is tried whether it can be reached, beside another slot that is kept.
    is_trial: AtomicBool,
    /// Another slot has its place.
    is_replaced: AtomicBool,
}

impl Watched {
    /// A slot that begins.
    pub(super) fn new(sight: &Arc<Sight>, is_trial: bool) -> Arc<Self> {
        let condition = Mutex::new(Condition::Down { since: Instant::now(), why: Why::Dialled });
        Arc::new(Self {
            sight: Arc::clone(sight),
            condition,
            is_trial: AtomicBool::new(is_trial),
            is_replaced: AtomicBool::new(false),
        })
    }

    pub(super) fn condition(&self) -> Condition {
        locked(&self.condition).clone()
    }

    /// Says what it does now.
    pub(super) fn show(&self, condition: Condition) {
        let is_news = std::mem::replace(&mut *locked(&self.condition), condition.clone()) != condition;
        if is_news {
            self.sight.changed.notify_one();
        }
    }

    /// Whether its failures are nothing to worry about.
    pub(super) fn is_trial(&self) -> bool {
        self.is_trial.load(Ordering::Relaxed)
    }

    /// It is the one that is kept.
    pub(super) fn keep(&self) {
        self.is_trial.store(false, Ordering::Relaxed);
    }

    /// Another slot has its place, at another responder.
    pub(super) fn replace(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    /// Whether another slot has its place: what its responder drains is then ended by that alone.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    pub(super) fn sight(&self) -> &Sight {
        &self.sight
    }
}

fn locked<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
