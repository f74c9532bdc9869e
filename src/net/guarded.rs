//! A byte stream whose reader is spared what a [`Guard`] replaces, and gets what it joins when it is wanted.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::cork::count;
use crate::message::h2::guard::{Guard, Passed};
use crate::protocol::http2::Unserved;

/// How much is asked for while a frame is incomplete, bytes.
const MORE: usize = 8 * 1024;

/// A stream below an HTTP/2 connection. What is read goes through a guard; most of it where it was read to, without a copy.
///
/// A read fails, see [`Guarded::is_unfinished`], when a head, or a frame's header, is held back for too long because its end
/// does not come.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    guard: Guard,
    /// What has not gone on; `clear` bytes of it may.
    held: BytesMut,
    clear: usize,
    /// How long something may be held back, and until when that which is; no timer is set before it has to be waited for.
    patience: Duration,
    late: Option<Pin<Box<Sleep>>>,
    unserved: Option<Arc<Unserved>>,
}

/// The end of a head does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer does not finish a head that it began")]
struct Unfinished;

impl Guarded<()> {
    /// Whether this error of a read says that the peer does not finish a head.
    pub fn is_unfinished(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Unfinished>())
    }
}

impl<T> Guarded<T> {
    /// Puts a guard before the reader of a stream of which nothing was read. A head has to be whole within `patience`.
    pub fn new(io: T, guard: Guard, patience: Duration) -> Self {
        Self { io, guard, held: BytesMut::new(), clear: 0, patience, late: None, unserved: None }
    }

    /// The same at a server, telling of requests that are malformed.
    pub fn telling(self, unserved: Arc<Unserved>) -> Self {
        Self { unserved: Some(unserved), ..self }
    }

    fn found_malformed(&self, head: Option<u32>) {
        if let (Some(unserved), Some(stream)) = (&self.unserved, head) {
            unserved.malformed(stream);
        }
    }

    /// Shows the guard what is held and not clear yet. What has changed is copied once, however often it has.
    fn look(&mut self) {
        let mut rest = self.held.split_off(self.clear);
        loop {
            let (front, bytes, instead) = match self.guard.pass(&rest) {
                Passed::Bytes(bytes) => {
                    self.clear += bytes;
                    self.held.unsplit(rest);
                    return;
                }
                Passed::Instead { front, bytes, instead, head } => {
                    self.found_malformed(head);
                    (front, bytes, instead)
                }
                Passed::Joined { front, bytes, instead } => (front, bytes, instead),
            };
            self.held.extend_from_slice(&rest[..front]);
            self.held.extend_from_slice(&instead);
            self.clear = self.held.len();
            rest.advance(front + bytes);
            self.late = None;
        }
    }

    /// What goes on before anything that is not clear yet.
    fn insert(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let rest = self.held.split_off(self.clear);
            self.held.extend_from_slice(bytes);
            self.clear = self.held.len();
            self.held.unsplit(rest);
        }
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Reads to where the reader wants it; what may not go on yet is held back. Whether there was nothing more to read, or
    /// no room for it.
    fn poll_through(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
        let read = &into.filled()[before..];
        if read.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let (front, bytes, instead) = match self.guard.pass(read) {
            Passed::Bytes(bytes) if bytes == read.len() => return Poll::Ready(Ok(false)),
            Passed::Bytes(bytes) => (bytes, 0, Vec::new()),
            Passed::Instead { front, bytes, instead, head } => {
                self.found_malformed(head);
                (front, bytes, instead)
            }
            Passed::Joined { front, bytes, instead } => (front, bytes, instead),
        };
        self.held.extend_from_slice(&instead);
        self.clear = instead.len();
        self.held.extend_from_slice(&read[front + bytes..]);
        // Nobody else counts what is kept here.
        count(cx, read.len());
        into.set_filled(before + front);
        self.look();
        Poll::Ready(Ok(false))
    }

    /// Reads on behind what is held. At the end all of it may go on: the reader is to see what is missing.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(MORE);
        // The future holds no state between polls, so a fresh one per poll loses nothing.
        match ready!(pin!(self.io.read_buf(&mut self.held)).poll(cx))? {
            0 => {
                let rest = self.guard.rest();
                self.insert(&rest);
                self.clear = self.held.len();
            }
            _ => self.look(),
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when what is held back has been for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let patience = self.patience;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(patience)));
        late.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, Unfinished))
    }

    fn hand_out(&mut self, into: &mut ReadBuf<'_>) {
        let length = self.clear.min(into.remaining());
        into.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.clear -= length;
        if self.held.is_empty() {
            // Most connections never hold anything again.
            self.held = BytesMut::new();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            if self.clear == 0 {
                let released = self.guard.released(cx);
                self.insert(&released);
            }
            if self.clear > 0 {
                self.hand_out(into);
                return Poll::Ready(Ok(()));
            }
            if !self.held.is_empty() {
                if self.poll_more(cx)?.is_pending() {
                    return self.poll_late(cx).map(Err);
                }
                if self.clear > 0 {
                    self.late = None;
                }
                continue;
            }
            // Nothing is the end, unless something is held back or was left out.
            let is_end = ready!(self.poll_through(cx, into))?;
            if into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if is_end {
                let rest = self.guard.rest();
                self.insert(&rest);
                self.hand_out(into);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
