//! A message body that arrives on a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use http_body::{Body, Frame, SizeHint};
use tokio::task::coop;

use crate::message::fields::FieldRules;
use crate::message::h2::small::Inflow;
use crate::message::violation::Violation;

/// Why a body ended early. It is incomplete then, and must not be taken for a whole one.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The peer reset the stream.
    #[error("the peer reset the stream: {0}")]
    Stopped(Reason),
    /// This end reset the stream, because it could not send its own message to the end.
    #[error("this end reset the stream: {0}")]
    Cancelled(Reason),
    /// What the peer sent is no HTTP/2 message; HTTP/2 itself has refused it.
    #[error("the peer sent no HTTP/2 message: {0}")]
    Protocol(#[source] h2::Error),
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    Lost(#[source] h2::Error),
    /// The body is not as long as its head said.
    #[error("the body differs from its declared length")]
    Length,
    /// The trailers are not ones that may follow a body.
    #[error("the trailers are refused: {0}")]
    Trailers(Violation),
}

impl From<h2::Error> for RecvError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(_) if error.is_reset() && error.is_library() => Self::Protocol(error),
            Some(reason) if error.is_reset() && error.is_remote() => Self::Stopped(reason),
            Some(reason) if error.is_reset() => Self::Cancelled(reason),
            _ => Self::Lost(error),
        }
    }
}

/// A body on a stream. The window opens as the body is read, so one nobody reads holds its sender back.
///
/// It ends cleanly only when the stream did and the declared length was met. Dropping it before its end resets the
/// stream, once whoever sends on the same stream has let go of it too.
#[derive(Debug)]
pub struct StreamBody {
    stream: Inflow,
    /// Bytes still to come, where the head said how many; [`UNKNOWN`] otherwise.
    remaining: u64,
    rules: FieldRules,
    part: Part,
}

/// No head can say that. It is no `Option` because every exchange holds one.
const UNKNOWN: u64 = u64::MAX;

/// What is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    Nothing,
}

/// What is read of a body.
type Read = Option<Result<Frame<Bytes>, RecvError>>;

impl StreamBody {
    /// The body on `stream`, of `declared` bytes where the head said so, with trailers that `rules` let pass.
    pub fn new(stream: Inflow, declared: Option<u64>, rules: FieldRules) -> Self {
        Self { stream, remaining: declared.unwrap_or(UNKNOWN), rules, part: Part::Data }
    }

    /// Bytes still to come, where the head said how many.
    pub fn remaining(&self) -> Option<u64> {
        if self.is_end_stream() { Some(0) } else { self.declared() }
    }

    fn declared(&self) -> Option<u64> {
        Some(self.remaining).filter(|remaining| *remaining != UNKNOWN)
    }

    /// Bytes of the connection's window that wait to be read.
    pub fn unread_bytes(&mut self) -> usize {
        self.stream.flow_control().used_capacity()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        while self.part == Part::Data {
            // A peer that sends without end gets its part of a turn, and no more.
            let turn = ready!(coop::poll_proceed(cx));
            let data = ready!(self.stream.poll_data(cx));
            turn.made_progress();
            match data.transpose()? {
                Some(data) => {
                    // Handed on is as good as read: whoever holds it does not ask for more until it is gone. It fails
                    // only when the stream is gone, which the next read tells.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Poll::Ready(Some(self.count(data).map(Frame::data)));
                    }
                }
                None => self.part = Part::Trailers,
            }
        }
        if self.part == Part::Nothing {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        if self.declared().unwrap_or(0) > 0 {
            return Poll::Ready(Some(Err(RecvError::Length)));
        }
        let Some(trailers) = trailers else { return Poll::Ready(None) };
        let judged = self.rules.judge(&trailers, 0).map_err(RecvError::Trailers);
        self.part = Part::Nothing;
        Poll::Ready(Some(judged.map(|()| Frame::trailers(trailers))))
    }

    /// Counts data against the declared length before it is handed on.
    fn count(&mut self, data: Bytes) -> Result<Bytes, RecvError> {
        if let Some(remaining) = self.declared() {
            self.remaining = remaining.checked_sub(data.len() as u64).ok_or(RecvError::Length)?;
        }
        Ok(data)
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = RecvError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Read> {
        let this = self.get_mut();
        let read = ready!(this.poll_read(cx));
        if !matches!(read, Some(Ok(_))) {
            this.part = Part::Nothing;
        }
        Poll::Ready(read)
    }

    /// Never true of a body that is too short: reading it must tell.
    fn is_end_stream(&self) -> bool {
        self.part == Part::Nothing || (self.declared().unwrap_or(0) == 0 && self.stream.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
