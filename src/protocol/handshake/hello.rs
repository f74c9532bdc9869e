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
