//! A corked byte stream: what is written while its task works leaves in one write when the task goes to sleep.
//!
//! HTTP/2 flushes after each DATA frame. Below it that would be one TLS record and one system call for each response,
//! although one poll of the connection often writes the responses of many streams.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

/// Bytes that are held at most; what goes beyond is written at once. It is what rustls takes in one piece: four full
/// records.
const MAX_HELD_BYTES: usize = 64 * 1024;
/// Bytes that are read before the connection looks at what they bring.
const MOST_READ_BYTES: usize = 64 * 1024;
/// A buffer of this size is kept however little passes, bytes.
const KEPT_BYTES: usize = 4 * 1024;
/// Bytes that count as one operation of a task. tokio lets a task do 128 of them before it is the turn of others: 128 KiB,
/// a fraction of a millisecond of one core. It counts a read as one however much it brings, which would be 2 MiB.
const OPERATION_BYTES: usize = 1024;

/// The stream under a cork, for the connection that writes to it.
///
/// While its [`Cork`] runs the connection, writes are held and a flush does nothing. At any other time they go straight
/// through. A shutdown writes everything first.
///
/// A peer that closes may have said why, and a write that fails for that is noticed before its words are read. So a write
/// that fails is no error of the writer: all that follows is taken and thrown away, and whoever reads gets what there is and
/// then the error.
#[derive(Debug)]
pub struct Corked<T>(Arc<Mutex<Stream<T>>>);

/// The cork of one stream, for the task that runs its connection.
#[derive(Debug)]
pub struct Cork<T>(Arc<Mutex<Stream<T>>>);

#[derive(Debug)]
struct Stream<T> {
    io: T,
    /// What was taken, and how much of it was written.
    held: Vec<u8>,
    written: usize,
    /// What the stream below took so far.
    passed: u64,
    is_corked: bool,
    /// How much is read before what was read is looked at; `None` while that is not asked for.
    room: Option<usize>,
    /// Why nothing can be written any more; told to whoever reads, once nothing is left to read.
    failure: Option<io::Error>,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    /// Puts a cork on a stream.
    pub fn new(io: T) -> (Self, Cork<T>) {
        let stream =
            Stream { io, held: Vec::new(), written: 0, passed: 0, is_corked: false, room: None, failure: None };
        let shared = Arc::new(Mutex::new(stream));
        (Self(Arc::clone(&shared)), Cork(shared))
    }
}

impl<T> Cork<T> {
    /// Bytes that the stream below took so far.
    pub fn passed(&self) -> u64 {
        lock(&self.0).passed
    }

    /// Whether something is held that the stream below has not taken yet.
    pub fn holds(&self) -> bool {
        let stream = lock(&self.0);
        stream.written < stream.held.len()
    }
}

impl<T: AsyncWrite + Unpin> Cork<T> {
    /// Runs a future that drives the connection. Whenever it is pending, all that it wrote is handed to the stream.
    ///
    /// A write that fails there is an error of the read that finds nothing more. When the future is ready its last bytes stay
    /// held: either it is run again, or the connection has shut the stream down, which writes them.
    ///
    /// Cancel safety: that of the future.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        lock(&self.0).room = None;
        self.drive(future).await
    }

    async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            lock(&self.0).is_corked = true;
            let polled = future.as_mut().poll(cx);
            lock(&self.0).uncork(cx, polled.is_pending());
            polled
        })
        .await
    }

    /// As [`Cork::run`], for a future that drives the connection until it has something for its caller. As long as it has
    /// more of that, nothing is read: a connection as such reads all that there is before it looks at what it has, and of a
    /// peer that sends without a pause it would gather without bound.
    pub async fn next<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let next = poll_fn(|cx| {
            lock(&self.0).room.get_or_insert(MOST_READ_BYTES);
            loop {
                let polled = future.as_mut().poll(cx);
                let was_full = lock(&self.0).make_room(polled.is_pending());
                if polled.is_ready() || !was_full {
                    return polled;
                }
            }
        });
        self.drive(next).await
    }
}

/// Counts bytes that have passed as part of what the task may do before others have their turn: whoever shares the thread
/// with bulk waits for each turn of it.
pub(super) fn count(cx: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes / OPERATION_BYTES {
        match coop::poll_proceed(cx) {
            Poll::Ready(operation) => operation.made_progress(),
            // The next read or write finds out, too, and the task comes back.
            Poll::Pending => return,
        }
    }
}

fn lock<T>(stream: &Mutex<Stream<T>>) -> MutexGuard<'_, Stream<T>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Stream<T> {
    fn uncork(&mut self, cx: &mut Context<'_>, sleeps: bool) {
        self.is_corked = false;
        if !sleeps || self.failure.is_some() {
            return;
        }
        // A stream that takes no more wakes the task when it does, and the next turn ends here again. What was read counts for
        // nothing here: a task that reads without end would never write what it holds, which is little.
        let flushed = pin!(coop::unconstrained(poll_fn(|cx| self.poll_flush(cx)))).poll(cx);
        if let Poll::Ready(Err(error)) = flushed {
            self.fail(cx, error);
        }
    }

    /// Takes no more. Whoever runs the connection reads on, to the end.
    fn fail(&mut self, cx: &Context<'_>, error: io::Error) {
        self.failure.get_or_insert(error);
        (self.held, self.written) = (Vec::new(), 0);
        cx.waker().wake_by_ref();
    }

    /// What a write of `asked` bytes came to.
    fn taken(&mut self, cx: &Context<'_>, result: io::Result<usize>, asked: usize) -> usize {
        match result {
            Ok(length) => {
                self.passed += length as u64;
                length
            }
            Err(error) => {
                self.fail(cx, error);
                asked
            }
        }
    }

    /// Lets more be read, if there is nothing to be taken first. Whether it had stopped.
    fn make_room(&mut self, is_empty: bool) -> bool {
        self.room.replace(if is_empty { MOST_READ_BYTES } else { 0 }) == Some(0)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Writes what is held.
    fn poll_write_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let length = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held[self.written..]))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += length;
            self.passed += length as u64;
            count(cx, length);
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// A buffer that a crowd has filled shrinks again when little passes: an idle connection holds next to nothing.
    fn release(&mut self) {
        let (used, capacity) = (self.held.len(), self.held.capacity());
        self.held.clear();
        self.written = 0;
        if used > 0 && used < capacity / 4 && capacity > KEPT_BYTES {
            self.held.shrink_to((capacity / 2).max(KEPT_BYTES));
        }
    }

    /// Takes as much as there is room for, and makes room first where there is none.
    fn poll_hold<'a>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= MAX_HELD_BYTES
            && let Err(error) = ready!(self.poll_write_held(cx))
        {
            self.fail(cx, error);
        }
        if self.failure.is_some() {
            return Poll::Ready(Ok(pieces.map(<[u8]>::len).sum()));
        }
        let before = self.held.len();
        for piece in pieces {
            let room = MAX_HELD_BYTES - self.held.len();
            self.held.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Poll::Ready(Ok(self.held.len() - before))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        if stream.room == Some(0) {
            // Whoever has set it polls again at once.
            return Poll::Pending;
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut stream.io).poll_read(cx, into);
        let read = into.filled().len() - before;
        let is_all = match &polled {
            Poll::Ready(Ok(())) => read == 0 && into.remaining() > 0,
            Poll::Ready(Err(_)) => false,
            // There may be more where it is only the turn that is over.
            Poll::Pending => coop::has_budget_remaining(),
        };
        if is_all && let Some(failure) = stream.failure.take() {
            return Poll::Ready(Err(failure));
        }
        stream.room = stream.room.map(|room| room.saturating_sub(read));
        drop(stream);
        count(cx, read);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = lock(&self.0);
        if stream.is_corked || stream.failure.is_some() {
            return stream.poll_hold(cx, std::iter::once(bytes));
        }
        if let Err(error) = ready!(stream.poll_write_held(cx)) {
            stream.fail(cx, error);
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut stream.io).poll_write(cx, bytes));
        Poll::Ready(Ok(stream.taken(cx, result, bytes.len())))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = lock(&self.0);
        let all = pieces.iter().map(|piece| piece.len()).sum();
        if stream.is_corked || stream.failure.is_some() {
            return stream.poll_hold(cx, pieces.iter().map(|piece| &**piece));
        }
        if let Err(error) = ready!(stream.poll_write_held(cx)) {
            stream.fail(cx, error);
            return Poll::Ready(Ok(all));
        }
        let result = ready!(Pin::new(&mut stream.io).poll_write_vectored(cx, pieces));
        Poll::Ready(Ok(stream.taken(cx, result, all)))
    }

    /// Small pieces cost nothing here: they are copied together.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        if stream.is_corked || stream.failure.is_some() {
            return Poll::Ready(Ok(()));
        }
        if let Err(error) = ready!(stream.poll_flush(cx)) {
            stream.fail(cx, error);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        if let Some(failure) = stream.failure.take() {
            return Poll::Ready(Err(failure));
        }
        ready!(stream.poll_flush(cx))?;
        Pin::new(&mut stream.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
