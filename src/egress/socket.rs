//! What a codec needs of a connection.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::net::{self, Acknowledged, Grace};

/// The bytes of one connection.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes dropping the connection reset it, so that the other end sees a failure and never an orderly end.
    fn reset_on_drop(&mut self);

    /// Takes that back.
    fn end_on_drop(&mut self);

    /// Whether the other end has gone away, as far as is known without reading: what it sent before stands between it and
    /// a reader. `half_close`: one that only sends no more is still there.
    fn has_left(&self, half_close: bool) -> bool;

    /// Waits until the other end has acknowledged all that was written, is gone, or takes too little: what a reset would
    /// throw away before that. `None`: there is nothing to wait for, or no way to know.
    fn acknowledged(&self, grace: Grace) -> Option<Acknowledged>;
}

impl Socket for TcpStream {
    fn reset_on_drop(&mut self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset and is closed instead");
        }
    }

    fn end_on_drop(&mut self) {
        if let Err(error) = SockRef::from(&*self).set_linger(None) {
            tracing::debug!(%error, "a connection cannot be closed in order and is reset instead");
        }
    }

    fn has_left(&self, half_close: bool) -> bool {
        // What was heard from the kernel so far; there is nothing to wait for.
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(self.ready(Interest::READABLE | Interest::WRITABLE)).poll(&mut cx) {
            Poll::Ready(Ok(heard)) => heard.is_write_closed() || (heard.is_read_closed() && !half_close),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    fn acknowledged(&self, grace: Grace) -> Option<Acknowledged> {
        net::acknowledged(self, grace)
    }
}

impl<T: Socket> Socket for tokio_rustls::server::TlsStream<T> {
    fn reset_on_drop(&mut self) {
        self.get_mut().0.reset_on_drop();
    }

    fn end_on_drop(&mut self) {
        self.get_mut().0.end_on_drop();
    }

    fn has_left(&self, half_close: bool) -> bool {
        self.get_ref().0.has_left(half_close)
    }

    fn acknowledged(&self, grace: Grace) -> Option<Acknowledged> {
        self.get_ref().0.acknowledged(grace)
    }
}
