//! Where the HTTP/1.1 connections to one target wait between exchanges.
//!
//! The one used last is used next, so those that wait longest are those that were not needed: they close after the idle
//! timeout, and as many stay as were in use at once within that time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Version;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Connection;
use super::patience::Patience;
use crate::message::failure::Failure;
use crate::targets::connect::Dialer;
use crate::targets::settings::TargetSettings;

/// An unused connection keeps its buffers for so long: a busy one would only ask for them again.
const KEEP_BUFFERS: Duration = Duration::from_secs(1);

/// The connections of one target that wait for work.
pub(super) struct Pool {
    dialer: Dialer,
    settings: TargetSettings,
    /// The target last answered in HTTP/1.0.
    is_old: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Last used last.
    connections: VecDeque<Idle>,
    patience: Patience,
    keeper: Keeper,
}

struct Idle {
    since: Instant,
    has_buffers: bool,
    connection: Connection,
}

/// The task that watches what waits.
#[derive(Default)]
enum Keeper {
    #[default]
    None,
    /// It was started, or is at work, and will look at everything.
    Awake,
    Asleep(Waker),
}

impl Pool {
    pub(super) fn new(dialer: Dialer, settings: TargetSettings) -> Arc<Self> {
        Arc::new(Self { dialer, settings, is_old: AtomicBool::new(false), waiting: Mutex::default() })
    }

    /// Whether the target last answered in HTTP/1.0.
    pub(super) fn is_old(&self) -> bool {
        self.is_old.load(Ordering::Relaxed)
    }

    /// The version of a response.
    pub(super) fn note_version(&self, version: Version) {
        let is_old = version == Version::HTTP_10;
        // All requests share this line of memory, so it is written only where it changes.
        if self.is_old() != is_old {
            self.is_old.store(is_old, Ordering::Relaxed);
        }
    }

    pub(super) fn settings(&self) -> &TargetSettings {
        &self.settings
    }

    /// The freshest connection that is usable, if there is one. Those found closed on the way go. None that the target may
    /// close now, unless the request `may_repeat`; where connections are counted, those close.
    pub(super) fn take(&self, may_repeat: bool) -> Option<Connection> {
        let mut waiting = self.lock();
        while let Some(idle) = waiting.connections.pop_back() {
            let waited = idle.since.elapsed();
            if !idle.connection.is_usable() {
                waiting.patience.ended(waited);
            } else if may_repeat || !waiting.patience.may_end(waited) {
                return Some(idle.connection);
            } else if self.settings.max_connections.is_none() {
                waiting.connections.push_back(idle);
                return None;
            }
        }
        None
    }

    /// Keeps a connection for the next exchange, or closes it when it is of no use or there are enough.
    pub(super) fn put(self: &Arc<Self>, mut connection: Connection) {
        connection.shrink();
        let mut waiting = self.lock();
        let usable = match &waiting.keeper {
            Keeper::Asleep(waker) => connection.stays_usable(&mut Context::from_waker(waker)),
            Keeper::None | Keeper::Awake => connection.is_usable(),
        };
        if !usable {
            return waiting.patience.ended(Duration::ZERO);
        }
        if waiting.connections.len() >= self.settings.max_idle {
            return;
        }
        waiting.connections.push_back(Idle { since: Instant::now(), has_buffers: true, connection });
        if matches!(waiting.keeper, Keeper::None) {
            waiting.keeper = Keeper::Awake;
            tokio::spawn(keep(Arc::downgrade(self)));
        }
    }

    /// Makes a new connection.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        self.dialer.connect().await.map(Connection::new)
    }

    /// Closes what waited too long or was closed by the target, takes back the buffers of what is not in use, and says
    /// when to look again; `None` when nothing waits any more. Wakes the caller when a target closes one of them.
    fn look_after(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let mut waiting = self.lock();
        let Waiting { connections, patience, .. } = &mut *waiting;
        let (now, limit) = (Instant::now(), self.settings.idle_timeout);
        connections.retain(|idle| {
            let waited = now - idle.since;
            let is_open = idle.connection.stays_usable(cx);
            if is_open {
                patience.lasts(waited)
            } else {
                patience.ended(waited)
            }
            is_open && waited < limit
        });
        let mut next = waiting.connections.front().map(|idle| idle.since + limit);
        for idle in waiting.connections.iter_mut().filter(|idle| idle.has_buffers) {
            let end = idle.since + KEEP_BUFFERS;
            if now < end {
                next = next.map(|next| next.min(end));
                break;
            }
            idle.connection.release();
            idle.has_buffers = false;
        }
        waiting.keeper = if next.is_some() { Keeper::Asleep(cx.waker().clone()) } else { Keeper::None };
        next
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under this lock leaves the list half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Keeper::Asleep(waker) = &self.lock().keeper {
            waker.wake_by_ref();
        }
    }
}

/// Runs while something waits in the pool.
async fn keep(pool: Weak<Pool>) {
    let mut sleep = pin!(sleep_until(Instant::now()));
    // A look is short and has to see every connection: it must not be told to come back later.
    tokio::task::unconstrained(poll_fn(|cx| poll_keep(&pool, sleep.as_mut(), cx))).await;
}

fn poll_keep(pool: &Weak<Pool>, mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let Some(next) = pool.upgrade().and_then(|pool| pool.look_after(cx)) else { return Poll::Ready(()) };
        sleep.as_mut().reset(next);
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
}
