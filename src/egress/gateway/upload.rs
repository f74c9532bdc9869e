//! The request's body on its way into a tunnel: what a retry needs to know of it, and whose turn it is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// A request's body. Without a body there is nothing to lose, and a second one is as good as the first.
pub(super) enum Upload<B> {
    Empty,
    Streaming { body: Pin<Box<B>>, progress: Arc<Progress> },
}

impl<B: Body> Upload<B> {
    /// Wraps a body; what comes beside it tells how the upload is getting on, if there is any.
    pub(super) fn new(body: B) -> (Self, Option<Arc<Progress>>) {
        if body.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Arc::new(Progress::new());
        (Self::Streaming { body: Box::pin(body), progress: Arc::clone(&progress) }, Some(progress))
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// When the upload last moved, and whether it waits for its sender.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    /// Milliseconds after `start`, or [`WAITS`].
    moved: AtomicU64,
}

/// The sender has yet to deliver.
const WAITS: u64 = u64::MAX;

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), moved: AtomicU64::new(0) }
    }

    /// For how long it has been the turn of the other side: to take more, or, once all is sent, to answer. Zero while
    /// the sender has yet to deliver.
    pub(super) fn waiting_for_answer(&self) -> Duration {
        match self.moved.load(Ordering::Relaxed) {
            WAITS => Duration::ZERO,
            moved => self.start.elapsed().saturating_sub(Duration::from_millis(moved)),
        }
    }

    fn note(&self, delivered: bool) {
        let elapsed = || u64::try_from(self.start.elapsed().as_millis()).unwrap_or(WAITS - 1);
        self.moved.store(if delivered { elapsed() } else { WAITS }, Ordering::Relaxed);
    }
}

impl<B: Body<Data = Bytes>> Body for Upload<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming { body, progress } => {
                let frame = body.as_mut().poll_frame(cx);
                progress.note(frame.is_ready());
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { body, .. } => body.size_hint(),
        }
    }
}
