//! The end of an exchange in which nothing moves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// In how many looks a limit is spent: what moves costs nothing between two of them.
const LOOKS: u32 = 4;

/// Watches an exchange while it waits. Nothing is set up before it first has to.
#[derive(Debug, Default)]
pub(super) struct Quiet(Option<Box<Watch>>);

#[derive(Debug)]
struct Watch {
    sleep: Pin<Box<Sleep>>,
    /// Something of the response came since the last look.
    moves: bool,
    /// Bytes of the request at the last look, and how many looks ago they were as many already.
    uploaded: u64,
    looks: u32,
}

impl Quiet {
    /// Something of the response came.
    pub(super) fn moves(&mut self) {
        if let Some(watch) = &mut self.0 {
            watch.moves = true;
        }
    }

    /// Ready when nothing has moved for `limit`, up to a quarter more; `uploaded` are the bytes of the request so far.
    pub(super) fn poll(&mut self, limit: Duration, uploaded: u64, cx: &mut Context<'_>) -> Poll<()> {
        let step = limit / LOOKS;
        let watch = self.0.get_or_insert_with(|| Box::new(Watch::new(step, uploaded)));
        loop {
            ready!(watch.sleep.as_mut().poll(cx));
            let moves = std::mem::take(&mut watch.moves) || watch.uploaded != uploaded;
            watch.looks = if moves { 0 } else { watch.looks + 1 };
            watch.uploaded = uploaded;
            if watch.looks >= LOOKS {
                return Poll::Ready(());
            }
            watch.sleep.as_mut().reset(Instant::now() + step);
        }
    }
}

impl Watch {
    fn new(step: Duration, uploaded: u64) -> Self {
        Self { sleep: Box::pin(sleep(step)), moves: false, uploaded, looks: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn what_rests_for_its_limit_is_over_and_no_sooner() {
        let (mut quiet, started) = (Quiet::default(), Instant::now());
        poll_fn(|cx| quiet.poll(LIMIT, 7, cx)).await;
        assert!((LIMIT..=LIMIT * 5 / 4).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_now_and_then_lives() {
        let (mut quiet, started) = (Quiet::default(), Instant::now());
        let moves = poll_fn(|cx| quiet.poll(LIMIT, started.elapsed().as_secs() / 200, cx));
        assert!(tokio::time::timeout(LIMIT * 20, moves).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_comes_now_and_then_lives() {
        let mut quiet = Quiet::default();
        for _ in 0..20 {
            let waits = tokio::time::timeout(LIMIT * 2 / 3, poll_fn(|cx| quiet.poll(LIMIT, 0, cx)));
            assert!(waits.await.is_err());
            quiet.moves();
        }
    }
}
