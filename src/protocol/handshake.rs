//! HELLO, WELCOME and REFUSE: the messages that turn a connection into a tunnel. spec: section 2

use std::time::Duration;

use crate::id::{InstanceId, Place, ServiceName, TunnelId};
use crate::protocol::code::RefusalCode;

/// What the initiator says first. spec: HS-1
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest protocol version it speaks.
    pub versions: (u32, u32),
    /// Who it claims to be, and which of its tunnels this is.
    pub place: Place,
    /// A credential beside TLS, at most 8 KiB; opaque here.
    pub token: Option<Vec<u8>>,
    /// What it exports, at most 256.
    pub services: Vec<Service>,
    /// What it is ready to take.
    pub limits: PeerLimits,
    /// Product and version, for people; at most 128 bytes.
    pub build: String,
}

/// One exported service as HELLO and SERVICES announce it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What it speaks.
    pub kind: ServiceKind,
}

/// What a service speaks.
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

/// What one end is ready to take from the other. spec: HS-15
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of a message head or trailer section.
    pub head_bytes: u32,
    /// Fields in one section.
    pub head_fields: u32,
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
    /// How often the initiator probes.
    pub keepalive: Duration,
    /// After how much silence either end gives up.
    pub idle: Duration,
}

/// The responder's no. spec: HS-3
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind of no.
    pub code: RefusalCode,
    /// What to change, for people; at most 512 bytes.
    pub reason: String,
    /// Not before this much time.
    pub retry_after: Option<Duration>,
}

/// Kept so that the module's types are used together. See [`InstanceId`].
pub type Instance = InstanceId;
