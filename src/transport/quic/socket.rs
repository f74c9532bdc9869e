//! UDP sockets for endpoints, and a word about buffers that the kernel did not grant.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tracing::warn;

use crate::net::{self, BindError, Granted};
use crate::telemetry::{Metrics, Role};

/// A socket on this address for an endpoint of `role`; states in `metrics` which buffers it got.
///
/// # Errors
/// The address cannot be bound.
pub fn listening_socket(address: SocketAddr, role: Role, metrics: &Metrics) -> Result<UdpSocket, BindError> {
    let (socket, granted) = net::bind_udp(address)?;
    report(granted, role, metrics);
    Ok(socket)
}

/// A socket to dial from: it reaches IPv6 and IPv4; only IPv4 where the system has no IPv6.
///
/// # Errors
/// No port is left.
pub fn dialling_socket(metrics: &Metrics) -> Result<UdpSocket, BindError> {
    let any = |ip: std::net::IpAddr| listening_socket(SocketAddr::from((ip, 0)), Role::Initiator, metrics);
    any(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| any(Ipv4Addr::UNSPECIFIED.into()))
}

fn report(granted: Granted, role: Role, metrics: &Metrics) {
    metrics.udp_buffers(role, granted.recv, granted.send);
    if !granted.is_enough() {
        warn!(
            role = role.label(),
            asked = net::UDP_BUFFER_BYTES,
            recv = granted.recv,
            send = granted.send,
            "the kernel granted smaller UDP buffers than asked for, which costs packets under load; raise \
             net.core.rmem_max and net.core.wmem_max"
        );
    }
}
