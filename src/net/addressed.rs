//! A UDP socket that answers from the address that was spoken to.
//!
//! What a socket on an unspecified address (`0.0.0.0`, `[::]`) sends leaves from the address that the route has. A machine with
//! several addresses so answers from another one than it was asked at, and who asked does not take that for an answer. So the
//! kernel is asked for the destination of each datagram (IP_PKTINFO, IPV6_RECVPKTINFO; RFC 3542 section 6), and told it again
//! with each answer.
//!
//! A library of QUIC that does the same (quinn-udp) forbids fragments, for its own search for the path's MTU; here a datagram
//! may be as long as UDP allows.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use bytes::Bytes;

use super::take_datagram;

/// The two ends of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Who has sent it.
    pub source: SocketAddr,
    /// To which address of this machine. `None` where the socket has but one, and where the system does not say.
    pub here: Option<IpAddr>,
}

/// A socket that knows to which address of this machine each datagram came, where it has several.
#[derive(Debug)]
pub struct AddressedUdp {
    socket: tokio::net::UdpSocket,
    has_several: bool,
}

impl AddressedUdp {
    /// Takes a socket that is bound and does not block.
    ///
    /// # Errors
    /// It is not bound, or the system does not tell the addresses of datagrams.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let has_several = address.ip().is_unspecified() && told::ask(&socket, address.is_ipv6())?;
        Ok(Self { socket: tokio::net::UdpSocket::from_std(socket)?, has_several })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits until there may be something to receive. Cancel safe.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram that is there already.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is none. Others: what the system says.
    pub fn try_receive(&self) -> io::Result<(Bytes, Ends)> {
        let mut ends = None;
        let datagram = take_datagram(|room| {
            let (length, of) = if self.has_several {
                self.socket.try_io(tokio::io::Interest::READABLE, || told::receive(&self.socket, room))?
            } else {
                let (length, source) = self.socket.try_recv_from(room)?;
                (length, Ends { source, here: None })
            };
            ends = Some(of);
            Ok(length)
        })?;
        ends.map(|ends| (datagram, ends)).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Sends a datagram the other way: to the source, from the address that it spoke to.
    ///
    /// # Errors
    /// What the system says, for example that this machine does not have the address any more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the datagram unsent.
    pub async fn answer(&self, datagram: &[u8], ends: Ends) -> io::Result<()> {
        match ends.here {
            Some(here) if self.has_several => {
                let send = || told::send(&self.socket, datagram, (here, ends.source));
                self.socket.async_io(tokio::io::Interest::WRITABLE, send).await
            }
            _ => self.socket.send_to(datagram, ends.source).await.map(drop),
        }
    }
}

/// What goes beside a datagram.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod told {
    use std::io::{self, IoSlice, IoSliceMut};
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::{AsFd, AsRawFd};

    use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
    use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
    use nix::sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, sendmsg, setsockopt,
    };

    use super::Ends;

    /// Room for what the kernel says of one datagram: both forms at once for IPv4 on a socket of IPv6.
    const ROOM: usize = cmsg_space::<in_pktinfo>() + cmsg_space::<in6_pktinfo>();

    #[repr(align(8))]
    struct Room([u8; ROOM]);

    /// Asks to be told; `false`: this system does not tell.
    pub(super) fn ask(socket: &impl AsFd, is_v6: bool) -> io::Result<bool> {
        if is_v6 {
            setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
            // Of a broadcast over IPv4 only this one says from where it can be answered.
            let _ = setsockopt(socket, Ipv4PacketInfo, &true);
        } else {
            setsockopt(socket, Ipv4PacketInfo, &true)?;
        }
        Ok(true)
    }

    pub(super) fn receive(socket: &impl AsRawFd, room: &mut [u8]) -> io::Result<(usize, Ends)> {
        let mut said = Room([0; ROOM]);
        let mut into = [IoSliceMut::new(room)];
        let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut into, Some(&mut said.0), MsgFlags::empty())?;
        let source = received.address.as_ref().and_then(address);
        let source = source.ok_or_else(|| io::Error::other("the system does not say who has sent a datagram"))?;
        let mut here = None;
        for message in received.cmsgs().into_iter().flatten() {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    here = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                }
                ControlMessageOwned::Ipv6PacketInfo(info) if here.is_none() => {
                    here = Some(IpAddr::from(info.ipi6_addr.s6_addr)).filter(|address| !address.is_multicast());
                }
                _ => {}
            }
        }
        Ok((received.bytes, Ends { source, here }))
    }

    pub(super) fn send(socket: &impl AsRawFd, datagram: &[u8], (from, to): (IpAddr, SocketAddr)) -> io::Result<()> {
        let what = [IoSlice::new(datagram)];
        let send = |from: ControlMessage<'_>| {
            let to = SockaddrStorage::from(to);
            sendmsg(socket.as_raw_fd(), &what, &[from], MsgFlags::empty(), Some(&to)).map(drop)
        };
        match (from, to) {
            (IpAddr::V4(from), SocketAddr::V4(_)) => {
                let ipi_spec_dst = in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } };
                send(ControlMessage::Ipv4PacketInfo(&info))?;
            }
            (from, _) => {
                let from = match from {
                    IpAddr::V4(from) => from.to_ipv6_mapped(),
                    IpAddr::V6(from) => from,
                };
                let info = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
                send(ControlMessage::Ipv6PacketInfo(&info))?;
            }
        }
        Ok(())
    }

    fn address(of: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = || of.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
        v4().or_else(|| of.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
    }
}

/// Systems on which answers leave from the address that the route has.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod told {
    use std::io;
    use std::net::{IpAddr, SocketAddr};

    use super::Ends;

    pub(super) fn ask<S>(_: &S, _: bool) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn receive<S>(_: &S, _: &mut [u8]) -> io::Result<(usize, Ends)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn send<S>(_: &S, _: &[u8], _: (IpAddr, SocketAddr)) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bind_udp;

    /// Asks a socket at `listens` by way of `spoken_to`, and is answered from there: a connected socket takes nothing else.
    async fn answers(listens: &str, client: &str, spoken_to: IpAddr) {
        let Ok((socket, _)) = bind_udp(listens.parse().unwrap()) else { return };
        let socket = AddressedUdp::new(socket).unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = tokio::net::UdpSocket::bind(client).await.unwrap();
        client.connect((spoken_to, port)).await.unwrap();
        client.send(b"question").await.unwrap();
        let (datagram, ends) = loop {
            socket.readable().await.unwrap();
            match socket.try_receive() {
                Ok(received) => break received,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(&datagram[..], b"question");
        assert_eq!(ends.source.port(), client.local_addr().unwrap().port());
        assert_eq!(ends.here.map(|here| here.to_canonical()), Some(spoken_to), "{listens}");
        socket.answer(b"answer", ends).await.unwrap();
        let mut room = [0; 16];
        let length = client.recv(&mut room).await.unwrap();
        assert_eq!(&room[..length], b"answer");
    }

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_was_spoken_to() {
        for address in ["127.0.0.2", "127.9.9.9", "127.0.0.1"] {
            answers("0.0.0.0:0", "127.0.0.1:0", address.parse().unwrap()).await;
            // IPv4 on a socket of IPv6.
            answers("[::]:0", "127.0.0.1:0", address.parse().unwrap()).await;
        }
        if UdpSocket::bind("[::1]:0").is_ok() {
            answers("[::]:0", "[::1]:0", "::1".parse().unwrap()).await;
        }
    }

    #[tokio::test]
    async fn a_socket_with_one_address_need_not_be_told() {
        let (socket, _) = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let socket = AddressedUdp::new(socket).unwrap();
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"question", socket.local_addr().unwrap()).await.unwrap();
        socket.readable().await.unwrap();
        let (_, ends) = socket.try_receive().unwrap();
        assert_eq!(ends, Ends { source: client.local_addr().unwrap(), here: None });
    }
}
