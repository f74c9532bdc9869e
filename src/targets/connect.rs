//! Dialling a target.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::{sleep, timeout};

use tokio_rustls::client::TlsStream;

use super::halves::{ReadHalf, WriteHalf};
use super::settings::TargetSettings;
use super::target::{Address, Speaks, Target};
use super::tls::{self, Tls};
use crate::message::failure::{Cause, Failure};
use crate::net::{connect_any, in_turns, keep_alive};
use crate::tls::{Peer, TlsError};

/// How soon a socket of the file system whose queue is full is tried again, and how soon at last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A connection to a target.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How connections to one target are made.
pub(super) struct Dialer {
    address: Address,
    tls: Option<Tls>,
    limit: Duration,
    /// Whether its connections are for bytes, and end with a reset unless somebody ends them in order.
    is_raw: bool,
    /// The address of its name that answered last.
    latest: Mutex<Option<SocketAddr>>,
}

impl Dialer {
    /// # Errors
    ///
    /// As for [`TargetClient::new`](super::TargetClient::new).
    pub(super) fn new(target: &Target, settings: &TargetSettings) -> Result<Self, TlsError> {
        let tls = match (&target.address, &settings.tls) {
            (Address::Tcp { host, .. }, Some(tls)) if target.is_secure => {
                Some(Tls::new(tls, host, matches!(target.speaks, Speaks::Http2))?)
            }
            (_, None) if target.is_secure => return Err(TlsError::NoTrust { peer: Peer::Target.label() }),
            _ => None,
        };
        let (address, limit, is_raw) = (target.address.clone(), settings.connect_timeout, target.is_raw());
        Ok(Self { address, tls, limit, is_raw, latest: Mutex::default() })
    }

    /// Whether its connections are in TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Makes a connection, within the limit of the settings. Of several addresses of the name, the one that answered last goes first, and one that does not
    /// answer keeps nobody waiting for long. RFC 8305
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub(super) async fn connect(&self) -> Result<Socket, Failure> {
        match timeout(self.limit, self.dial()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let details = format!("no connection to the target within {:?}", self.limit);
                Err(Failure::new(Cause::TargetTimeout, details))
            }
        }
    }

    async fn dial(&self) -> Result<Socket, Failure> {
        match &self.address {
            Address::Tcp { host, port } => {
                let stream = self.connect_to(&resolve(host, *port).await?).await?;
                match &self.tls {
                    None => Ok(Socket::Tcp(stream)),
                    Some(tls) => Ok(Socket::Tls(Box::new(Box::pin(tls.begin(stream)).await?))),
                }
            }
            Address::Unix(path) => connect_unix(path).await.map(Socket::Unix).map_err(|error| refused(&error)),
        }
    }

    async fn connect_to(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let latest = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = in_turns(addresses.iter().copied(), latest);
        let (address, stream) =
            connect_any(&turns, |address| connect(address, self.is_raw)).await.map_err(|error| refused(&error))?;
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        // Small messages must not wait for the acknowledgement of the one before; a failure only costs latency.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// `resets`: a target sees the connection from its first packet on, and must not take one that nobody wants any more, whenever
/// that is, for one with nothing to say.
async fn connect(address: SocketAddr, resets: bool) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    if resets {
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    }
    socket.connect(address).await
}

/// A socket of the file system whose queue is full turns away whoever comes, where TCP would let them wait; so they come again
/// until there is room. Whoever calls says for how long.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            outcome => return outcome,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = lookup_host((host, port)).await;
    let addresses: Vec<_> = found
        .map_err(|error| Failure::new(Cause::TargetDns, format!("the target's name was not resolved: {error}")))?
        .collect();
    if addresses.is_empty() {
        return Err(Failure::new(Cause::TargetDns, "the target's name has no address"));
    }
    Ok(addresses)
}

pub(super) fn refused(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::new(Cause::TargetRefused, "the target refused the connection"),
        io::ErrorKind::TimedOut => Failure::new(Cause::TargetTimeout, "the connection to the target timed out"),
        _ => Failure::new(Cause::TargetUnreachable, format!("the target cannot be reached: {error}")),
    }
}

impl Socket {
    /// Lets the kernel look after a connection on which nothing may be said for hours. A target that is gone already is
    /// found by whoever reads.
    pub(super) fn keep_alive(&self) {
        let kept = match self {
            Self::Tcp(stream) => keep_alive(stream),
            Self::Tls(stream) => keep_alive(stream.get_ref().0),
            Self::Unix(_) => Ok(()),
        };
        if let Err(error) = kept {
            tracing::debug!(%error, "a connection to a target is not kept alive");
        }
    }

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
            Self::Tls(stream) => {
                let (read, write) = tls::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }
}

macro_rules! on_socket {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
            Socket::Tls($inner) => $call,
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use socket2::{Domain, Socket as RawSocket, Type};
    use tokio::net::TcpListener;

    use super::*;

    /// An address that answers nobody: its backlog is full, so the kernel drops whoever comes.
    async fn dead() -> (SocketAddr, RawSocket, Vec<TcpStream>) {
        let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        (address, socket, waiting)
    }

    #[tokio::test]
    async fn a_socket_of_the_file_system_whose_queue_is_full_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("target.sock");
        let raw = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        raw.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        raw.listen(0).unwrap();
        raw.set_nonblocking(true).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let target = Target::parse(&format!("unix:{}", path.display())).unwrap();
        let settings = TargetSettings { connect_timeout: Duration::from_secs(60), ..TargetSettings::default() };
        let dialer = Dialer::new(&target, &settings).unwrap();
        let mut connecting = std::pin::pin!(dialer.connect());
        assert!(timeout(FIRST_PAUSE * 2, &mut connecting).await.is_err(), "there is no room yet");
        for _ in 0..waiting.len() {
            raw.accept().unwrap();
        }
        assert!(matches!(connecting.await, Ok(Socket::Unix(_))));
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_keeps_no_exchange_from_the_next_one() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dead, _socket, _waiting) = dead().await;
        let addresses = [dead, live.local_addr().unwrap()];
        let settings = TargetSettings { connect_timeout: Duration::from_secs(60), ..TargetSettings::default() };
        let dialer = Dialer::new(&Target::parse("http://unused").unwrap(), &settings).unwrap();
        for (remembered, expected) in [(None, dead), (Some(addresses[1]), addresses[1])] {
            assert_eq!(*dialer.latest.lock().unwrap(), remembered);
            assert_eq!(in_turns(addresses, remembered)[0], expected, "tried first");
            let began = Instant::now();
            let stream = dialer.connect_to(&addresses).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
            assert!(began.elapsed() < Duration::from_secs(30), "far from the kernel's own patience of two minutes");
        }
    }
}
