//! What the target sends.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{Exchange, Seen};
use crate::content::{Content, Hasher, PIECE};

/// Content, made when it is asked for.
pub(super) struct Generated {
    content: Content,
    at: u64,
    length: u64,
    /// `None` once all was sent.
    hasher: Option<Hasher>,
    seen: Arc<Seen>,
}

impl Generated {
    pub(super) fn new(content: Content, length: u64, seen: Arc<Seen>) -> Self {
        Self { content, at: 0, length, hasher: Some(Hasher::new()), seen }
    }
}

impl Body for Generated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let Some(hasher) = &mut this.hasher else { return Poll::Ready(None) };
        let left = this.length - this.at;
        let mut piece = vec![0; left.min(PIECE as u64) as usize];
        this.content.fill(this.at, &mut piece);
        hasher.update(&piece);
        this.at += piece.len() as u64;
        if this.at == this.length {
            let sum = this.hasher.take().map(Hasher::sum).unwrap_or_default();
            this.seen.sums.lock().unwrap().insert(this.content.seed, sum);
        }
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.hasher.is_none()
    }
}

/// The beginning of a body whose rest never comes.
pub(super) struct Held {
    beginning: Option<Bytes>,
    _exchange: Exchange,
}

impl Held {
    pub(super) fn new(beginning: Bytes, exchange: Exchange) -> Self {
        Self { beginning: Some(beginning), _exchange: exchange }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut().beginning.take() {
            Some(beginning) => Poll::Ready(Some(Ok(Frame::data(beginning)))),
            None => Poll::Pending,
        }
    }
}
