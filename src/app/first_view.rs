//! A start in a fleet is complete when it is known who else is there, or was not to be known in time. spec: FL-26

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use crate::lifecycle::{Ready, ReadyGuard};

/// What `/ready` names while it is missing.
const STEP: &str = "the fleet's directory (etcd was not read yet)";

/// A step of the start that waits for the first view of the fleet.
#[derive(Debug)]
pub(super) struct FirstView {
    ready: ReadyGuard,
    limit: Duration,
}

impl FirstView {
    /// A step that waits so long at most; `None` where nobody is to wait.
    pub(super) fn wanted(ready: &Ready, limit: Duration) -> Option<Self> {
        (!limit.is_zero()).then(|| Self { ready: ready.guard(STEP), limit })
    }

    /// The step is done when the directory is `read`, when it is not after the limit, or when nobody needs it any more (`ended`).
    pub(super) async fn wait(self, read: impl Future<Output = ()>, ended: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = read => {}
            () = ended => {}
            () = sleep(self.limit) => warn!(
                waited = ?self.limit,
                "etcd was not reached since the start: taking requests without knowing what the siblings have"
            ),
        }
        self.ready.done();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;
    use tokio::time::{Instant, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn step(limit: Duration) -> (Ready, Option<FirstView>) {
        let ready = Ready::new();
        let first = FirstView::wanted(&ready, limit);
        (ready, first)
    }

    // spec: FL-26
    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_the_directory_and_for_no_longer_than_the_limit() {
        let (all, first) = step(LIMIT);
        let began = Instant::now();
        let waiting = tokio::spawn(first.unwrap().wait(pending(), pending()));
        assert!(timeout(LIMIT - Duration::from_millis(1), all.wait()).await.is_err(), "it is not ready too early");
        assert_eq!(all.missing(), [STEP]);
        waiting.await.unwrap();
        assert!(all.is_ready());
        assert_eq!(began.elapsed(), LIMIT);
    }

    // spec: FL-26
    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_read_late_completes_the_start_at_once() {
        let (all, first) = step(LIMIT);
        let (tell, told) = oneshot::channel::<()>();
        let began = Instant::now();
        let waiting = tokio::spawn(first.unwrap().wait(async { drop(told.await) }, pending()));
        sleep(LIMIT / 2).await;
        assert!(!all.is_ready());
        tell.send(()).unwrap();
        waiting.await.unwrap();
        assert!(all.is_ready());
        assert_eq!(began.elapsed(), LIMIT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_by_whoever_leaves_or_is_told_not_to_wait() {
        let (all, first) = step(LIMIT);
        let began = Instant::now();
        first.unwrap().wait(pending(), ready(())).await;
        assert!(all.is_ready() && began.elapsed().is_zero());
        let (all, first) = step(Duration::ZERO);
        assert!(first.is_none() && all.is_ready());
    }
}
