//! The request's body on its way to a target.
//!
//! Most requests have no body, or one that has wholly arrived with the head. Those are known as [`Upload::Whole`]: they
//! can be sent a second time, and nothing has to wait for more of them. Everything else streams.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};

/// A request's body.
pub(super) enum Upload {
    /// All of it, empty when the request has none.
    Whole(Bytes),
    /// What was there at first, and where the rest comes from.
    Streaming(Streaming),
}

/// A body of which more is to come.
pub(super) struct Streaming {
    ahead: [Option<Frame<Bytes>>; 2],
    rest: UnsyncBoxBody<Bytes, BoxError>,
    finished: Finished,
}

/// Tells whether the body is no longer needed: it was sent whole, or whoever sent it gave up.
#[derive(Clone, Default)]
pub(super) struct Finished(Arc<AtomicBool>);

impl Finished {
    /// Whether the body is gone.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Upload {
    /// Takes what is there without waiting for more.
    ///
    /// # Errors
    ///
    /// The body has failed already.
    pub(super) async fn read<B>(body: B) -> Result<Self, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        let mut rest = body.map_err(Into::into).boxed_unsync();
        let first = match poll_once(&mut rest).await {
            Poll::Pending => return Ok(Self::streaming([None, None], rest)),
            Poll::Ready(None) => return Ok(Self::Whole(Bytes::new())),
            Poll::Ready(Some(frame)) => frame.map_err(cut)?,
        };
        // The end may be known only to the next poll.
        let second = match poll_once(&mut rest).await {
            Poll::Pending => None,
            Poll::Ready(None) => return Ok(Self::complete(first, rest)),
            Poll::Ready(Some(frame)) => Some(frame.map_err(cut)?),
        };
        Ok(Self::streaming([Some(first), second], rest))
    }

    fn complete(only: Frame<Bytes>, rest: UnsyncBoxBody<Bytes, BoxError>) -> Self {
        match only.into_data() {
            Ok(data) => Self::Whole(data),
            Err(trailers) => Self::streaming([Some(trailers), None], rest),
        }
    }

    fn streaming(ahead: [Option<Frame<Bytes>>; 2], rest: UnsyncBoxBody<Bytes, BoxError>) -> Self {
        Self::Streaming(Streaming { ahead, rest, finished: Finished::default() })
    }

    /// A second copy of a body that is whole.
    pub(super) fn replay(&self) -> Option<Self> {
        match self {
            Self::Whole(data) => Some(Self::Whole(data.clone())),
            Self::Streaming(_) => None,
        }
    }

    /// How a body that streams tells that it is gone.
    pub(super) fn finished(&self) -> Option<Finished> {
        match self {
            Self::Whole(_) => None,
            Self::Streaming(streaming) => Some(streaming.finished.clone()),
        }
    }
}

async fn poll_once(body: &mut UnsyncBoxBody<Bytes, BoxError>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    let mut body = pin!(body);
    poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await
}

fn cut(error: BoxError) -> Failure {
    Failure::new(Cause::RequestCut, format!("the request's body was cut: {error}"))
}

impl Streaming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.ahead.iter_mut().find_map(Option::take) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.iter().all(Option::is_none) && self.rest.is_end_stream()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.finished.0.store(true, Ordering::Release);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(data) if data.is_empty() => Poll::Ready(None),
            Self::Whole(data) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Self::Streaming(streaming) => Poll::Ready(ready!(streaming.poll_next(cx))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_empty(),
            Self::Streaming(streaming) => streaming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Self::Streaming(_) => SizeHint::default(),
        }
    }
}
