//! One timer per connection that is cheap to push back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A point in time. Moving it later, which happens twice per request, only writes a field: the timer underneath fires at
/// the old time and is then set anew.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn new(at: Instant) -> Self {
        Self { at, sleep: Box::pin(sleep_until(at)) }
    }

    pub(super) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.sleep.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_fires_at_the_last_time_set_whether_later_or_earlier() {
        let (soon, late, never) = (Duration::from_millis(1), Duration::from_millis(50), Duration::from_secs(3600));
        let begin = Instant::now();
        let mut deadline = Deadline::new(begin + soon);
        deadline.set(begin + late);
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(begin.elapsed() >= late);
        deadline.set(begin + never);
        deadline.set(begin + late);
        let fires = timeout(Duration::from_secs(10), poll_fn(|cx| deadline.poll(cx))).await;
        assert!(fires.is_ok(), "an earlier time must not wait for the later one");
    }
}
