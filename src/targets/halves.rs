//! The two directions of a connection to a target.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{tcp, unix};

use super::tls::{TlsHalf, TlsWriteHalf};
use crate::net::{self, Acknowledged, Grace};

/// What a target says.
pub(super) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    Tls(TlsHalf),
}

/// What a target is told. Dropping it ends this direction, which a target must not take for the end of a message.
pub(super) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    Tls(TlsWriteHalf),
}

impl ReadHalf {
    /// Whether the target says nothing: neither a byte nor that it closed. Asks the kernel only when there was news.
    pub(super) fn is_silent(&self) -> bool {
        let mut byte = [0; 1];
        let read = match self {
            Self::Tcp(half) => half.try_read(&mut byte),
            Self::Unix(half) => half.try_read(&mut byte),
            Self::Tls(half) => return half.is_silent(),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the target says nothing as far as the kernel knows: tokio learns of the end of a connection with its next
    /// look at the sockets only, which may be too late for a request that must not be sent twice.
    pub(super) fn is_silent_now(&self) -> bool {
        let mut byte = [MaybeUninit::uninit(); 1];
        let peeked = match self {
            Self::Tcp(half) => SockRef::from(half.as_ref()).peek(&mut byte),
            Self::Unix(half) => SockRef::from(half.as_ref()).peek(&mut byte),
            Self::Tls(half) => return half.is_silent_now(),
        };
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Dropping it, and the other half, resets the connection instead of ending it.
    pub(super) fn reset_on_drop(&self) {
        tell(match self {
            Self::Tcp(half) => half.as_ref().set_zero_linger(),
            // A socket of the file system knows no reset.
            Self::Unix(_) => Ok(()),
            Self::Tls(half) => half.reset_on_drop(),
        });
    }

    /// Takes that back.
    pub(super) fn end_on_drop(&self) {
        tell(match self {
            Self::Tcp(half) => SockRef::from(half.as_ref()).set_linger(None),
            Self::Unix(_) => Ok(()),
            Self::Tls(half) => half.end_on_drop(),
        });
    }

    /// Waits until the target has acknowledged all that it was sent, is gone, or takes too little; see [`net::acknowledged`].
    pub(super) fn acknowledged(&self, grace: Grace) -> Option<Acknowledged> {
        match self {
            Self::Tcp(half) => net::acknowledged(half.as_ref(), grace),
            // What was written is there already.
            Self::Unix(_) => None,
            Self::Tls(half) => half.acknowledged(grace),
        }
    }

    /// As [`Self::is_silent`], and wakes the caller once the target says something.
    pub(super) fn stays_silent(&self, cx: &mut Context<'_>) -> bool {
        let ready = |cx: &mut Context<'_>| match self {
            Self::Tcp(half) => half.as_ref().poll_read_ready(cx).is_ready(),
            Self::Unix(half) => half.as_ref().poll_read_ready(cx).is_ready(),
            Self::Tls(half) => half.poll_read_ready(cx).is_ready(),
        };
        // Ready only until asked: the first look finds out, and clears what was old news.
        self.is_silent() && (!ready(cx) || self.is_silent() && !ready(cx))
    }
}

impl ReadHalf {
    /// Ready when there may be news of the target, for the caller's next read to find out.
    pub(super) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Tcp(half) => half.as_ref().poll_read_ready(cx),
            Self::Unix(half) => half.as_ref().poll_read_ready(cx),
            // What came may wait in TLS already.
            Self::Tls(_) => return Poll::Ready(()),
        };
        ready.map(drop)
    }
}

impl WriteHalf {
    /// As [`ReadHalf::end_on_drop`].
    pub(super) fn end_on_drop(&self) {
        tell(match self {
            Self::Tcp(half) => SockRef::from(half.as_ref()).set_linger(None),
            Self::Unix(_) => Ok(()),
            Self::Tls(half) => half.end_on_drop(),
        });
    }

    /// As [`ReadHalf::acknowledged`].
    pub(super) fn acknowledged(&self, grace: Grace) -> Option<Acknowledged> {
        match self {
            Self::Tcp(half) => net::acknowledged(half.as_ref(), grace),
            Self::Unix(_) => None,
            Self::Tls(half) => half.acknowledged(grace),
        }
    }

    /// Drops it without ending its direction: that ends with the connection, whenever the other half is dropped.
    pub(super) fn abandon(self) {
        match self {
            Self::Tcp(half) => half.forget(),
            Self::Unix(half) => half.forget(),
            Self::Tls(half) => drop(half),
        }
    }
}

fn tell(prepared: io::Result<()>) {
    if let Err(error) = prepared {
        tracing::debug!(%error, "a connection to a target cannot be reset and is closed instead");
    }
}

macro_rules! on_half {
    ($half:expr, $inner:ident => $call:expr) => {
        match $half.get_mut() {
            Self::Tcp($inner) => $call,
            Self::Unix($inner) => $call,
            Self::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_half!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_half!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_half!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_half!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_half!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
