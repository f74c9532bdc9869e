//! The body of a response whose bytes are charged to the shares of a tenant and a node.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::held::{Held, length, with_held};
use crate::shares::{Meter, Wait};

/// What came through a tunnel, as fast as the shares allow: a piece that is beyond a rate, or has no turn, waits here. What
/// is still on its way is held back by that.
pub struct Charged<B> {
    body: B,
    meter: Option<Meter>,
    held: Held,
    defer: Defer<B>,
}

/// Tells a body until when its last piece is kept waiting.
type Defer<B> = fn(&mut B, Instant);

impl<B> Charged<B> {
    /// Charges what `meter` says, if anything. `defer` is told when a piece is kept waiting.
    pub(crate) fn new(body: B, meter: Option<Meter>, defer: Defer<B>) -> Self {
        Self { body, meter, held: Held::default(), defer }
    }

    /// Whether a piece that is here waits for its rate or its turn: the other end is not to blame for the rest.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl<B> fmt::Debug for Charged<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charged").field("held", &self.held.is_some()).finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Charged<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, meter, held, defer } = &mut *self;
        if held.is_some() {
            return held.poll(cx).map(|frame| Some(Ok(frame)));
        }
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let wait = meter.as_ref().and_then(|meter| meter.charge(length(&frame)));
                let until = wait.as_ref().map(Wait::until);
                let piece = held.hold(frame, wait, cx);
                if let (Poll::Pending, Some(until)) = (&piece, until) {
                    defer(body, until.into_std());
                }
                piece.map(|frame| Some(Ok(frame)))
            }
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.held.is_some() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        with_held(self.body.size_hint(), &self.held)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;
    use crate::id::TenantId;
    use crate::shares::{Rate, Share, ShareSettings, Shares, Stake, What};

    /// A few pieces of a thousand bytes, and until when they were kept waiting.
    struct Pieces {
        left: u8,
        deferred: Vec<Instant>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let left = self.left.checked_sub(1);
            Poll::Ready(left.map(|left| {
                self.left = left;
                Ok(Frame::data(Bytes::from_static(&[7; 1_000])))
            }))
        }

        fn is_end_stream(&self) -> bool {
            self.left == 0
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(u64::from(self.left) * 1_000)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_waits_for_its_rate_is_still_to_come_and_its_source_hears_of_it() {
        let shares = Shares::new();
        let per_tenant = Share { bytes: Some(Rate::new(1_000)), ..Share::default() };
        shares.update(ShareSettings { per_tenant, ..ShareSettings::default() });
        let stake = Stake::of_tenant(shares.tenant(&TenantId::default()), What::Exchange).unwrap();
        let pieces = Pieces { left: 3, deferred: Vec::new() };
        let mut body = Charged::new(pieces, Some(stake.meter()), |body, until| body.deferred.push(until));
        assert!(body.frame().await.is_some() && body.body.deferred.is_empty());
        assert!(body.frame().await.is_some());
        assert!(timeout(Duration::from_millis(900), body.frame()).await.is_err());
        assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(1_000)));
        let second = Duration::from_secs(1);
        assert_eq!(body.body.deferred.len(), 2);
        assert!(body.body.deferred[1] - body.body.deferred[0] >= second - Duration::from_millis(2));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1_000);
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert_eq!(body.body.deferred.len(), 2);
    }
}
