//! The request's body on its way into a tunnel: what a retry needs to know of it, whose turn it is, how much passed.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::message::violation::Violation;
use crate::telemetry::{Direction, ExchangeMetrics};

/// A request's body. Without a body there is nothing to lose, and a second one is as good as the first.
#[derive(Debug)]
pub struct Upload<B>(Kind<B>);

#[derive(Debug)]
enum Kind<B> {
    Empty,
    Streaming {
        body: B,
        progress: Arc<Progress>,
    },
    /// Nobody asks how it is getting on.
    Counted {
        body: B,
        metrics: ExchangeMetrics,
    },
}

impl<B> Upload<B> {
    /// No body.
    pub(super) const fn empty() -> Self {
        Self(Kind::Empty)
    }
    /// Wraps a body whose bytes are counted into `metrics`.
    pub(super) fn new(body: B, metrics: &ExchangeMetrics) -> Self
    where
        B: Body,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Kind::Streaming { body, progress: Arc::new(Progress::new(metrics.clone())) })
    }

    /// Wraps a body whose bytes are counted, and no more than that.
    pub(super) fn counted(body: B, metrics: &ExchangeMetrics) -> Self
    where
        B: Body,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Kind::Counted { body, metrics: metrics.clone() })
    }

    /// How the upload is getting on, if there is any and that is followed.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        match &self.0 {
            Kind::Empty | Kind::Counted { .. } => None,
            Kind::Streaming { progress, .. } => Some(Arc::clone(progress)),
        }
    }

    /// Lets the body know where it can say what is wrong with it, see [`Progress::break_rule`].
    pub(crate) fn introduce(&mut self, introduce: impl FnOnce(&mut B, &Arc<Progress>)) {
        if let Kind::Streaming { body, progress } = &mut self.0 {
            introduce(body, progress);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }
}

/// When the upload last moved, whether it waits for its sender, and how many bytes it was.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds after `start`, or [`WAITS`].
    moved: AtomicU64,
    bytes: AtomicU64,
    metrics: ExchangeMetrics,
    /// The rule that the sender broke. Whoever answers may be dropped before it reads that far.
    broken: OnceLock<Violation>,
}

/// The sender has yet to deliver.
const WAITS: u64 = u64::MAX;

impl Progress {
    fn new(metrics: ExchangeMetrics) -> Self {
        Self {
            start: Instant::now(),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            metrics,
            broken: OnceLock::new(),
        }
    }

    /// For how long it has been the turn of the other side: to take more, or, once all is sent, to answer. Zero while
    /// the sender has yet to deliver.
    pub(super) fn waiting_for_answer(&self) -> Duration {
        match self.moved.load(Ordering::Relaxed) {
            WAITS => Duration::ZERO,
            moved => self.start.elapsed().saturating_sub(Duration::from_millis(moved)),
        }
    }

    /// Bytes that were taken from the sender so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The sender broke a rule in the middle of the body; the first one counts.
    pub(crate) fn break_rule(&self, violation: Violation) {
        let _ = self.broken.set(violation);
    }

    /// The rule that the sender broke, if it did.
    pub(super) fn broken(&self) -> Option<Violation> {
        self.broken.get().copied()
    }

    fn note(&self, delivered: bool) {
        let elapsed = || u64::try_from(self.start.elapsed().as_millis()).unwrap_or(WAITS - 1);
        self.moved.store(if delivered { elapsed() } else { WAITS }, Ordering::Relaxed);
    }

    fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.body_bytes(Direction::Request, bytes);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Upload<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Streaming { body, progress } => {
                let frame = Pin::new(body).poll_frame(cx);
                progress.note(frame.is_ready());
                if let Poll::Ready(Some(Ok(frame))) = &frame {
                    progress.count(length(frame));
                }
                frame
            }
            Kind::Counted { body, metrics } => {
                let frame = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &frame {
                    metrics.body_bytes(Direction::Request, length(frame));
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Streaming { body, .. } | Kind::Counted { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Streaming { body, .. } | Kind::Counted { body, .. } => body.size_hint(),
        }
    }
}

/// Bytes of the body that a frame carries.
fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}
