//! Bytes received and not yet used.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is asked for while a head is expected.
pub(crate) const HEAD_READ: usize = 8 * 1024;
/// How much is asked for while a request is served: usually nothing comes, and what room is left is enough.
pub(crate) const AHEAD_READ: usize = 1024;
/// A larger buffer is not kept by an idle connection.
const MAX_KEPT: usize = 16 * 1024;

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
