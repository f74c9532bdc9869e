//! A body whose pieces are made elsewhere.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use super::BoxError;

/// Data, trailers, or what breaks the body off.
pub(crate) type Piece = Result<Frame<Bytes>, BoxError>;

/// A body of what comes out of a queue; it ends once nobody can add to it.
///
/// Failures take the same way as data. With a way of their own (as in `http_body_util::Channel`) a body can find no
/// data, then lose the processor while the last piece is added, and then find that no failure can come any more: it
/// ends without its last piece.
pub(crate) struct Pieces(mpsc::Receiver<Piece>);

/// A body, and the way into it. One piece waits, others when it was taken.
pub(crate) fn pieces() -> (mpsc::Sender<Piece>, Pieces) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Pieces(receiver))
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(cx)
    }
}
