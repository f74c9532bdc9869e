//! What the link that leads to an address carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The largest packet, IP header included, that the link which leads to this address carries, as the kernel knows it: 1500
/// for an Ethernet, 9001 in many data centres, 65536 within one machine. What lies behind that link may carry less. `None`
/// where the kernel does not say, or has no way to that address. Nothing is sent.
pub fn link_mtu(peer: SocketAddr) -> Option<u32> {
    let peer = match peer.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, peer.port()),
        IpAddr::V6(_) => peer,
    };
    let any = if peer.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    mtu_of(&socket, peer.is_ipv4())
}

#[cfg(target_os = "linux")]
fn mtu_of(socket: &UdpSocket, is_ipv4: bool) -> Option<u32> {
    use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
    if is_ipv4 { ip_mtu(socket).ok() } else { ipv6_mtu(socket).ok() }
}

#[cfg(not(target_os = "linux"))]
fn mtu_of(_: &UdpSocket, _: bool) -> Option<u32> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_carries_what_the_system_says_of_it() {
        let text = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        // More than a length in an IP header the kernel never says.
        let expected = text.trim().parse::<u32>().unwrap().min(u16::MAX.into());
        for peer in ["127.0.0.1:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(link_mtu(peer.parse().unwrap()), Some(expected), "{peer}");
        }
        // A system without IPv6 has no way there.
        assert!(link_mtu("[::1]:1".parse().unwrap()).is_none_or(|mtu| mtu >= expected));
    }
}
