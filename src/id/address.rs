//! `rc://node:cluster:tenant@host:port:count`: who an initiator is and whom it dials, in one line.
//!
//! The three identity fields and the `@` are Envoy's; where Envoy names one of its clusters, ours names the responder
//! itself. Ids hold no `:` and no `@` (see [`NodeId`]), so the text has one reading.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::{Claim, ClusterId, IdError, NodeId, TenantId};

/// The most tunnels one address may ask for.
pub const MAX_TUNNEL_COUNT: u32 = 1024;

const SCHEME: &str = "rc://";
const DEFAULT_COUNT: u32 = 1;
/// RFC 1035 section 2.3.4, less the root's byte.
const MAX_HOST_BYTES: usize = 253;

/// Who dials, whom, and how many tunnels are kept to each address that the host resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelAddress {
    /// What the initiator claims; an empty tenant field is the default tenant.
    pub claim: Claim,
    /// The responder.
    pub responder: HostPort,
    /// Tunnels per resolved address, 0 to [`MAX_TUNNEL_COUNT`]; 1 when the text names none, and 0 dials nobody.
    pub count: u32,
}

/// A host name or IP address, and a port; IPv6 is written in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name of 1 to 253 bytes or an IP address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not an `rc` address at all.
    #[error("does not start with \"rc://\"; expected rc://node:cluster:tenant@host:port:count")]
    Scheme,
    /// There is no `@`, or more than one.
    #[error("has {found} \"@\"; expected one, between node:cluster:tenant and host:port:count")]
    At {
        /// How many there are.
        found: usize,
    },
    /// The part before `@` has another number of fields.
    #[error("has {found} fields before \"@\"; expected three, node:cluster:tenant, of which tenant may be empty")]
    Fields {
        /// How many fields there are.
        found: usize,
    },
    /// A field before `@` is not an id.
    #[error("the {field} {problem}")]
    Id {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        problem: IdError,
    },
    /// The host is missing or is neither a name nor an address.
    #[error("has no usable host; expected a name, an IPv4 address or an IPv6 address in brackets")]
    Host,
    /// It is a URL.
    #[error("is a URL; expected host:port alone, such as cloud.example.com:7843")]
    Url,
    /// The port is missing, not a number or 0.
    #[error("has no usable port; expected host:port with a port of 1 to 65535")]
    Port,
    /// The count is not a number or too large.
    #[error("has no usable count; expected 0 to {MAX_TUNNEL_COUNT}, or nothing for 1")]
    Count,
}

impl FromStr for TunnelAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix(SCHEME).ok_or(AddressError::Scheme)?;
        let at = AddressError::At { found: rest.matches('@').count() };
        let (claim, place) = rest.split_once('@').filter(|(_, place)| !place.contains('@')).ok_or(at)?;
        let (host, numbers) = split_host(place)?;
        let (port, count) = match numbers.split_once(':') {
            Some((port, count)) => (port, parse_count(count)?),
            None => (numbers, DEFAULT_COUNT),
        };
        Ok(Self { claim: parse_claim(claim)?, responder: host_port(host, port)?, count })
    }
}

impl fmt::Display for TunnelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}:{}", self.claim, self.responder, self.count)
    }
}

impl FromStr for HostPort {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains("://") {
            return Err(AddressError::Url);
        }
        let (host, port) = split_host(text)?;
        host_port(host, port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_claim(text: &str) -> Result<Claim, AddressError> {
    let mut fields = text.split(':');
    let (Some(node), Some(cluster), Some(tenant), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(AddressError::Fields { found: text.split(':').count() });
    };
    let named = |field| move |problem| AddressError::Id { field, problem };
    Ok(Claim {
        node: NodeId::new(node).map_err(named("node"))?,
        cluster: ClusterId::new(cluster).map_err(named("cluster"))?,
        tenant: match tenant {
            "" => TenantId::default(),
            tenant => TenantId::new(tenant).map_err(named("tenant"))?,
        },
    })
}

/// The host with its brackets, and what follows the `:` after it.
fn split_host(text: &str) -> Result<(&str, &str), AddressError> {
    let after_brackets = match text.starts_with('[') {
        true => text.find(']').ok_or(AddressError::Host)? + 1,
        false => 0,
    };
    let colon = text[after_brackets..].find(':').ok_or(AddressError::Port)? + after_brackets;
    if after_brackets != 0 && colon != after_brackets {
        return Err(AddressError::Host);
    }
    Ok((&text[..colon], &text[colon + 1..]))
}

fn host_port(host: &str, port: &str) -> Result<HostPort, AddressError> {
    let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().map_err(|_| AddressError::Host)?.to_string(),
        None if is_name(host) => host.to_owned(),
        None => return Err(AddressError::Host),
    };
    let port = parse_number(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    Ok(HostPort { host, port: port.ok_or(AddressError::Port)? })
}

fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(allowed)
}

fn parse_count(text: &str) -> Result<u32, AddressError> {
    parse_number(text).filter(|count| *count <= MAX_TUNNEL_COUNT).ok_or(AddressError::Count)
}

/// Digits only: `str::parse` would also take a leading `+`.
fn parse_number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TunnelAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn a_full_address_reads_field_by_field() {
        let address = parse("rc://edge-17:stores-eu:acme@cloud.example.com:7843:2").unwrap();
        assert_eq!(address.claim.node.as_str(), "edge-17");
        assert_eq!(address.claim.cluster.as_str(), "stores-eu");
        assert_eq!(address.claim.tenant.as_str(), "acme");
        assert_eq!(address.responder, HostPort { host: "cloud.example.com".into(), port: 7843 });
        assert_eq!(address.count, 2);
    }

    #[test]
    fn tenant_and_count_have_defaults() {
        let address = parse("rc://n:c:@10.0.0.1:7843").unwrap();
        assert_eq!(address.claim.tenant, TenantId::default());
        assert_eq!(address.count, 1);
    }

    #[test]
    fn printing_and_reading_are_inverse() {
        for text in ["rc://n:c:t@host:1:0", "rc://n:c:default@[::1]:7843:1024", "rc://n:c:t@127.0.0.1:65535:1"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let field = |found| AddressError::Fields { found };
        for (text, error) in [
            ("http://n:c:t@h:1", AddressError::Scheme),
            ("rc://n:c:t", AddressError::At { found: 0 }),
            ("rc://n:c:t@h:1@2", AddressError::At { found: 2 }),
            ("rc://n:c@h:1", field(2)),
            ("rc://n:c:t:u@h:1", field(4)),
            ("rc://:c:t@h:1", AddressError::Id { field: "node", problem: IdError::Empty { max: 128 } }),
            ("rc://n::t@h:1", AddressError::Id { field: "cluster", problem: IdError::Empty { max: 128 } }),
            ("rc://n:c:t@", AddressError::Port),
            ("rc://n:c:t@host", AddressError::Port),
            ("rc://n:c:t@host:", AddressError::Port),
            ("rc://n:c:t@host:0", AddressError::Port),
            ("rc://n:c:t@host:65536", AddressError::Port),
            ("rc://n:c:t@host:+1", AddressError::Port),
            ("rc://n:c:t@:1", AddressError::Host),
            ("rc://n:c:t@a b:1", AddressError::Host),
            ("rc://n:c:t@[::1:1", AddressError::Host),
            ("rc://n:c:t@[::1]x:1", AddressError::Host),
            ("rc://n:c:t@[host]:1", AddressError::Host),
            ("rc://n:c:t@host:1:", AddressError::Count),
            ("rc://n:c:t@host:1:1025", AddressError::Count),
            ("rc://n:c:t@host:1:-1", AddressError::Count),
            ("rc://n:c:t@host:1:2:3", AddressError::Count),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_id_error_says_which_field_and_what_is_accepted() {
        let error = parse("rc://a b:c:t@h:1").unwrap_err();
        assert!(error.to_string().starts_with("the node has the byte 0x20 at position 1"), "{error}");
    }
}
