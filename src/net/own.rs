//! Which addresses are of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether an address is one of this host, on whatever interface: whoever sends to it from here sends from the same address. Asks
/// the routing table; nothing is sent, and nothing waits.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || source_towards(ip) == Some(ip)
}

/// The address that packets to another one would come from; `None` where no way leads there.
fn source_towards(ip: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The port means nothing, and must not be 0.
    socket.connect(SocketAddr::new(ip, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An address of this host that others reach it at, if it has one.
    pub(crate) fn own_address() -> Option<IpAddr> {
        source_towards(Ipv4Addr::new(192, 0, 2, 1).into()).filter(|ip| !ip.is_loopback())
    }

    #[test]
    fn addresses_of_this_host_are_its_own_and_no_others() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()) && is_own(Ipv4Addr::new(127, 9, 9, 9).into()));
        assert!(is_own(Ipv6Addr::LOCALHOST.into()));
        assert!(!is_own(Ipv4Addr::new(192, 0, 2, 1).into()) && !is_own(Ipv4Addr::new(198, 51, 100, 7).into()));
        if let Some(own) = own_address() {
            assert!(is_own(own), "{own}");
        }
    }
}
