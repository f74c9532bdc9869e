//! Who holds the receive credit of a tunnel: what unread streams hold is lent on top, so that it is never missing for the
//! others, and whoever holds it for too long is ended. spec: SE-9 to SE-12
//!
//! A stream is *held back* while its consumer has not come back for more since it was given something, and there is more. How
//! much that is inside the transport's library shows nowhere, unless it is little.

mod slowness;
#[cfg(test)]
mod tests;
mod watched;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::protocol::budgets::{
    COVERED_BYTES, DEFERRED_BYTES, DEFERRED_BYTES_OF_PROCESS, HELD_BYTES, HELD_BYTES_OF_PROCESS, RAW_PATIENCE,
    STREAM_WINDOW,
};
use crate::telemetry::{StreamEnd, StreamMetrics};

use self::slowness::Slowness;
use self::watched::Lane;

pub(super) use self::watched::{LITTLE, Place, Revoke, Revoked, Unread, unread};

/// How often streams are looked at while any of them is held back.
const SHORT_LOOK: Duration = Duration::from_millis(50);
/// How often while their consumers take all there is.
const LONG_LOOK: Duration = Duration::from_millis(250);

/// What all tunnels of the process hold.
static HELD_IN_PROCESS: Total = Total { idle: AtomicU64::new(0), deferred: AtomicU64::new(0) };

/// What the tunnels of a process hold together, bytes.
#[derive(Debug, Default)]
struct Total {
    /// By readers who are not steady.
    idle: AtomicU64,
    /// For a rate that this end keeps.
    deferred: AtomicU64,
}

/// The watched streams of one tunnel.
#[derive(Debug)]
pub(super) struct Ledger {
    streams: Mutex<Vec<Stream>>,
    /// A new stream wakes whoever looks.
    awaits: AtomicBool,
    begun: Notify,
    /// Held-back streams at the last look, and the bytes that readers hold who are not steady, or for a rate.
    held: AtomicUsize,
    idle: AtomicU64,
    deferred: AtomicU64,
    /// The sum of that of all tunnels.
    in_process: &'static Total,
    metrics: OnceLock<StreamMetrics>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::among(&HELD_IN_PROCESS)
    }
}

/// One receiving half.
#[derive(Debug)]
struct Stream {
    /// Its allocation outlives it until the next look.
    lane: Weak<dyn Lane>,
    slowness: Slowness,
    terms: Terms,
}

/// What is known of a stream when it begins to be watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How long its consumer may take less than the least rate.
    pub(super) patience: Duration,
    /// Bytes that are to come, where that is known.
    pub(super) length: Option<u64>,
    /// Whether it counts as held back before its consumer was given anything.
    pub(super) begins_held: bool,
}

impl Terms {
    /// Of a raw stream.
    pub(super) const RAW: Self = Self { patience: RAW_PATIENCE, length: None, begins_held: true };
    /// Of a flow, on whose stream nothing comes as long as its datagrams find another way.
    pub(super) const FLOW: Self = Self { begins_held: false, ..Self::RAW };

    /// The most that the stream can hold once its consumer has taken so many bytes.
    fn may_hold(self, taken: u64) -> u64 {
        let window = u64::from(STREAM_WINDOW);
        self.length.map_or(window, |length| length.saturating_sub(taken).min(window))
    }
}

/// Streams that are to be ended, each with the cause.
type Ended = Vec<(Arc<dyn Lane>, StreamEnd)>;

/// What one look has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    /// Streams that are watched.
    watched: usize,
    /// Streams that are held back.
    held: usize,
    /// The most that those of them hold whose readers are not steady, bytes.
    idle: u64,
    /// The same of the others.
    steady: u64,
    /// How much of that is held for a rate that this end keeps.
    deferred: u64,
}

impl Look {
    /// How much of that the tunnel's credit grows for, bytes: in whole windows, since small changes need not be told.
    /// spec: SE-9
    fn lent(self) -> u64 {
        let bytes = (self.idle.min(HELD_BYTES) + self.steady).min(COVERED_BYTES);
        bytes.next_multiple_of(u64::from(STREAM_WINDOW))
    }
}

impl Ledger {
    /// One of the ledgers that share a bound.
    fn among(in_process: &'static Total) -> Self {
        Self {
            streams: Mutex::default(),
            awaits: AtomicBool::default(),
            begun: Notify::default(),
            held: AtomicUsize::default(),
            idle: AtomicU64::default(),
            deferred: AtomicU64::default(),
            in_process,
            metrics: OnceLock::default(),
        }
    }

    /// Counts what becomes of held-back streams from here on; the first call decides.
    pub(super) fn count_with(&self, metrics: StreamMetrics) {
        let _ = self.metrics.set(metrics);
    }

    /// Watches a stream until it is dropped.
    fn watch(&self, lane: Weak<dyn Lane>, terms: Terms) {
        self.lock().push(Stream { lane, slowness: Slowness::new(terms.patience), terms });
        if self.awaits.load(Ordering::Relaxed) && self.awaits.swap(false, Ordering::Relaxed) {
            self.begun.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every stream, and ends those that are too slow for too long or starve others.
    fn look(&self, now: Instant) -> Look {
        let (look, ended) = self.judge(now);
        // Outside the lock: it ends with a call into the transport's library.
        for (lane, cause) in ended {
            if !lane.revoke() {
                continue;
            }
            debug!(cause = cause.label(), "a stream that its consumer does not read was ended");
            if let Some(metrics) = self.metrics.get() {
                metrics.ended(cause);
            }
        }
        self.publish(look);
        look
    }

    fn judge(&self, now: Instant) -> (Look, Ended) {
        let mut streams = self.lock();
        let mut look = Look::default();
        let mut ended = Vec::new();
        let mut candidates = Vec::new();
        let room = self.room_to_defer();
        streams.retain_mut(|stream| {
            // Who holds one that was ended may not look at it for long; to count it again would end others for it.
            let Some(lane) = stream.lane.upgrade().filter(|lane| !lane.gauge().is_over()) else { return false };
            let (is_left, taken) = lane.gauge().read();
            let unread = if is_left { lane.unread() } else { Unread::Nothing };
            let is_held = unread != Unread::Nothing;
            let bytes = stream.terms.may_hold(taken);
            let is_deferred = is_held && lane.gauge().is_deferred(now) && look.deferred + bytes <= room;
            stream.slowness.note(now, is_held && !is_deferred, taken);
            if is_deferred {
                look.deferred += bytes;
                look.held += 1;
                look.steady += bytes;
                return true;
            }
            if stream.slowness.is_below_least(now) {
                ended.push((lane, StreamEnd::Rate));
                return true;
            }
            if let Unread::Little(bytes) = unread {
                look.held += 1;
                look.steady += bytes;
            } else if is_held {
                look.held += 1;
                *(if stream.slowness.is_steady(now) { &mut look.steady } else { &mut look.idle }) += bytes;
                if let Some(since) = stream.slowness.starves_since(now) {
                    candidates.push((since, bytes, lane));
                }
            }
            true
        });
        look.watched = streams.len();
        let mut excess = excess(look.idle, self.held_elsewhere());
        // Those that have stood still for the longest.
        candidates.sort_by_key(|(since, ..)| *since);
        for (_, bytes, lane) in candidates {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(bytes);
            look.held -= 1;
            look.idle -= bytes;
            ended.push((lane, StreamEnd::Bound));
        }
        (look, ended)
    }

    /// What readers hold in the process who are not steady, without those of this tunnel.
    fn held_elsewhere(&self) -> u64 {
        let all = self.in_process.idle.load(Ordering::Relaxed);
        all.saturating_sub(self.idle.load(Ordering::Relaxed))
    }

    /// How much this tunnel may hold for rates that this end keeps.
    fn room_to_defer(&self) -> u64 {
        let all = self.in_process.deferred.load(Ordering::Relaxed);
        let elsewhere = all.saturating_sub(self.deferred.load(Ordering::Relaxed));
        DEFERRED_BYTES_OF_PROCESS.saturating_sub(elsewhere).min(DEFERRED_BYTES)
    }

    fn publish(&self, Look { held, idle, deferred, .. }: Look) {
        let exchange = |own: &AtomicU64, total: &AtomicU64, now: u64| {
            let before = own.swap(now, Ordering::Relaxed);
            total.fetch_add(now, Ordering::Relaxed);
            total.fetch_sub(before, Ordering::Relaxed);
        };
        exchange(&self.idle, &self.in_process.idle, idle);
        exchange(&self.deferred, &self.in_process.deferred, deferred);
        let before = self.held.swap(held, Ordering::Relaxed);
        if held != before
            && let Some(metrics) = self.metrics.get()
        {
            metrics.held(held as f64 - before as f64);
        }
    }

    /// Resolves when a stream is watched. Cancel safe; for one caller.
    async fn used(&self) {
        loop {
            // Raised before the look, as `watch` adds before it looks at the flag.
            self.awaits.store(true, Ordering::SeqCst);
            if !self.lock().is_empty() {
                return;
            }
            self.begun.notified().await;
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.publish(Look::default());
    }
}

/// Whoever balances a ledger. When it stops the tunnel is gone: its streams may stay with their consumers, and hold nothing
/// that others need.
struct Shown<'a>(&'a Ledger);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.publish(Look::default());
    }
}

/// How much of what readers of a tunnel hold is too much, bytes.
fn excess(held: u64, elsewhere: u64) -> u64 {
    let of_tunnel = held.saturating_sub(HELD_BYTES);
    let of_process = (held + elsewhere).saturating_sub(HELD_BYTES_OF_PROCESS).min(held);
    of_tunnel.max(of_process)
}

/// The window of a connection whose held-back streams hold so many bytes. spec: SE-9
pub(super) fn with_held(connection: u32, held: u64) -> u32 {
    connection.saturating_add(u32::try_from(held).unwrap_or(u32::MAX))
}

/// Gives a connection credit for so many bytes that held-back streams hold, on top of its own.
pub(super) type Lend = Box<dyn FnMut(u64) + Send>;

/// Keeps the credit of a tunnel in step with what its streams hold, for as long as it is polled. It sends nothing that
/// needs credit itself, and nothing of the tunnel may hold it up. Cancel safe.
pub(super) async fn balance(ledger: &Ledger, mut lend: Lend) -> Infallible {
    let _end = Shown(ledger);
    let mut pause = SHORT_LOOK;
    let mut was_lent = 0;
    loop {
        ledger.used().await;
        if pause == SHORT_LOOK {
            sleep(pause).await;
        } else if timeout(pause, ledger.begun.notified()).await.is_ok() {
            // A stream has just begun: its consumer may turn out not to read.
            sleep(SHORT_LOOK).await;
        }
        let look = ledger.look(tokio::time::Instant::now().into_std());
        let lent = look.lent();
        if lent > 0 || was_lent > 0 {
            lend(lent);
        }
        was_lent = lent;
        pause = if look.held > 0 { SHORT_LOOK } else { (2 * pause).min(LONG_LOOK) };
    }
}
