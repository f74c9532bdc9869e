//! The pieces of a body, and small ones made one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use crate::message::BoxError;

/// A piece below this is small: to copy it costs less than to keep it apart.
pub(crate) const SMALL: usize = 1024;
/// As much is made of small ones, if they are there.
const GATHERED: usize = 16 * 1024;

/// Bytes, and what is dropped with the last copy of any of them.
struct Kept<T> {
    data: Bytes,
    _with: T,
}

impl<T> AsRef<[u8]> for Kept<T> {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// The same bytes; `with` is dropped with the last copy of any of them, so that it tells when they are needed no more.
pub(crate) fn kept_with<T: Send + 'static>(data: Bytes, with: T) -> Bytes {
    Bytes::from_owner(Kept { data, _with: with })
}

/// What a body says next; `None` is its end.
pub(crate) type Next<E = BoxError> = Result<Option<Frame<Bytes>>, E>;

/// What a body says next. Cancel safe as the body is.
pub(crate) fn poll_next<B>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Next>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    next(body, cx, &Into::into)
}

/// As [`poll_next`], after what is `behind`. A small piece of data is joined with the small ones that are ready behind it; what
/// else came goes into `behind`. One that is alone, and not the last, is copied: small pieces keep nothing but themselves.
///
/// Each piece costs more than its bytes wherever it waits. A reader of HTTP/2 that is slow ends its connection for too many
/// small DATA frames; a sender of QUIC looks at all pieces that are not acknowledged yet for each one that it sends, so that
/// some ten thousand of them keep a whole connection from everything else. spec: TB-7
pub(crate) fn poll_gathered<B>(body: Pin<&mut B>, behind: &mut Option<Next>, cx: &mut Context<'_>) -> Poll<Next>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    poll_gathered_with(body, behind, cx, &Into::into)
}

/// As [`poll_gathered`], with errors as somebody else wants them.
pub(crate) fn poll_gathered_with<B, E>(
    mut body: Pin<&mut B>,
    behind: &mut Option<Next<E>>,
    cx: &mut Context<'_>,
    error: &impl Fn(B::Error) -> E,
) -> Poll<Next<E>>
where
    B: Body<Data = Bytes>,
{
    let mut first = match behind.take() {
        Some(next) => next,
        None => ready!(next(body.as_mut(), cx, error)),
    };
    if let Ok(Some(frame)) = &mut first
        && let Some(data) = frame.data_mut()
        && data.len() < SMALL
    {
        gather(data, body, behind, cx, error);
    }
    Poll::Ready(first)
}

fn gather<B, E>(
    first: &mut Bytes,
    mut body: Pin<&mut B>,
    behind: &mut Option<Next<E>>,
    cx: &mut Context<'_>,
    error: &impl Fn(B::Error) -> E,
) where
    B: Body<Data = Bytes>,
{
    let mut gathered = BytesMut::new();
    while gathered.len() < GATHERED {
        let Poll::Ready(next) = next(body.as_mut(), cx, error) else { break };
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
    } else if behind.is_none() && !body.is_end_stream() {
        // It may wait for long, and would keep all that was read with it.
        *first = Bytes::copy_from_slice(first);
    }
}

fn next<B, E>(body: Pin<&mut B>, cx: &mut Context<'_>, error: &impl Fn(B::Error) -> E) -> Poll<Next<E>>
where
    B: Body<Data = Bytes>,
{
    body.poll_frame(cx).map(|read| read.transpose().map_err(error))
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
    fn a_small_piece_that_is_alone_does_not_keep_what_it_was_read_with() {
        let buffer = Bytes::from(vec![7; 64 * 1024]);
        let mut body = Ready([Ok(Frame::data(buffer.slice(100..120)))].into());
        let (mut behind, mut cx) = (None, Context::from_waker(std::task::Waker::noop()));
        let Poll::Ready(Ok(Some(frame))) = poll_gathered(Pin::new(&mut body), &mut behind, &mut cx) else {
            panic!("data");
        };
        let piece = frame.into_data().unwrap();
        assert!(piece == buffer[100..120] && buffer.is_unique());
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
