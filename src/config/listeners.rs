//! Which addresses a file wants to listen on, and that no two of them are the same.

use std::fmt;
use std::net::SocketAddr;

/// What an address is bound for. One number may be used once per protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One address that the file wants to listen on, and the key that says so.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
    pub(super) line: u64,
    pub(super) key: String,
}

/// The earlier listener that leaves no room for this one.
pub(super) fn clash(earlier: &[Listener], protocol: Protocol, address: SocketAddr) -> Option<&Listener> {
    earlier.iter().find(|other| other.protocol == protocol && overlap(other.address, address))
}

/// An unspecified address takes its port on every address of its family; `[::]` takes IPv4 as well.
fn overlap(one: SocketAddr, two: SocketAddr) -> bool {
    let covers =
        |wide: SocketAddr, narrow: SocketAddr| wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    one.port() != 0 && one.port() == two.port() && (one.ip() == two.ip() || covers(one, two) || covers(two, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_when_binding_both_would_fail() {
        let overlaps = |one: &str, two: &str| overlap(one.parse().unwrap(), two.parse().unwrap());
        assert!(overlaps("127.0.0.1:80", "127.0.0.1:80"));
        assert!(overlaps("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlaps("127.0.0.1:80", "[::]:80"));
        assert!(!overlaps("0.0.0.0:80", "[::1]:80"));
        assert!(!overlaps("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!overlaps("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!overlaps("127.0.0.1:0", "127.0.0.1:0"));
    }
}
