//! Raw streams: bytes both ways between the responder and a service of the initiator. spec: ST-50 to ST-63, TB-12 to TB-14

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::code::StreamCode;
use crate::protocol::stream::StreamError;
use crate::transport::credit::{Place, Revoked, Terms};
use crate::transport::error::{BodyError, SendError, TunnelLost};
use crate::transport::state::InFlight;
use crate::transport::{quic, tcp};

/// An open raw stream. It reads and writes as one, or its halves go separate ways.
///
/// Shutting the sending half down (END) ends that direction only. A cut or a reset ends both: whoever sees one should
/// drop both halves and abort the side that it serves.
#[derive(Debug)]
pub struct RawStream {
    /// What this end says.
    pub send: RawSend,
    /// What the other end says.
    pub recv: RawRecv,
}

/// Why a raw stream, or a flow, ended otherwise than by its END.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The source at the other end died: what came before is all there is. spec: ST-61
    #[error("the stream was cut: its source died")]
    Cut,
    /// The peer reset the stream; what was under way is lost. spec: ST-62
    #[error("the peer reset the stream: {0}")]
    Reset(StreamCode),
    /// The peer's bytes break the protocol.
    #[error("{0}")]
    Protocol(StreamError),
    /// The tunnel ended.
    #[error("the tunnel was lost: {0}")]
    TunnelLost(TunnelLost),
    /// Whoever reads the stream took too little of it for too long, and this end has stopped it. spec: SE-11, SE-12
    #[error("the stream was not read: too little of it was taken for too long")]
    HeldBack,
}

impl From<BodyError> for RawError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Protocol(StreamError::Truncated) => Self::Cut,
            BodyError::Protocol(error) => Self::Protocol(error),
            BodyError::Reset(code) => Self::Reset(code),
            BodyError::TunnelLost(lost) => Self::TunnelLost(lost),
            BodyError::Length
            | BodyError::Source(_)
            | BodyError::Upstream(_)
            | BodyError::Failed(_)
            | BodyError::Idle
            | BodyError::Late => Self::Reset(StreamCode::Internal),
            BodyError::HeldBack => Self::HeldBack,
        }
    }
}

impl From<RawError> for BodyError {
    fn from(error: RawError) -> Self {
        match error {
            RawError::Cut => Self::Protocol(StreamError::Truncated),
            RawError::Reset(code) => Self::Reset(code),
            RawError::Protocol(error) => Self::Protocol(error),
            RawError::TunnelLost(lost) => Self::TunnelLost(lost),
            RawError::HeldBack => Self::HeldBack,
        }
    }
}

impl From<RawError> for io::Error {
    fn from(error: RawError) -> Self {
        let kind = match error {
            RawError::Cut | RawError::Reset(_) => io::ErrorKind::ConnectionReset,
            RawError::HeldBack => io::ErrorKind::TimedOut,
            RawError::Protocol(_) => io::ErrorKind::InvalidData,
            RawError::TunnelLost(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

/// The sending half of a raw stream. Dropped before [`RawSend::finish`] or [`RawSend::cut`] it resets the stream with
/// `cancelled`.
#[derive(Debug)]
pub struct RawSend {
    half: SendKind,
    halves: Arc<Halves>,
}

/// What both halves of a raw stream share.
#[derive(Debug)]
struct Halves {
    _in_flight: InFlight,
    receiving: Mutex<Receiving>,
}

/// Whether the receiving half is there.
#[derive(Debug)]
enum Receiving {
    /// Whom to wake once it is gone.
    Goes(Option<Waker>),
    Gone,
}

impl Halves {
    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_one(&self) -> bool {
        matches!(*self.receiving(), Receiving::Gone)
    }
}

/// Held by the receiving half: it is gone once this is dropped.
#[derive(Debug)]
struct Listening(Arc<Halves>);

impl Drop for Listening {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.0.receiving(), Receiving::Gone);
        if let Receiving::Goes(Some(sender)) = before {
            sender.wake();
        }
    }
}

#[derive(Debug)]
enum SendKind {
    Quic(quic::RawSend),
    Tcp(tcp::RawSend),
}

/// The receiving half of a raw stream, looked at by the sending one.
pub(crate) struct OtherHalf(Arc<Halves>);

impl OtherHalf {
    /// As [`RawSend::is_alone`].
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_one()
    }
}

/// The receiving half of a raw stream. Dropped before the end it tells the peer that nobody listens any more.
#[derive(Debug)]
pub struct RawRecv {
    half: RecvKind,
    /// Read and not handed on yet.
    rest: Bytes,
    ended: bool,
    _listening: Listening,
}

#[derive(Debug)]
enum RecvKind {
    Quic(Place<quic::ServiceRecv>),
    Tcp(Place<tcp::RawRecv>),
}

impl RawStream {
    pub(super) fn quic(send: quic::RawSend, recv: quic::ServiceRecv, in_flight: InFlight) -> Self {
        let recv = Place::watched(recv, in_flight.tunnel().credit(), Terms::RAW);
        Self::new(SendKind::Quic(send), RecvKind::Quic(recv), in_flight)
    }

    pub(super) fn tcp(send: tcp::RawSend, recv: tcp::RawRecv, in_flight: InFlight) -> Self {
        let recv = Place::watched(recv, in_flight.tunnel().credit(), Terms::RAW);
        Self::new(SendKind::Tcp(send), RecvKind::Tcp(recv), in_flight)
    }

    fn new(send: SendKind, recv: RecvKind, in_flight: InFlight) -> Self {
        let halves = Halves { _in_flight: in_flight, receiving: Mutex::new(Receiving::Goes(None)) };
        let halves = Arc::new(halves);
        let listening = Listening(Arc::clone(&halves));
        Self {
            send: RawSend { half: send, halves },
            recv: RawRecv { half: recv, rest: Bytes::new(), ended: false, _listening: listening },
        }
    }
}

impl RawRecv {
    /// As [`RecvBody::defer`](crate::transport::RecvBody::defer).
    pub(super) fn defer(&self, until: Instant) {
        match &self.half {
            RecvKind::Quic(half) => half.defer(until),
            RecvKind::Tcp(half) => half.defer(until),
        }
    }
}

impl RawSend {
    /// Sends bytes without copying them, as the peer takes them.
    ///
    /// # Errors
    /// [`SendError`]: the peer wants no more, or the tunnel is gone.
    ///
    /// # Cancel safety
    /// None: a dropped call may have sent a part, so the stream must go too.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), SendError> {
        match &mut self.half {
            SendKind::Quic(half) => half.send(bytes).await,
            SendKind::Tcp(half) => half.send(bytes).await,
        }
    }

    /// Says END: all of this direction was sent, and the other one goes on. Cancel safe; may be called again.
    ///
    /// # Errors
    /// [`SendError`]: the peer wants no more, or the tunnel is gone.
    pub async fn finish(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        match &mut self.half {
            SendKind::Quic(half) => half.poll_finish(cx),
            SendKind::Tcp(half) => Poll::Ready(half.finish()),
        }
    }

    /// Whether the receiving half is gone: it has ended, or was dropped.
    pub fn is_alone(&self) -> bool {
        self.halves.is_one()
    }

    /// Tells whether the receiving half is gone also while this one sends.
    pub(crate) fn other_half(&self) -> OtherHalf {
        OtherHalf(Arc::clone(&self.halves))
    }

    /// Ready when the peer wants no more of this direction, or the tunnel is gone: what is sent next would fail. For a
    /// sender that has nothing to send now. As long as the receiving half is there, over QUIC, that one tells of a peer that is
    /// gone: who only stops this direction is noticed with the next bytes.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<SendError> {
        match &mut self.half {
            SendKind::Quic(half) => {
                // What waits for the peer's word stays with the connection if this end resets the stream (see `Turn::alone`), and
                // each client that dies would leave some.
                if let Receiving::Goes(sender) = &mut *self.halves.receiving() {
                    *sender = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                half.poll_stopped(cx)
            }
            SendKind::Tcp(half) => half.poll_stopped(cx),
        }
    }

    /// Says that the source of this direction died: what was sent arrives, and then the peer sees [`RawError::Cut`] instead
    /// of an end. spec: ST-61, TB-14
    ///
    /// # Errors
    /// [`SendError`]: the peer wants no more, or the tunnel is gone.
    pub async fn cut(self) -> Result<(), SendError> {
        match self.half {
            SendKind::Quic(half) => half.cut().await,
            SendKind::Tcp(half) => {
                half.cut().await;
                Ok(())
            }
        }
    }

    /// Resets the stream; what is under way is lost.
    pub fn reset(self, code: StreamCode) {
        match self.half {
            SendKind::Quic(half) => half.reset(code),
            SendKind::Tcp(half) => half.reset(code),
        }
    }
}

impl AsyncWrite for RawSend {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.half {
            SendKind::Quic(half) => half.poll_write(bytes, cx),
            SendKind::Tcp(half) => half.poll_write(bytes, cx),
        }
        .map_err(broken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.half {
            SendKind::Quic(half) => half.poll_flush(cx).map_err(broken),
            SendKind::Tcp(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx).map_err(broken)
    }
}

fn broken(error: SendError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl RawRecv {
    /// The next bytes, never empty; `None` once the peer said END.
    ///
    /// # Errors
    /// [`RawError`]: it ended otherwise. What came before was handed on.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RawError>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let data = ready!(
            match &mut self.half {
                RecvKind::Quic(half) => half.poll(|half| half.poll_data(cx), payload),
                RecvKind::Tcp(half) => half.poll(|half| half.poll_data(cx), payload),
            }
            .map_err(|Revoked| RawError::HeldBack)?
        );
        self.ended = matches!(data, Ok(None));
        if !matches!(data, Ok(Some(_))) {
            match &self.half {
                RecvKind::Quic(half) => half.rests(),
                RecvKind::Tcp(half) => half.rests(),
            }
        }
        Poll::Ready(data)
    }

    /// The next bytes; see [`RawRecv::poll_data`]. Cancel safe.
    ///
    /// # Errors
    /// [`RawError`]: it ended otherwise.
    pub async fn data(&mut self) -> Result<Option<Bytes>, RawError> {
        poll_fn(|cx| self.poll_data(cx)).await
    }
}

fn payload(data: &Result<Option<Bytes>, RawError>) -> usize {
    data.as_ref().map_or(0, |data| data.as_ref().map_or(0, Bytes::len))
}

impl AsyncRead for RawRecv {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut data) = ready!(self.poll_data(cx))? {
            let length = data.len().min(into.remaining());
            into.put_slice(&data[..length]);
            data.advance(length);
            self.rest = data;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for RawStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, into)
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
