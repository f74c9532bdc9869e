//! A message body on its way into a stream of HTTP/2.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use crate::message::BoxError;
use crate::message::fields;
use crate::transport::error::SendError;
use crate::transport::tcp::body::{lost, stream_code};

/// A piece below this is small.
const SMALL: usize = 1024;
/// As much is made of small ones, if they are there.
const GATHERED: usize = 16 * 1024;

/// What an error of the stream says about the message that was to be sent.
fn failed(error: h2::Error) -> SendError {
    match error.reason() {
        Some(reason) if error.is_reset() => SendError::Stopped(stream_code(reason)),
        _ => SendError::Lost(lost(&error)),
    }
}

/// Sends a body to its end, or resets the stream. A piece is pulled only when the last one fits the peer's window.
///
/// Dropping the future resets the stream when the stream is dropped with it.
pub(crate) async fn send_body<B>(stream: &mut SendStream<Bytes>, body: Pin<&mut B>) -> Result<(), SendError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let sent = pump(stream, body).await;
    if matches!(sent, Err(SendError::Source(_))) {
        stream.send_reset(Reason::INTERNAL_ERROR);
    }
    sent
}

async fn pump<B>(stream: &mut SendStream<Bytes>, mut body: Pin<&mut B>) -> Result<(), SendError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut behind = None;
    loop {
        let frame = match behind.take() {
            Some(read) => read?,
            // A body may be silent for long; the peer's reset must end it all the same.
            None => {
                poll_fn(|cx| match read(body.as_mut(), cx) {
                    Poll::Ready(read) => Poll::Ready(read),
                    Poll::Pending => match stream.poll_reset(cx) {
                        Poll::Ready(Ok(reason)) => Poll::Ready(Err(SendError::Stopped(stream_code(reason)))),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(failed(error))),
                        Poll::Pending => Poll::Pending,
                    },
                })
                .await?
            }
        };
        let Some(frame) = frame else { break };
        match frame.into_data() {
            Ok(mut data) => {
                (data, behind) = gather(data, body.as_mut()).await;
                let last = match &behind {
                    Some(read) => matches!(read, Ok(None)),
                    None => body.is_end_stream(),
                };
                send_data(stream, data, last).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                fields::strip_from_trailers(&mut trailers);
                return stream.send_trailers(trailers).map_err(failed);
            }
        }
    }
    stream.send_data(Bytes::new(), true).map_err(failed)
}

/// What a body says next; `None` is its end.
type Read = Result<Option<Frame<Bytes>>, SendError>;

fn read<B>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Read>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    body.poll_frame(cx).map(|read| read.transpose().map_err(|error| SendError::Source(error.into())))
}

/// Joins a small piece with those that are ready behind it, and returns what else came meanwhile. Each DATA frame costs
/// a reader that is slow more than its bytes: HTTP/2 stacks end connections for too many small ones. spec: TB-7
async fn gather<B>(data: Bytes, mut body: Pin<&mut B>) -> (Bytes, Option<Read>)
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if data.len() >= SMALL {
        return (data, None);
    }
    let mut gathered = BytesMut::from(data);
    let behind = poll_fn(|cx| {
        while gathered.len() < GATHERED {
            match read(body.as_mut(), cx) {
                Poll::Ready(Ok(Some(frame))) => match frame.into_data() {
                    Ok(data) => gathered.extend_from_slice(&data),
                    Err(frame) => return Poll::Ready(Some(Ok(Some(frame)))),
                },
                Poll::Ready(end) => return Poll::Ready(Some(end)),
                Poll::Pending => break,
            }
        }
        Poll::Ready(None)
    })
    .await;
    (gathered.freeze(), behind)
}

/// Hands data over as the window of the other end allows, so that no more than a window is buffered.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), SendError> {
    if data.is_empty() && last {
        return stream.send_data(data, true).map_err(failed);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(granted) => granted.map_err(failed)?,
            // The stream no longer sends: it was reset, and the reason is there to be asked for.
            None => {
                let reason = poll_fn(|cx| stream.poll_reset(cx)).await.map_err(failed)?;
                return Err(SendError::Stopped(stream_code(reason)));
            }
        };
        let piece = data.split_to(granted.min(data.len()));
        stream.send_data(piece, last && data.is_empty()).map_err(failed)?;
    }
    Ok(())
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

    async fn gathered(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> (Bytes, Option<Read>, usize) {
        let mut body = Ready(frames.into());
        let Some(Ok(first)) = body.0.pop_front() else { panic!("data first") };
        let (data, behind) = gather(first.into_data().unwrap(), Pin::new(&mut body)).await;
        (data, behind, body.0.len())
    }

    fn data(length: usize) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from(vec![7; length])))
    }

    #[tokio::test]
    async fn small_pieces_that_are_there_are_one_and_large_ones_stay_as_they_are() {
        let (joined, behind, left) = gathered((0..100).map(|_| data(10)).collect()).await;
        assert_eq!((joined.len(), behind.is_none(), left), (1000, true, 0));
        let (large, behind, left) = gathered(vec![data(SMALL), data(1)]).await;
        assert_eq!((large.len(), behind.is_none(), left), (SMALL, true, 1));
        let (joined, _, left) = gathered((0..100).map(|_| data(SMALL - 1)).collect()).await;
        assert!(joined.len() < GATHERED + SMALL && left > 0, "bounded");
    }

    #[tokio::test]
    async fn what_ends_a_body_stays_behind_its_data() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        let (joined, behind, _) = gathered(vec![data(1), data(2), trailers]).await;
        assert!(joined.len() == 3 && matches!(behind, Some(Ok(Some(frame))) if frame.is_trailers()));
        let (joined, behind, _) = gathered(vec![data(1), data(2), Err("cut".into())]).await;
        assert!(joined.len() == 3 && matches!(behind, Some(Err(SendError::Source(_)))));
    }
}
