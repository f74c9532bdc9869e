//! How long a response may take to begin.
//!
//! The clock runs while it is the other side's turn: from the start of a request without a body, else from the last
//! piece of the body that was delivered. An upload of an hour is not late, a target that takes no more of it is.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use super::upload::Progress;

/// The limit was reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Late;

/// Runs `work` until it is late. It is pinned by the caller: moved in here it would take its place twice.
pub(super) fn within<F: Future>(
    limit: Duration,
    progress: Option<&Progress>,
    mut work: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, Late>> {
    let mut left = limit;
    async move {
        while !left.is_zero() {
            if let Ok(output) = timeout(left, work.as_mut()).await {
                return Ok(output);
            }
            left = progress.map_or(Duration::ZERO, |progress| limit.saturating_sub(progress.waiting_for_answer()));
        }
        Err(Late)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use http_body_util::Full;
    use tokio::time::{Instant, sleep};

    use super::super::upload::Upload;
    use super::*;
    use crate::telemetry::{Metrics, Side};

    const LIMIT: Duration = Duration::from_secs(60);

    /// A body whose sender never delivers.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    /// Timers have a resolution of a millisecond.
    fn rounded(started: Instant) -> Duration {
        Duration::from_secs(started.elapsed().as_secs())
    }

    fn poll<B: Body<Data = Bytes> + Unpin>(upload: &mut Upload<B>) {
        let _ = Pin::new(upload).poll_frame(&mut Context::from_waker(Waker::noop()));
    }

    fn upload<B: Body>(body: B) -> Upload<B> {
        Upload::new(body, &Metrics::new().exchanges(Side::Egress, &[]))
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_time_is_not_disturbed() {
        assert_eq!(within(LIMIT, None, pin!(async { 7 })).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_body_the_limit_is_the_limit() {
        let started = Instant::now();
        assert_eq!(within(LIMIT, None, pin!(pending::<()>())).await, Err(Late));
        assert_eq!(rounded(started), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_takes_its_time_makes_nobody_late() {
        let mut upload = upload(Silent);
        poll(&mut upload);
        assert_eq!(within(LIMIT, upload.progress().as_deref(), pin!(sleep(LIMIT * 5))).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_counts_from_the_last_delivery() {
        let mut upload = upload(Full::new(Bytes::from("x")));
        let progress = upload.progress();
        let started = Instant::now();
        let work = async {
            sleep(LIMIT / 2).await;
            poll(&mut upload);
            poll_fn(|_| Poll::<()>::Pending).await;
        };
        assert_eq!(within(LIMIT, progress.as_deref(), pin!(work)).await, Err(Late));
        assert_eq!(rounded(started), LIMIT + LIMIT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_late() {
        let upload = upload(Full::new(Bytes::from("x")));
        assert_eq!(within(LIMIT, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late));
    }
}
