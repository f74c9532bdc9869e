//! A message body on its way into a stream of HTTP/2.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::protocol::headers;
use crate::transport::error::{BoxError, TunnelLost};
use crate::transport::tcp::body::lost;

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The peer reset the stream, or does not want the rest.
    #[error("the peer stopped the stream: {0}")]
    Stopped(Reason),
    /// The connection is gone.
    #[error("the tunnel was lost: {0}")]
    Lost(TunnelLost),
    /// The body failed at its source.
    #[error("the body failed at its source: {0}")]
    Source(BoxError),
}

impl From<h2::Error> for SendError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Stopped(reason),
            _ => Self::Lost(lost(&error)),
        }
    }
}

/// Sends a body to its end, or resets the stream. A piece is pulled only when the last one fits the peer's window.
///
/// Dropping the future resets the stream when the stream is dropped with it.
pub(super) async fn send_body<B>(stream: &mut SendStream<Bytes>, body: B) -> Result<(), SendError>
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

async fn pump<B>(stream: &mut SendStream<Bytes>, body: B) -> Result<(), SendError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    loop {
        // A body may be silent for long; the peer's reset must end it all the same.
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Ok(Some(frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(SendError::Source(error.into()))),
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Pending => match stream.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => Poll::Ready(Err(SendError::Stopped(reason))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Pending => Poll::Pending,
            },
        })
        .await?;
        let Some(frame) = frame else { break };
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                send_data(stream, data, last).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                headers::strip_from_trailers(&mut trailers);
                return Ok(stream.send_trailers(trailers)?);
            }
        }
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

/// Hands data over as the window of the other end allows, so that no more than a window is buffered.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), SendError> {
    if data.is_empty() && last {
        return Ok(stream.send_data(data, true)?);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(granted) => granted?,
            // The stream no longer sends: it was reset, and the reason is there to be asked for.
            None => return Err(SendError::Stopped(poll_fn(|cx| stream.poll_reset(cx)).await?)),
        };
        let piece = data.split_to(granted.min(data.len()));
        stream.send_data(piece, last && data.is_empty())?;
    }
    Ok(())
}
