//! The request's body on its way into a tunnel: what a retry needs to know of it, whose turn it is, how much passed.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::ending::Ending;
use super::held::{Held, length, with_held};
use crate::message::rewrite::Settled;
use crate::message::violation::Violation;
use crate::shares::Meter;
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
        held: Held,
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
    /// Wraps a body whose bytes are counted into `metrics`, and charged where there is a meter.
    pub(super) fn new(body: B, metrics: &ExchangeMetrics, meter: Option<Meter>) -> Self
    where
        B: Body,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        let progress = Arc::new(Progress::new(metrics.clone(), meter));
        Self(Kind::Streaming { body, progress, held: Held::default() })
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
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match &self.0 {
            Kind::Empty | Kind::Counted { .. } => None,
            Kind::Streaming { progress, .. } => Some(Arc::clone(progress)),
        }
    }

    /// Lets the body know where it can say what is wrong with it, see [`Progress::break_rule`].
    pub(crate) fn introduce(&mut self, introduce: impl FnOnce(&mut B, &Arc<Progress>)) {
        if let Kind::Streaming { body, progress, .. } = &mut self.0 {
            introduce(body, progress);
        }
    }

    /// Keeps back what of its trailers the head has settled. To be said before anything of it moves, where it is followed.
    pub(crate) fn keep_back(&mut self, settled: &Settled) {
        if let Kind::Streaming { progress, .. } = &self.0
            && !settled.is_empty()
        {
            let _ = progress.settled.set(settled.clone());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }
}

/// Whose turn it is in an upload and since when, how long its sender was waited for, and how many bytes it was.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds after `start` of the last delivery or of the begin of the wait, and in the lowest bit [`WAITS`]: both
    /// in one number, so that nobody reads the one without the other.
    turn: AtomicU64,
    /// Milliseconds of the waits for the sender that are over.
    waited: AtomicU64,
    bytes: AtomicU64,
    metrics: ExchangeMetrics,
    /// The rule that the sender broke. Whoever answers may be dropped before it reads that far.
    broken: OnceLock<Violation>,
    /// Where the exchange is not over before the upload is.
    ending: OnceLock<Ending>,
    /// What its trailers may not bring.
    settled: OnceLock<Settled>,
    /// Who is charged for it.
    meter: Option<Meter>,
    /// A piece waits for its rate or its turn: neither the sender nor the other end is waited for.
    is_held: AtomicBool,
}

/// The sender has yet to deliver.
const WAITS: u64 = 1;

/// How long the sender of a request was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waited {
    /// In the wait that lasts; zero while it is not the sender's turn.
    pub(super) now: Duration,
    /// In all waits so far, this one included.
    pub(super) total: Duration,
}

impl Progress {
    fn new(metrics: ExchangeMetrics, meter: Option<Meter>) -> Self {
        Self {
            start: Instant::now(),
            turn: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            metrics,
            broken: OnceLock::new(),
            ending: OnceLock::new(),
            settled: OnceLock::new(),
            meter,
            is_held: AtomicBool::new(false),
        }
    }

    /// Who is charged for it, if anybody is.
    pub(super) fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Whether a piece waits for its rate or its turn.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    fn hold(&self, is_held: bool) {
        if self.is_held() != is_held {
            self.is_held.store(is_held, Ordering::Relaxed);
        }
    }

    /// From here on the exchange is over with the later of both directions. To be said before anything of it moves.
    pub(crate) fn counts_to_its_end(&self) {
        let _ = self.ending.set(Ending::default());
    }

    /// The end of the upload, where the exchange is not over before.
    pub(super) fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }

    /// For how long it has been the turn of the other side: to take more, or, once all is sent, to answer. Zero while
    /// the sender has yet to deliver, and while a piece waits for its rate.
    pub(super) fn waiting_for_answer(&self) -> Duration {
        let turn = self.turn.load(Ordering::Relaxed);
        if turn & WAITS == 0 && !self.is_held() { self.since(turn) } else { Duration::ZERO }
    }

    /// How long it was the sender's turn.
    pub(super) fn waited_for_sender(&self) -> Waited {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let before = Duration::from_millis(self.waited.load(Ordering::Acquire));
            let now = if turn & WAITS == 0 { Duration::ZERO } else { self.since(turn) };
            // A turn that ended in between is counted in one of the two numbers only.
            if self.turn.load(Ordering::Acquire) == turn {
                return Waited { now, total: before + now };
            }
        }
    }

    fn since(&self, turn: u64) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(turn >> 1))
    }

    /// Bytes that were taken from the sender so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The sender broke a rule in the middle of the body, or cut it; the first one counts.
    pub(crate) fn break_rule(&self, violation: Violation) {
        let _ = self.broken.set(violation);
    }

    /// The rule that the sender broke, if it did.
    pub(super) fn broken(&self) -> Option<Violation> {
        self.broken.get().copied()
    }

    fn note(&self, delivered: bool) {
        let turn = self.turn.load(Ordering::Relaxed);
        let waits = turn & WAITS != 0;
        if waits && !delivered {
            return;
        }
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> 1);
        if waits {
            self.waited.fetch_add(now.saturating_sub(turn >> 1), Ordering::Release);
        }
        self.turn.store(now << 1 | if delivered { 0 } else { WAITS }, Ordering::Release);
    }

    fn over(&self, whole: bool) {
        if let Some(ending) = self.ending() {
            ending.over(whole);
        }
    }

    fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.body_bytes(Direction::Request, bytes);
    }
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        if let Kind::Streaming { progress, .. } = &self.0 {
            // What was held is not waited for any more.
            progress.hold(false);
            progress.over(false);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Upload<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Streaming { body, progress, held } => {
                if held.is_some() {
                    return pass(held.poll(cx), progress);
                }
                let frame = Pin::new(body).poll_frame(cx);
                progress.note(frame.is_ready());
                match frame {
                    Poll::Ready(Some(Ok(mut frame))) => {
                        if let Some(settled) = progress.settled.get() {
                            settled.strip(&mut frame);
                        }
                        let wait = progress.meter.as_ref().and_then(|meter| meter.charge(length(&frame)));
                        pass(held.hold(frame, wait, cx), progress)
                    }
                    Poll::Ready(None) => {
                        progress.over(true);
                        Poll::Ready(None)
                    }
                    Poll::Ready(Some(Err(error))) => {
                        // What the other end makes of it is no fault of its own.
                        progress.break_rule(Violation::BodyCut);
                        Poll::Ready(Some(Err(error)))
                    }
                    Poll::Pending => Poll::Pending,
                }
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
            Kind::Streaming { body, held, .. } => !held.is_some() && body.is_end_stream(),
            Kind::Counted { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Streaming { body, held, .. } => with_held(body.size_hint(), held),
            Kind::Counted { body, .. } => body.size_hint(),
        }
    }
}

/// Passes on what may move.
fn pass<E>(piece: Poll<Frame<Bytes>>, progress: &Progress) -> Poll<Option<Result<Frame<Bytes>, E>>> {
    progress.hold(piece.is_pending());
    piece.map(|frame| {
        progress.count(length(&frame));
        Some(Ok(frame))
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;
    use crate::id::TenantId;
    use crate::shares::{Rate, Share, ShareSettings, Shares, Stake, What};
    use crate::telemetry::{Metrics, Side};

    /// Without end.
    struct Pieces;

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 1_000])))))
        }
    }

    // Regression: nobody's turn, for ever, where a tunnel gave up what waited for its rate.
    #[tokio::test(start_paused = true)]
    async fn an_upload_that_was_given_up_waits_for_no_rate() {
        let shares = Shares::new();
        let per_tenant = Share { bytes: Some(Rate::new(1)), ..Share::default() };
        shares.update(ShareSettings { per_tenant, ..ShareSettings::default() });
        let stake = Stake::of_tenant(shares.tenant(&TenantId::default()), What::Exchange).unwrap();
        let mut upload = Upload::new(Pieces, &Metrics::new().exchanges(Side::Egress, &[]), Some(stake.meter()));
        let progress = upload.progress().unwrap();
        assert!(upload.frame().await.is_some());
        assert!(timeout(Duration::from_secs(9), upload.frame()).await.is_err());
        assert!(progress.is_held() && progress.waiting_for_answer().is_zero());
        drop(upload);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!progress.is_held() && !progress.waiting_for_answer().is_zero(), "the other end is to answer");
    }
}
