//! Ports for processes that cannot tell which one they were given.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// The lowest port that may be asked for without a privilege, and that hardly anybody listens on.
const LOWEST: u16 = 10_000;
/// Where the ports begin that the system gives away by itself, where it does not say.
const GIVEN_AWAY: u16 = 32_768;

/// A loopback address whose port was free for TCP and UDP a moment ago. It is none of those that the system gives to whoever asks
/// for any: one of these could be somebody else's before it is bound here, for UDP long before.
pub(crate) fn free_address() -> SocketAddr {
    let given_away = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let given_away = given_away.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(GIVEN_AWAY);
    loop {
        let port = rand::random_range(LOWEST..given_away.max(LOWEST + 1_000));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
