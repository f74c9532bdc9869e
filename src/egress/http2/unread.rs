//! The end of a connection whose other end does not take what waits for it, though its exchanges go on.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::egress::Settings;
use crate::egress::deadline::Deadline;

/// In how many looks a limit is spent: what is read costs nothing between two of them.
const LOOKS: u32 = 4;

/// Watches what a connection writes while something waits.
#[derive(Debug)]
pub(super) struct Unread {
    timeout: Duration,
    /// The least rate at which what waits is to be taken, bytes a second; 0: any byte will do.
    rate: u64,
    look: Deadline,
    stalled: Option<Stalled>,
}

/// Something waits.
#[derive(Debug, Clone, Copy)]
struct Stalled {
    /// Bytes that were written at the last look.
    written: u64,
    /// When it has lasted too long.
    ends: Instant,
}

impl Unread {
    pub(super) fn new(settings: &Settings) -> Self {
        let (timeout, rate) = (settings.send_timeout, settings.pace.body_rate);
        Self { timeout, rate, look: Deadline::new(Instant::now() + timeout / LOOKS), stalled: None }
    }

    /// Ready when the connection is to end; `waits` says how much was written so far, if something waits.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, waits: impl Fn() -> Option<u64>) -> Poll<()> {
        loop {
            ready!(self.look.poll(cx));
            let now = Instant::now();
            self.note(waits(), now);
            if self.stalled.is_some_and(|stalled| stalled.ends <= now) {
                return Poll::Ready(());
            }
            self.look.set(now + self.timeout / LOOKS);
        }
    }

    fn note(&mut self, waits: Option<u64>, now: Instant) {
        let latest = now + self.timeout;
        self.stalled = waits.map(|written| match self.stalled {
            None => Stalled { written, ends: latest },
            Some(before) => {
                let ends = latest.min(before.ends + self.earned(written.saturating_sub(before.written)));
                Stalled { written, ends }
            }
        });
    }

    /// How much longer is waited for somebody who took so many bytes: a byte now and then is as good as none.
    fn earned(&self, bytes: u64) -> Duration {
        match (bytes, self.rate) {
            (0, _) => Duration::ZERO,
            (_, 0) => self.timeout,
            (bytes, rate) => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn unread() -> Unread {
        Unread::new(&Settings { send_timeout: LIMIT, ..Settings::default() })
    }

    /// How long a connection is kept, an hour at most, of which so much is written by then.
    async fn kept(written: impl Fn(Duration) -> Option<u64>) -> Option<Duration> {
        let (mut unread, began) = (unread(), Instant::now());
        let ends = poll_fn(|cx| unread.poll(cx, || written(began.elapsed())));
        timeout(LIMIT * 60, ends).await.ok().map(|()| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_or_next_to_nothing_of_what_waits_is_over_in_time() {
        let allowed = LIMIT..=LIMIT * 3 / 2;
        let nothing = kept(|_| Some(7)).await.unwrap();
        assert!(allowed.contains(&nothing), "{nothing:?}");
        let a_byte_a_second = kept(|elapsed| Some(elapsed.as_secs())).await.unwrap();
        assert!(allowed.contains(&a_byte_a_second), "{a_byte_a_second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_what_it_is_given_lives() {
        assert_eq!(kept(|_| None).await, None, "nothing waits");
        assert_eq!(kept(|elapsed| Some(elapsed.as_secs() * 1000)).await, None, "slowly");
        assert_eq!(kept(|elapsed| (elapsed.as_secs() / 30 % 2 == 0).then_some(0)).await, None, "now and then");
    }
}
