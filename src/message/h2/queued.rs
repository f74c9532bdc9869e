//! What of a body waits in `h2` to be written.
//!
//! `h2` throws away what a stream has queued when the stream is reset, by a call or by a drop, and says nowhere how much that
//! is. The pieces say it themselves: `h2` drops each when it is written.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::SendStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The pieces of one body that may be cut. One that is sent whole at once is never counted and allocates nothing.
#[derive(Debug, Default)]
pub struct Queued(Option<Arc<Left>>);

#[derive(Debug, Default)]
struct Left {
    pieces: AtomicUsize,
    written: Notify,
}

/// A piece, with everything that is split off it.
#[derive(Debug)]
struct Counted {
    data: Bytes,
    left: Arc<Left>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.left.pieces.fetch_sub(1, Ordering::AcqRel);
        self.left.written.notify_one();
    }
}

impl Queued {
    /// The same bytes, counted until they are dropped.
    pub fn count(&mut self, data: Bytes) -> Bytes {
        let left = Arc::clone(self.0.get_or_insert_default());
        left.pieces.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Counted { data, left })
    }

    /// Waits until all pieces are written or thrown away, the stream has ended, or nothing was written for as long as
    /// `patience` allows. Cancel safe.
    pub async fn written<D: Buf>(&self, stream: &mut SendStream<D>, patience: Option<Duration>) {
        let Some(left) = &self.0 else { return };
        while left.pieces.load(Ordering::Acquire) > 0 {
            let goes_on = match patience {
                Some(patience) => timeout(patience, left.one(stream)).await.unwrap_or(false),
                None => left.one(stream).await,
            };
            if !goes_on {
                return;
            }
        }
    }
}

impl Left {
    /// Waits until a piece is written; `false`: the stream has ended.
    async fn one<D: Buf>(&self, stream: &mut SendStream<D>) -> bool {
        let mut written = pin!(self.written.notified());
        poll_fn(|cx| match written.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => stream.poll_reset(cx).map(|_| false),
        })
        .await
    }
}
