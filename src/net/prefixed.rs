//! A stream of which some bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// Reads `prefix` first, then on from the stream; writes go straight through.
#[derive(Debug)]
pub struct Prefixed<T> {
    prefix: Bytes,
    stream: T,
}

impl<T> Prefixed<T> {
    /// Puts bytes back in front of a stream.
    pub fn new(prefix: Bytes, stream: T) -> Self {
        Self { prefix, stream }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &T {
        &self.stream
    }

    /// What was not read of the prefix, and the stream.
    pub fn into_parts(self) -> (Bytes, T) {
        (self.prefix, self.stream)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let length = self.prefix.len().min(into.remaining());
        into.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncBufRead + Unpin> AsyncBufRead for Prefixed<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            Pin::new(&mut this.stream).poll_fill_buf(cx)
        } else {
            Poll::Ready(Ok(&this.prefix))
        }
    }

    fn consume(mut self: Pin<&mut Self>, length: usize) {
        if self.prefix.is_empty() {
            Pin::new(&mut self.stream).consume(length);
        } else {
            self.prefix.advance(length);
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    forward_writes!(self => stream);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_read_already_comes_first_in_any_split() {
        let mut stream = Prefixed::new(Bytes::from_static(b"abc"), &b"def"[..]);
        let mut first = [0; 2];
        stream.read_exact(&mut first).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&first, rest.as_slice()), (b"ab", &b"cdef"[..]));
    }
}
