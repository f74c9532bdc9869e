//! The response to one request, on its way into a QUIC stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{Response, response};
use http_body::Body;
use tracing::debug;

use crate::message::BoxError;
use crate::protocol::code::StreamCode;
use crate::protocol::handshake::PeerLimits;
use crate::protocol::stream::{self, ResponseHead};
use crate::transport::error::SendError;
use crate::transport::quic::open::exceeds;
use crate::transport::quic::streams::{SendHalf, encoded};

/// Interim responses that may wait to be sent; of more the newest are dropped.
const MAX_PENDING_INFO_BYTES: usize = 64 * 1024;

/// See [`crate::transport::Responder`].
#[derive(Debug)]
pub(crate) struct Responder {
    send: SendHalf,
    /// Encoded interim responses that the stream has not taken yet.
    pending: BytesMut,
    to_head: bool,
    peer_limits: PeerLimits,
}

impl Responder {
    pub(super) fn new(mut send: SendHalf, to_head: bool, peer_limits: PeerLimits) -> Self {
        send.reset_on_drop(StreamCode::Rejected);
        Self { send, pending: BytesMut::new(), to_head, peer_limits }
    }

    pub(crate) fn begin(&mut self) -> impl Future<Output = SendError> + Send + 'static + use<> {
        self.send.reset_on_drop(StreamCode::Internal);
        self.send.stopped()
    }

    pub(crate) fn interim(&mut self, response: Response<()>) {
        if self.pending.len() < MAX_PENDING_INFO_BYTES {
            let (parts, ()) = response.into_parts();
            stream::encode_info(&ResponseHead { status: parts.status, fields: parts.headers }, &mut self.pending);
        }
    }

    /// Writes what is pending; ready once `stopped` is, or the stream is gone.
    pub(crate) fn poll_cancelled(
        &mut self,
        stopped: Option<Pin<&mut impl Future<Output = SendError>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while !self.pending.is_empty() {
            match self.send.poll_write(&self.pending, cx) {
                Poll::Ready(Ok(length)) => self.pending.advance(length),
                // Whoever stopped it is told so by `stopped`.
                Poll::Ready(Err(_)) => self.pending.clear(),
                Poll::Pending => break,
            }
        }
        let Some(stopped) = stopped else { return Poll::Pending };
        stopped.poll(cx).map(|_| self.send.reset_on_drop(StreamCode::Cancelled))
    }

    /// Makes the head ready; `body_is_over`: nothing follows it.
    pub(crate) fn begin_response(
        mut self,
        parts: response::Parts,
        body_is_over: bool,
    ) -> Result<Responding, SendError> {
        let end = self.to_head || body_is_over;
        let head = self.encode(parts, end)?;
        Ok(Responding { send: self.send, head, end })
    }

    /// The head, behind the interim ones that still wait.
    fn encode(&mut self, parts: response::Parts, end: bool) -> Result<BytesMut, SendError> {
        if parts.status.is_informational() {
            self.send.reset(StreamCode::Internal);
            return Err(SendError::Head("it is not final"));
        }
        let pending = std::mem::take(&mut self.pending);
        let head = ResponseHead { status: parts.status, fields: parts.headers };
        let out = encoded(|out| {
            out.extend_from_slice(&pending);
            stream::encode_response(&head, end, out);
        });
        let bytes = out.len() - pending.len();
        if exceeds(self.peer_limits, bytes, &head.fields) {
            debug!(bytes, "the response head is larger than the responder accepts");
            self.send.reset(StreamCode::Limit);
            return Err(SendError::Head("it is larger than the responder accepts"));
        }
        Ok(out)
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.send.reset(code);
    }
}

/// A response whose head is still to be sent, so that it leaves with the first of the body.
#[derive(Debug)]
pub(crate) struct Responding {
    send: SendHalf,
    head: BytesMut,
    /// Nothing follows the head.
    end: bool,
}

impl Responding {
    /// Sends the response to its end, or resets the stream.
    pub(crate) async fn run<B>(&mut self, body: Pin<&mut B>) -> Result<(), SendError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if !self.end {
            return self.send.send_message(&mut self.head, body).await;
        }
        self.send.write(self.head.split().freeze()).await?;
        self.send.finish();
        Ok(())
    }
}
