//! Names and proofs: who a tunnel says it is, and what TLS proved about it.
//!
//! Row 1: uses nothing but std, serde and base64. Every identifier is checked where it is parsed, so the rest of the
//! crate never sees one that is empty, too long or ambiguous. spec: HS-10, HS-11

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

mod address;
mod text;

use self::text::Text;

pub use address::{AddressError, HostPort, MAX_TUNNEL_COUNT, TunnelAddress};

/// The longest node, cluster or tenant id, in bytes. spec: HS-10
pub const MAX_ID_BYTES: usize = 128;
/// The longest service name, in bytes. spec: HS-11
pub const MAX_SERVICE_NAME_BYTES: usize = 64;
/// The longest name of a responder, in bytes. spec: FL-2
pub const MAX_RESPONDER_ID_BYTES: usize = 64;
/// The tenant of whoever names none. spec: HS-12
pub const DEFAULT_TENANT: &str = "default";

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has no bytes.
    #[error("is empty; expected 1 to {max} bytes")]
    Empty {
        /// The most bytes that would be accepted.
        max: usize,
    },
    /// The text has more bytes than allowed.
    #[error("has {actual} bytes; expected 1 to {max}")]
    TooLong {
        /// How many bytes it has.
        actual: usize,
        /// The most bytes that would be accepted.
        max: usize,
    },
    /// The text has a byte outside the allowed set.
    #[error(
        "has the byte 0x{byte:02x} at position {at}; expected printable ASCII without space and without {forbidden}"
    )]
    Byte {
        /// The offending byte.
        byte: u8,
        /// Where it stands, counted from 0.
        at: usize,
        /// The printable bytes that are not accepted either.
        forbidden: &'static str,
    },
    /// The text is not a key pin.
    #[error("is not a pin; expected \"sha256/\" and the base64 of 32 bytes")]
    Pin,
}

fn check(text: &str, max: usize, forbidden: &'static str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { max });
    }
    if text.len() > max {
        return Err(IdError::TooLong { actual: text.len(), max });
    }
    match text.bytes().enumerate().find(|(_, b)| !b.is_ascii_graphic() || forbidden.as_bytes().contains(b)) {
        Some((at, byte)) => Err(IdError::Byte { byte, at, forbidden }),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $max:expr, $forbidden:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Text);

        impl $name {
            /// Checks length and alphabet; the error says what would be accepted.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check(text, $max, $forbidden)?;
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.as_str())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

const RESERVED: &str = ": @ / % ? #";

identifier!(
    /// One initiator instance, unique within its tenant. 1 to 128 bytes. spec: HS-10
    NodeId, MAX_ID_BYTES, RESERVED
);
identifier!(
    /// A group of nodes; a request may name it and get any member. 1 to 128 bytes. spec: HS-10
    ClusterId, MAX_ID_BYTES, RESERVED
);
identifier!(
    /// The isolation boundary; ids are looked up inside it, never across. 1 to 128 bytes. spec: HS-10
    TenantId, MAX_ID_BYTES, RESERVED
);
identifier!(
    /// What a request asks for: a node, else a cluster. 1 to 128 bytes. spec: HS-10
    HostId, MAX_ID_BYTES, RESERVED
);
identifier!(
    /// A service that an initiator exports. 1 to 64 bytes. spec: HS-11
    ServiceName, MAX_SERVICE_NAME_BYTES, RESERVED
);
identifier!(
    /// A responder among its siblings in a fleet. 1 to 64 bytes. spec: FL-2
    ResponderId, MAX_RESPONDER_ID_BYTES, RESERVED
);

impl From<&ResponderId> for NodeId {
    fn from(responder: &ResponderId) -> Self {
        Self(responder.0.clone())
    }
}

/// As if a cluster had the name: for what is shown of a way to whatever has it.
impl From<&HostId> for ClusterId {
    fn from(host_id: &HostId) -> Self {
        Self(host_id.0.clone())
    }
}

/// As if a node had the name: for what is shown of a way to whatever has it.
impl From<&HostId> for NodeId {
    fn from(host_id: &HostId) -> Self {
        Self(host_id.0.clone())
    }
}

impl From<&NodeId> for HostId {
    fn from(node: &NodeId) -> Self {
        Self(node.0.clone())
    }
}

impl From<&ClusterId> for HostId {
    fn from(cluster: &ClusterId) -> Self {
        Self(cluster.0.clone())
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self(DEFAULT_TENANT.into())
    }
}

/// What the initiator states about itself in HELLO; worth nothing until policy admits it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Claim {
    /// The isolation boundary.
    pub tenant: TenantId,
    /// The group.
    pub cluster: ClusterId,
    /// The one.
    pub node: NodeId,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.node, self.cluster, self.tenant)
    }
}

/// One start of an initiator process: 16 random bytes, new at each start. spec: HS-13
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub [u8; 16]);

/// A tunnel as its responder names it: 8 bytes, unique within that responder process. spec: HS-20
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(pub u64);

impl InstanceId {
    /// That of every Envoy, whose handshake names none. It says nothing of who somebody is. spec: FL-16
    pub const OF_ENVOYS: Self = Self(*b"envoy-instance--");
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelId({self})")
    }
}

/// Where a tunnel stands among those of its node: decides which one supersedes which. spec: HS-14
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Who it says it is.
    pub claim: Claim,
    /// Which start of the process.
    pub instance: InstanceId,
    /// Which of the tunnels that the instance keeps; unique within the instance.
    pub slot: u32,
    /// Rises with each reconnection of that slot.
    pub generation: u64,
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo; written `sha256/` and base64 (RFC 7469 section 2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpkiPin(pub [u8; 32]);

impl FromStr for SpkiPin {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let encoded = text.strip_prefix("sha256/").ok_or(IdError::Pin)?;
        let bytes = BASE64.decode(encoded).map_err(|_| IdError::Pin)?;
        Ok(Self(bytes.try_into().map_err(|_| IdError::Pin)?))
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpkiPin({self})")
    }
}

/// What TLS proved about the peer: the names in its verified certificate and the hash of its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerIdentity {
    /// URI subject alternative names, in certificate order.
    pub uri_sans: Vec<String>,
    /// DNS subject alternative names, in certificate order.
    pub dns_sans: Vec<String>,
    /// Hash of the public key; `None` when the peer showed no certificate.
    pub key: Option<SpkiPin>,
    /// Who signed the certificate, and for when; `None` when the peer showed none.
    pub issued: Option<Issued>,
}

/// What one certificate of an owner has over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// SHA-256 of the issuer's name and, if it is stated, the identifier of its key.
    pub authority: [u8; 32],
    /// Valid from and until, seconds since 1970.
    pub validity: (i64, i64),
}

impl Issued {
    /// Whether this is a later certificate of the same authority.
    pub fn renews(&self, older: &Self) -> bool {
        self.authority == older.authority && self.validity > older.validity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_their_bounds() {
        assert!(NodeId::new("edge-17").is_ok());
        assert!(NodeId::new(&"n".repeat(128)).is_ok());
        assert_eq!(NodeId::new(""), Err(IdError::Empty { max: 128 }));
        assert_eq!(NodeId::new(&"n".repeat(129)), Err(IdError::TooLong { actual: 129, max: 128 }));
        // spec: FL-2
        assert!(ResponderId::new(&"r".repeat(64)).is_ok());
        assert_eq!(ResponderId::new(&"r".repeat(65)), Err(IdError::TooLong { actual: 65, max: 64 }));
        for bad in [":", "@", "/", "%", "?", "#", " ", "\u{7f}", "\n", "é"] {
            assert!(matches!(NodeId::new(&format!("a{bad}")), Err(IdError::Byte { at: 1, .. })), "{bad:?}");
        }
    }

    #[test]
    fn pins_round_trip_and_reject_other_lengths() {
        let pin = SpkiPin([7; 32]);
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!("sha256/AAAA".parse::<SpkiPin>(), Err(IdError::Pin));
        assert_eq!("sha1/AAAA".parse::<SpkiPin>(), Err(IdError::Pin));
    }
}
