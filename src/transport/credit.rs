//! Who holds the receive credit of a tunnel: what unread streams hold is lent on top, so that it is never missing for the
//! others, and whoever holds it for too long is ended. spec: SE-9 to SE-12
//!
//! A stream is *held back* while its consumer has not come back for more since it was given something. The consumer, not
//! the bytes: what waits inside the transport's library shows nowhere.

mod slowness;
#[cfg(test)]
mod tests;
mod watched;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::protocol::budgets::{COVERED_STREAMS, HELD_STREAMS, HELD_STREAMS_OF_PROCESS};
use crate::telemetry::{StreamEnd, StreamMetrics};

use self::slowness::Slowness;
use self::watched::Lane;

pub(super) use self::watched::{Place, Revoke, Revoked};

/// How often streams are looked at while any of them is held back.
const SHORT_LOOK: Duration = Duration::from_millis(50);
/// How often while their consumers take all there is.
const LONG_LOOK: Duration = Duration::from_millis(250);

/// Held-back streams of all tunnels of the process.
static HELD_IN_PROCESS: AtomicUsize = AtomicUsize::new(0);

/// The watched streams of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    streams: Mutex<Vec<Stream>>,
    /// A new stream wakes whoever looks.
    awaits: AtomicBool,
    begun: Notify,
    /// Held-back streams at the last look.
    held: AtomicUsize,
    metrics: OnceLock<StreamMetrics>,
}

/// One receiving half.
#[derive(Debug)]
struct Stream {
    /// Its allocation outlives it until the next look.
    lane: Weak<dyn Lane>,
    slowness: Slowness,
}

/// Streams that are to be ended, each with the cause.
type Ended = Vec<(Arc<dyn Lane>, StreamEnd)>;

/// What one look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// Streams that are watched.
    watched: usize,
    /// Streams that are held back.
    held: usize,
}

impl Ledger {
    /// Counts what becomes of held-back streams from here on; the first call decides.
    pub(super) fn count_with(&self, metrics: StreamMetrics) {
        let _ = self.metrics.set(metrics);
    }

    /// Watches a stream until it is dropped. Its consumer may take less than the least rate for so long.
    fn watch(&self, lane: Weak<dyn Lane>, patience: Duration) {
        self.lock().push(Stream { lane, slowness: Slowness::new(patience) });
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
            debug!(cause = cause.label(), "a stream that its consumer does not read was ended");
            lane.revoke();
            if let Some(metrics) = self.metrics.get() {
                metrics.ended(cause);
            }
        }
        self.publish(look.held);
        look
    }

    fn judge(&self, now: Instant) -> (Look, Ended) {
        let mut streams = self.lock();
        let mut held = 0;
        let mut ended = Vec::new();
        let mut candidates = Vec::new();
        streams.retain_mut(|stream| {
            let Some(lane) = stream.lane.upgrade() else { return false };
            let (is_held, taken) = lane.gauge().read();
            stream.slowness.note(now, is_held, taken);
            if stream.slowness.is_below_least(now) {
                ended.push((lane, StreamEnd::Rate));
                return false;
            }
            held += usize::from(is_held);
            if let Some(since) = stream.slowness.starves_since(now) {
                candidates.push((since, lane));
            }
            true
        });
        let excess = excess(held, self.held_elsewhere());
        if excess > 0 {
            // Those that have been slow for the longest.
            candidates.sort_by_key(|(since, _)| *since);
            candidates.truncate(excess);
            held -= candidates.len();
            ended.extend(candidates.into_iter().map(|(_, lane)| (lane, StreamEnd::Bound)));
        }
        (Look { watched: streams.len(), held }, ended)
    }

    /// Held-back streams of the process without those of this tunnel.
    fn held_elsewhere(&self) -> usize {
        let all = HELD_IN_PROCESS.load(Ordering::Relaxed);
        all.saturating_sub(self.held.load(Ordering::Relaxed))
    }

    fn publish(&self, held: usize) {
        let before = self.held.swap(held, Ordering::Relaxed);
        if held != before {
            HELD_IN_PROCESS.fetch_add(held, Ordering::Relaxed);
            HELD_IN_PROCESS.fetch_sub(before, Ordering::Relaxed);
            if let Some(metrics) = self.metrics.get() {
                metrics.held(held as f64 - before as f64);
            }
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
        self.publish(0);
    }
}

/// How many held-back streams of a tunnel are too many.
fn excess(held: usize, elsewhere: usize) -> usize {
    let of_tunnel = held.saturating_sub(HELD_STREAMS);
    let of_process = (held + elsewhere).saturating_sub(HELD_STREAMS_OF_PROCESS).min(held);
    of_tunnel.max(of_process)
}

/// The window of a connection that has so many streams held back, bytes. spec: SE-9
pub(super) fn with_held(connection: u32, stream: u32, held: usize) -> u32 {
    let held = u32::try_from(held).unwrap_or(u32::MAX);
    connection.saturating_add(stream.saturating_mul(held))
}

/// Gives a connection credit for so many held-back streams on top of its own.
pub(super) type Lend = Box<dyn FnMut(usize) + Send>;

/// Keeps the credit of a tunnel in step with what its streams hold, for as long as it is polled. It sends nothing that
/// needs credit itself, and nothing of the tunnel may hold it up. Cancel safe.
pub(super) async fn balance(ledger: &Ledger, mut lend: Lend) -> Infallible {
    let mut pause = SHORT_LOOK;
    let mut was_held = 0;
    loop {
        ledger.used().await;
        if pause == SHORT_LOOK {
            sleep(pause).await;
        } else if timeout(pause, ledger.begun.notified()).await.is_ok() {
            // A stream has just begun: its consumer may turn out not to read.
            sleep(SHORT_LOOK).await;
        }
        let look = ledger.look(tokio::time::Instant::now().into_std());
        let covered = look.held.min(COVERED_STREAMS);
        if covered > 0 || was_held > 0 {
            lend(covered);
        }
        was_held = covered;
        pause = if look.held > 0 { SHORT_LOOK } else { (2 * pause).min(LONG_LOOK) };
    }
}
