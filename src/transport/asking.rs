//! What one tunnel may ask of an initiator: how much of request heads it makes it hold, and how fast exchanges go on to the
//! targets. spec: SE-15, SE-16
//!
//! A responder can open thousands of streams for nothing: with heads as long as may be, with answers that it does not
//! take, or only to reset them. So heads are counted in bytes, and exchanges begin as fast as they come to something: many
//! at once, two for each answer that is taken, and beyond that some as time passes, unless many answers wait already.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};

use crate::protocol::budgets::{ASKED_AT_MOST, ASKED_AT_ONCE, ASKED_EVERY, HEADS_OF_TUNNEL, UNTAKEN_ANSWERS};

/// By how much one may begin early because those before it began late: timers are no finer than a millisecond.
const LATE: Duration = Duration::from_millis(10);
/// No answer is shorter over HTTP/2: a frame, and a status that stands for itself. Bytes.
const LEAST_ANSWER: u64 = 10;

/// What all exchanges of a tunnel share at its initiator.
#[derive(Debug)]
pub(super) struct Asking {
    /// Bytes of heads that are held.
    heads: AtomicU64,
    /// How many times more than on a tunnel there may be of everything. spec: FL-53
    factor: AtomicU32,
    /// How many exchanges may begin at once.
    free: AtomicU32,
    /// How many that may be at most.
    most: AtomicU32,
    /// Answers of which the first piece waits to be taken.
    untaken: AtomicU32,
    /// Answers whose first piece was taken into HTTP/2, and of which it is not known that they were written.
    unwritten: AtomicU32,
    /// Bytes that were written in all, over TCP.
    written: OnceLock<Arc<AtomicU64>>,
    /// How many of these are accounted for.
    accounted: std::sync::Mutex<u64>,
    freed: Notify,
    /// How many wait for their turn.
    queued: AtomicU32,
    /// Held by the one whose turn is next: when the last one began that began by time.
    queue: Mutex<Instant>,
}

/// One that waits for its turn.
struct Queued<'a>(&'a AtomicU32);

impl<'a> Queued<'a> {
    fn new(queued: &'a AtomicU32) -> Self {
        queued.fetch_add(1, Ordering::AcqRel);
        Self(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What one exchange has of that. Whoever drops it has to [let it go](Asking::leave).
#[derive(Debug, Default)]
pub(super) struct Asked {
    head: u32,
    stage: Stage,
    /// One piece is still to be asked for behind the first that does not say that it was taken.
    pub(super) is_one_more: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No target was asked.
    #[default]
    New,
    Asked,
    /// The first piece of an answer is there, and not taken.
    Given,
    /// It was taken, or all is over.
    Taken,
}

impl Asking {
    pub(super) fn new() -> Self {
        Self {
            heads: AtomicU64::new(0),
            factor: AtomicU32::new(1),
            free: AtomicU32::new(ASKED_AT_ONCE),
            most: AtomicU32::new(ASKED_AT_ONCE),
            untaken: AtomicU32::new(0),
            unwritten: AtomicU32::new(0),
            written: OnceLock::new(),
            accounted: std::sync::Mutex::default(),
            freed: Notify::new(),
            queued: AtomicU32::new(0),
            queue: Mutex::new(Instant::now()),
        }
    }

    /// What HTTP/2 takes is taken by the other end only when so many bytes are written; the first call decides.
    pub(super) fn count_written(&self, written: Arc<AtomicU64>) {
        let _ = self.written.set(written);
    }

    /// There may be so many times more of everything, of one that leads to many nodes. Before anything comes. spec: FL-53
    pub(super) fn takes_more(&self, factor: u32) {
        self.factor.store(factor, Ordering::Relaxed);
        self.free.store(ASKED_AT_ONCE * factor, Ordering::Release);
        self.most.store(ASKED_AT_ONCE * factor, Ordering::Relaxed);
    }

    fn factor(&self) -> u32 {
        self.factor.load(Ordering::Relaxed)
    }

    /// Counts so many bytes of a head, those that it counted before among them. `false`: that is too much of all heads, and
    /// the exchange has to be refused.
    pub(super) fn hold_head(&self, asked: &mut Asked, bytes: usize) -> bool {
        let more = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_sub(asked.head);
        asked.head += more;
        let before = self.heads.fetch_add(more.into(), Ordering::Relaxed);
        more == 0 || before + u64::from(more) <= HEADS_OF_TUNNEL * u64::from(self.factor())
    }

    /// The head is no longer held.
    pub(super) fn drop_head(&self, asked: &mut Asked) {
        let head = std::mem::take(&mut asked.head);
        self.heads.fetch_sub(head.into(), Ordering::Relaxed);
    }

    /// Begins an exchange at once, if that may be and nobody waits already.
    pub(super) fn try_ask(&self, asked: &mut Asked) -> bool {
        if self.queued.load(Ordering::Acquire) > 0 {
            return false;
        }
        let may = self.try_begin() || (self.settle() && self.try_begin());
        if may {
            Self::begin(asked);
        }
        may
    }

    fn try_begin(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1)).is_ok()
    }

    /// Resolves when the turn of an exchange has come, for [`Self::begin`]. Cancel safe: it loses its place among those who
    /// wait.
    pub(super) async fn turn(&self) {
        let _queued = Queued::new(&self.queued);
        let mut last = self.queue.lock().await;
        let every = ASKED_EVERY / self.factor();
        if last.elapsed() > every + LATE {
            *last = Instant::now();
        }
        loop {
            if self.try_begin() || (self.settle() && self.try_begin()) {
                return;
            }
            let next = *last + every;
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep_until(next) => {
                    if self.waiting_answers() < UNTAKEN_ANSWERS * self.factor() {
                        *last = next;
                        return;
                    }
                    *last = Instant::now();
                }
            }
        }
    }

    /// Answers of which it is not known that anything was taken.
    fn waiting_answers(&self) -> u32 {
        self.settle();
        self.untaken.load(Ordering::Acquire) + self.unwritten.load(Ordering::Acquire)
    }

    /// Counts what was written meanwhile; whether others may begin for it.
    fn settle(&self) -> bool {
        let Some(written) = self.written.get() else { return false };
        let mut accounted = self.accounted.lock().unwrap_or_else(PoisonError::into_inner);
        let written = written.load(Ordering::Acquire);
        let answers = u32::try_from((written - *accounted) / LEAST_ANSWER).unwrap_or(u32::MAX);
        let waiting = self.unwritten.load(Ordering::Acquire);
        let settled = waiting.min(answers);
        *accounted = if settled < waiting { *accounted + u64::from(settled) * LEAST_ANSWER } else { written };
        self.unwritten.fetch_sub(settled, Ordering::AcqRel);
        drop(accounted);
        if settled > 0 {
            self.earn(settled);
        }
        settled > 0
    }

    /// Two others may begin for each of so many answers.
    fn earn(&self, answers: u32) {
        let at_most = ASKED_AT_MOST * self.factor();
        let add = |most: u32| Some(at_most.min(most.saturating_add(answers)));
        let most = self.most.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let most = most.ok().and_then(add).unwrap_or(at_most);
        let more = |free: u32| Some(most.min(free.saturating_add(2 * answers)));
        let _ = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        self.freed.notify_one();
    }

    /// An exchange begins whose turn has come.
    pub(super) const fn begin(asked: &mut Asked) {
        asked.stage = Stage::Asked;
    }

    /// The first piece of an answer is there.
    pub(super) fn given(&self, asked: &mut Asked) {
        if asked.stage == Stage::Asked {
            asked.stage = Stage::Given;
            self.untaken.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether the first piece of an answer waits to be taken.
    pub(super) fn is_given(asked: &Asked) -> bool {
        asked.stage == Stage::Given
    }

    /// The other end has taken that piece, or an answer without any: others may begin for it.
    pub(super) fn taken(&self, asked: &mut Asked) {
        if matches!(asked.stage, Stage::New | Stage::Taken) {
            return;
        }
        self.leave(asked);
        match self.written.get() {
            None => self.earn(1),
            Some(written) if self.unwritten.fetch_add(1, Ordering::AcqRel) == 0 => {
                // What was written before pays for nothing that comes behind it.
                let mut accounted = self.accounted.lock().unwrap_or_else(PoisonError::into_inner);
                *accounted = written.load(Ordering::Acquire);
            }
            Some(_) => {}
        }
    }

    /// The exchange is over, however.
    pub(super) fn leave(&self, asked: &mut Asked) {
        self.drop_head(asked);
        if std::mem::replace(&mut asked.stage, Stage::Taken) == Stage::Given {
            self.untaken.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn begin(asking: &Asking, count: u32) -> Vec<Asked> {
        let begun = (0..count).map(|_| {
            let mut asked = Asked::default();
            asking.try_ask(&mut asked).then_some(asked)
        });
        begun.map_while(|asked| asked).collect()
    }

    // spec: SE-15
    #[test]
    fn heads_are_counted_while_they_are_held_and_refused_beyond_the_bound() {
        const HEAD: usize = 64 << 10;
        let (asking, most) = (Asking::new(), (HEADS_OF_TUNNEL / HEAD as u64) as usize);
        let mut all: Vec<Asked> = (0..most).map(|_| Asked::default()).collect();
        for asked in &mut all {
            assert!(asking.hold_head(asked, HEAD / 2) && asking.hold_head(asked, HEAD), "it grows");
        }
        let mut late = Asked::default();
        assert!(!asking.hold_head(&mut late, HEAD));
        asking.leave(&mut late);
        asking.drop_head(&mut all[0]);
        assert!(asking.hold_head(&mut Asked::default(), HEAD));
        asking.leave(&mut all[1]);
        assert!(asking.hold_head(&mut Asked::default(), HEAD));
    }

    // spec: SE-16
    #[tokio::test(start_paused = true)]
    async fn exchanges_that_come_to_nothing_are_followed_by_others_only_as_time_passes() {
        let (asking, began) = (Asking::new(), Instant::now());
        let mut reset = begin(&asking, 2 * ASKED_AT_ONCE);
        assert_eq!(reset.len(), ASKED_AT_ONCE as usize);
        for asked in &mut reset {
            asking.leave(asked);
        }
        for _ in 0..500 {
            asking.turn().await;
        }
        assert!((1_000..=1_200).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert!(begin(&asking, 1).is_empty());
    }

    // spec: SE-16
    #[tokio::test(start_paused = true)]
    async fn none_begins_while_many_answers_are_not_taken_and_two_do_for_each_that_is() {
        let asking = Asking::new();
        let mut all = begin(&asking, ASKED_AT_ONCE);
        for asked in &mut all[..UNTAKEN_ANSWERS as usize] {
            asking.given(asked);
        }
        let waits = timeout(Duration::from_secs(600), asking.turn());
        assert!(waits.await.is_err());
        let (first, others) = all.split_first_mut().unwrap();
        asking.taken(first);
        assert_eq!(begin(&asking, 9).len(), 2);
        asking.leave(&mut others[0]);
        timeout(ASKED_EVERY * 2, asking.turn()).await.expect("fewer wait now");
    }

    // spec: SE-16
    #[tokio::test(start_paused = true)]
    async fn what_http2_takes_is_taken_once_it_is_written() {
        let (asking, written) = (Asking::new(), Arc::<AtomicU64>::default());
        asking.count_written(Arc::clone(&written));
        let mut all = begin(&asking, ASKED_AT_ONCE);
        for asked in &mut all {
            asking.given(asked);
            asking.taken(asked);
        }
        assert!(begin(&asking, 1).is_empty());
        assert!(timeout(Duration::from_secs(600), asking.turn()).await.is_err());
        written.fetch_add(3 * LEAST_ANSWER, Ordering::AcqRel);
        assert_eq!(begin(&asking, 9).len(), 6, "two for each");
        written.fetch_add(1 << 20, Ordering::AcqRel);
        asking.turn().await;
    }

    // spec: FL-53
    #[tokio::test(start_paused = true)]
    async fn one_that_leads_to_many_nodes_takes_as_many_times_more() {
        let asking = Asking::new();
        asking.takes_more(16);
        let head = HEADS_OF_TUNNEL as usize;
        let mut heads: Vec<Asked> = (0..16).map(|_| Asked::default()).collect();
        assert!(heads.iter_mut().all(|asked| asking.hold_head(asked, head)));
        assert!(!asking.hold_head(&mut Asked::default(), 1));
        let (all, began) = (begin(&asking, 32 * ASKED_AT_ONCE), Instant::now());
        assert_eq!(all.len(), 16 * ASKED_AT_ONCE as usize);
        for _ in 0..8_000 {
            asking.turn().await;
        }
        assert!((900..=1_200).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    // spec: SE-16
    #[test]
    fn a_tunnel_whose_answers_are_taken_begins_as_many_at_once_as_it_may_have() {
        let asking = Asking::new();
        for _ in 0..ASKED_AT_MOST {
            let mut asked = Asked::default();
            assert!(asking.try_ask(&mut asked));
            asking.given(&mut asked);
            asking.taken(&mut asked);
            asking.leave(&mut asked);
        }
        assert_eq!(begin(&asking, 2 * ASKED_AT_MOST).len(), ASKED_AT_MOST as usize);
        assert_eq!(asking.untaken.load(Ordering::Relaxed), 0);
    }
}
