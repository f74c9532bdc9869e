//! How long a response may take to begin, and how long a request's body may take to come.
//!
//! The clock of the response runs while it is the other side's turn: from the start of a request without a body, else from
//! the last piece of the body that was delivered. An upload of an hour is not late, a target that takes no more of it is.
//! The clock of the body runs while it is the sender's turn, see [`Pace`]: one that delivers nothing, or a byte now and
//! then, holds a stream and a place at the target that others need.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use super::pace::Pace;
use super::upload::Progress;

/// How long an exchange may take until its response begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits<'a> {
    /// For the other side.
    pub(super) answer: &'a Duration,
    /// For the sender of the request.
    pub(super) pace: &'a Pace,
}

/// Whose limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The other side's: it took no more of the request, or did not answer.
    Answer,
    /// The sender's: it delivered nothing for too long.
    Silent,
    /// The sender's: it delivered less than it must.
    Slow,
}

/// After this an answer is slow enough to ask whether its tunnel still lives.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// Runs `work` until somebody is late; without a body it polls it once more when the answer is slow. It is pinned by the caller: moved in here it would take its place twice.
pub(super) fn within<F: Future>(
    limits: Limits<'_>,
    progress: Option<&Progress>,
    mut work: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, Late>> {
    // Most are over before anybody looks at a clock.
    let mut clock = None;
    let mut left = Ok(match progress {
        Some(_) if !limits.pace.whole => limits.pace.body_idle.min(*limits.answer),
        _ => SLOW.min(*limits.answer),
    });
    async move {
        loop {
            match timeout(left?, work.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) => {
                    let passed = left.unwrap_or_default();
                    let clock = clock.get_or_insert_with(|| Box::new(Clock::default()));
                    left = match progress {
                        Some(progress) if !limits.pace.whole => clock.left(limits, progress),
                        progress => clock.left_of_whole(limits, progress, passed),
                    };
                }
            }
        }
    }
}

/// What is asked of the sender, since the last look that it passed.
#[derive(Default)]
struct Clock {
    /// The sender's time, or that of both where it is not told apart, and the bytes, until that look.
    waited: Duration,
    bytes: u64,
}

impl Clock {
    /// How long nobody can be late from now on, where the answer has the time of both; another while has `passed`.
    fn left_of_whole(
        &mut self,
        limits: Limits<'_>,
        progress: Option<&Progress>,
        passed: Duration,
    ) -> Result<Duration, Late> {
        self.waited += passed;
        let answer = remains(*limits.answer, self.waited).ok_or(Late::Answer)?;
        let Some(progress) = progress.filter(|progress| progress.bytes() == 0) else { return Ok(answer) };
        let first = remains(limits.pace.body_idle, progress.waited_for_sender().now).ok_or(Late::Silent)?;
        Ok(answer.min(first))
    }

    /// How long nobody can be late from now on.
    fn left(&mut self, limits: Limits<'_>, progress: &Progress) -> Result<Duration, Late> {
        let Limits { answer, pace } = limits;
        let answer = remains(*answer, progress.waiting_for_answer()).ok_or(Late::Answer)?;
        let waited = progress.waited_for_sender();
        let rest = remains(pace.body_idle, waited.now).ok_or(Late::Silent)?;
        let bytes = progress.bytes();
        let window = match remains(pace.body_idle, waited.total.saturating_sub(self.waited)) {
            Some(window) => window,
            None if bytes - self.bytes < pace.least_bytes() => return Err(Late::Slow),
            None => {
                (self.waited, self.bytes) = (waited.total, bytes);
                pace.body_idle
            }
        };
        Ok(answer.min(rest).min(window))
    }
}

/// What is left of a limit; `None` if it was reached.
fn remains(limit: Duration, used: Duration) -> Option<Duration> {
    limit.checked_sub(used).filter(|left| !left.is_zero())
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
    const ANSWER: Limits<'_> = Limits { answer: &LIMIT, pace: &Pace::NONE };
    /// The sender has half of the time that the other side has.
    const BOTH: Limits<'_> =
        Limits { answer: &LIMIT, pace: &Pace { body_idle: Duration::from_secs(30), body_rate: 10, ..Pace::NONE } };
    /// The two of them have the time together.
    const WHOLE: Limits<'_> = Limits { answer: &LIMIT, pace: &Pace { whole: true, ..*BOTH.pace } };

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
        Upload::new(body, &Metrics::new().exchanges(Side::Egress, &[]), None)
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_time_is_not_disturbed() {
        assert_eq!(within(ANSWER, None, pin!(async { 7 })).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_body_the_limit_is_the_limit() {
        let started = Instant::now();
        assert_eq!(within(ANSWER, None, pin!(pending::<()>())).await, Err(Late::Answer));
        assert_eq!(rounded(started), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_takes_its_time_makes_nobody_late() {
        let mut upload = upload(Silent);
        poll(&mut upload);
        assert_eq!(within(ANSWER, upload.progress().as_deref(), pin!(sleep(LIMIT * 5))).await, Ok(()));
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
        assert_eq!(within(ANSWER, progress.as_deref(), pin!(work)).await, Err(Late::Answer));
        assert_eq!(rounded(started), LIMIT + LIMIT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_late() {
        let upload = upload(Full::new(Bytes::from("x")));
        assert_eq!(within(ANSWER, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late::Answer));
    }

    /// Bytes that come one by one, this much apart.
    async fn drip(upload: &mut Upload<Drips>, every: Duration) {
        loop {
            sleep(every).await;
            upload.introduce(|drips, _| drips.0 = true);
            poll(upload);
            poll(upload);
        }
    }

    /// A body that has a byte when it was told so.
    struct Drips(bool);

    impl Body for Drips {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match std::mem::take(&mut self.0) {
                true => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x"))))),
                false => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_delivers_nothing_is_late() {
        let mut upload = upload(Silent);
        poll(&mut upload);
        let started = Instant::now();
        assert_eq!(within(BOTH, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late::Silent));
        assert_eq!(rounded(started), BOTH.pace.body_idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_too_little() {
        let mut upload = upload(Drips(false));
        poll(&mut upload);
        let (progress, started) = (upload.progress(), Instant::now());
        let outcome = within(BOTH, progress.as_deref(), pin!(drip(&mut upload, Duration::from_secs(1)))).await;
        assert_eq!(outcome, Err(Late::Slow));
        assert!(rounded(started) <= BOTH.pace.body_idle * 2, "{:?}", rounded(started));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_at_its_least_rate_may_go_on_for_hours() {
        let mut upload = upload(Drips(false));
        poll(&mut upload);
        let progress = upload.progress();
        let hours = async {
            tokio::select! {
                () = drip(&mut upload, Duration::from_millis(50)) => {}
                () = sleep(Duration::from_secs(2 * 3600)) => {}
            }
        };
        assert_eq!(within(BOTH, progress.as_deref(), pin!(hours)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_other_side_does_not_take_is_not_the_senders_fault() {
        let upload = upload(Full::new(Bytes::from("x")));
        assert_eq!(within(BOTH, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late::Answer));
    }

    #[tokio::test(start_paused = true)]
    async fn where_both_have_the_time_the_sender_has_to_begin() {
        let mut upload = upload(Silent);
        poll(&mut upload);
        let started = Instant::now();
        assert_eq!(within(WHOLE, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late::Silent));
        assert_eq!(rounded(started), WHOLE.pace.body_idle);
    }

    #[tokio::test(start_paused = true)]
    async fn where_both_have_the_time_a_sender_that_has_begun_may_be_silent_to_its_end() {
        let mut upload = upload(Drips(true));
        poll(&mut upload);
        poll(&mut upload);
        let started = Instant::now();
        assert_eq!(within(WHOLE, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late::Answer));
        assert_eq!(rounded(started), LIMIT);
        let whole = Limits { answer: &Duration::MAX, ..WHOLE };
        assert_eq!(within(whole, upload.progress().as_deref(), pin!(sleep(LIMIT * 600))).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn where_both_have_the_time_a_body_that_nobody_takes_is_not_the_senders_fault() {
        let upload = upload(Full::new(Bytes::from("x")));
        let started = Instant::now();
        assert_eq!(within(WHOLE, upload.progress().as_deref(), pin!(pending::<()>())).await, Err(Late::Answer));
        assert_eq!(rounded(started), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_is_polled_once_more_after_a_second() {
        let (mut polls, started) = (0, Instant::now());
        let work = poll_fn(|_| {
            polls += 1;
            if polls == 2 { Poll::Ready(started.elapsed()) } else { Poll::Pending }
        });
        assert_eq!(within(ANSWER, None, pin!(work)).await.map(|took| took.as_secs()), Ok(1));
    }
}
