//! Dialling a target.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::halves::{ReadHalf, WriteHalf};
use crate::message::failure::{Cause, Failure};

/// Where a target listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A name or an IP address, asked for again at each connection.
    Tcp { host: String, port: u16 },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A connection to a target.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Dials the target, giving up after `limit` (which includes asking for its address).
///
/// # Cancel safety
///
/// Dropping the future abandons the attempt.
pub(super) async fn connect(address: &Address, limit: Duration) -> Result<Socket, Failure> {
    match timeout(limit, dial(address)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(Cause::TargetTimeout, format!("no connection to the target within {limit:?}"))),
    }
}

async fn dial(address: &Address) -> Result<Socket, Failure> {
    match address {
        Address::Tcp { host, port } => {
            let addresses = resolve(host, *port).await?;
            let stream = TcpStream::connect(&addresses[..]).await.map_err(|error| refused(&error))?;
            // Small messages must not wait for the acknowledgement of the one before; a failure only costs latency.
            let _ = stream.set_nodelay(true);
            Ok(Socket::Tcp(stream))
        }
        Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await.map_err(|error| refused(&error))?)),
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = lookup_host((host, port)).await;
    let addresses: Vec<_> = found
        .map_err(|error| Failure::new(Cause::TargetDns, format!("the target's name was not resolved: {error}")))?
        .collect();
    if addresses.is_empty() {
        return Err(Failure::new(Cause::TargetDns, "the target's name has no address"));
    }
    Ok(addresses)
}

fn refused(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::new(Cause::TargetRefused, "the target refused the connection"),
        io::ErrorKind::TimedOut => Failure::new(Cause::TargetTimeout, "the connection to the target timed out"),
        _ => Failure::new(Cause::TargetUnreachable, format!("the target cannot be reached: {error}")),
    }
}

impl Socket {
    /// The two directions, each for an owner of its own. The connection closes when both are gone.
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }
}

macro_rules! on_socket {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_socket!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
