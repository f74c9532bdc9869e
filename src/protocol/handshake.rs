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

mod token;

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::id::{Claim, ClusterId, IdError, InstanceId, NodeId, Place, ServiceName, TenantId, TunnelId};
use crate::protocol::VERSION;
use crate::protocol::code::RefusalCode;
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::unknown_field;
use crate::protocol::wire::{Cursor, Fields, Malformed, millis_of, printable, put_field, put_sized, text, whole};

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

/// What one end is ready to take from the other. spec: HS-15
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of a message head or trailer section; at least 4 KiB.
    pub head_bytes: u32,
    /// Fields in one section; at least 32.
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
    /// How often the initiator probes; 10 ms to 1 h, whole milliseconds on the wire.
    pub keepalive: Duration,
    /// After how much silence either end gives up; longer than `keepalive`, at most a day.
    pub idle: Duration,
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

/// Why a HELLO cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Its bytes break a rule; answered with 400.
    #[error("HELLO {0}")]
    Malformed(#[from] Malformed),
    /// It offers no version that is spoken here; answered with 404.
    #[error("HELLO offers versions {lowest} to {highest}; expected a range that includes {VERSION}")]
    Unsupported {
        /// The lowest version it offers.
        lowest: u32,
        /// The highest version it offers.
        highest: u32,
    },
}

impl HelloError {
    /// The number to refuse with. spec: HS-7, HS-8
    pub const fn code(&self) -> RefusalCode {
        match self {
            Self::Malformed(_) => RefusalCode::Malformed,
            Self::Unsupported { .. } => RefusalCode::Unsupported,
        }
    }
}

impl Hello {
    /// Appends the payload of a HELLO frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let Place { claim, instance, slot, generation } = &self.place;
        put_field(out, 1, |out| {
            varint::encode(out, self.versions.0.into());
            varint::encode(out, self.versions.1.into());
        });
        if let Some(token) = &self.token {
            put_field(out, 2, |out| out.put_slice(token));
        }
        put_field(out, 3, |out| out.put_slice(claim.tenant.as_str().as_bytes()));
        if !self.services.is_empty() {
            put_field(out, 4, |out| put_services(out, &self.services));
        }
        put_field(out, 5, |out| out.put_slice(claim.cluster.as_str().as_bytes()));
        put_field(out, 6, |out| self.limits.encode(out));
        put_field(out, 7, |out| out.put_slice(claim.node.as_str().as_bytes()));
        if !self.build.is_empty() {
            put_field(out, 8, |out| out.put_slice(printable(&self.build, limits::MAX_BUILD_BYTES).as_bytes()));
        }
        put_field(out, 9, |out| out.put_slice(&instance.0));
        put_field(out, 11, |out| varint::encode(out, (*slot).into()));
        put_field(out, 13, |out| varint::encode(out, *generation));
    }

    /// Reads the payload of a HELLO frame; the versions first, so that a HELLO of a future version is told 404 and
    /// not 400. spec: HS-7, HS-8
    pub fn decode(payload: &[u8]) -> Result<Self, HelloError> {
        let mut fields = Fields::new(payload);
        let versions = match fields.next()? {
            Some((1, value)) => read_versions(value)?,
            _ => return Err(Malformed::Missing("versions").into()),
        };
        Ok(HelloParts::read(&mut fields)?.assemble(versions)?)
    }
}

fn read_versions(value: &[u8]) -> Result<(u32, u32), HelloError> {
    let (lowest, highest) =
        whole(value, |cursor| Ok((cursor.varint_u32("versions")?, cursor.varint_u32("versions")?)))?;
    if lowest == 0 || lowest > highest {
        return Err(Malformed::Invalid("versions").into());
    }
    if (lowest..=highest).contains(&VERSION) {
        Ok((lowest, highest))
    } else {
        Err(HelloError::Unsupported { lowest, highest })
    }
}

/// The fields of a HELLO that were seen so far.
#[derive(Default)]
struct HelloParts {
    token: Option<Token>,
    tenant: Option<TenantId>,
    services: Vec<Service>,
    cluster: Option<ClusterId>,
    limits: PeerLimits,
    node: Option<NodeId>,
    build: String,
    instance: Option<InstanceId>,
    slot: Option<u32>,
    generation: Option<u64>,
}

impl HelloParts {
    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let mut parts = Self::default();
        while let Some((id, value)) = fields.next()? {
            match id {
                2 => parts.token = Some(Token::decode(value)?),
                3 => parts.tenant = Some(identifier(value, "tenant", TenantId::new)?),
                4 => parts.services = read_services(value)?,
                5 => parts.cluster = Some(identifier(value, "cluster", ClusterId::new)?),
                6 => parts.limits = PeerLimits::decode(value)?,
                7 => parts.node = Some(identifier(value, "node", NodeId::new)?),
                8 => parts.build = some_text(value, limits::MAX_BUILD_BYTES, "build")?,
                9 => {
                    let bytes = value.try_into().map_err(|_| Malformed::Invalid("instance"))?;
                    parts.instance = Some(InstanceId(bytes));
                }
                11 => parts.slot = Some(whole(value, |cursor| cursor.varint_u32("slot"))?),
                13 => parts.generation = Some(whole(value, Cursor::varint)?),
                other => unknown_field(other)?,
            }
        }
        Ok(parts)
    }

    fn assemble(self, versions: (u32, u32)) -> Result<Hello, Malformed> {
        let claim = Claim {
            tenant: self.tenant.ok_or(Malformed::Missing("tenant"))?,
            cluster: self.cluster.ok_or(Malformed::Missing("cluster"))?,
            node: self.node.ok_or(Malformed::Missing("node"))?,
        };
        let place = Place {
            claim,
            instance: self.instance.ok_or(Malformed::Missing("instance"))?,
            slot: self.slot.ok_or(Malformed::Missing("slot"))?,
            generation: self.generation.ok_or(Malformed::Missing("generation"))?,
        };
        let Self { token, services, limits, build, .. } = self;
        Ok(Hello { versions, place, token, services, limits, build })
    }
}

impl Welcome {
    /// Appends the payload of a WELCOME frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, 1, |out| varint::encode(out, self.version.into()));
        if let Some(observed) = &self.observed {
            put_field(out, 2, |out| out.put_slice(printable(observed, limits::MAX_OBSERVED_BYTES).as_bytes()));
        }
        put_field(out, 3, |out| out.put_u64(self.tunnel.0));
        put_field(out, 4, |out| self.limits.encode(out));
        put_field(out, 5, |out| out.put_slice(printable(&self.responder, limits::MAX_RESPONDER_BYTES).as_bytes()));
        put_field(out, 7, |out| varint::encode(out, millis_of(self.keepalive)));
        put_field(out, 9, |out| varint::encode(out, millis_of(self.idle)));
    }

    /// Reads the payload of a WELCOME frame. spec: HS-2
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut version, mut observed, mut tunnel, mut limits) = (None, None, None, PeerLimits::default());
        let (mut responder, mut keepalive, mut idle) = (None, None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                1 => version = Some(whole(value, |cursor| cursor.varint_u32("version"))?),
                2 => observed = Some(some_text(value, limits::MAX_OBSERVED_BYTES, "observed address")?),
                3 => tunnel = Some(value.try_into().map_err(|_| Malformed::Invalid("tunnel id"))?),
                4 => limits = PeerLimits::decode(value)?,
                5 => responder = Some(some_text(value, limits::MAX_RESPONDER_BYTES, "responder")?),
                7 => keepalive = Some(whole(value, |cursor| cursor.millis("keepalive"))?),
                9 => idle = Some(whole(value, |cursor| cursor.millis("idle timeout"))?),
                other => unknown_field(other)?,
            }
        }
        let welcome = Self {
            version: version.ok_or(Malformed::Missing("version"))?,
            tunnel: TunnelId(u64::from_be_bytes(tunnel.ok_or(Malformed::Missing("tunnel id"))?)),
            responder: responder.ok_or(Malformed::Missing("responder"))?,
            observed,
            limits,
            keepalive: keepalive.ok_or(Malformed::Missing("keepalive"))?,
            idle: idle.ok_or(Malformed::Missing("idle timeout"))?,
        };
        welcome.check_bounds()?;
        Ok(welcome)
    }

    fn check_bounds(&self) -> Result<(), Malformed> {
        if !(limits::MIN_KEEPALIVE..=limits::MAX_KEEPALIVE).contains(&self.keepalive) {
            return Err(Malformed::Invalid("keepalive"));
        }
        if self.idle <= self.keepalive {
            return Err(Malformed::Invalid("idle timeout"));
        }
        Ok(())
    }
}

impl Refusal {
    /// Appends the payload of a REFUSE frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, 1, |out| varint::encode(out, self.code.number().into()));
        if let Some(wait) = self.retry_after {
            put_field(out, 2, |out| varint::encode(out, millis_of(wait)));
        }
        put_field(out, 3, |out| out.put_slice(printable(&self.reason, limits::MAX_REASON_BYTES).as_bytes()));
    }

    /// Reads the payload of a REFUSE frame. spec: HS-3
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut code, mut retry_after, mut reason) = (None, None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                1 => {
                    code = Some(
                        RefusalCode::from_number(whole(value, Cursor::varint)?).ok_or(Malformed::Invalid("number"))?,
                    )
                }
                2 => retry_after = Some(whole(value, |cursor| cursor.millis("retry-after"))?),
                3 => reason = Some(text(value, limits::MAX_REASON_BYTES, "reason")?),
                other => unknown_field(other)?,
            }
        }
        Ok(Self {
            code: code.ok_or(Malformed::Missing("number"))?,
            reason: reason.ok_or(Malformed::Missing("reason"))?,
            retry_after,
        })
    }
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self { head_bytes: limits::DEFAULT_HEAD_BYTES, head_fields: limits::DEFAULT_HEAD_FIELDS }
    }
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

/// Reads services to the end of `value`; at least one, at most 256, no name twice. spec: HS-17
pub(crate) fn read_services(value: &[u8]) -> Result<Vec<Service>, Malformed> {
    let mut cursor = Cursor::new(value);
    let mut services: Vec<Service> = Vec::new();
    while !cursor.is_empty() {
        let kind = ServiceKind::from_number(cursor.varint()?).ok_or(Malformed::Invalid("service kind"))?;
        let name = identifier(cursor.sized()?, "service name", ServiceName::new)?;
        if services.len() == limits::MAX_SERVICES || services.iter().any(|known| known.name == name) {
            return Err(Malformed::Invalid("services"));
        }
        services.push(Service { name, kind });
    }
    if services.is_empty() { Err(Malformed::Invalid("services")) } else { Ok(services) }
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
