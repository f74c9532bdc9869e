//! HELLO: what the initiator claims, and how it is read. spec: HS-1, HS-4 to HS-18

use bytes::{BufMut, BytesMut};

use crate::id::{Claim, ClusterId, InstanceId, NodeId, Place, TenantId};
use crate::protocol::VERSION;
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::{Hello, PeerLimits, Service, Token};
use crate::protocol::handshake::{identifier, put_services, read_services, some_text};
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, printable, put_field, unknown_field, whole};

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

/// The ids of HELLO's fields.
mod id {
    pub(super) const VERSIONS: u64 = 1;
    pub(super) const TOKEN: u64 = 2;
    pub(super) const TENANT: u64 = 3;
    pub(super) const SERVICES: u64 = 4;
    pub(super) const CLUSTER: u64 = 5;
    pub(super) const LIMITS: u64 = 6;
    pub(super) const NODE: u64 = 7;
    pub(super) const BUILD: u64 = 8;
    pub(super) const INSTANCE: u64 = 9;
    pub(super) const SLOT: u64 = 11;
    pub(super) const GENERATION: u64 = 13;
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
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 11] = [
        ("versions", id::VERSIONS),
        ("token", id::TOKEN),
        ("tenant", id::TENANT),
        ("services", id::SERVICES),
        ("cluster", id::CLUSTER),
        ("limits", id::LIMITS),
        ("node", id::NODE),
        ("build", id::BUILD),
        ("instance", id::INSTANCE),
        ("slot", id::SLOT),
        ("generation", id::GENERATION),
    ];

    /// Appends the payload of a HELLO frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let Place { claim, instance, slot, generation } = &self.place;
        put_field(out, id::VERSIONS, |out| {
            varint::encode(out, self.versions.0.into());
            varint::encode(out, self.versions.1.into());
        });
        if let Some(token) = &self.token {
            put_field(out, id::TOKEN, |out| out.put_slice(token));
        }
        put_field(out, id::TENANT, |out| out.put_slice(claim.tenant.as_str().as_bytes()));
        if !self.services.is_empty() {
            put_field(out, id::SERVICES, |out| put_services(out, &self.services));
        }
        put_field(out, id::CLUSTER, |out| out.put_slice(claim.cluster.as_str().as_bytes()));
        put_field(out, id::LIMITS, |out| self.limits.encode(out));
        put_field(out, id::NODE, |out| out.put_slice(claim.node.as_str().as_bytes()));
        if !self.build.is_empty() {
            put_field(out, id::BUILD, |out| out.put_slice(printable(&self.build, limits::MAX_BUILD_BYTES).as_bytes()));
        }
        put_field(out, id::INSTANCE, |out| out.put_slice(&instance.0));
        put_field(out, id::SLOT, |out| varint::encode(out, (*slot).into()));
        put_field(out, id::GENERATION, |out| varint::encode(out, *generation));
    }

    /// Reads the payload of a HELLO frame; the versions first, so that a HELLO of a future version is told 404 and
    /// not 400. spec: HS-7, HS-8
    pub fn decode(payload: &[u8]) -> Result<Self, HelloError> {
        let mut fields = Fields::new(payload);
        let versions = match fields.next()? {
            Some((id::VERSIONS, value)) => read_versions(value)?,
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
        while let Some((number, value)) = fields.next()? {
            match number {
                id::TOKEN => parts.token = Some(Token::decode(value)?),
                id::TENANT => parts.tenant = Some(identifier(value, "tenant", TenantId::new)?),
                id::SERVICES => parts.services = read_services(value)?,
                id::CLUSTER => parts.cluster = Some(identifier(value, "cluster", ClusterId::new)?),
                id::LIMITS => parts.limits = PeerLimits::decode(value)?,
                id::NODE => parts.node = Some(identifier(value, "node", NodeId::new)?),
                id::BUILD => parts.build = some_text(value, limits::MAX_BUILD_BYTES, "build")?,
                id::INSTANCE => {
                    let bytes = value.try_into().map_err(|_| Malformed::Invalid("instance"))?;
                    parts.instance = Some(InstanceId(bytes));
                }
                id::SLOT => parts.slot = Some(whole(value, |cursor| cursor.varint_u32("slot"))?),
                id::GENERATION => parts.generation = Some(whole(value, Cursor::varint)?),
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
