//! The way of a request body from the task that owns the socket into the hands of whoever reads it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncRead;

use super::Stop;
use crate::egress::{BodyError, lock};
use crate::message::chunked::{Decoder, Piece};
use crate::net::input::Input;
use crate::proxy::Progress;

/// Most bytes waiting to be read by the service; beyond it nothing is read from the socket.
const MAX_QUEUED: usize = 128 * 1024;
/// Most pieces waiting: tiny chunks cost more than their bytes.
const MAX_PIECES: usize = 64;

/// A queue of pieces with one end at the socket and one at the reader.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    queued: usize,
    /// Pieces that the reader took so far.
    taken: u64,
    /// What follows the pieces, once it is known.
    end: Option<Result<Option<HeaderMap>, BodyError>>,
    /// The reader does not want the rest.
    unwanted: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Where a broken rule is told, also when nobody reads that far any more.
    progress: Option<Arc<Progress>>,
}

/// The end at the socket.
#[derive(Debug)]
pub(super) struct Upload {
    coding: Coding,
    queue: Arc<Mutex<Queue>>,
}

/// How the end of what comes is found.
#[derive(Debug)]
enum Coding {
    Framed(Decoder),
    /// It is the end of the connection's incoming bytes.
    Endless,
}

/// How much of what has no end of its own is asked for at once, bytes.
const ENDLESS_READ: usize = 64 * 1024;

/// The reader's end.
#[derive(Debug)]
pub(in crate::egress) struct Download {
    queue: Arc<Mutex<Queue>>,
    remaining: Option<u64>,
}

/// Joins a decoder to a reader.
pub(super) fn upload(decoder: Decoder) -> (Upload, Download) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    let remaining = if let Decoder::Length(length) = decoder { Some(length) } else { None };
    (Upload { coding: Coding::Framed(decoder), queue: Arc::clone(&queue) }, Download { queue, remaining })
}

/// Joins the rest of a connection to a reader.
pub(super) fn endless() -> (Upload, Download) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    (Upload { coding: Coding::Endless, queue: Arc::clone(&queue) }, Download { queue, remaining: None })
}

impl Upload {
    /// Moves the body along as far as the reader takes it; ready with `Ok` once it is complete.
    pub(super) fn poll<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        input: &mut Input,
    ) -> Poll<Result<(), Stop>> {
        loop {
            ready!(lock(&self.queue).poll_room(cx));
            match self.step(input) {
                Ok(true) if self.is_done() => return Poll::Ready(Ok(())),
                Ok(true) => {}
                Ok(false) => match ready!(self.poll_fill(io, cx, input)) {
                    Ok(length) if length > 0 => {}
                    Ok(_) if matches!(self.coding, Coding::Endless) => {
                        self.end();
                        return Poll::Ready(Ok(()));
                    }
                    _ => return Poll::Ready(Err(Stop::Gone)),
                },
                Err(stop) => return Poll::Ready(Err(stop)),
            }
        }
    }

    fn poll_fill<T: AsyncRead + Unpin>(
        &self,
        io: &mut T,
        cx: &mut Context<'_>,
        input: &mut Input,
    ) -> Poll<io::Result<usize>> {
        match &self.coding {
            Coding::Framed(decoder) => input.poll_fill(io, cx, decoder.wanted()),
            // Its end may have been read already.
            Coding::Endless if input.eof => Poll::Ready(Ok(0)),
            Coding::Endless => {
                let filled = input.poll_fill(io, cx, ENDLESS_READ);
                if filled.is_pending() {
                    // It may rest for hours.
                    input.shrink();
                }
                filled
            }
        }
    }

    fn is_done(&self) -> bool {
        matches!(&self.coding, Coding::Framed(decoder) if decoder.is_done())
    }

    /// Nothing more comes, and what came is whole.
    pub(super) fn end(&self) {
        lock(&self.queue).finish(Ok(None));
    }

    /// A number that rises with all that the reader takes.
    pub(super) fn taken(&self) -> u64 {
        lock(&self.queue).taken
    }

    /// The reader has to make room before anything is read from the socket again.
    pub(super) fn is_held_back(&self) -> bool {
        !lock(&self.queue).has_room()
    }

    /// Nobody reads what still comes.
    pub(super) fn is_unwanted(&self) -> bool {
        lock(&self.queue).unwanted
    }

    /// Hands on one piece, if there is one in `buf`.
    fn step(&mut self, input: &mut Input) -> Result<bool, Stop> {
        let decoded = match &mut self.coding {
            Coding::Framed(decoder) => decoder.decode(&mut input.buf),
            Coding::Endless => Ok((!input.is_empty()).then(|| Piece::Data(input.take()))),
        };
        let piece = match decoded {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(false),
            Err(violation) => {
                let mut queue = lock(&self.queue);
                if let Some(progress) = &queue.progress {
                    progress.break_rule(violation);
                }
                queue.finish(Err(BodyError::Invalid(violation)));
                return Err(Stop::Reject(violation));
            }
        };
        let mut queue = lock(&self.queue);
        match piece {
            Piece::Data(data) => {
                queue.push(data);
                if self.is_done() {
                    queue.finish(Ok(None));
                }
            }
            Piece::End(trailers) => queue.finish(Ok(trailers)),
        }
        Ok(true)
    }
}

/// An upload that ends before the body does means that nobody sends the rest.
impl Drop for Upload {
    fn drop(&mut self) {
        lock(&self.queue).finish(Err(BodyError::Disconnected));
    }
}

impl Queue {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn has_room(&self) -> bool {
        self.unwanted || (self.queued < MAX_QUEUED && self.pieces.len() < MAX_PIECES)
    }

    fn push(&mut self, data: Bytes) {
        if self.unwanted {
            return;
        }
        self.queued += data.len();
        self.pieces.push_back(data);
        wake(&mut self.reader);
    }

    /// The first end counts.
    fn finish(&mut self, end: Result<Option<HeaderMap>, BodyError>) {
        if self.end.is_none() {
            self.end = Some(end);
            wake(&mut self.reader);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let data = self.pieces.pop_front()?;
        self.queued -= data.len();
        self.taken += 1;
        wake(&mut self.writer);
        Some(data)
    }

    /// The end, if it is known. Trailers or the error are told once; after them there is nothing more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(end) = &mut self.end else {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(std::mem::replace(end, Ok(None)).map(|trailers| trailers.map(Frame::trailers)).transpose())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Download {
    /// Tells `progress` of the rule that the sender breaks, if it does.
    pub(in crate::egress) fn report_to(&self, progress: &Arc<Progress>) {
        lock(&self.queue).progress = Some(Arc::clone(progress));
    }

    pub(in crate::egress) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = lock(&self.queue);
        if let Some(data) = queue.pop() {
            self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        queue.poll_end(cx)
    }

    pub(in crate::egress) fn is_end_stream(&self) -> bool {
        let queue = lock(&self.queue);
        queue.pieces.is_empty() && matches!(queue.end, Some(Ok(None)))
    }

    /// Bytes still to come, where the request said how many.
    pub(in crate::egress) fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.unwanted = true;
        queue.pieces.clear();
        queue.queued = 0;
        wake(&mut queue.writer);
    }
}
