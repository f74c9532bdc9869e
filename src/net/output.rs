//! Bytes on their way out: small ones together, large ones as they are, all in one vectored write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Pieces up to this size are copied beside the head: cheaper than one more slice in the system call.
const MAX_COPIED: usize = 4 * 1024;
/// Most slices in one write.
const MAX_SLICES: usize = 32;
/// A larger buffer is not kept by an idle connection.
const MAX_KEPT: usize = 16 * 1024;
/// One that is larger is not kept by a connection whose other end may think for long about what was in it.
const MAX_KEPT_SENT: usize = 8 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Heads and small pieces; goes out before `pieces`.
    flat: Vec<u8>,
    sent: usize,
    pieces: VecDeque<Bytes>,
    waiting: usize,
    written: u64,
    unflushed: bool,
}

impl Output {
    /// Bytes not yet written.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether everything was written and flushed: what lies below may keep bytes, as TLS does.
    pub(crate) fn is_sent(&self) -> bool {
        self.waiting == 0 && !self.unflushed
    }

    /// Bytes written since the connection began.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Adds bytes that were made here.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.waiting += bytes.len();
        if self.pieces.is_empty() {
            self.flat.extend_from_slice(bytes);
        } else {
            self.pieces.push_back(Bytes::copy_from_slice(bytes));
        }
    }

    /// Adds a piece of a body.
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.pieces.is_empty() && data.len() <= MAX_COPIED {
            return self.put(&data);
        }
        self.waiting += data.len();
        self.pieces.push_back(data);
    }

    pub(crate) fn shrink(&mut self) {
        if self.flat.capacity() > MAX_KEPT {
            self.flat = Vec::new();
        }
    }

    /// Gives the memory back. Nothing may be waiting.
    pub(crate) fn release(&mut self) {
        debug_assert_eq!(self.waiting, 0, "bytes that wait must not be lost");
        *self = Self { written: self.written, ..Self::default() };
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.waiting > 0 {
            let length = ready!(self.poll_write_some(io, cx))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(length);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some<T: AsyncWrite + Unpin>(&self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let flat = &self.flat[self.sent..];
        if self.pieces.is_empty() {
            return Pin::new(io).poll_write(cx, flat);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let head = usize::from(!flat.is_empty());
        slices[0] = IoSlice::new(flat);
        let mut count = head;
        for (slice, piece) in slices[head..].iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        Pin::new(io).poll_write_vectored(cx, &slices[..count])
    }

    fn advance(&mut self, length: usize) {
        self.waiting -= length;
        self.written += length as u64;
        self.unflushed = true;
        let flat = length.min(self.flat.len() - self.sent);
        self.sent += flat;
        if self.sent == self.flat.len() {
            self.flat.clear();
            self.flat.shrink_to(MAX_KEPT_SENT);
            self.sent = 0;
        }
        self.advance_pieces(length - flat);
    }

    fn advance_pieces(&mut self, mut length: usize) {
        while let Some(piece) = self.pieces.front_mut().filter(|_| length > 0) {
            if piece.len() > length {
                return piece.advance(length);
            }
            length -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_arrive_in_order_however_little_a_write_takes() {
        for room in [1, 7, 4096, 1 << 20] {
            let (mut ours, mut theirs) = tokio::io::duplex(room);
            let (mut output, mut expected) = (Output::default(), Vec::new());
            for size in [10, 5000, 20, 0, 4096, 100_000, 3] {
                let piece = vec![u8::try_from(size % 251).unwrap(); size];
                output.put(b"|");
                output.push(Bytes::from(piece.clone()));
                expected.push(b'|');
                expected.extend(piece);
            }
            assert_eq!(output.len(), expected.len());
            let write = async {
                poll_fn(|cx| output.poll_write(&mut ours, cx)).await.unwrap();
                drop(ours);
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(write, theirs.read_to_end(&mut received));
            read.unwrap();
            assert!(received == expected, "room {room}");
            assert_eq!((output.len(), output.written()), (0, expected.len() as u64));
        }
    }
}
