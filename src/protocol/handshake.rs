//! HELLO, WELCOME and REFUSE: the messages that turn a connection into a tunnel. spec: `2-handshake.md`
//!
//! Before these messages TLS has proved the responder's name to the initiator and, with mutual TLS, the initiator's
//! certificate to the responder. HELLO then *claims* a place (tenant, cluster, node, instance, slot, generation) and
//! may carry a token; the responder's policy compares claim and proof and answers WELCOME or REFUSE. A peer that lies
//! in HELLO gains nothing: the claim is worth what the certificate or the token proves, and every text in it is
//! bounded and free of control characters before anyone else sees it.
//!
//! All three are lists of numbered fields with rising ids, so that each has one encoding, none can repeat, and a later
//! version can add some: even ids may be skipped, odd ids must be understood.

mod answer;
mod hello;
#[cfg(test)]
mod tests;
mod token;

use std::collections::HashSet;
use std::time::Duration;

use bytes::BytesMut;

use crate::id::{IdError, Place, ServiceName, TunnelId};
use crate::protocol::code::RefusalCode;
use crate::protocol::limits;
use crate::protocol::roster::Roster;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Malformed, put_sized, text, whole};

pub use crate::protocol::limits::PeerLimits;

pub use self::hello::HelloError;
pub use self::token::Token;

/// What the initiator says first. spec: HS-1
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest protocol version it speaks.
    pub versions: (u32, u32),
    /// Who it claims to be, and which of its tunnels this is.
    pub place: Place,
    /// A credential beside TLS, 1 byte to 8 KiB; opaque here, masked in `Debug`.
    pub token: Option<Token>,
    /// What it exports, at most 256.
    pub services: Vec<Service>,
    /// What it is ready to take.
    pub limits: PeerLimits,
    /// Product and version, for people; at most 128 bytes.
    pub build: String,
}

/// One exported service as HELLO and SERVICES announce it. spec: HS-17
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What it speaks.
    pub kind: ServiceKind,
}

/// What a service speaks. spec: HS-17
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceKind {
    /// HTTP exchanges.
    Http,
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The responder's yes. spec: HS-2
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version both use from here on.
    pub version: u32,
    /// The tunnel's name.
    pub tunnel: TunnelId,
    /// The responder's name, 1 to 128 bytes.
    pub responder: String,
    /// `ip:port` of the initiator as the responder sees it.
    pub observed: Option<String>,
    /// What the responder is ready to take.
    pub limits: PeerLimits,
    /// How often the initiator probes; 10 ms to 1 h, whole milliseconds on the wire.
    pub keepalive: Duration,
    /// After how much silence either end gives up; longer than `keepalive`, at most a day.
    pub idle: Duration,
    /// The responder takes REAUTH, with signatures of these numbers of TLS' SignatureScheme; at most 64, none for tokens alone.
    /// `None`: it does not. spec: HS-25
    pub reauth: Option<Vec<u16>>,
    /// Which responders of its fleet there are to have tunnels to; `None`: it is in no fleet, or does not know yet. spec: HS-26
    pub roster: Option<Roster>,
}

/// The responder's no. spec: HS-3
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind of no.
    pub code: RefusalCode,
    /// What to change, for people; at most 512 bytes.
    pub reason: String,
    /// Not before this much time; whole milliseconds on the wire, at most a day.
    pub retry_after: Option<Duration>,
}

impl PeerLimits {
    /// Appends both numbers; one below its minimum is written as the minimum. spec: HS-15
    pub fn encode(&self, out: &mut BytesMut) {
        varint::encode(out, self.head_bytes.max(limits::MIN_HEAD_BYTES).into());
        varint::encode(out, self.head_fields.max(limits::MIN_HEAD_FIELDS).into());
    }

    /// Reads what [`PeerLimits::encode`] wrote. spec: HS-15
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let limits = whole(value, |cursor| {
            Ok(Self { head_bytes: cursor.varint_u32("limits")?, head_fields: cursor.varint_u32("limits")? })
        })?;
        if limits.head_bytes < limits::MIN_HEAD_BYTES || limits.head_fields < limits::MIN_HEAD_FIELDS {
            return Err(Malformed::Invalid("limits"));
        }
        Ok(limits)
    }
}

impl ServiceKind {
    /// Every kind, in wire order.
    pub const ALL: [Self; 3] = [Self::Http, Self::Tcp, Self::Udp];

    /// The number on the wire. spec: HS-17
    pub const fn number(self) -> u64 {
        match self {
            Self::Http => 1,
            Self::Tcp => 2,
            Self::Udp => 3,
        }
    }

    /// The kind with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Appends kind and name of each service. spec: HS-17
pub(crate) fn put_services(out: &mut BytesMut, services: &[Service]) {
    for service in services {
        varint::encode(out, service.kind.number());
        put_sized(out, service.name.as_str().as_bytes());
    }
}

/// Reads services to the end of `value`; at least one, at most 256, no name twice. One of an unknown kind is checked and
/// left out. spec: HS-17
pub(crate) fn read_services(value: &[u8]) -> Result<Vec<Service>, Malformed> {
    let mut cursor = Cursor::new(value);
    let mut names = HashSet::new();
    let mut services = Vec::new();
    while !cursor.is_empty() {
        let kind = ServiceKind::from_number(cursor.varint()?);
        let name = cursor.sized()?;
        if names.len() == limits::MAX_SERVICES || !names.insert(name) {
            return Err(Malformed::Invalid("services"));
        }
        let name = identifier(name, "service name", ServiceName::new)?;
        services.extend(kind.map(|kind| Service { name, kind }));
    }
    if names.is_empty() { Err(Malformed::Invalid("services")) } else { Ok(services) }
}

/// An identifier; its own type says what it may contain. spec: HS-10, HS-11
pub(crate) fn identifier<T>(
    value: &[u8],
    what: &'static str,
    new: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed::Invalid(what))?;
    new(text).map_err(|error| Malformed::Id(what, error))
}

/// Text of at least one byte: where a part is optional, its absence has one encoding only.
fn some_text(value: &[u8], max: usize, what: &'static str) -> Result<String, Malformed> {
    if value.is_empty() { Err(Malformed::Invalid(what)) } else { text(value, max, what) }
}
