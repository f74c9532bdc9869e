//! A message body that arrives over a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::protocol::code::StreamCode;
use crate::protocol::stream::Event;
use crate::transport::error::BodyError;
use crate::transport::quic::MessageStream;
use crate::transport::state::InFlight;

/// The body of a request (on the initiator) or of a response (on the responder).
///
/// It ends cleanly only when the peer said END: a cut stream is an `Err` frame, never an early end. spec: ST-5.
/// Dropping it before the end cancels the exchange: the peer stops at once.
#[derive(Debug)]
pub struct RecvBody {
    stream: Option<MessageStream>,
    /// Read ahead, so that `is_end_stream` is exact when END stands in the same segment.
    peeked: Option<Result<Event, BodyError>>,
    remaining: Option<u64>,
    /// Held until the body is over: the exchange counts as under way.
    _in_flight: Option<InFlight>,
}

impl RecvBody {
    /// A body with nothing in it.
    pub fn empty() -> Self {
        Self { stream: None, peeked: None, remaining: Some(0), _in_flight: None }
    }

    pub(crate) fn new(mut stream: MessageStream, length: Option<u64>, in_flight: Option<InFlight>) -> Self {
        let peeked = stream.buffered_event();
        let mut body = Self { stream: Some(stream), peeked, remaining: length, _in_flight: in_flight };
        body.settle();
        body
    }

    /// Lets go of the stream once END was read and the declared length was met.
    fn settle(&mut self) {
        if !matches!(self.peeked, Some(Ok(Event::End))) {
            return;
        }
        self.peeked = None;
        if matches!(self.remaining, None | Some(0)) {
            self.finish();
        } else {
            self.peeked = Some(Err(BodyError::Length));
        }
    }

    /// Counts bytes against the declared length; `false` when there are too many.
    fn count(&mut self, bytes: usize) -> bool {
        let Some(remaining) = &mut self.remaining else { return true };
        match remaining.checked_sub(bytes as u64) {
            Some(rest) => *remaining = rest,
            None => return false,
        }
        true
    }

    fn finish(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.complete();
        }
        self._in_flight = None;
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.stream = None;
        self._in_flight = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for RecvBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let event = match this.peeked.take() {
            Some(event) => event,
            None => {
                let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
                std::task::ready!(stream.poll_event(cx))
            }
        };
        let frame = match event {
            Ok(Event::Data(data)) if this.count(data.len()) => Frame::data(data),
            Ok(Event::Data(_)) => return this.fail(BodyError::Length),
            Ok(Event::Trailers(fields)) => Frame::trailers(fields),
            Ok(Event::End) => {
                this.peeked = Some(Ok(Event::End));
                this.settle();
                return match this.peeked.take() {
                    Some(Err(error)) => this.fail(error),
                    _ => Poll::Ready(None),
                };
            }
            Ok(Event::Request(..) | Event::Response(..) | Event::Info(_)) => {
                return this.fail(BodyError::Reset(StreamCode::Protocol));
            }
            Err(error) => return this.fail(error),
        };
        if let Some(stream) = &mut this.stream {
            this.peeked = stream.buffered_event();
        }
        this.settle();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none() && self.peeked.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.is_end_stream(), self.remaining) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(remaining)) => SizeHint::with_exact(remaining),
            (false, None) => SizeHint::default(),
        }
    }
}
