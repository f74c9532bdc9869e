//! What a codec needs of a connection.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The bytes of one connection.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes dropping the connection reset it, so that the other end sees a failure and never an orderly end.
    fn reset_on_drop(&mut self);
}

impl Socket for TcpStream {
    fn reset_on_drop(&mut self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset and is closed instead");
        }
    }
}

impl<T: Socket> Socket for tokio_rustls::server::TlsStream<T> {
    fn reset_on_drop(&mut self) {
        self.get_mut().0.reset_on_drop();
    }
}
