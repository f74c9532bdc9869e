//! Sockets: binding them with the options every listener and endpoint here needs, and saying what was granted.
//!
//! Row 5: knows nothing of tunnels, roles or configuration files. Binding fails at start-up, with the address in the
//! error; nothing here runs in the background.

/// The writes of a stream that wraps another one in the field `$inner`: they go straight through.
macro_rules! forward_writes {
    ($this:ident => $inner:ident) => {
        fn poll_write(
            mut $this: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut $this.$inner).poll_write(cx, bytes)
        }

        fn poll_write_vectored(
            mut $this: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut $this.$inner).poll_write_vectored(cx, slices)
        }

        fn is_write_vectored(&$this) -> bool {
            $this.$inner.is_write_vectored()
        }

        fn poll_flush(mut $this: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut $this.$inner).poll_flush(cx)
        }

        fn poll_shutdown(mut $this: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut $this.$inner).poll_shutdown(cx)
        }
    };
}

mod address_watch;
mod addressed;
mod addresses;
pub mod client_hello;
mod cork;
mod descriptors;
mod guarded;
pub(crate) mod input;
mod link;
pub(crate) mod output;
mod own;
mod paced;
mod prefix;
mod prefixed;
pub mod proxy_header;
mod send_room;
mod tune;
mod unacknowledged;

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

pub use address_watch::AddressWatch;
pub use addressed::{AddressedUdp, Ends};
pub use addresses::{connect_any, in_turns};
pub use cork::{Cork, Corked};
pub use descriptors::{descriptors, for_clients, raise_descriptors};
pub(crate) use forward_writes;
pub use guarded::Guarded;
pub use link::link_mtu;
pub(crate) use own::is_own;
#[cfg(test)]
pub(crate) use own::tests::own_address;
pub use paced::Paced;
pub use prefix::Prefix;
pub use prefixed::Prefixed;
pub(crate) use send_room::{SendRoom, Turn};
pub use tune::{Tuning, connect_tcp, tune_client, tune_tcp};
pub use unacknowledged::{Acknowledged, Grace, acknowledged};

/// The UDP buffer size asked for, in each direction, in bytes. With the usual default of 208 KiB, bulk transfer over
/// QUIC loses thousands of packets per GiB in the socket.
pub const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// No datagram of UDP is longer, in bytes.
const DATAGRAM_BYTES: usize = u16::MAX as usize;
/// The receive buffer asked for where a socket is of one flow, in bytes.
const FLOW_BUFFER_BYTES: usize = 512 * 1024;
/// Connections the kernel may hold that were not accepted yet; the kernel may cap it further (`somaxconn`).
const TCP_BACKLOG: i32 = 4096;
/// How long an accept loop rests when the process is out of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {protocol} {address}{}", hint(source))]
pub struct BindError {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// What was asked for.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// The UDP buffers the kernel granted, in usable bytes.
///
/// Less than [`UDP_BUFFER_BYTES`] means `net.core.rmem_max` or `net.core.wmem_max` is lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// For packets received and not yet read.
    pub recv: usize,
    /// For packets handed over and not yet sent.
    pub send: usize,
}

impl Granted {
    /// Whether both directions got what was asked for.
    pub const fn is_enough(self) -> bool {
        self.recv >= UDP_BUFFER_BYTES && self.send >= UDP_BUFFER_BYTES
    }
}

/// Binds a UDP socket, non-blocking, with buffers of [`UDP_BUFFER_BYTES`] asked for. Port 0 takes any free port. An
/// unspecified IPv6 address (`[::]`) takes IPv4 as well.
///
/// # Errors
/// [`BindError`]. Buffers that are smaller than asked for are not an error.
pub fn bind_udp(address: SocketAddr) -> Result<(UdpSocket, Granted), BindError> {
    let bind = || {
        let socket = open(address, Type::DGRAM, Protocol::UDP)?;
        // The kernel grants less without an error; a refusal of the option itself is no reason not to serve.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
        socket.bind(&address.into())?;
        let granted = Granted { recv: usable(socket.recv_buffer_size()?), send: usable(socket.send_buffer_size()?) };
        Ok((socket.into(), granted))
    };
    bind().map_err(|source| BindError { protocol: "udp", address, source })
}

/// A UDP socket that speaks with one address only, and is told by the system when nobody is there (ICMP). It has a port of
/// its own, or the address `from`: where several have the same one, the newest is spoken to.
///
/// # Errors
/// The system has no socket left, or no way to that address.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub async fn connect_udp(address: SocketAddr, from: Option<SocketAddr>) -> io::Result<tokio::net::UdpSocket> {
    let any = || match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let own: SocketAddr = from.unwrap_or_else(any);
    let socket = open(own, Type::DGRAM, Protocol::UDP)?;
    // What the kernel grants is good enough; it is used only by what waits.
    let _ = socket.set_recv_buffer_size(FLOW_BUFFER_BYTES);
    if own.port() != 0 {
        // The flow before it may not know yet that its tunnel is lost.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&own.into())?;
    let socket = tokio::net::UdpSocket::from_std(socket.into())?;
    socket.connect(address).await?;
    Ok(socket)
}

/// What `receive` puts into the room that it is given, which is enough for the longest datagram. The room is the thread's:
/// of many sockets that wait none holds its own.
///
/// # Errors
/// What `receive` says.
pub fn take_datagram(receive: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
    thread_local! {
        static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    ROOM.with_borrow_mut(|room| {
        room.resize(DATAGRAM_BYTES, 0);
        let length = receive(room)?;
        Ok(Bytes::copy_from_slice(&room[..length]))
    })
}

/// Binds a TCP listener. Port 0 takes any free port. An unspecified IPv6 address (`[::]`) takes IPv4 as well. A port
/// whose last connections still linger can be bound again (SO_REUSEADDR); one that is listened on cannot.
///
/// # Errors
/// [`BindError`].
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = open(address, Type::STREAM, Protocol::TCP)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(TCP_BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| BindError { protocol: "tcp", address, source })
}

/// Sends small writes at once (TCP_NODELAY): requests and control frames must not wait for an acknowledgement.
///
/// An error means that the connection is gone already, which the first read tells better.
pub fn no_delay(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// How long a connection over which nothing comes is left alone before the kernel asks whether its other end is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Makes the kernel find out that the other end has vanished, in some minutes, where nothing is said for long.
///
/// # Errors
/// The connection is gone already.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// How long an accept loop should rest after `error` before it goes on. It always goes on: one connection that died
/// in the queue, or a moment without file descriptors, must not end a listener.
pub fn accept_pause(error: &io::Error) -> Duration {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::Interrupted => Duration::ZERO,
        _ => EXHAUSTED_PAUSE,
    }
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // The default is a setting of the machine; the same file must mean the same everywhere.
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Linux reports twice what it granted, because it counts its own bookkeeping. See socket(7), SO_RCVBUF.
const fn usable(reported: usize) -> usize {
    if cfg!(target_os = "linux") { reported / 2 } else { reported }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// The largest buffer the kernel grants to anyone.
    fn most(setting: &str) -> usize {
        let limit = std::fs::read_to_string(format!("/proc/sys/net/core/{setting}")).unwrap();
        limit.trim().parse::<usize>().unwrap().min(UDP_BUFFER_BYTES)
    }

    #[test]
    fn udp_buffers_are_as_large_as_the_kernel_allows_and_reported_in_usable_bytes() {
        let (socket, granted) = bind_udp(loopback()).unwrap();
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        assert_eq!(granted, Granted { recv: most("rmem_max"), send: most("wmem_max") });
        assert_eq!(granted.is_enough(), granted == Granted { recv: UDP_BUFFER_BYTES, send: UDP_BUFFER_BYTES });
    }

    #[test]
    fn an_udp_socket_is_ready_for_a_runtime() {
        let (socket, _) = bind_udp(loopback()).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok(listener) = bind_tcp("[::]:0".parse().unwrap()) else { return };
        let port = listener.local_addr().unwrap().port();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(("127.0.0.1", port)));
        no_delay(&connected.unwrap());
        assert!(accepted.unwrap().1.is_ipv6(), "as a mapped address");
    }

    #[tokio::test]
    async fn a_port_can_be_bound_again_at_once_but_not_twice() {
        let listener = bind_tcp(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let error = bind_tcp(address).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot bind tcp {address}: another process listens there"));

        // The listening side closes first, so its end of the connection lingers on the port.
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        drop((accepted.unwrap(), listener));
        drop(connected.unwrap());
        bind_tcp(address).unwrap();
    }

    #[test]
    fn a_failed_bind_names_address_and_cause() {
        let error = bind_udp("192.0.2.1:7843".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "cannot bind udp 192.0.2.1:7843: this machine has no such address");
    }

    #[test]
    fn only_exhaustion_slows_an_accept_loop_down() {
        assert_eq!(accept_pause(&io::ErrorKind::ConnectionAborted.into()), Duration::ZERO);
        let too_many_open_files = io::Error::from_raw_os_error(24);
        assert_eq!(accept_pause(&too_many_open_files), EXHAUSTED_PAUSE);
    }
}
