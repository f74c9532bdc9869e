//! A message body that arrives over a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::message::h2::recv::StreamBody;
use crate::protocol::budgets::{HTTP_PATIENCE, RAW_PATIENCE, UNWATCHED_BODY};
use crate::protocol::code::StreamCode;
use crate::protocol::stream::Event;
use crate::transport::credit::{Ledger, Place, Revoke, Revoked, Terms, Unread, unread};
use crate::transport::error::BodyError;
use crate::transport::quic::MessageStream;
use crate::transport::raw::RawRecv;
use crate::transport::state::InFlight;
use crate::transport::tied::TiedUpload;

/// The body of a request (on the initiator) or of a response (on the responder).
///
/// It ends cleanly only when the peer said END: a cut stream is an `Err` frame, never an early end. spec: ST-5.
/// Dropping it before the end cancels the exchange: the peer stops at once.
#[derive(Debug)]
pub struct RecvBody {
    source: Source,
    remaining: Option<u64>,
    /// Held until the body is over: the exchange counts as under way.
    in_flight: Option<InFlight>,
}

/// What a body is read from.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one allocation less per message; the large one is the usual one")]
enum Source {
    /// It is over.
    Ended,
    /// Our frames on a QUIC stream.
    Frames {
        stream: Place<MessageStream>,
        /// Read ahead, so that `is_end_stream` is exact when END stands in the same segment.
        peeked: Option<Result<Event, BodyError>>,
    },
    /// A stream of HTTP/2, which counts by itself.
    Http2 { stream: Place<StreamBody>, upload: TiedUpload },
    /// What comes on a raw stream.
    Raw(Box<Raw>),
    /// What a task hands over, which ends with this.
    Handed(Box<Handed>),
}

/// The receiving half of a raw stream, which counts by itself and is watched already.
#[derive(Debug)]
struct Raw {
    recv: RawRecv,
    upload: TiedUpload,
}

/// Pieces that a task hands over.
#[derive(Debug)]
struct Handed {
    pieces: mpsc::Receiver<Result<Bytes, BodyError>>,
    upload: TiedUpload,
}

impl RecvBody {
    /// A body with nothing in it.
    pub fn empty() -> Self {
        Self { source: Source::Ended, remaining: Some(0), in_flight: None }
    }

    pub(crate) fn frames(mut stream: MessageStream, length: Option<u64>, in_flight: Option<InFlight>) -> Self {
        let peeked = stream.buffered_event();
        let source = Source::Frames { stream: Place::Own(stream), peeked };
        let mut body = Self { source, remaining: length, in_flight };
        body.settle();
        body
    }

    /// A body of which END came with the head; it is cut if it should have this length.
    pub(crate) fn ended(stream: MessageStream, length: Option<u64>) -> Self {
        let source = Source::Frames { stream: Place::Own(stream), peeked: Some(Ok(Event::End)) };
        let mut body = Self { source, remaining: length, in_flight: None };
        body.settle();
        body
    }

    pub(crate) fn http2(stream: StreamBody, upload: TiedUpload, in_flight: Option<InFlight>) -> Self {
        let source = Source::Http2 { stream: Place::Own(stream), upload };
        let mut body = Self { source, remaining: None, in_flight };
        body.settle();
        body
    }

    /// What comes on a raw stream, up to its END.
    pub fn raw(recv: RawRecv) -> Self {
        let source = Source::Raw(Box::new(Raw { recv, upload: TiedUpload::default() }));
        Self { source, remaining: None, in_flight: None }
    }

    /// What the task at the other end of the channel hands over, which is aborted when the body is dropped before its end.
    pub(crate) fn handed(pieces: mpsc::Receiver<Result<Bytes, BodyError>>, task: AbortHandle) -> Self {
        let mut upload = TiedUpload::default();
        upload.tie(task);
        let source = Source::Handed(Box::new(Handed { pieces, upload }));
        Self { source, remaining: None, in_flight: None }
    }

    /// Tells this task, the one that sends on the raw stream, when the body is dropped before END was read. Otherwise the
    /// other direction goes on, and the task is told nothing.
    pub fn tie_sender(&mut self, task: oneshot::Sender<()>) {
        if let Source::Raw(raw) = &mut self.source {
            raw.upload.tell(task);
        }
    }

    /// Says until when what was read last is kept waiting here, for a rate: whoever reads is not slow before. spec: SE-11
    pub fn defer(&mut self, until: Instant) {
        match &self.source {
            Source::Frames { stream, .. } => stream.defer(until),
            Source::Http2 { stream, .. } => stream.defer(until),
            Source::Raw(raw) => raw.recv.defer(until),
            Source::Ended | Source::Handed(_) => {}
        }
    }

    /// As [`RecvBody::watched`], by the tunnel whose exchange it belongs to.
    pub(super) fn watched_by_tunnel(self, switches: bool) -> Self {
        match &self.in_flight {
            Some(in_flight) if !self.is_short() => {
                let tunnel = in_flight.shared();
                self.watched(tunnel.credit(), switches)
            }
            _ => self,
        }
    }

    /// Whether so little is to come that it does not matter to others who reads it when.
    fn is_short(&self) -> bool {
        self.size_hint().exact().is_some_and(|bytes| bytes <= UNWATCHED_BODY)
    }

    /// Lets the ledger see how it is read, unless it is short. `switches`: it is, or may become, one of two directions in
    /// another protocol than HTTP, which may pause as a raw stream may. spec: SE-12
    pub(super) fn watched(self, ledger: &Ledger, switches: bool) -> Self {
        if self.is_short() {
            return self;
        }
        let patience = if switches { RAW_PATIENCE } else { HTTP_PATIENCE };
        let terms = Terms { patience, length: self.size_hint().exact(), begins_held: true };
        let source = match self.source {
            Source::Frames { stream: Place::Own(stream), peeked } => {
                Source::Frames { stream: Place::watched(stream, ledger, terms), peeked }
            }
            Source::Http2 { stream: Place::Own(stream), upload } => {
                Source::Http2 { stream: Place::watched(stream, ledger, terms), upload }
            }
            other => other,
        };
        Self { source, ..self }
    }

    /// Lets go of the stream once its end was read and the declared length was met.
    fn settle(&mut self) {
        let is_short = !matches!(self.remaining, None | Some(0));
        match &mut self.source {
            Source::Frames { peeked: Some(Ok(Event::End)), .. } if !is_short => self.finish(),
            Source::Frames { peeked: peeked @ Some(Ok(Event::End)), .. } => *peeked = Some(Err(BodyError::Length)),
            Source::Http2 { stream, .. } if stream.look(StreamBody::is_end_stream) == Some(true) => self.finish(),
            _ => {}
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
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Frames { stream, .. } => {
                if let Some(stream) = stream.into_inner() {
                    stream.complete();
                }
            }
            Source::Http2 { mut upload, .. } => upload.release(),
            Source::Raw(mut raw) => raw.upload.release(),
            Source::Handed(mut handed) => handed.upload.release(),
            Source::Ended => {}
        }
        self.in_flight = None;
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let (Source::Frames { stream, .. }, BodyError::Length) = (&mut self.source, &error) {
            // spec: ST-26, ER-4
            stream.with(|stream| stream.refuse(StreamCode::Protocol));
        }
        self.source = Source::Ended;
        self.in_flight = None;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Ended => Poll::Ready(None),
            Source::Http2 { stream, .. } => {
                let polled = stream.poll(|stream| Pin::new(stream).poll_frame(cx), frame_bytes);
                polled.map_or(Poll::Ready(Some(Err(BodyError::HeldBack))), |polled| polled.map_err(BodyError::from))
            }
            Source::Raw(raw) => raw
                .recv
                .poll_data(cx)
                .map(|data| data.transpose().map(|data| data.map(Frame::data).map_err(BodyError::from))),
            Source::Handed(handed) => {
                handed.pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Source::Frames { stream, peeked } => {
                let ask = |stream: &mut MessageStream| match peeked.take() {
                    Some(event) => Poll::Ready(event),
                    None => stream.poll_event(cx),
                };
                let event = match stream.poll(ask, event_bytes) {
                    Ok(polled) => ready!(polled),
                    Err(Revoked) => Err(BodyError::HeldBack),
                };
                Poll::Ready(match event {
                    Ok(Event::Data(data)) => Some(Ok(Frame::data(data))),
                    Ok(Event::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
                    Ok(Event::End) => None,
                    Ok(Event::Request(..) | Event::Response(..) | Event::Info(_) | Event::Here) => {
                        Some(Err(BodyError::Reset(StreamCode::Protocol)))
                    }
                    Err(error) => Some(Err(error)),
                })
            }
        }
    }
}

/// Payload of what a body says.
fn frame_bytes<E>(read: &Option<Result<Frame<Bytes>, E>>) -> usize {
    let data = read.as_ref().and_then(|read| read.as_ref().ok()).and_then(Frame::data_ref);
    data.map_or(0, Bytes::len)
}

fn event_bytes(event: &Result<Event, BodyError>) -> usize {
    match event {
        Ok(Event::Data(data)) => data.len(),
        _ => 0,
    }
}

impl http_body::Body for RecvBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match ready!(this.poll_part(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return this.fail(error),
            None if matches!(this.source, Source::Ended) => return Poll::Ready(None),
            None if !matches!(this.remaining, None | Some(0)) => return this.fail(BodyError::Length),
            None => {
                this.finish();
                return Poll::Ready(None);
            }
        };
        if frame.data_ref().is_some_and(|data| !this.count(data.len())) {
            return this.fail(BodyError::Length);
        }
        if let Source::Frames { stream, peeked } = &mut this.source {
            *peeked = stream.with(MessageStream::buffered_event).flatten();
        }
        this.settle();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match &self.source {
            Source::Ended => Some(0),
            Source::Frames { .. } | Source::Raw(_) | Source::Handed(_) => self.remaining,
            Source::Http2 { stream, .. } => stream.look(|stream| stream.remaining()).flatten(),
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Revoke for StreamBody {
    fn unread(&mut self) -> Unread {
        unread(self.unread_bytes())
    }

    /// Dropped, it gives back what it holds of the connection's window, and takes nothing more of it. The stream itself is
    /// reset once whoever sends on it has let go of it too.
    fn revoke(self) {}
}
