//! The request's body on its way to a target.
//!
//! Most requests have no body, or one that has wholly arrived with the head. Those are known as [`Upload::Whole`]: they
//! can be sent a second time, and nothing has to wait for more of them. Everything else streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};

/// A request's body.
pub(super) enum Upload {
    /// All of it, empty when the request has none.
    Whole(Bytes),
    /// What was there at first, and where the rest comes from.
    Streaming(Box<Streaming>),
}

/// A body of which more is to come.
pub(super) struct Streaming {
    ahead: [Option<Frame<Bytes>>; 2],
    rest: UnsyncBoxBody<Bytes, BoxError>,
}

/// A body that nobody has looked into; `None` if it has nothing.
pub(super) struct Unread(Option<UnsyncBoxBody<Bytes, BoxError>>);

impl Unread {
    pub(super) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self((!body.is_end_stream()).then(|| body.map_err(Into::into).boxed_unsync()))
    }

    /// Takes what is there without waiting for more.
    ///
    /// # Errors
    ///
    /// The body has failed already.
    pub(super) async fn read(self) -> Result<Upload, Failure> {
        let Some(mut rest) = self.0 else { return Ok(Upload::Whole(Bytes::new())) };
        poll_fn(|cx| Poll::Ready(look(&mut rest, cx))).await.map(|(first, second, ended)| match first {
            None if ended => Upload::Whole(Bytes::new()),
            Some(first) if ended && first.is_data() => Upload::Whole(first.into_data().unwrap_or_default()),
            first => Upload::Streaming(Box::new(Streaming { ahead: [first, second], rest })),
        })
    }
}

type Looked = (Option<Frame<Bytes>>, Option<Frame<Bytes>>, bool);

/// Up to two frames that are there, and whether the body ended before the second: the end may be known only to the poll
/// after the first.
fn look(body: &mut UnsyncBoxBody<Bytes, BoxError>, cx: &mut Context<'_>) -> Result<Looked, Failure> {
    let first = match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Pending => return Ok((None, None, false)),
        Poll::Ready(None) => return Ok((None, None, true)),
        Poll::Ready(Some(frame)) => frame.map_err(|error| cut(&error))?,
    };
    match Pin::new(body).poll_frame(cx) {
        Poll::Pending => Ok((Some(first), None, false)),
        Poll::Ready(None) => Ok((Some(first), None, true)),
        Poll::Ready(Some(frame)) => Ok((Some(first), Some(frame.map_err(|error| cut(&error))?), false)),
    }
}

impl Upload {
    /// A second copy of a body that is whole.
    pub(super) fn replay(&self) -> Option<Self> {
        match self {
            Self::Whole(data) => Some(Self::Whole(data.clone())),
            Self::Streaming(_) => None,
        }
    }
}

/// What the sender is told whose body failed.
pub(super) fn cut(error: &BoxError) -> Failure {
    Failure::new(Cause::RequestCut, format!("the request's body was cut: {error}"))
}

impl Streaming {
    /// The next frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.ahead.iter_mut().find_map(Option::take) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    /// The data that was there first.
    pub(super) fn take_first(&mut self) -> Option<Bytes> {
        self.ahead[0].take_if(|frame| frame.is_data())?.into_data().ok()
    }

    /// Undoes [`Self::take_first`]; nothing else was taken in between.
    pub(super) fn put_first(&mut self, data: Bytes) {
        self.ahead[0] = Some(Frame::data(data));
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(data) if data.is_empty() => Poll::Ready(None),
            Self::Whole(data) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Self::Streaming(streaming) => streaming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_empty(),
            Self::Streaming(streaming) => streaming.ahead.iter().all(Option::is_none) && streaming.rest.is_end_stream(),
        }
    }
}
