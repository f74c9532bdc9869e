//! The body of a request that arrives over HTTP/3.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::RequestStream;
use http_body::Frame;

use super::datagrams::Arrived;
use super::link::Side;
use super::stream::Receiving;
use crate::egress::error::BodyError;
use crate::message::fields::FieldRules;
use crate::message::violation::Violation;
use crate::proxy::Progress;

/// A body on a stream. What is not read holds its sender back; dropping it says that no more is wanted.
///
/// It ends cleanly only when the stream did and the declared length was met.
pub(in crate::egress) struct StreamBody {
    stream: RequestStream<Receiving, Bytes>,
    side: Arc<Side>,
    /// What was read of it before it was handed on.
    first: Option<Bytes>,
    remaining: Option<u64>,
    rules: FieldRules,
    part: Part,
    progress: Option<Arc<Progress>>,
    /// What comes between the capsules on the stream.
    beside: Option<Box<Arrived>>,
}

/// What is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    Nothing,
}

/// What is read of a body.
type Read = Option<Result<Frame<Bytes>, BodyError>>;

impl StreamBody {
    pub(super) fn new(stream: RequestStream<Receiving, Bytes>, side: Arc<Side>, rules: FieldRules) -> Self {
        Self { stream, side, first: None, remaining: None, rules, part: Part::Data, progress: None, beside: None }
    }

    /// Whether there is anything: ready when the first bytes are here, or trailers, or the end.
    pub(super) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_data(cx)) {
            Ok(Some(data)) => self.first = Some(data),
            // An error is told again to whoever reads.
            Ok(None) | Err(_) => self.part = Part::Trailers,
        }
        Poll::Ready(())
    }

    /// Whether it has neither bytes nor trailers.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.part != Part::Data && self.side.has_ended()
    }

    /// It is capsules, and these come, too.
    pub(super) fn beside(&mut self, arrived: Option<Arrived>) {
        self.beside = arrived.map(Box::new);
    }

    /// The head says that it is so long, bytes.
    pub(super) fn declare(&mut self, length: Option<u64>) {
        self.remaining = length;
    }

    /// Tells `progress` which rule its sender broke.
    pub(in crate::egress) fn report_to(&mut self, progress: &Arc<Progress>) {
        self.progress = Some(Arc::clone(progress));
    }

    /// Bytes still to come, where the head said how many.
    pub(in crate::egress) fn remaining(&self) -> Option<u64> {
        if self.is_end_stream() { Some(0) } else { self.remaining }
    }

    pub(in crate::egress) fn is_end_stream(&self) -> bool {
        self.part == Part::Nothing
    }

    pub(in crate::egress) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        let read = ready!(self.poll_read(cx));
        if !matches!(read, Some(Ok(_))) {
            self.part = Part::Nothing;
        }
        if let (Some(Err(BodyError::Invalid(violation))), Some(progress)) = (&read, &self.progress) {
            progress.break_rule(*violation);
        }
        Poll::Ready(read)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        if let Some(first) = self.first.take() {
            if let Some(beside) = &mut self.beside {
                beside.passes(&first);
            }
            return Poll::Ready(Some(self.count(first).map(Frame::data)));
        }
        if self.part == Part::Data {
            match ready!(self.poll_piece(cx))? {
                Some(data) => return Poll::Ready(Some(self.count(data).map(Frame::data))),
                None => self.part = Part::Trailers,
            }
        }
        if self.part == Part::Nothing {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_recv_trailers(cx)).map_err(|error| self.error(error))?;
        if self.remaining.unwrap_or(0) > 0 {
            return Poll::Ready(Some(Err(self.malformed())));
        }
        let Some(trailers) = trailers else { return Poll::Ready(None) };
        let judged = self.rules.judge(&trailers, 0).map_err(BodyError::Invalid);
        self.part = Part::Nothing;
        Poll::Ready(Some(judged.map(|()| Frame::trailers(trailers))))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let Some(mut beside) = self.beside.take() else { return self.poll_data(cx) };
        let mut piece = Poll::Pending;
        if !beside.is_turn_of_stream() {
            piece = beside.poll_capsule(cx).map(|capsule| Ok(Some(capsule)));
        }
        if piece.is_pending() {
            piece = self.poll_data(cx);
            match &piece {
                Poll::Ready(Ok(Some(data))) => beside.passes(data),
                Poll::Ready(_) => {}
                Poll::Pending => piece = beside.poll_capsule(cx).map(|capsule| Ok(Some(capsule))),
            }
        }
        self.beside = Some(beside);
        piece
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let read = match ready!(self.stream.poll_recv_data(cx)) {
            Ok(data) => Ok(data.map(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(error),
        };
        Poll::Ready(read.map_err(|error| self.error(error)))
    }

    /// Counts data against the declared length before it is handed on.
    fn count(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        if let Some(remaining) = &mut self.remaining {
            match remaining.checked_sub(data.len() as u64) {
                Some(left) => *remaining = left,
                None => return Err(self.malformed()),
            }
        }
        Ok(data)
    }

    /// It is as long as its head does not say. RFC 9114 section 4.1.2
    fn malformed(&mut self) -> BodyError {
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        BodyError::Invalid(Violation::BodyLength)
    }

    fn error(&self, error: StreamError) -> BodyError {
        match (self.side.refused_trailers(), error) {
            (Some(violation), _) => BodyError::Invalid(violation),
            (None, StreamError::HeaderTooBig { .. }) => BodyError::Invalid(Violation::HeadTooLarge),
            (None, StreamError::RemoteTerminate { .. } | StreamError::ConnectionError { .. }) => {
                BodyError::Disconnected
            }
            (None, StreamError::StreamError { .. }) => BodyError::Invalid(Violation::Trailers),
            (None, other) => BodyError::Stream(other.into()),
        }
    }
}

impl std::fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBody")
            .field("remaining", &self.remaining)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}
