//! The pieces of a body, and small ones made one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::BoxError;

/// A piece below this is small.
const SMALL: usize = 1024;
/// As much is made of small ones, if they are there.
const GATHERED: usize = 16 * 1024;

/// What a body says next; `None` is its end.
pub(crate) type Next = Result<Option<Frame<Bytes>>, BoxError>;

/// What a body says next. Cancel safe as the body is.
pub(crate) fn poll_next<B>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Next>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    body.poll_frame(cx).map(|read| read.transpose().map_err(Into::into))
}

/// As [`poll_next`], after what is `behind`. A small piece of data is joined with the small ones that are ready behind it; what
/// else came goes into `behind`.
///
/// Each piece costs more than its bytes wherever it waits. A reader of HTTP/2 that is slow ends its connection for too many
/// small DATA frames; a sender of QUIC looks at all pieces that are not acknowledged yet for each one that it sends, so that
/// some ten thousand of them keep a whole connection from everything else. spec: TB-7
pub(crate) fn poll_gathered<B>(mut body: Pin<&mut B>, behind: &mut Option<Next>, cx: &mut Context<'_>) -> Poll<Next>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut first = match behind.take() {
        Some(next) => next,
        None => ready!(poll_next(body.as_mut(), cx)),
    };
    if let Ok(Some(frame)) = &mut first
        && let Some(data) = frame.data_mut()
        && data.len() < SMALL
    {
        gather(data, body, behind, cx);
    }
    Poll::Ready(first)
}

fn gather<B>(first: &mut Bytes, mut body: Pin<&mut B>, behind: &mut Option<Next>, cx: &mut Context<'_>)
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut gathered = BytesMut::new();
    while gathered.len() < GATHERED {
        let Poll::Ready(next) = poll_next(body.as_mut(), cx) else { break };
        match next {
            Ok(Some(frame)) if frame.data_ref().is_some_and(|data| data.len() < SMALL) => {
                if gathered.is_empty() {
                    gathered.extend_from_slice(first);
                }
                gathered.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
            other => {
                *behind = Some(other);
                break;
            }
        }
    }
    if !gathered.is_empty() {
        *first = gathered.freeze();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderMap;

    use super::*;

    /// Says what it holds without a pause, then waits for ever.
    struct Ready(VecDeque<Result<Frame<Bytes>, BoxError>>);

    impl Body for Ready {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.pop_front().map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)))
        }
    }

    fn gathered(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> (Bytes, Option<Next>, usize) {
        let mut body = Ready(frames.into());
        let mut behind = None;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Ok(Some(frame))) = poll_gathered(Pin::new(&mut body), &mut behind, &mut cx) else {
            panic!("data first");
        };
        (frame.into_data().unwrap(), behind, body.0.len())
    }

    fn data(length: usize) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from(vec![7; length])))
    }

    // spec: TB-7
    #[test]
    fn small_pieces_that_are_there_are_one_and_large_ones_stay_as_they_are() {
        let (joined, behind, left) = gathered((0..100).map(|_| data(10)).collect());
        assert_eq!((joined.len(), behind.is_none(), left), (1000, true, 0));
        let (large, behind, left) = gathered(vec![data(SMALL), data(1)]);
        assert_eq!((large.len(), behind.is_none(), left), (SMALL, true, 1));
        let (joined, _, left) = gathered((0..100).map(|_| data(SMALL - 1)).collect());
        assert!(joined.len() < GATHERED + SMALL && left > 0, "bounded");
        let (small, behind, _) = gathered(vec![data(1), data(SMALL)]);
        assert!(small.len() == 1 && matches!(behind, Some(Ok(Some(frame))) if frame.is_data()), "not copied");
    }

    #[test]
    fn what_stays_behind_comes_next_and_once() {
        let mut body = Ready([data(1), data(SMALL), data(2), data(3)].into());
        let (mut behind, mut cx) = (None, Context::from_waker(std::task::Waker::noop()));
        let mut lengths = Vec::new();
        while let Poll::Ready(Ok(Some(frame))) = poll_gathered(Pin::new(&mut body), &mut behind, &mut cx) {
            lengths.push(frame.into_data().unwrap().len());
        }
        assert_eq!(lengths, [1, SMALL, 5]);
    }

    #[test]
    fn what_ends_a_body_stays_behind_its_data() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        let (joined, behind, _) = gathered(vec![data(1), data(2), trailers]);
        assert!(joined.len() == 3 && matches!(behind, Some(Ok(Some(frame))) if frame.is_trailers()));
        let (joined, behind, _) = gathered(vec![data(1), data(2), Err("cut".into())]);
        assert!(joined.len() == 3 && matches!(behind, Some(Err(_))));
    }
}
