//! Addresses of names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::id::HostPort;
use crate::net::is_own;

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of the destination's own name.
pub(super) async fn resolve(target: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match timeout(RESOLVE_TIMEOUT, lookup_host(target)).await {
        Ok(Ok(found)) => {
            let found: BTreeSet<_> = found.map(unmapped).collect();
            if found.is_empty() { Err("the name has no address".into()) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
    }
}

/// The addresses that somebody else has named, in their order, as far as they may be dialled by who reaches `home`. Of names that
/// cannot be resolved there are none. Takes as long as each of them may, at most. Cancel safe. spec: FL-65
pub(super) async fn resolve_named(named: Vec<HostPort>, home: SocketAddr) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for name in named {
        for address in resolve(&name.to_string()).await.unwrap_or_default() {
            if may_dial(address, home) && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// Whether an address can be that of a responder at all: one of this host only where the destination itself is.
fn may_dial(address: SocketAddr, home: SocketAddr) -> bool {
    let ip = address.ip();
    let is_of_nobody = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_of_nobody = is_of_nobody || ip.is_unspecified() || ip.is_multicast();
    !is_of_nobody && (!is_own(ip) || is_own(home.ip()))
}

/// An IPv4 address in IPv6 clothes is the same responder.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::own_address;

    /// spec: FL-65
    #[tokio::test]
    async fn what_is_nobodys_address_is_not_dialled_whoever_names_it() {
        let named = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<HostPort>>();
        let odd = [
            "0.0.0.0:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "169.254.169.254:80",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
        ];
        let far: SocketAddr = "192.0.2.1:7843".parse().unwrap();
        assert_eq!(resolve_named(named(&odd), far).await, []);
        let local = ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"];
        assert_eq!(resolve_named(named(&local), far).await, []);
        let near = "127.0.0.1:7843".parse().unwrap();
        assert_eq!(
            resolve_named(named(&local), near).await,
            ["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()]
        );
        // Regression: only loopback was taken for this host.
        if let Some(own) = own_address().map(|ip| SocketAddr::new(ip, 1)) {
            let own_name = own.to_string();
            assert_eq!(resolve_named(named(&[&own_name]), far).await, []);
            assert_eq!(resolve_named(named(&[&own_name]), near).await, [own]);
        }
        let fine = resolve_named(named(&["198.51.100.1:7843", "198.51.100.1:7843", "[2001:db8::1]:1"]), far).await;
        assert_eq!(fine.len(), 2, "each once: {fine:?}");
    }
}
