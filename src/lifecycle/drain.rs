//! Finishing what runs: one end decides, every role and task watches, a deadline ends it.
//!
//! ```text
//! running ── leave() ──▶ leaving ── begin(limit) ──▶ draining ── all done ──▶ complete
//!                                                       └────── limit, or stop() ──▶ expired ── LAST_WORDS ──▶ tasks dropped
//! ```
//!
//! Who is *leaving* (a lame duck) takes everything as before and asks whoever comes to go elsewhere next time; a drain may
//! begin without it.
//!
//! A program drains its roles in two lines:
//!
//! ```no_run
//! # async fn f(responder: adit::responder::Responder) {
//! let drain = adit::lifecycle::Drain::new();
//! tokio::spawn(responder.run(drain.watch()));
//! // Later: announce it, wait until every role is done, or cut what is left after 30 s.
//! drain.drain(std::time::Duration::from_secs(30)).await;
//! # }
//! ```

use std::future::Future;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long tasks have after the deadline to say why they end (a close code, a log line) before they are dropped.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything finished by itself.
    Complete,
    /// So many tasks and guards were still alive at the deadline.
    Expired(usize),
}

/// The end that decides. Clones decide the same drain; dropping them drains nothing.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    leaving: CancellationToken,
    announced: CancellationToken,
    expired: CancellationToken,
    dropped: CancellationToken,
    /// How long what runs may take, and when that is over.
    deadline: OnceLock<(Duration, Instant)>,
    tracker: TaskTracker,
    /// How many there were when the deadline was enforced.
    cut: AtomicUsize,
}

impl Drain {
    /// Nothing drains yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A drain for one part of what `outer` drains: it begins when that begins at the latest, with what is left of its time,
    /// and may begin before. `outer` waits for it. Its deadline is enforced whoever began it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn within(outer: &DrainWatch) -> Self {
        let inner = Self::new();
        drop(outer.spawn(inner.clone().follow(outer.clone())));
        inner
    }

    async fn follow(self, outer: DrainWatch) {
        let (own, leaving) = (self.watch(), outer.leaving());
        tokio::select! {
            () = leaving.cancelled() => self.leave(),
            () = own.announced() => {}
        }
        tokio::select! {
            () = outer.announced() => self.begin(outer.remaining()),
            () = own.announced() => {}
        }
        tokio::select! {
            _ = self.drain(own.remaining()) => {}
            () = outer.expired() => {
                self.stop();
                self.drain(Duration::ZERO).await;
            }
        }
    }

    /// A handle for a role or task.
    pub fn watch(&self) -> DrainWatch {
        DrainWatch { state: Arc::clone(&self.state) }
    }

    /// From now on asks those who come to go elsewhere next time; takes them all the same. Returns at once.
    pub fn leave(&self) {
        self.state.leaving.cancel();
    }

    /// Announces the drain; its deadline is `limit` from now, and stays that of the first call. Returns at once, and
    /// enforces nothing: [`Drain::drain`] does.
    pub fn begin(&self, limit: Duration) {
        self.state.deadline.get_or_init(|| (limit, Instant::now() + limit));
        self.state.leaving.cancel();
        self.state.announced.cancel();
    }

    /// Announces the drain like [`Drain::begin`] and returns when everything watched has ended: by itself, or at the
    /// deadline and [`LAST_WORDS`]. Called again while draining, it waits as well.
    ///
    /// # Cancel safety
    /// Cancel safe, but the drain goes on and nobody enforces its deadline.
    pub async fn drain(&self, limit: Duration) -> Drained {
        self.begin(limit);
        let state = &self.state;
        let deadline = self.watch().deadline();
        state.tracker.close();
        tokio::select! {
            // Somebody else may have enforced the same deadline a moment ago.
            () = state.tracker.wait() => return self.outcome(),
            () = tokio::time::sleep_until(deadline) => {}
            () = state.expired.cancelled() => {}
        }
        self.stop();
        // A guard that is held outside a task cannot be dropped from here; it is counted, not waited for.
        let _ = timeout(LAST_WORDS, state.tracker.wait()).await;
        state.dropped.cancel();
        let _ = timeout(LAST_WORDS, state.tracker.wait()).await;
        self.outcome()
    }

    fn outcome(&self) -> Drained {
        match self.state.cut.load(Ordering::Acquire) {
            0 => Drained::Complete,
            left => Drained::Expired(left),
        }
    }

    /// The second step of a drain: brings its deadline to now. A drain that was not announced is announced by it.
    pub fn stop(&self) {
        self.begin(Duration::ZERO);
        self.state.cut.fetch_max(self.state.tracker.len(), Ordering::AcqRel);
        self.state.expired.cancel();
    }
}

/// What a role or task holds to learn that it should finish, and by when. Cheap to clone; holding one keeps nothing
/// alive.
#[derive(Debug, Clone)]
pub struct DrainWatch {
    state: Arc<State>,
}

/// Keeps a drain from completing while it lives.
#[derive(Debug)]
#[must_use = "the drain no longer waits once this is dropped"]
pub struct DrainGuard {
    _token: TaskTrackerToken,
}

impl DrainWatch {
    /// Whether the drain was announced: take nothing new.
    pub fn is_draining(&self) -> bool {
        self.state.announced.is_cancelled()
    }

    /// Returns once the drain is announced: finish what runs. Cancel safe.
    pub async fn announced(&self) {
        self.state.announced.cancelled().await;
    }

    /// Whoever comes is to be asked to go elsewhere next time, as a token; cancelled by the drain at the latest.
    pub fn leaving(&self) -> CancellationToken {
        self.state.leaving.clone()
    }

    /// [`DrainWatch::announced`] as a token, for code that only has to know that the drain began.
    pub fn token(&self) -> CancellationToken {
        self.state.announced.clone()
    }

    /// How long what runs may still take; zero before the drain was announced.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    fn deadline(&self) -> Instant {
        self.state.deadline.get().map_or_else(Instant::now, |(_, at)| *at)
    }

    /// How long what runs could take when the drain was announced; zero before that.
    pub fn limit(&self) -> Duration {
        self.state.deadline.get().map_or(Duration::ZERO, |(limit, _)| *limit)
    }

    /// Returns at the deadline, or at the order to stop: end now; [`LAST_WORDS`] are left. Cancel safe.
    pub async fn expired(&self) {
        self.state.expired.cancelled().await;
    }

    /// Keeps the drain from completing until the guard is dropped: every role holds one while it runs.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { _token: self.state.tracker.token() }
    }

    /// Spawns a task that the drain waits for. It should watch [`DrainWatch::announced`]; what is left
    /// [`LAST_WORDS`] after the deadline is dropped where it waits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let dropped = self.state.dropped.clone();
        self.state.tracker.spawn(async move { dropped.run_until_cancelled_owned(task).await })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_runs_and_no_longer() {
        let drain = Drain::new();
        let watch = drain.watch();
        watch.spawn({
            let watch = watch.clone();
            async move {
                watch.announced().await;
                sleep(Duration::from_secs(7)).await;
            }
        });
        let start = Instant::now();
        assert_eq!(drain.drain(LIMIT).await, Drained::Complete);
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_what_does_not_finish() {
        let drain = Drain::new();
        let (ended, set) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        struct OnDrop(Arc<AtomicBool>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let stubborn = OnDrop(Arc::clone(&ended));
        drain.watch().spawn(async move {
            let _stubborn = stubborn;
            std::future::pending::<()>().await;
        });
        let (watch, said) = (drain.watch(), Arc::clone(&set));
        drain.watch().spawn(async move {
            watch.expired().await;
            sleep(LAST_WORDS / 2).await;
            said.store(true, Ordering::SeqCst);
        });
        let start = Instant::now();
        assert_eq!(drain.drain(LIMIT).await, Drained::Expired(2));
        assert!(set.load(Ordering::SeqCst), "last words were said");
        assert!(ended.load(Ordering::SeqCst), "the task is gone");
        assert!(start.elapsed() <= LIMIT + 2 * LAST_WORDS);
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_learn_the_deadline() {
        let drain = Drain::new();
        let watch = drain.watch();
        assert!(!watch.is_draining());
        assert_eq!(watch.remaining(), Duration::ZERO);
        let learned = watch.spawn({
            let watch = watch.clone();
            async move {
                watch.announced().await;
                watch.remaining()
            }
        });
        drain.drain(LIMIT).await;
        assert!(watch.is_draining());
        assert_eq!(learned.await.unwrap(), Some(LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_holds_the_drain_open() {
        let drain = Drain::new();
        let guard = drain.watch().guard();
        let draining = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drain(LIMIT).await }
        });
        sleep(Duration::from_secs(1)).await;
        assert!(!draining.is_finished());
        drop(guard);
        assert_eq!(draining.await.unwrap(), Drained::Complete);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_order_to_stop_does_not_wait_for_the_deadline() {
        let drain = Drain::new();
        drain.watch().spawn(std::future::pending::<()>());
        let start = Instant::now();
        let draining = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drain(LIMIT).await }
        });
        sleep(Duration::from_secs(1)).await;
        drain.stop();
        assert_eq!(draining.await.unwrap(), Drained::Expired(1));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_twice_keeps_the_first_deadline() {
        let drain = Drain::new();
        drain.watch().spawn(std::future::pending::<()>());
        let start = Instant::now();
        tokio::join!(drain.drain(Duration::from_secs(1)), drain.drain(LIMIT));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }

    // Regression: who asked once it was over was told that all was done.
    #[tokio::test(start_paused = true)]
    async fn whoever_asks_afterwards_learns_that_something_was_cut() {
        let drain = Drain::new();
        let watch = drain.watch();
        drain.watch().spawn(async move { watch.expired().await });
        // Which of the things that are so is noticed first is a matter of chance.
        for _ in 0..50 {
            assert_eq!(drain.drain(LIMIT).await, Drained::Expired(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_stop_needs_no_drain_before_it() {
        let drain = Drain::new();
        drain.watch().spawn(std::future::pending::<()>());
        drain.stop();
        assert!(drain.watch().is_draining());
        let start = Instant::now();
        assert_eq!(drain.drain(LIMIT).await, Drained::Expired(1));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn nothing_to_wait_for_is_complete() {
        assert_eq!(Drain::new().drain(LIMIT).await, Drained::Complete);
    }

    #[tokio::test]
    async fn a_drain_is_left_before_it_begins_or_as_it_does() {
        let (first, second) = (Drain::new(), Drain::new());
        first.leave();
        assert!(first.watch().leaving().is_cancelled() && !first.watch().is_draining());
        second.begin(LIMIT);
        assert!(second.watch().leaving().is_cancelled() && second.watch().is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_within_another_may_begin_before_it_and_begins_with_it_at_the_latest() {
        let outer = Drain::new();
        let (early, late) = (Drain::within(&outer.watch()), Drain::within(&outer.watch()));
        let slow = |drain: &Drain, seconds: u64| {
            let watch = drain.watch();
            drain.watch().spawn(async move {
                watch.announced().await;
                sleep(Duration::from_secs(seconds)).await;
            })
        };
        let (stuck, left) = (slow(&early, 3600), slow(&late, 7));
        early.begin(LIMIT);
        let start = Instant::now();
        assert!(stuck.await.unwrap().is_none(), "its deadline is enforced though nobody waits for it");
        assert_eq!(start.elapsed().as_secs(), 30);
        assert!(!outer.watch().is_draining() && !late.watch().is_draining());

        outer.leave();
        late.watch().leaving().cancelled().await;
        let start = Instant::now();
        assert_eq!(outer.drain(LIMIT).await, Drained::Complete);
        assert_eq!(start.elapsed().as_secs(), 7);
        left.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_outer_drain_is_that_of_the_inner_one() {
        let outer = Drain::new();
        let inner = Drain::within(&outer.watch());
        let task = inner.watch().spawn(std::future::pending::<()>());
        tokio::task::yield_now().await;
        outer.stop();
        assert_eq!(outer.drain(LIMIT).await, Drained::Expired(1));
        assert!(task.await.unwrap().is_none());
    }
}
