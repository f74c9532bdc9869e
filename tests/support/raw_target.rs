//! A target whose every byte a test decides.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::eventually::PATIENCE;

/// Listens; the test accepts.
pub(crate) struct RawTarget {
    listener: TcpListener,
}

/// One connection to it.
pub(crate) struct RawPeer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl RawTarget {
    pub(crate) async fn new() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap() }
    }

    /// One for which the kernel keeps little that is not read.
    pub(crate) fn narrow() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { listener: socket.listen(64).unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection, and the head of its first request.
    pub(crate) async fn accept(&self) -> (RawPeer, String) {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a connection").unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = RawPeer { stream, buffer: BytesMut::new() };
        let head = peer.head().await.unwrap();
        (peer, head)
    }
}

impl RawPeer {
    /// The next request head, lower-cased, up to its empty line.
    pub(crate) async fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                let head = self.buffer.split_to(at + 4);
                return Ok(String::from_utf8_lossy(&head).to_ascii_lowercase());
            }
            self.fill().await?;
        }
    }

    /// Exactly this many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(count).to_vec())
    }

    /// Whether there is anything behind what was read, once the kernel says so; nothing is waited for.
    pub(crate) async fn has_more(&mut self) -> bool {
        !self.buffer.is_empty() || self.stream.try_read_buf(&mut self.buffer).is_ok()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Half-closes: no more will be sent.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Waits until the other side is gone, however it went.
    pub(crate) async fn gone(&mut self) {
        while matches!(timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("an end"), Ok(1..)) {}
    }

    async fn fill(&mut self) -> io::Result<()> {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("something to read")? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
