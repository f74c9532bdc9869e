//! The body of an answer, watched for whether the responder takes its first piece. spec: SE-16

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::transport::state::{Arriving, TunnelState};

/// A body that stays where it is, and the exchange that it belongs to.
///
/// Whoever sends it asks for the next piece only when the last one was taken; but for one behind the first where small ones
/// are joined.
pub(super) struct Taking<'a, B> {
    body: Pin<&'a mut B>,
    arriving: Arriving,
}

impl<'a, B> Taking<'a, B> {
    /// `joins`: whether a piece is asked for before the first is taken.
    pub(super) const fn new(body: Pin<&'a mut B>, mut arriving: Arriving, joins: bool) -> Self {
        arriving.asked_for_one_more(joins);
        Self { body, arriving }
    }

    pub(super) fn tunnel(&self) -> Arc<TunnelState> {
        self.arriving.shared()
    }

    /// All of it was taken.
    pub(super) fn taken(&mut self) {
        self.arriving.taken();
    }
}

impl<B: Body<Data = Bytes>> Body for Taking<'_, B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.arriving.is_asked_again() {
            self.arriving.taken();
        }
        let polled = self.body.as_mut().poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.arriving.given();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
