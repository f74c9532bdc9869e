//! Whose word about a client counts: which senders of requests may say who sent them, and by which fields that is said.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::message::name::is_same;

/// Why a text is no address prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not an address or prefix; expected one such as \"10.0.0.0/8\", \"192.0.2.7\" or \"2001:db8::/32\"{0}")]
pub struct PrefixError(&'static str);

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Whether the address is one of them. An IPv4 address is the same one when it comes through an IPv6 socket.
    pub fn covers(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => u32::from(prefix) == u32::from(address) & mask32(self.bits),
            (IpAddr::V6(prefix), IpAddr::V6(address)) => u128::from(prefix) == u128::from(address) & mask128(self.bits),
            _ => false,
        }
    }
}

fn mask32(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask128(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let wrong = PrefixError;
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong(""))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.starts_with('+') => return Err(wrong("")),
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| wrong(""))?,
        };
        let prefix = Self { address, bits };
        if prefix.covers(address) { Ok(prefix) } else { Err(wrong("; the bits behind the prefix are not all 0")) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        let most = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == most { Ok(()) } else { write!(f, "/{}", self.bits) }
    }
}

/// Who may say on whose behalf a request comes, by address. Default: nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust(Vec<Prefix>);

impl Trust {
    /// Whoever comes from one of these addresses.
    pub fn new(prefixes: Vec<Prefix>) -> Self {
        Self(prefixes)
    }

    /// Whether a sender at this address is one of them.
    pub fn covers(&self, sender: IpAddr) -> bool {
        self.0.iter().any(|prefix| prefix.covers(sender))
    }

    /// The addresses, as they are written.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.0
    }
}

/// Fields beside `Forwarded`, `X-Forwarded-*` and `X-Envoy-*` by which proxies tell who a client is; in lower case.
const OTHERS: [&str; 8] = [
    "client-cert",
    "client-cert-chain",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-real-ip",
    "x-remote-ip",
];

/// Whether a field of a request says who its client is, or how it is to be treated for that. Services that read fields as
/// variables (CGI) see no difference between `_` and `-`, so neither is made here.
pub fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // Of the usual fields few begin like this.
    if !matches!(name.first(), Some(b'x' | b'f' | b'c' | b't')) {
        return false;
    }
    let begins = |start: &str| name.len() >= start.len() && is_same(&name[..start.len()], start);
    is_same(name, FORWARDED.as_str())
        || begins("x-forwarded-")
        || begins("x-envoy-")
        || is_same(name, "x-forwarded")
        || OTHERS.iter().any(|other| is_same(name, other))
}

/// Whether a field is such a one with `_` for `-`: no proxy writes it, and targets that make variables of names take it for
/// the real one.
pub fn is_disguised_claim(name: &HeaderName) -> bool {
    name.as_str().contains('_') && is_claim(name)
}

/// Whether a field says in the older form, `X-Forwarded-*`, what `Forwarded` says, too.
pub fn is_x_forwarded(name: &HeaderName) -> bool {
    const PREFIX: &str = "x-forwarded-";
    /// What TLS proved of a client, for which `Forwarded` has no word.
    const CLIENT_CERT: &str = "x-forwarded-client-cert";
    let name = name.as_str().as_bytes();
    let is_meant = name.get(..PREFIX.len()).is_some_and(|begin| is_same(begin, PREFIX)) || is_same(name, "x-forwarded");
    is_meant && !is_same(name, CLIENT_CERT)
}

/// Whether a field of a response claims what only requests say: it would be taken for the word of a proxy on the way.
pub fn is_claim_in_response(name: &HeaderName) -> bool {
    const KEPT: &str = "x-envoy-";
    const SAID_OF_CLIENTS: [&str; 2] = ["x-envoy-internal", "x-envoy-external-address"];
    let text = name.as_str();
    is_claim(name) && (!text.starts_with(KEPT) || SAID_OF_CLIENTS.contains(&text))
}

/// Removes the fields that `is_meant` means. Where there are none it costs one look at each name.
pub fn strip(fields: &mut HeaderMap<HeaderValue>, is_meant: fn(&HeaderName) -> bool) {
    while let Some(name) = fields.keys().find(|name| is_meant(name)).cloned() {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(prefixes: &[&str]) -> Trust {
        Trust::new(prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect())
    }

    fn covers(prefixes: &[&str], address: &str) -> bool {
        trust(prefixes).covers(address.parse().unwrap())
    }

    #[test]
    fn a_prefix_covers_what_begins_like_it() {
        assert!(covers(&["10.0.0.0/8"], "10.255.0.1") && !covers(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(covers(&["192.0.2.7"], "192.0.2.7") && !covers(&["192.0.2.7"], "192.0.2.8"));
        assert!(covers(&["2001:db8::/32"], "2001:db8:1::1") && !covers(&["2001:db8::/32"], "2001:db9::1"));
        assert!(covers(&["0.0.0.0/0"], "203.0.113.1") && !covers(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(covers(&["::/0"], "2001:db8::1"));
        assert!(covers(&["10.0.0.0/8"], "::ffff:10.1.2.3"), "through a dual-stack socket");
        assert!(!covers(&[], "127.0.0.1"), "nobody");
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "a", "10.0.0.1/8", "2001:db8::1/32", "1.2.3"]
        {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        for good in ["10.0.0.0/8", "192.0.2.7", "::1", "2001:db8::/32"] {
            assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn claims_are_known_by_their_names() {
        for claim in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "x-forwarded-anything",
            "x-real-ip",
            "x_real_ip",
            "x_forwarded-for",
            "x-envoy-internal",
            "client-cert",
            "true-client-ip",
        ] {
            assert!(is_claim(&HeaderName::from_bytes(claim.as_bytes()).unwrap()), "{claim}");
        }
        for other in ["x-forward", "content-type", "x-request-id", "from", "te", "x-node-id", "cookie"] {
            assert!(!is_claim(&HeaderName::from_static(other)), "{other}");
        }
        assert!(!is_claim_in_response(&HeaderName::from_static("x-envoy-upstream-service-time")));
        assert!(is_claim_in_response(&HeaderName::from_static("x-envoy-internal")));
        assert!(is_claim_in_response(&HeaderName::from_static("x-forwarded-client-cert")));
        for (name, is_older) in [
            ("x-forwarded-for", true),
            ("x_forwarded_host", true),
            ("x-forwarded-client-cert", false),
            ("forwarded", false),
        ] {
            assert_eq!(is_x_forwarded(&HeaderName::from_bytes(name.as_bytes()).unwrap()), is_older, "{name}");
        }
    }
}
