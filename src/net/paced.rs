//! A byte stream under HTTP/2 that fails when the other end sends far more control frames than its messages need, or far
//! more frames than it takes answers. It reads the headers of frames only. spec: SE-13
//!
//! HTTP/2 stacks work on each such frame and have no limit for most of them; to know that they are too many is all that can
//! be done from here. What a single frame costs, such as the work of a header block, it cannot see.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use crate::protocol::http2::{Flood, FrameRate, Unserved};

/// A stream whose frames are counted.
///
/// A read fails with an [`io::Error`] that holds a [`Flood`], see [`Paced::is_flood`]; whoever gets it should end the
/// connection and count that.
#[derive(Debug)]
pub struct Paced<T> {
    io: T,
    rate: FrameRate,
}

impl<T> Paced<T> {
    /// For a client of HTTP/2; nothing of HTTP/2 has passed yet.
    pub fn at_client(io: T) -> Self {
        Self { io, rate: FrameRate::at_client(Instant::now()) }
    }

    /// For a server of HTTP/2; nothing of HTTP/2 has passed yet, or it passes again.
    pub fn at_server(io: T) -> Self {
        Self { io, rate: FrameRate::at_server(Instant::now()) }
    }

    /// The same at a server, telling what becomes of requests that nobody is given.
    pub fn telling(self, unserved: Arc<Unserved>) -> Self {
        Self { rate: self.rate.telling(unserved), ..self }
    }

    /// The stream itself.
    pub const fn get_ref(&self) -> &T {
        &self.io
    }
}

impl<T> Paced<T> {
    /// Notes whether the other end takes what is to be written.
    fn note<R>(&mut self, polled: Poll<R>) -> Poll<R> {
        // A task whose turn is over says nothing of the other end.
        if polled.is_pending() && coop::has_budget_remaining() {
            self.rate.stalls();
        }
        polled
    }
}

impl Paced<()> {
    /// Whether this error of a read says that the peer floods.
    pub fn is_flood(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Flood>())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, into));
        if read.is_err() || (into.filled().len() == before && into.remaining() > 0) {
            self.rate.ended();
        }
        read?;
        let counted = self.rate.received(&into.filled()[before..], Instant::now);
        Poll::Ready(counted.map_err(io::Error::other))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        let length = ready!(self.note(polled))?;
        self.rate.sent(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        let length = ready!(self.note(polled))?;
        let mut left = length;
        for slice in slices {
            let taken = left.min(slice.len());
            self.rate.sent(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    // spec: SE-13
    #[tokio::test]
    async fn a_read_fails_at_a_flood_and_says_so() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut paced = Paced::at_client(ours);
        let pings = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08".repeat(1000);
        let flood = tokio::spawn(async move { while theirs.write_all(&pings).await.is_ok() {} });
        let mut room = vec![0; 1 << 16];
        let error = loop {
            if let Err(error) = paced.read(&mut room).await {
                break error;
            }
        };
        assert!(Paced::is_flood(&error), "{error}");
        drop(paced);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_in_pieces_is_counted_as_it_leaves() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut paced = Paced::at_server(ours);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all
        });
        let frame = [&b"\x00\x00\x40\x00\x00\x00\x00\x00\x01"[..], &[7; 64]].concat();
        for _ in 0..10 {
            paced.write_all(&frame).await.unwrap();
        }
        paced.shutdown().await.unwrap();
        drop(paced);
        assert_eq!(reader.await.unwrap(), frame.repeat(10));
    }
}
