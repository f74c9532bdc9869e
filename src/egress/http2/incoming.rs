//! The body of a request on a stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::Frame;

use crate::egress::BodyError;
use crate::message::validate;

/// Reads a stream. The window opens as the body is read, so one nobody reads holds its sender back.
#[derive(Debug)]
pub(in crate::egress) struct Incoming {
    stream: RecvStream,
    remaining: Option<u64>,
    max_trailer_fields: usize,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream, declared: Option<u64>, max_trailer_fields: usize) -> Self {
        let remaining = if stream.is_end_stream() { Some(0) } else { declared };
        Self { stream, remaining, max_trailer_fields }
    }

    pub(in crate::egress) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => Poll::Ready(Some(self.data(data))),
            Some(Err(error)) => Poll::Ready(Some(Err(failure(error)))),
            None => self.poll_trailers(cx),
        }
    }

    fn data(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        self.stream.flow_control().release_capacity(data.len()).map_err(failure)?;
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(data.len() as u64));
        Ok(Frame::data(data))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let trailers = match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => trailers,
            Ok(None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(failure(error)))),
        };
        let checked = validate::trailers(&trailers, self.max_trailer_fields);
        Poll::Ready(Some(checked.map(|()| Frame::trailers(trailers)).map_err(BodyError::Invalid)))
    }

    pub(in crate::egress) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Bytes still to come, where the request said how many.
    pub(in crate::egress) fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}

fn failure(error: h2::Error) -> BodyError {
    let has_left = error.is_io() || (error.is_remote() && error.reason() == Some(Reason::CANCEL));
    if has_left { BodyError::Disconnected } else { BodyError::Stream(error.into()) }
}
