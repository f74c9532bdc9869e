//! Ends that a test plays itself, byte by byte.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::certificates::Node;
use crate::support::eventually::PATIENCE;

pub(super) const PING: &[u8] = b"RPING";
pub(super) const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that a test reads and writes as it is. Every read is what one read of the socket gave.
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The request of an Envoy with this claim, as far as a responder needs it.
pub(super) fn request(claim: Node<'_>) -> String {
    let Node { tenant, cluster, node } = claim;
    head(&[
        &format!("x-envoy-reverse-tunnel-node-id: {node}"),
        &format!("x-envoy-reverse-tunnel-cluster-id: {cluster}"),
        &format!("x-envoy-reverse-tunnel-tenant-id: {tenant}"),
    ])
}

/// A request for a tunnel with these fields.
pub(super) fn head(fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET /reverse_connections/request HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(super) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// In one write.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What one read gives; nothing when the other end has finished.
    pub(super) async fn read(&mut self) -> Vec<u8> {
        if !self.buffer.is_empty() {
            return std::mem::take(&mut self.buffer);
        }
        let mut room = vec![0; 16 * 1024];
        let length = timeout(PATIENCE, self.stream.read(&mut room)).await.expect("something to read").unwrap();
        room.truncate(length);
        room
    }

    /// Exactly this many bytes, in however many reads.
    pub(super) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = self.read().await;
        while bytes.len() < length {
            let more = self.read().await;
            assert!(!more.is_empty(), "ended after {bytes:?}");
            bytes.extend(more);
        }
        self.buffer = bytes.split_off(length);
        bytes
    }

    /// A whole head, lower-cased.
    pub(super) async fn head(&mut self) -> String {
        String::from_utf8(self.whole_head().await).unwrap().to_ascii_lowercase()
    }

    /// A whole head as it came.
    pub(super) async fn whole_head(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.extend(self.exactly(1).await);
        }
        bytes
    }

    /// One ping, alone.
    pub(super) async fn ping(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.read().await), "RPING");
    }

    /// Echoes the next `count` pings.
    pub(super) async fn echo(&mut self, count: usize) {
        for _ in 0..count {
            self.ping().await;
            self.send(PING).await;
        }
    }

    /// Everything until the other end closes.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        // A reset ends it too.
        while let Ok(more @ 1..) = timeout(PATIENCE, self.stream.read_buf(&mut bytes)).await.expect("an end") {
            let _ = more;
        }
        bytes
    }

    /// Waits until the other end is gone, and says when that was.
    pub(super) async fn gone(&mut self) -> Instant {
        self.rest().await;
        Instant::now()
    }

    /// What arrives within this time.
    pub(super) async fn during(&mut self, time: Duration) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        let _ = timeout(time, async { while let Ok(1..) = self.stream.read_buf(&mut bytes).await {} }).await;
        bytes
    }

    /// The next read begins with this.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.append(&mut self.buffer);
        self.buffer = bytes;
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Answers HTTP/2 requests with 200, as Envoy's initiator would; keeps every byte that comes.
    pub(super) fn serve(self) -> Served {
        let seen = Arc::new(Mutex::new(self.buffer.clone()));
        let recorded = Recorded { stream: self.stream, front: self.buffer, seen: Arc::clone(&seen) };
        let mut task = JoinSet::new();
        let (ended, end) = watch::channel(false);
        task.spawn(async move {
            // A server of the h2 crate speaks at once, which an initiator must not.
            if recorded.front.is_empty() && !matches!(recorded.stream.peek(&mut [0]).await, Ok(1..)) {
                return ended.send_replace(true);
            }
            let Ok(mut connection) = h2::server::handshake(recorded).await else {
                return ended.send_replace(true);
            };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(Bytes::from_static(b"raw\n"), true).unwrap();
            }
            ended.send_replace(true)
        });
        Served { seen, end, _task: task }
    }
}

/// A connection that serves HTTP/2.
pub(super) struct Served {
    seen: Arc<Mutex<Vec<u8>>>,
    end: watch::Receiver<bool>,
    _task: JoinSet<bool>,
}

impl Served {
    pub(super) fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for the end of the connection.
    pub(super) async fn ended(&self) {
        let mut end = self.end.clone();
        let ended = timeout(PATIENCE, end.wait_for(|ended| *ended)).await;
        ended.expect("the end of the connection").unwrap();
    }

    /// The types of the HTTP/2 frames that have come whole.
    pub(super) fn frames(&self) -> Vec<u8> {
        let seen = self.seen();
        let (mut rest, mut types) = (seen.strip_prefix(PREFACE).unwrap_or_default(), Vec::new());
        while let [a, b, c, kind, ..] = *rest {
            let length = 9 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            let Some((_, more)) = rest.split_at_checked(length) else { break };
            types.push(kind);
            rest = more;
        }
        types
    }
}

/// Keeps what is read.
struct Recorded {
    stream: TcpStream,
    front: Vec<u8>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.front.is_empty() {
            let length = self.front.len().min(into.remaining());
            into.put_slice(&self.front.drain(..length).collect::<Vec<_>>());
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        self.seen.lock().unwrap().extend_from_slice(&into.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A responder that a test plays.
pub(super) struct RawResponder {
    listener: TcpListener,
}

impl RawResponder {
    pub(super) async fn new() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection, nothing read of it.
    pub(super) async fn connection(&self) -> Wire {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a connection").unwrap();
        Wire::over(stream)
    }

    /// The next connection whose request is answered with these bytes, in one write.
    pub(super) async fn answer(&self, bytes: impl AsRef<[u8]>) -> Wire {
        let mut wire = self.connection().await;
        wire.whole_head().await;
        wire.send(bytes).await;
        wire
    }
}

/// What is to share a segment with the preface of HTTP/2.
pub(super) struct Coalesced {
    pub(super) front: Vec<u8>,
    pub(super) stream: TcpStream,
}

impl Coalesced {
    /// A stream whose first write has `front` before it, and that reads `echoes` bytes of echoes first.
    pub(super) async fn over(self, echoes: usize) -> tokio::io::DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let Self { front, stream } = self;
        let (mut tcp_read, mut tcp_write) = stream.into_split();
        let (mut far_read, mut far_write) = tokio::io::split(far);
        tokio::spawn(async move {
            let mut front = front;
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = far_read.read(&mut buffer).await {
                let piece = [std::mem::take(&mut front), buffer[..length].to_vec()].concat();
                if tcp_write.write_all(&piece).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            let mut echoed = vec![0; echoes];
            tcp_read.read_exact(&mut echoed).await.unwrap();
            assert_eq!(echoed, PING.repeat(echoes / PING.len()));
            let _ = tokio::io::copy(&mut tcp_read, &mut far_write).await;
        });
        near
    }
}

/// Says GOAWAY on a connection of HTTP/2 that somebody else speaks.
pub(super) struct Goaway(Arc<Notify>);

impl Goaway {
    /// The connection for the one who speaks HTTP/2. Frames must be written whole, as they are when one thing happens at a
    /// time.
    pub(super) fn beside(stream: TcpStream) -> (tokio::io::DuplexStream, Self) {
        const FRAME: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut tcp_read, mut tcp_write) = stream.into_split();
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let said = Arc::new(Notify::new());
        let asked = Arc::clone(&said);
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                tokio::select! {
                    length = far_read.read(&mut buffer) => match length {
                        Ok(length @ 1..) => tcp_write.write_all(&buffer[..length]).await.unwrap(),
                        _ => return,
                    },
                    () = asked.notified() => tcp_write.write_all(&FRAME).await.unwrap(),
                }
            }
        });
        tokio::spawn(async move { tokio::io::copy(&mut tcp_read, &mut far_write).await });
        (near, Self(said))
    }

    pub(super) fn say(&self) {
        self.0.notify_one();
    }
}
