//! Raw streams over QUIC, and what flows share with them: opening, accepting, refusing. spec: ST-50 to ST-63

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::protocol::code::StreamCode;
use crate::protocol::stream::{self, Refused, ServiceEvent, ServiceReader, StreamError};
use crate::transport::credit::{Revoke, Unread};
use crate::transport::error::{BodyError, SendError};
use crate::transport::quic::streams::{Ahead, SendHalf, one_if_small, varint};
use crate::transport::raw::RawError;

/// The most bytes that one DATA frame of [`RawSend::poll_write`] takes.
const WRITE_BYTES: usize = 64 * 1024;

/// What the initiator does with a stream that names a service: accept or refuse it. Dropped, it rejects it.
#[derive(Debug)]
pub(crate) struct ServiceArrival {
    pub(super) send: SendHalf,
    pub(super) recv: ServiceRecv,
}

impl ServiceArrival {
    pub(super) fn new(mut send: SendHalf, recv: ServiceRecv) -> Self {
        send.reset_on_drop(StreamCode::Rejected);
        Self { send, recv }
    }

    /// Resolves once the responder has given the stream up. Cancel safe.
    pub(crate) fn stopped(&self) -> impl Future<Output = SendError> + Send + 'static + use<> {
        self.send.stopped()
    }

    /// Says OPENED.
    pub(crate) async fn accept(mut self) -> Result<(SendHalf, ServiceRecv), SendError> {
        let mut out = BytesMut::new();
        stream::encode_opened(&mut out);
        self.send.reset_on_drop(StreamCode::Cancelled);
        self.recv = self.recv.cancelled_on_drop();
        self.send.write(out.freeze()).await?;
        Ok((self.send, self.recv))
    }

    /// Says REFUSED. spec: ST-54
    pub(crate) async fn refuse(mut self, refused: &Refused) -> Result<(), SendError> {
        let mut out = BytesMut::new();
        stream::encode_refused(refused, &mut out);
        self.send.write(out.freeze()).await?;
        self.send.finish();
        Ok(())
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.send.reset(code);
    }
}

/// The sending half of a raw stream.
pub(crate) struct RawSend {
    send: SendHalf,
    /// A frame that the stream has not taken whole yet.
    pending: Bytes,
    ended: bool,
    /// Resolves when the peer has stopped this direction; there once somebody has asked.
    stopped: Option<Pin<Box<dyn Future<Output = SendError> + Send>>>,
}

impl fmt::Debug for RawSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSend").field("send", &self.send).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl RawSend {
    pub(crate) const fn new(send: SendHalf) -> Self {
        Self { send, pending: Bytes::new(), ended: false, stopped: None }
    }

    pub(crate) fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<SendError> {
        let Self { send, stopped, .. } = self;
        let over = ready!(stopped.get_or_insert_with(|| Box::pin(send.stopped())).as_mut().poll(cx));
        // Whoever asks again gets the same answer of another one.
        *stopped = None;
        Poll::Ready(over)
    }

    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<(), SendError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut frame = BytesMut::new();
        stream::encode_data_header(bytes.len() as u64, &mut frame);
        let rest = one_if_small(&mut frame, bytes);
        self.send.write_all(&mut [std::mem::take(&mut self.pending), frame.freeze(), rest]).await
    }

    pub(crate) fn poll_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        ready!(self.poll_flush(cx))?;
        let taken = &bytes[..bytes.len().min(WRITE_BYTES)];
        if !taken.is_empty() {
            let mut frame = BytesMut::with_capacity(taken.len() + 16);
            stream::encode_data_header(taken.len() as u64, &mut frame);
            frame.extend_from_slice(taken);
            self.pending = frame.freeze();
            // What does not leave now leaves with the next call.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken.len()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.send.poll_write_all(std::slice::from_mut(&mut self.pending), cx)
    }

    /// END, then FIN. spec: ST-60
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        ready!(self.poll_flush(cx))?;
        if !self.ended {
            self.ended = true;
            let mut end = BytesMut::new();
            stream::encode_end(&mut end);
            self.pending = end.freeze();
            ready!(self.poll_flush(cx))?;
        }
        self.send.finish();
        Poll::Ready(Ok(()))
    }

    /// FIN without END. spec: ST-61
    pub(crate) async fn cut(mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_flush(cx)).await?;
        self.send.finish();
        Ok(())
    }

    pub(crate) fn reset(mut self, code: StreamCode) {
        self.send.reset(code);
    }
}

/// The receiving half of a raw stream or a flow.
#[derive(Debug)]
pub(crate) struct ServiceRecv {
    recv: quinn::RecvStream,
    reader: ServiceReader,
    /// What dropping it before the end tells the peer.
    on_drop: StreamCode,
    over: bool,
    ahead: Ahead,
}

impl ServiceRecv {
    pub(super) fn new(recv: quinn::RecvStream, reader: ServiceReader) -> Self {
        Self { recv, reader, on_drop: StreamCode::NoError, over: false, ahead: Ahead::default() }
    }

    /// A stream of which `front` was read already.
    pub(super) fn behind(front: Bytes, recv: quinn::RecvStream, mut reader: ServiceReader) -> Self {
        reader.push(front);
        Self::new(recv, reader)
    }

    /// The same, of which the peer hears that nobody wants the rest. spec: ST-58, ST-63
    pub(super) fn cancelled_on_drop(mut self) -> Self {
        self.on_drop = StreamCode::Cancelled;
        self
    }

    /// The next event. After an error, END or REFUSED it must not be called again.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<ServiceEvent, BodyError>> {
        loop {
            match self.reader.next() {
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Ok(None) => {}
                Err(error) => {
                    self.stop(error.code());
                    return Poll::Ready(Err(error.into()));
                }
            }
            match ready!(self.ahead.poll_chunk(&mut self.recv, cx)) {
                Ok(Some(chunk)) => self.reader.push(chunk),
                Ok(None) => {
                    self.over = true;
                    let error = self.reader.finish().err().unwrap_or(StreamError::Truncated);
                    return Poll::Ready(Err(error.into()));
                }
                Err(error) => {
                    self.over = true;
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    pub(super) async fn event(&mut self) -> Result<ServiceEvent, BodyError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next bytes of a raw stream; `None` is END.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RawError>> {
        Poll::Ready(match ready!(self.poll_event(cx))? {
            ServiceEvent::Data(data) => Ok(Some(data)),
            ServiceEvent::End => {
                self.complete();
                Ok(None)
            }
            // The reader yields no other behind OPEN and OPENED.
            _ => Err(RawError::Reset(StreamCode::Protocol)),
        })
    }

    /// The last frame was read: the peer is not told to stop, unless bytes follow.
    pub(super) fn complete(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.ahead.poll_chunk(&mut self.recv, &mut cx) {
            Poll::Ready(Ok(Some(_))) => self.stop(StreamCode::Protocol),
            Poll::Ready(_) | Poll::Pending => self.over = true,
        }
    }

    fn stop(&mut self, code: StreamCode) {
        self.over = true;
        // An error means that the stream is gone already, which is what is wanted.
        let _ = self.recv.stop(varint(code));
    }
}

impl Revoke for ServiceRecv {
    fn unread(&mut self) -> Unread {
        if self.over { Unread::Nothing } else { self.ahead.unread(&mut self.recv) }
    }

    fn revoke(mut self) {
        self.on_drop = StreamCode::Limit;
    }
}

impl Drop for ServiceRecv {
    fn drop(&mut self) {
        if !self.over {
            self.stop(self.on_drop);
        }
    }
}
