//! Who may be connected at once, and for how long: whoever says nothing or reads nothing keeps nobody from asking whether
//! the process lives.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep, timeout};

/// Connections that may ask for everything.
const USUAL: usize = 64;
/// Places beyond them, for a look at the health only. Who comes when they are taken takes the place of the first of them.
const KEPT: usize = 8;
/// How long somebody may have such a place.
const KEPT_FOR: Duration = Duration::from_secs(2);
/// How long an answer may take to be read, from when its reader first takes no more.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of the listener.
#[derive(Debug, Default)]
pub(super) struct Connections {
    running: JoinSet<Place>,
    usual: usize,
    kept: VecDeque<AbortHandle>,
}

/// What a connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Every answer.
    Usual,
    /// Whether the process lives and is ready.
    Kept,
}

impl Connections {
    /// Serves one more connection, with what `serve` makes of its place. Whether somebody else had to go for it.
    pub(super) fn admit<F>(&mut self, serve: impl FnOnce(Place) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.usual < USUAL {
            self.usual += 1;
            let serving = serve(Place::Usual);
            self.running.spawn(async move {
                serving.await;
                Place::Usual
            });
            return false;
        }
        self.kept.retain(|kept| !kept.is_finished());
        let first = if self.kept.len() < KEPT { None } else { self.kept.pop_front() };
        let serving = serve(Place::Kept);
        self.kept.push_back(self.running.spawn(async move {
            // Late is as good as done.
            let _ = timeout(KEPT_FOR, serving).await;
            Place::Kept
        }));
        first.is_some_and(|first| {
            first.abort();
            true
        })
    }

    /// Returns when one of them ended; never if there is none. Cancel safe.
    pub(super) async fn ended(&mut self) {
        match self.running.join_next().await {
            Some(Ok(Place::Usual)) => self.usual -= 1,
            Some(Ok(Place::Kept)) => {}
            // Only those in a kept place are aborted; a panic was reported by the runtime.
            Some(Err(error)) if error.is_panic() => self.usual = self.usual.saturating_sub(1),
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// Waits for all of them, and cuts those that are left after `limit`.
    pub(super) async fn finish(mut self, limit: Duration) {
        let all = async { while self.running.join_next().await.is_some() {} };
        let _ = timeout(limit, all).await;
        self.running.shutdown().await;
    }
}

/// A connection that fails when what is written to it is not taken in time. A byte now and then buys no time.
pub(super) struct Impatient<T> {
    io: T,
    /// Since it took no more.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Impatient<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, stalled: None }
    }

    fn wait<R>(&mut self, polled: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(READ_TIMEOUT)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Impatient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Impatient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wait(written, cx)
    }

    /// What was written is taken: the next answer has its own time.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_ready() {
            self.stalled = None;
        }
        self.wait(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.wait(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_is_given_up_also_when_a_byte_is_taken_now_and_then() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let (mut ours, began) = (Impatient::new(ours), Instant::now());
        tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let error = ours.write_all(&[7; 1000]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, READ_TIMEOUT.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_read_go_on_for_ever() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Impatient::new(ours);
        tokio::spawn(async move {
            let mut answer = [0; 64];
            while theirs.read_exact(&mut answer).await.is_ok() {
                sleep(READ_TIMEOUT / 2).await;
            }
        });
        for _ in 0..10 {
            ours.write_all(&[7; 64]).await.unwrap();
            ours.flush().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_the_kept_places_gives_way_and_places_become_free() {
        let mut connections = Connections::default();
        for _ in 0..USUAL + KEPT {
            assert!(!connections.admit(|_| std::future::pending()), "there is room");
        }
        assert!(connections.admit(|place| async move { assert_eq!(place, Place::Kept) }), "the first of them went");
        let began = Instant::now();
        for _ in 0..=KEPT {
            connections.ended().await;
        }
        assert_eq!(began.elapsed(), KEPT_FOR);
        assert_eq!((connections.usual, connections.running.len()), (USUAL, USUAL));
        connections.finish(Duration::from_secs(1)).await;
    }
}
