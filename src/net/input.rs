//! Bytes received and not yet used.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is asked for while a head is expected.
pub(crate) const HEAD_READ: usize = 8 * 1024;
/// How much is asked for while a request is served: usually nothing comes, and what room is left is enough.
pub(crate) const AHEAD_READ: usize = 1024;
/// A larger buffer is not kept by an idle connection.
const MAX_KEPT: usize = 16 * 1024;
/// A piece below this does not keep the buffer that it came in.
const SMALL: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) buf: BytesMut,
    /// Nothing follows `buf`.
    pub(crate) eof: bool,
}

impl Input {
    pub(crate) fn new(received: BytesMut) -> Self {
        Self { buf: received, eof: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.buf.clear();
    }

    /// All that is here, as what the next one reads. A small piece is copied: it may wait for long, and would keep the whole
    /// buffer.
    pub(crate) fn take(&mut self) -> Bytes {
        if self.buf.len() >= SMALL {
            return self.buf.split().freeze();
        }
        let piece = Bytes::copy_from_slice(&self.buf);
        self.buf.clear();
        piece
    }

    pub(crate) fn shrink(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > MAX_KEPT {
            self.buf = BytesMut::new();
        }
    }

    /// Reads once, with room for about `wanted` bytes. 0 is the end, remembered in `eof`.
    pub(crate) fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        if self.buf.capacity() - self.buf.len() < wanted / 2 {
            self.buf.reserve(wanted);
        }
        // The future holds no state between polls, so a fresh one per poll loses nothing.
        let length = ready!(pin!(io.read_buf(&mut self.buf)).poll(cx))?;
        self.eof = length == 0;
        Poll::Ready(Ok(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_piece_keeps_nothing_but_itself() {
        for (length, keeps) in [(20, false), (SMALL - 1, false), (SMALL, true)] {
            let mut received = BytesMut::with_capacity(64 * 1024);
            received.extend_from_slice(&vec![7; length]);
            let mut input = Input::new(received);
            let piece = input.take();
            assert!(piece == vec![7; length] && input.is_empty());
            let held = piece.try_into_mut().map(|piece| piece.capacity());
            assert_eq!(held.is_err() || held.is_ok_and(|held| held > 2 * length), keeps, "{length}");
            assert_eq!(input.buf.capacity() == 64 * 1024, !keeps, "the buffer serves on");
        }
    }
}
