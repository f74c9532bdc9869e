//! Ports for processes that cannot tell which one they were given.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// A loopback address whose port was free for TCP and UDP a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
