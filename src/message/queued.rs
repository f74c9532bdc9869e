//! What of a body waits where it was handed to, until it is written or acknowledged.
//!
//! HTTP/2 and QUIC throw away what a stream has queued when the stream is reset, by a call or by a drop, and say nowhere how much
//! that is. The pieces say it themselves: each is dropped when it is needed no more.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::message::pieces::kept_with;

/// The pieces of one body that may be cut. One of which none is counted allocates nothing; a clone counts the same pieces if one
/// was counted before.
#[derive(Clone, Debug, Default)]
pub struct Queued(Option<Arc<Left>>);

#[derive(Debug, Default)]
struct Left {
    pieces: AtomicUsize,
    gone: Notify,
}

/// One of them.
struct Counted(Arc<Left>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.pieces.fetch_sub(1, Ordering::AcqRel);
        self.0.gone.notify_one();
    }
}

impl Queued {
    /// The same bytes, counted until they are dropped.
    pub fn count(&mut self, data: Bytes) -> Bytes {
        let left = Arc::clone(self.0.get_or_insert_default());
        left.pieces.fetch_add(1, Ordering::AcqRel);
        kept_with(data, Counted(left))
    }

    /// Waits until all pieces are gone, it is `over` for another reason, or none has gone for as long as `patience` allows (`None`:
    /// without end); `true`: all of them are. For one who waits. Cancel safe.
    pub async fn gone(&self, patience: Option<Duration>, mut over: impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
        let Some(left) = &self.0 else { return true };
        while left.pieces.load(Ordering::Acquire) > 0 {
            let goes_on = match patience {
                Some(patience) => timeout(patience, left.one(&mut over)).await.unwrap_or(false),
                None => left.one(&mut over).await,
            };
            if !goes_on {
                return left.pieces.load(Ordering::Acquire) == 0;
            }
        }
        true
    }
}

impl Left {
    /// Waits until a piece is gone; `false`: it is over.
    async fn one(&self, over: &mut impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
        let mut gone = pin!(self.gone.notified());
        poll_fn(|cx| match gone.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => over(cx).map(|()| false),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_secs(3600);

    fn never(_: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    // spec: ST-38, ST-82
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_when_the_last_copy_of_the_last_piece_is_gone() {
        let mut queued = Queued::default();
        assert!(queued.gone(None, never).await);
        let (first, second) = (queued.count("first".into()), queued.count("second".into()));
        let copy = first.slice(1..);
        let (began, waits) = (Instant::now(), timeout(NEVER, queued.gone(None, never)));
        let goes = async {
            for piece in [first, second, copy] {
                sleep(PATIENCE).await;
                drop(piece);
            }
        };
        let (told, ()) = tokio::join!(waits, goes);
        assert!(told == Ok(true) && began.elapsed() == 3 * PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_begins_again_with_each_piece_that_goes_and_ends_where_none_does() {
        let (mut queued, began) = (Queued::default(), Instant::now());
        let pieces = ["1", "2", "3"].map(|piece| queued.count(piece.into()));
        let kept = queued.count("kept".into());
        let goes = async {
            for piece in pieces {
                sleep(PATIENCE * 4 / 5).await;
                drop(piece);
            }
        };
        let (all, ()) = tokio::join!(queued.gone(Some(PATIENCE), never), goes);
        assert!(!all);
        assert_eq!(began.elapsed(), PATIENCE * 12 / 5 + PATIENCE);
        assert!(!queued.gone(None, |_| Poll::Ready(())).await);
        assert_eq!(kept, "kept");
    }
}
