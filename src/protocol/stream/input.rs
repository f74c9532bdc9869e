//! What arrived on a stream and is not read yet, and the rules for frames that all kinds of streams share.
//! spec: ST-4, ST-5
//!
//! What is held grows with what arrives, never with what a header promises (spec: SE-5).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::protocol::limits;
use crate::protocol::stream::StreamError;
use crate::protocol::varint;
use crate::protocol::wire::Malformed;

/// Received bytes of one direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Received and not yet read.
    chunk: Bytes,
    /// The front part of a frame header or of a payload that is not whole yet.
    held: BytesMut,
}

impl Input {
    /// Hands in received bytes; copies when some are left from before.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.chunk = [std::mem::take(&mut self.chunk), chunk].concat().into();
        }
    }

    /// Whether everything that arrived was read, but what is held of a header or a payload.
    pub(super) fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Whether nothing of a header or a payload is held.
    pub(super) fn is_between_frames(&self) -> bool {
        self.held.is_empty()
    }

    /// The next `N` integers, which are read whole or not at all.
    pub(super) fn integers<const N: usize>(&mut self) -> Result<Option<[u64; N]>, StreamError> {
        if self.held.is_empty() {
            let mut rest = &self.chunk[..];
            if let Some(read) = integers(&mut rest)? {
                let used = self.chunk.len() - rest.len();
                self.chunk.advance(used);
                return Ok(Some(read));
            }
        }
        // Split over chunks, which is rare: one byte more at a time, so that nothing behind them is taken.
        while self.chunk.has_remaining() {
            self.held.put_u8(self.chunk.get_u8());
            if let Some(read) = integers(&mut &self.held[..])? {
                self.held.clear();
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    /// A whole payload of `length` bytes, without a copy when it arrived in one piece.
    pub(super) fn payload(&mut self, length: usize) -> Option<Bytes> {
        let missing = length - self.held.len();
        if self.held.is_empty() && self.chunk.len() >= length {
            return Some(self.chunk.split_to(length));
        }
        let taken = missing.min(self.chunk.len());
        self.held.put(self.chunk.split_to(taken));
        (taken == missing).then(|| self.held.split().freeze())
    }

    /// What there is of the `left` bytes to come; `None` when nothing is there.
    pub(super) fn some(&mut self, left: u64) -> Option<Bytes> {
        let taken = left.min(self.chunk.len() as u64) as usize;
        (taken > 0).then(|| self.chunk.split_to(taken))
    }

    /// Bytes that are held of a header or a payload that is not whole.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// What is reserved for a frame that is not whole yet.
    #[cfg(test)]
    pub(super) fn held_capacity(&self) -> usize {
        self.held.capacity()
    }
}

fn integers<const N: usize>(input: &mut &[u8]) -> Result<Option<[u64; N]>, StreamError> {
    let mut read = [0; N];
    for value in &mut read {
        let Some(number) = varint::decode(input).map_err(Malformed::from)? else {
            return Ok(None);
        };
        *value = number;
    }
    Ok(Some(read))
}

/// What the next bytes of a stream are; `F` is the type of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<F> {
    /// The stream's type.
    StreamType,
    /// Type and length of a frame.
    FrameHeader,
    /// The whole payload of this frame, of this length.
    Payload(F, usize),
    /// This many bytes that are handed on as they arrive.
    Data(u64),
    /// This many bytes of a frame that nobody here knows.
    Skip(u64),
}

impl<F> Step<F> {
    /// What follows `taken` of the `left` bytes of a payload that is read in parts.
    pub(super) fn after_part(left: u64, taken: usize, more: fn(u64) -> Self) -> Self {
        match left - taken as u64 {
            0 => Self::FrameHeader,
            left => more(left),
        }
    }

    /// What to do with a frame of an unknown type. spec: ST-5
    pub(super) fn skip(number: u64, length: u64) -> Result<Self, StreamError> {
        if !number.is_multiple_of(2) {
            return Err(StreamError::UnknownFrame(number));
        }
        at_most("the length of a skipped frame", length, limits::MAX_SKIPPED_PAYLOAD)?;
        Ok(Self::after_part(length, 0, Self::Skip))
    }
}

/// Checks a size that the peer states against the most that is taken.
pub(super) fn at_most(what: &'static str, actual: u64, max: u64) -> Result<(), StreamError> {
    if actual > max { Err(StreamError::Limit { what, actual, max }) } else { Ok(()) }
}
