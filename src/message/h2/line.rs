//! Those who wait for room, in the order in which they came.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Who waits for room of one kind. Whoever comes while others wait has to wait behind them: those who go on would otherwise take
/// all that is freed before anybody who was told of it looks, again and again. spec: SE-20
#[derive(Debug, Default)]
pub struct Line {
    freed: Notify,
    waiting: AtomicUsize,
}

struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Line {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// There is room for the first of them, or for the next one who comes. Who is told and leaves some of it, or does not want it,
    /// has to tell the next one.
    pub fn tell(&self) {
        self.freed.notify_one();
    }

    /// Resolves when it is worth asking for room, before all who came later. Cancel safe: who gives up leaves the line, and the next
    /// one is told.
    pub async fn turn(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _place = Place(&self.waiting);
        self.freed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn whoever_waits_longest_is_told_first_and_who_gives_up_is_passed_over() {
        let line = Line::default();
        let mut cx = Context::from_waker(Waker::noop());
        let [mut first, mut gone, mut last] = [(); 3].map(|()| Box::pin(line.turn()));
        for waits in [&mut first, &mut gone, &mut last] {
            assert!(waits.as_mut().poll(&mut cx).is_pending());
        }
        line.tell();
        line.tell();
        assert!(last.as_mut().poll(&mut cx).is_pending());
        assert!(first.as_mut().poll(&mut cx).is_ready());
        drop((first, gone));
        assert!(!line.is_empty() && last.as_mut().poll(&mut cx).is_ready());
        drop(last);
        assert!(line.is_empty());
    }
}
