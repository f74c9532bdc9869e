//! Those who wait for room, in the order in which they came.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Who waits for room of one kind. Each keeps the place until it has room: where all that is told to those who wait is that there
/// may be some, whoever finds none begins again behind those who came later, and with the same few pieces written at a time the same
/// few get all of it. Only the first of the line may take. spec: SE-20
#[derive(Debug, Default)]
pub struct Line {
    /// How many places there are, for who has not the lock.
    waiting: AtomicUsize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A place in the line, once it was asked for the first time.
struct Place<'a> {
    line: &'a Line,
    number: Option<u64>,
}

impl Line {
    /// Whether nobody waits. Whoever comes while others do has to wait behind them.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// There is more room than before: the first of the line looks.
    pub fn tell(&self) {
        let first = self.lock().first();
        first.into_iter().for_each(Waker::wake);
    }

    /// Resolves with what `take` gets. It is asked only while this one is the first of the line, and says beside what it got whether
    /// there is more for the next one. It must not come back to this line. Cancel safe: who gives up leaves the line, and what was
    /// not taken is for the next one.
    pub async fn turn<T>(&self, mut take: impl FnMut() -> Option<(T, bool)>) -> T {
        let mut place = Place { line: self, number: None };
        poll_fn(|cx| place.poll(&mut take, cx)).await
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Whom to wake once the lock is given back: what a waker does nobody here knows.
    fn first(&self) -> Option<Waker> {
        self.wakers.first_key_value().map(|(_, waker)| waker.clone())
    }

    fn is_first(&self, number: u64) -> bool {
        self.wakers.first_key_value().is_some_and(|(&first, _)| first == number)
    }
}

impl Place<'_> {
    fn poll<T>(&mut self, take: &mut impl FnMut() -> Option<(T, bool)>, cx: &Context<'_>) -> Poll<T> {
        // All under the lock: what is freed meanwhile is told to whoever is the first then.
        let mut places = self.line.lock();
        let number = *self.number.get_or_insert_with(|| {
            self.line.waiting.fetch_add(1, Ordering::AcqRel);
            places.next += 1;
            places.next
        });
        places.wakers.entry(number).or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        if !places.is_first(number) {
            return Poll::Pending;
        }
        let Some((taken, is_more)) = take() else { return Poll::Pending };
        let _left = self.leave(&mut places);
        let next = places.first().filter(|_| is_more);
        drop(places);
        next.into_iter().for_each(Waker::wake);
        Poll::Ready(taken)
    }

    fn leave(&mut self, places: &mut Places) -> Option<Waker> {
        let left = places.wakers.remove(&self.number.take()?);
        self.line.waiting.fetch_sub(1, Ordering::AcqRel);
        left
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut places = self.line.lock();
        let was_first = places.is_first(number);
        let _left = self.leave(&mut places);
        let next = places.first().filter(|_| was_first);
        drop(places);
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    /// Pieces that there is room for.
    #[derive(Default)]
    struct Room {
        free: AtomicUsize,
        line: Line,
    }

    impl Room {
        fn take(&self) -> Option<((), bool)> {
            let free = self.free.load(Ordering::Relaxed).checked_sub(1)?;
            self.free.store(free, Ordering::Relaxed);
            Some(((), free > 0))
        }

        async fn turn(&self) {
            self.line.turn(|| self.take()).await;
        }

        fn give(&self, pieces: usize) {
            for _ in 0..pieces {
                self.free.fetch_add(1, Ordering::Relaxed);
                self.line.tell();
            }
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// One that always wants another piece, as the stream of a large body does.
    struct Greedy<'a> {
        room: &'a Room,
        turn: Pin<Box<dyn Future<Output = ()> + 'a>>,
        woken: Arc<Woken>,
        got: usize,
    }

    impl<'a> Greedy<'a> {
        fn new(room: &'a Room) -> Self {
            let mut greedy = Self { room, turn: Box::pin(room.turn()), woken: Arc::default(), got: 0 };
            greedy.poll();
            greedy
        }

        fn poll(&mut self) {
            self.woken.0.store(false, Ordering::Relaxed);
            let waker = Arc::clone(&self.woken).into();
            while self.turn.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.got += 1;
                self.turn = Box::pin(self.room.turn());
            }
        }
    }

    // spec: SE-20
    #[test]
    fn all_who_want_more_and_more_get_the_same_however_many_pieces_are_freed_at_a_time() {
        for (wanting, freed) in [(2, 2), (3, 2), (4, 4), (5, 3), (16, 4)] {
            let room = Room::default();
            let mut all: Vec<_> = (0..wanting).map(|_| Greedy::new(&room)).collect();
            for _ in 0..100 * wanting {
                room.give(freed);
                while let Some(woken) = all.iter_mut().find(|one| one.woken.0.load(Ordering::Relaxed)) {
                    woken.poll();
                }
            }
            let got: Vec<_> = all.iter().map(|one| one.got).collect();
            assert!(got.iter().all(|&got| got.abs_diff(100 * freed) <= 1), "{freed} at a time: {got:?}");
        }
    }

    #[test]
    fn whoever_waits_longest_is_served_first_and_who_gives_up_is_passed_over() {
        let room = Room::default();
        let mut cx = Context::from_waker(Waker::noop());
        let [mut first, mut gone, mut last] = [(); 3].map(|()| Box::pin(room.turn()));
        for waits in [&mut first, &mut gone, &mut last] {
            assert!(waits.as_mut().poll(&mut cx).is_pending());
        }
        room.give(2);
        assert!(last.as_mut().poll(&mut cx).is_pending());
        assert!(first.as_mut().poll(&mut cx).is_ready());
        drop((first, gone));
        assert!(!room.line.is_empty() && last.as_mut().poll(&mut cx).is_ready());
        drop(last);
        assert!(room.line.is_empty());
    }

    #[test]
    fn who_is_told_and_gives_up_has_the_next_one_told() {
        let room = Room::default();
        let (mut first, mut next) = (Box::pin(room.turn()), Greedy::new(&room));
        assert_eq!(next.got, 0);
        drop(next);
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        next = Greedy::new(&room);
        room.give(1);
        assert!(!next.woken.0.load(Ordering::Relaxed));
        drop(first);
        assert!(next.woken.0.load(Ordering::Relaxed));
        next.poll();
        assert_eq!(next.got, 1);
    }
}
