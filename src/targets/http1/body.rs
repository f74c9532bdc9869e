//! The body of a response over HTTP/1.1. It holds its connection until both messages have ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::attempt::Attempt;
use super::connection::{Connection, Sender};
use super::failure::{broken, closed};
use super::pool::Pool;
use super::send::SendError;
use crate::message::BoxError;
use crate::message::chunked::{Chunked, Decoder, Piece};
use crate::message::failure::Failure;
use crate::message::response::Framing;
use crate::message::violation::Violation;
use crate::net::input::Input;
use crate::targets::halves::ReadHalf;
use crate::targets::settings::TargetSettings;
use crate::targets::upload::cut;

/// How much is asked for when the body ends with the connection, bytes.
const CLOSE_READ: usize = 16 * 1024;

/// A response body. Dropped before its end, it closes its connection.
pub(in crate::targets) struct Http1Body {
    coding: Coding,
    /// What was read ahead: the end of a body is told with its last data.
    next: Option<Result<Piece, Violation>>,
    /// `None` once the body has ended.
    lease: Option<Lease>,
}

enum Coding {
    Framed(Decoder),
    /// The body ends with the connection.
    Close,
}

/// The connection of an exchange whose response is being read.
struct Lease {
    read: ReadHalf,
    input: Input,
    upload: Upload,
    keep_alive: bool,
    pool: Arc<Pool>,
}

/// What became of the request.
enum Upload {
    /// It was sent whole.
    Complete(Sender),
    /// It is sent on by a task of its own: whoever holds the response may be slow to read it.
    Running(AbortOnDropHandle<Result<Sender, SendError>>),
    /// The target took no more of it, or its own end was reached in another way than its last byte.
    Ended,
}

impl Http1Body {
    /// The body behind a head that was read by this attempt.
    pub(super) fn new(attempt: Attempt, framing: Framing, keep_alive: bool, pool: Arc<Pool>) -> Self {
        let coding = Coding::new(framing, pool.settings());
        let refused = attempt.refuses();
        let Attempt { connection, sending, .. } = attempt;
        let Connection { read, input, sender } = connection;
        let upload = match sending.is_complete(&sender) {
            true => Upload::Complete(sender),
            // Not worth finishing: the exchange is over.
            false if refused || framing == Framing::None => Upload::Ended,
            false => Upload::Running(AbortOnDropHandle::new(tokio::spawn(sending.run(sender)))),
        };
        let mut body = Self { coding, next: None, lease: Some(Lease { read, input, upload, keep_alive, pool }) };
        if framing == Framing::None {
            body.end();
        }
        body
    }

    /// The response is complete.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }

    /// The next piece; `None` when the connection has to bring more first.
    fn decode(&mut self) -> Result<Option<Piece>, Violation> {
        match (self.next.take(), &mut self.lease) {
            (Some(next), _) => next.map(Some),
            (None, Some(lease)) => self.coding.decode(&mut lease.input.buf),
            (None, None) => Ok(Some(Piece::End(None))),
        }
    }

    /// Finds the end behind the data that is handed out now.
    fn look_ahead(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        self.next = self.coding.decode(&mut lease.input.buf).transpose();
        if let Some(Ok(Piece::End(trailers))) = &self.next {
            if trailers.is_none() {
                self.next = None;
            }
            self.end();
        }
    }

    /// Reads more. `false`: the body ended with the connection.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(false)) };
        let error = match lease.input.poll_fill(&mut lease.read, cx, self.coding.wanted()) {
            Poll::Ready(Ok(1..)) => return Poll::Ready(Ok(true)),
            Poll::Ready(Ok(0)) if matches!(self.coding, Coding::Close) => return Poll::Ready(Ok(false)),
            Poll::Ready(Ok(0)) => None,
            Poll::Ready(Err(error)) => Some(error),
            Poll::Pending => return lease.upload.poll_cut(cx).map(Err),
        };
        Poll::Ready(Err(closed(error.as_ref(), "the response was complete")))
    }

    fn fail(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.lease = None;
        self.next = None;
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl Coding {
    fn new(framing: Framing, settings: &TargetSettings) -> Self {
        match framing {
            Framing::None => Self::Framed(Decoder::Length(0)),
            Framing::Length(length) => Self::Framed(Decoder::Length(length)),
            Framing::Chunked => {
                let chunked = Chunked::new(settings.head_bytes, settings.head_fields).of_response();
                Self::Framed(Decoder::Chunked(chunked))
            }
            Framing::Close => Self::Close,
        }
    }

    fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, Violation> {
        match self {
            Self::Framed(decoder) => decoder.decode(buf),
            Self::Close => Ok((!buf.is_empty()).then(|| Piece::Data(buf.split().freeze()))),
        }
    }

    fn wanted(&self) -> usize {
        match self {
            Self::Framed(decoder) => decoder.wanted(),
            Self::Close => CLOSE_READ,
        }
    }
}

impl Lease {
    /// The connection is used again if both messages ended and nothing is left of either.
    fn end(self) {
        let Self { read, input, upload, keep_alive, pool } = self;
        let clean = keep_alive && input.is_empty() && !input.eof;
        if let Some(sender) = upload.into_sender().filter(|_| clean) {
            pool.put(Connection { read, input, sender });
        }
    }
}

impl Upload {
    /// The direction to the target, if the request is there whole. An upload that still runs is not worth finishing:
    /// its connection closes.
    fn into_sender(self) -> Option<Sender> {
        match self {
            Self::Complete(sender) => Some(sender),
            Self::Running(mut task) if task.is_finished() => {
                match Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Ok(Ok(sender))) => Some(sender),
                    _ => None,
                }
            }
            Self::Running(_) | Self::Ended => None,
        }
    }

    /// Ready when the request's own body failed: then the target never gets its end, and the response means nothing.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Self::Running(task) = self else { return Poll::Pending };
        let (now, failure) = match ready!(Pin::new(task).poll(cx)) {
            Ok(Ok(sender)) => (Self::Complete(sender), None),
            Ok(Err(SendError::Cut(error))) => (Self::Ended, Some(cut(&error))),
            Ok(Err(SendError::Broken(_))) | Err(_) => (Self::Ended, None),
        };
        *self = now;
        failure.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            match this.decode() {
                Ok(Some(Piece::Data(data))) => {
                    this.look_ahead();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::End(trailers))) => {
                    this.end();
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Err(violation) => return this.fail(broken(violation)),
                Ok(None) => match ready!(this.poll_read(cx)) {
                    Ok(true) => {}
                    Ok(false) => {
                        this.lease = None;
                        return Poll::Ready(None);
                    }
                    Err(failure) => return this.fail(failure),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none() && self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.coding {
            Coding::Framed(Decoder::Length(remaining)) => SizeHint::with_exact(*remaining),
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
