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
use crate::protocol::stream::{self, ResponseHead};
use crate::transport::error::{SendError, head_too_large};
use crate::transport::quic::streams::{SendHalf, encoded, exceeds};

/// Interim responses that may wait to be sent; of more the newest are dropped.
const MAX_PENDING_INFO_BYTES: usize = 64 * 1024;

/// See [`crate::transport::Responder`].
#[derive(Debug)]
pub(crate) struct Responder {
    send: SendHalf,
    /// Encoded interim responses that the stream has not taken yet.
    pending: BytesMut,
    to_head: bool,
}

impl Responder {
    pub(super) fn new(mut send: SendHalf, to_head: bool) -> Self {
        send.reset_on_drop(StreamCode::Rejected);
        Self { send, pending: BytesMut::new(), to_head }
    }

    pub(crate) fn begin(&mut self) -> impl Future<Output = SendError> + Send + 'static + use<> {
        self.send.reset_on_drop(StreamCode::Internal);
        self.send.stopped()
    }

    pub(crate) fn interim(&mut self, response: Response<()>) {
        if self.pending.len() < MAX_PENDING_INFO_BYTES {
            let (parts, ()) = response.into_parts();
            let head = ResponseHead { status: parts.status, fields: parts.headers };
            let before = self.pending.len();
            let bytes = stream::encode_info(&head, &mut self.pending);
            // spec: ER-10
            if exceeds(self.send.limits(), bytes, &head.fields) {
                self.pending.truncate(before);
            }
        }
    }

    /// Says that the body of the request is wanted. Without a bound: it is said once. spec: FL-47
    pub(crate) fn here(&mut self) {
        stream::encode_here(&mut self.pending);
    }

    /// Writes what is pending; ready once `stopped` is, or the stream is gone.
    pub(crate) fn poll_cancelled(
        &mut self,
        stopped: Option<Pin<&mut impl Future<Output = SendError>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while !self.pending.is_empty() {
            match self.send.poll_write_little(&self.pending, cx) {
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
        let (head, end) = self.encode(parts, self.to_head || body_is_over)?;
        Ok(Responding { send: self.send, head, end })
    }

    /// The head, behind the interim ones that still wait, and whether nothing follows it.
    fn encode(&mut self, parts: response::Parts, end: bool) -> Result<(BytesMut, bool), SendError> {
        if parts.status.is_informational() {
            self.send.reset(StreamCode::Internal);
            return Err(SendError::Head("it is not final"));
        }
        let pending = std::mem::take(&mut self.pending);
        let head = ResponseHead { status: parts.status, fields: parts.headers };
        let mut bytes = 0;
        let out = encoded(|out| {
            out.extend_from_slice(&pending);
            bytes = stream::encode_response(&head, end, out);
        });
        if !exceeds(self.send.limits(), bytes, &head.fields) {
            return Ok((out, end));
        }
        debug!(bytes, "the response head is larger than the responder accepts");
        let told = head_too_large(bytes, head.fields.len(), self.send.limits()).bare_response();
        let (parts, ()) = told.into_parts();
        let told = ResponseHead { status: parts.status, fields: parts.headers };
        let out = encoded(|out| {
            out.extend_from_slice(&pending);
            stream::encode_response(&told, true, out);
        });
        Ok((out, true))
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
