//! What siblings of a fleet say to each other: a greeting, and in front of every stream where it goes. spec: FL-30 to FL-46
//!
//! All else between two siblings is the wire of a tunnel: the sibling that has dialled asks, as a responder does, and the
//! other one serves.

#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, BytesMut};

use crate::id::{HostId, ResponderId, TenantId};
use crate::protocol::handshake::{PeerLimits, Refusal, identifier};
use crate::protocol::limits;
use crate::protocol::stream::StreamError;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, put_field, put_sized, unknown_field, whole};

/// What both siblings must agree on in TLS. spec: FL-30
pub const ALPN: &[u8] = b"adit-fleet/1";

/// The type of GREETING on the control stream. spec: FL-33
pub const GREETING: u64 = 0x13;
/// The type of REFUSE there, as in a handshake. spec: FL-34
pub const REFUSE: u64 = 0x05;
/// The type of a stream that goes on to a node of the sibling. spec: FL-40
pub const RELAYED: u64 = 0x07;

/// The longest ROUTE, bytes. spec: FL-41
pub const MAX_ROUTE_BYTES: usize = 1024;
/// How many hops a stream has made when it arrives; another number is a loop. spec: FL-42
const HOPS: u8 = 1;

/// The ids of GREETING's fields.
mod greeting {
    pub(super) const RESPONDER: u64 = 1;
    pub(super) const EPOCH: u64 = 3;
    pub(super) const LIMITS: u64 = 4;
    pub(super) const HERE: u64 = 6;
}

/// The ids of ROUTE's options.
mod route {
    pub(super) const AFFINITY: u64 = 2;
}

/// Who a sibling says it is; its certificate must prove that. spec: FL-33
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its name in the fleet.
    pub responder: ResponderId,
    /// Rises with each start of it; at most 2^62 - 1.
    pub epoch: u64,
    /// What it is ready to take.
    pub limits: PeerLimits,
    /// Whether it says HERE where it is asked with a body: one that does not gets the body unasked. spec: FL-47
    pub here: bool,
}

/// What the other sibling says in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeted {
    /// Who it is.
    By(Greeting),
    /// That it does not want to be asked, and why. spec: FL-34
    Refused(Refusal),
}

/// Where a stream between siblings goes. spec: FL-41
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In whose world.
    pub tenant: TenantId,
    /// To which node or cluster.
    pub host_id: HostId,
    /// The hash of what should stick to a node of the cluster; `None`: nothing should. spec: FL-43
    pub affinity: Option<u64>,
}

/// Why what a sibling says first is no greeting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// Another frame stands in its place.
    #[error("a frame of type {0:#x} is in the place of GREETING")]
    Unexpected(u64),
    /// It is longer than 64 KiB.
    #[error("GREETING has {0} bytes; expected at most 65536")]
    TooLong(u64),
    /// A payload that breaks a rule.
    #[error("GREETING {0}")]
    Malformed(#[from] Malformed),
}

impl Greeting {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 4] = [
        ("responder", greeting::RESPONDER),
        ("epoch", greeting::EPOCH),
        ("limits", greeting::LIMITS),
        ("here", greeting::HERE),
    ];

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        put_field(&mut payload, greeting::RESPONDER, |out| out.put_slice(self.responder.as_str().as_bytes()));
        put_field(&mut payload, greeting::EPOCH, |out| varint::encode(out, self.epoch));
        put_field(&mut payload, greeting::LIMITS, |out| self.limits.encode(out));
        if self.here {
            put_field(&mut payload, greeting::HERE, |_| {});
        }
        put_whole(GREETING, &payload, out);
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut responder, mut epoch, mut limits, mut here) = (None, None, PeerLimits::default(), false);
        while let Some((id, value)) = fields.next()? {
            match id {
                greeting::RESPONDER => responder = Some(identifier(value, "responder", ResponderId::new)?),
                greeting::EPOCH => epoch = Some(whole(value, Cursor::varint)?),
                greeting::LIMITS => limits = PeerLimits::decode(value)?,
                greeting::HERE if value.is_empty() => here = true,
                greeting::HERE => return Err(Malformed::Invalid("here")),
                other => unknown_field(other)?,
            }
        }
        let responder = responder.ok_or(Malformed::Missing("responder"))?;
        Ok(Self { responder, epoch: epoch.ok_or(Malformed::Missing("epoch"))?, limits, here })
    }
}

impl Greeted {
    /// Takes the greeting, or the refusal, off the front of what came; `None`: it is not whole yet, and nothing was taken.
    ///
    /// # Errors
    /// [`GreetingError`], before any of a payload that is too long has to be kept.
    pub fn take(received: &mut BytesMut) -> Result<Option<Self>, GreetingError> {
        let mut rest = &received[..];
        let Some((frame, length)) = header(&mut rest)? else { return Ok(None) };
        if frame != GREETING && frame != REFUSE {
            return Err(GreetingError::Unexpected(frame));
        }
        if length > limits::MAX_CONTROL_PAYLOAD as u64 {
            return Err(GreetingError::TooLong(length));
        }
        let (head, length) = (received.len() - rest.len(), length as usize);
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let greeted = match frame {
            GREETING => Self::By(Greeting::decode(payload)?),
            _ => Self::Refused(Refusal::decode(payload)?),
        };
        received.advance(head + length);
        Ok(Some(greeted))
    }
}

/// Appends REFUSE instead of a greeting. spec: FL-34
pub fn encode_refusal(refusal: &Refusal, out: &mut BytesMut) {
    let mut payload = BytesMut::new();
    refusal.encode(&mut payload);
    put_whole(REFUSE, &payload, out);
}

impl Route {
    /// The ids of the options, by name.
    pub const OPTIONS: [(&str, u64); 1] = [("affinity", route::AFFINITY)];

    /// Appends the type of the stream and ROUTE; what opens a stream of a tunnel follows.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut payload = BytesMut::with_capacity(MAX_ROUTE_BYTES);
        payload.put_u8(HOPS);
        put_sized(&mut payload, self.tenant.as_str().as_bytes());
        put_sized(&mut payload, self.host_id.as_str().as_bytes());
        if let Some(affinity) = self.affinity {
            put_field(&mut payload, route::AFFINITY, |out| out.put_u64(affinity));
        }
        put_whole(RELAYED, &payload, out);
    }

    /// Reads type and ROUTE at the front of a stream, and how many bytes they are; `None`: they are not whole yet.
    ///
    /// # Errors
    /// [`StreamError`]: another type, a length beyond [`MAX_ROUTE_BYTES`], a loop, or what breaks another rule.
    pub fn read(first: &[u8]) -> Result<Option<(Self, usize)>, StreamError> {
        let mut rest = first;
        let Some(stream_type) = varint::decode(&mut rest).map_err(Malformed::from)? else { return Ok(None) };
        if stream_type != RELAYED {
            return Err(StreamError::UnknownType(stream_type));
        }
        let Some(length) = varint::decode(&mut rest).map_err(Malformed::from)? else { return Ok(None) };
        if length > MAX_ROUTE_BYTES as u64 {
            return Err(StreamError::Limit { what: "ROUTE", actual: length, max: MAX_ROUTE_BYTES as u64 });
        }
        let (head, length) = (first.len() - rest.len(), length as usize);
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        Ok(Some((Self::decode(payload)?, head + length)))
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.byte()? != HOPS {
            return Err(Malformed::Invalid("number of hops"));
        }
        let tenant = identifier(cursor.sized()?, "tenant", TenantId::new)?;
        let host_id = identifier(cursor.sized()?, "host id", HostId::new)?;
        let (mut options, mut affinity) = (Fields::behind(cursor), None);
        while let Some((id, value)) = options.next()? {
            match id {
                route::AFFINITY => {
                    let hash = value.try_into().map_err(|_| Malformed::Invalid("affinity"))?;
                    affinity = Some(u64::from_be_bytes(hash));
                }
                other => unknown_field(other)?,
            }
        }
        Ok(Self { tenant, host_id, affinity })
    }
}

/// Type and length of a frame; `None`: they are not whole yet.
fn header(rest: &mut &[u8]) -> Result<Option<(u64, u64)>, Malformed> {
    let Some(frame) = varint::decode(rest)? else { return Ok(None) };
    Ok(varint::decode(rest)?.map(|length| (frame, length)))
}

fn put_whole(frame: u64, payload: &[u8], out: &mut BytesMut) {
    varint::encode(out, frame);
    put_sized(out, payload);
}
