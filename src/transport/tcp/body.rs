//! A message body that arrives on a stream of HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Frame;
use tokio::task::AbortHandle;

use crate::protocol::code::StreamCode;
use crate::protocol::limits::Limits;
use crate::protocol::stream::StreamError;
use crate::protocol::wire::Malformed;
use crate::transport::error::{BodyError, TunnelLost, peer_text};
use crate::transport::tcp::fields::check_fields;

/// Reads a stream; dropping it before the end resets the stream.
#[derive(Debug)]
pub(crate) struct Http2Body {
    stream: RecvStream,
    limits: Limits,
    /// Aborts the upload of the same exchange when the response is no longer wanted.
    upload: Option<AbortHandle>,
    data_ended: bool,
}

impl Http2Body {
    pub(super) fn new(stream: RecvStream, limits: Limits, upload: Option<AbortHandle>) -> Self {
        Self { stream, limits, upload, data_ended: false }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.poll_message(cx));
        if polled.is_none() || self.stream.is_end_stream() {
            // The whole message is here: the upload may go on to its own end.
            self.upload = None;
        }
        Poll::Ready(polled)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Handed on is as good as read: whoever holds it does not ask for more until it is gone. It fails
                    // only when the stream is gone, which the next read tells.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(failure(&error)))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(fields)) => Poll::Ready(Some(match self.check_trailers(&fields) {
                Ok(()) => Ok(Frame::trailers(fields)),
                Err(error) => Err(error.into()),
            })),
            Err(error) => Poll::Ready(Some(Err(failure(&error)))),
        }
    }

    /// spec: ST-24
    fn check_trailers(&self, fields: &HeaderMap) -> Result<(), StreamError> {
        check_fields(fields, 0, self.limits)?;
        if fields.contains_key(CONTENT_LENGTH) {
            return Err(Malformed::Forbidden("content-length").into());
        }
        Ok(())
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

fn failure(error: &h2::Error) -> BodyError {
    match error.reason() {
        // The peer did not reset it: this end's HTTP/2 does not take it.
        Some(_) if error.is_reset() && error.is_library() => BodyError::Protocol(StreamError::Http2),
        Some(reason) if error.is_reset() => BodyError::Reset(stream_code(reason)),
        _ => BodyError::TunnelLost(lost(error)),
    }
}

pub(super) fn lost(error: &h2::Error) -> TunnelLost {
    TunnelLost(peer_text(error.to_string().as_bytes()))
}

/// What a reset of HTTP/2 means in our words. spec: TB-8
pub(super) fn stream_code(reason: Reason) -> StreamCode {
    match reason {
        Reason::NO_ERROR => StreamCode::NoError,
        Reason::PROTOCOL_ERROR | Reason::FRAME_SIZE_ERROR | Reason::FLOW_CONTROL_ERROR => StreamCode::Protocol,
        Reason::CANCEL => StreamCode::Cancelled,
        Reason::REFUSED_STREAM => StreamCode::Rejected,
        Reason::ENHANCE_YOUR_CALM => StreamCode::Limit,
        _ => StreamCode::Internal,
    }
}

/// Our words as a reset of HTTP/2. spec: TB-8
pub(super) fn reason(code: StreamCode) -> Reason {
    match code {
        StreamCode::NoError => Reason::NO_ERROR,
        StreamCode::Protocol | StreamCode::UnknownType => Reason::PROTOCOL_ERROR,
        StreamCode::Cancelled => Reason::CANCEL,
        StreamCode::Rejected => Reason::REFUSED_STREAM,
        StreamCode::Limit => Reason::ENHANCE_YOUR_CALM,
        StreamCode::Internal | StreamCode::Truncated => Reason::INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: TB-8
    #[test]
    fn a_code_that_decides_about_a_second_attempt_survives_http2() {
        for code in [StreamCode::NoError, StreamCode::Cancelled, StreamCode::Rejected, StreamCode::Limit] {
            assert_eq!(stream_code(reason(code)), code);
        }
        assert_eq!(stream_code(reason(StreamCode::Truncated)), StreamCode::Internal);
        assert_eq!(stream_code(Reason::from(0xabcd)), StreamCode::Internal);
    }
}
