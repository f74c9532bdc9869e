//! The request's body on its way to a target.
//!
//! Most requests have no body, or one that has wholly arrived with the head. Those are known as [`Upload::Whole`]: they
//! can be sent a second time, and nothing has to wait for more of them. Everything else streams.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::rewrite::Settled;

/// The most of a streaming body that is kept for a second attempt, bytes.
const MAX_KEPT: usize = 16 * 1024;

/// A request's body.
pub(super) enum Upload {
    /// All of it, empty when the request has none.
    Whole(Bytes),
    /// What was there at first, and where the rest comes from.
    Streaming(Box<Streaming>),
}

/// A body of which more is to come.
pub(super) type Streaming = Streamed<dyn Body<Data = Bytes, Error = BoxError> + Send + Unpin>;

/// What was there of a body, and the rest of it, in one piece of memory.
pub(super) struct Streamed<R: ?Sized> {
    ahead: [Option<Frame<Bytes>>; 2],
    /// A copy of the data that was taken, while somebody may want it a second time and it is little.
    kept: Option<BytesMut>,
    /// What its trailers may not bring.
    settled: Settled,
    rest: R,
}

impl Upload {
    /// Takes what is there without waiting for more. Whoever streams the rest polls the body again, so nobody need be
    /// woken for what is looked for here.
    ///
    /// # Errors
    ///
    /// The body has failed already.
    pub(super) fn read<B>(mut body: B) -> Result<Self, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        let (first, second, ended) = look(&mut body)?;
        Ok(match first {
            None if ended => Self::Whole(Bytes::new()),
            Some(first) if ended && first.is_data() => Self::Whole(first.into_data().unwrap_or_default()),
            first => Self::Streaming(Box::new(Streamed {
                ahead: [first, second],
                kept: None,
                settled: Settled::default(),
                rest: body.map_err(Into::into),
            })),
        })
    }

    /// Keeps back what of its trailers the head has settled.
    pub(super) fn keep_back(&mut self, settled: &Settled) {
        if let Self::Streaming(streaming) = self {
            streaming.settled = settled.clone();
        }
    }

    /// A second copy of a body that is whole.
    pub(super) fn replay(&self) -> Option<Self> {
        match self {
            Self::Whole(data) => Some(Self::Whole(data.clone())),
            Self::Streaming(_) => None,
        }
    }
}

type Looked = (Option<Frame<Bytes>>, Option<Frame<Bytes>>, bool);

/// Up to two frames that are there, and whether the body ended before the second: the end may be known only to the poll
/// after the first.
fn look<B>(body: &mut B) -> Result<Looked, Failure>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut next = || Pin::new(&mut *body).poll_frame(&mut cx).map_err(|error| cut(&error.into()));
    let first = match next() {
        Poll::Pending => return Ok((None, None, false)),
        Poll::Ready(None) => return Ok((None, None, true)),
        Poll::Ready(Some(frame)) => frame?,
    };
    match next() {
        Poll::Pending => Ok((Some(first), None, false)),
        Poll::Ready(None) => Ok((Some(first), None, true)),
        Poll::Ready(Some(frame)) => Ok((Some(first), Some(frame?), false)),
    }
}

/// What the sender is told whose body failed.
pub(super) fn cut(error: &BoxError) -> Failure {
    Failure::new(Cause::RequestCut, format!("the request's body was cut: {error}"))
}

impl Streaming {
    /// The next frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut next = match self.ahead.iter_mut().find_map(Option::take) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut next {
            self.settled.strip(frame);
        }
        if let (Poll::Ready(Some(taken)), Some(kept)) = (&next, &mut self.kept) {
            match taken.as_ref().ok().and_then(Frame::data_ref) {
                Some(data) if kept.len() + data.len() <= MAX_KEPT => kept.extend_from_slice(data),
                _ => self.kept = None,
            }
        }
        next
    }

    /// Keeps what is taken from here on, as long as that is little.
    pub(super) fn keep(&mut self) {
        self.kept = Some(BytesMut::new());
    }

    /// Puts back what was taken since [`Self::keep`]. `false`: it is lost.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(kept) = self.kept.take() else { return false };
        if !kept.is_empty() {
            // What was there first has been taken first.
            self.ahead[0] = Some(Frame::data(kept.freeze()));
        }
        true
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
