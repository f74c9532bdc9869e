//! Whether what a rule forwards comes back to the listener that the rule belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::targets::Target;

/// How far both texts tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Circle {
    /// It does.
    Sure,
    /// The port is the same; the name, or the addresses of this machine, say the rest.
    Possible,
    None,
}

/// Whether `target` is reached at `listener`.
pub(in crate::config) fn between(target: &Target, listener: SocketAddr) -> Circle {
    match target.host_and_port() {
        Some((host, port)) if port != 0 && port == listener.port() => of_host(host, listener.ip()),
        _ => Circle::None,
    }
}

fn of_host(host: &str, listener: IpAddr) -> Circle {
    let literal: Option<IpAddr> = host.parse().ok();
    match literal {
        Some(address) => of_address(address.to_canonical(), listener),
        None if host.eq_ignore_ascii_case("localhost") => {
            let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let is_sure = both.iter().any(|address| of_address(*address, listener) == Circle::Sure);
            if is_sure { Circle::Sure } else { Circle::None }
        }
        // Names for 127.0.0.1 are rare, and services at another address with the same port are not.
        None if listener.is_loopback() => Circle::None,
        None => Circle::Possible,
    }
}

fn of_address(address: IpAddr, listener: IpAddr) -> Circle {
    let is_taken = listener.is_unspecified() && (listener.is_ipv6() || address.is_ipv4());
    match listener {
        _ if address == listener => Circle::Sure,
        _ if is_taken && (address.is_loopback() || address.is_unspecified()) => Circle::Sure,
        _ if is_taken => Circle::Possible,
        // To connect to no address in particular is to connect to this machine.
        _ if listener.is_loopback() && address.is_unspecified() => Circle::Sure,
        _ => Circle::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_seen_as_far_as_addresses_tell() {
        let found = |target: &str, listener: &str| between(&target.parse().unwrap(), listener.parse().unwrap());
        for (target, listener, circle) in [
            ("http://127.0.0.1:80", "127.0.0.1:80", Circle::Sure),
            ("http://127.0.0.1", "127.0.0.1:80", Circle::Sure),
            ("https://[::1]", "[::1]:443", Circle::Sure),
            ("http://[::ffff:127.0.0.1]:80", "127.0.0.1:80", Circle::Sure),
            ("http://127.0.0.1:80", "0.0.0.0:80", Circle::Sure),
            ("http://127.0.0.1:80", "[::]:80", Circle::Sure),
            ("http://LOCALHOST:80", "127.0.0.1:80", Circle::Sure),
            ("http://localhost:80", "0.0.0.0:80", Circle::Sure),
            ("http://0.0.0.0:80", "127.0.0.1:80", Circle::Sure),
            ("http://10.0.0.5:80", "0.0.0.0:80", Circle::Possible),
            ("http://static.internal:80", "0.0.0.0:80", Circle::Possible),
            ("http://static.internal:80", "10.0.0.5:80", Circle::Possible),
            ("http://static.internal:80", "127.0.0.1:80", Circle::None),
            ("http://127.0.0.1:81", "127.0.0.1:80", Circle::None),
            ("http://127.0.0.2:80", "127.0.0.1:80", Circle::None),
            ("http://[::1]:80", "0.0.0.0:80", Circle::None),
            ("http://localhost:80", "10.0.0.5:80", Circle::None),
            ("http://127.0.0.1:80", "127.0.0.1:0", Circle::None),
            ("unix:/run/x", "0.0.0.0:80", Circle::None),
        ] {
            assert_eq!(found(target, listener), circle, "{target} at {listener}");
        }
    }
}
