//! WELCOME and REFUSE: the responder's two answers. spec: HS-2, HS-3

use bytes::{BufMut, BytesMut};

use crate::id::TunnelId;
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::{PeerLimits, Refusal, Welcome, some_text};
use crate::protocol::limits;
use crate::protocol::roster::Roster;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, millis_of, printable, put_field, text, unknown_field, whole};

/// The ids of WELCOME's fields.
mod welcome {
    pub(super) const VERSION: u64 = 1;
    pub(super) const OBSERVED: u64 = 2;
    pub(super) const TUNNEL: u64 = 3;
    pub(super) const LIMITS: u64 = 4;
    pub(super) const RESPONDER: u64 = 5;
    pub(super) const REAUTH: u64 = 6;
    pub(super) const KEEPALIVE: u64 = 7;
    pub(super) const ROSTER: u64 = 8;
    pub(super) const IDLE: u64 = 9;
}

/// The ids of REFUSE's fields.
mod refuse {
    pub(super) const NUMBER: u64 = 1;
    pub(super) const RETRY_AFTER: u64 = 2;
    pub(super) const REASON: u64 = 3;
}

impl Welcome {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 9] = [
        ("version", welcome::VERSION),
        ("observed", welcome::OBSERVED),
        ("tunnel_id", welcome::TUNNEL),
        ("limits", welcome::LIMITS),
        ("responder", welcome::RESPONDER),
        ("reauth", welcome::REAUTH),
        ("keepalive", welcome::KEEPALIVE),
        ("roster", welcome::ROSTER),
        ("idle_timeout", welcome::IDLE),
    ];

    /// Appends the payload of a WELCOME frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, welcome::VERSION, |out| varint::encode(out, self.version.into()));
        if let Some(observed) = &self.observed {
            put_field(out, welcome::OBSERVED, |out| {
                out.put_slice(printable(observed, limits::MAX_OBSERVED_BYTES).as_bytes())
            });
        }
        put_field(out, welcome::TUNNEL, |out| out.put_u64(self.tunnel.0));
        put_field(out, welcome::LIMITS, |out| self.limits.encode(out));
        put_field(out, welcome::RESPONDER, |out| {
            out.put_slice(printable(&self.responder, limits::MAX_RESPONDER_BYTES).as_bytes())
        });
        if let Some(schemes) = &self.reauth {
            put_field(out, welcome::REAUTH, |out| {
                schemes.iter().for_each(|&scheme| varint::encode(out, scheme.into()))
            });
        }
        put_field(out, welcome::KEEPALIVE, |out| varint::encode(out, millis_of(self.keepalive)));
        if let Some(roster) = &self.roster {
            put_field(out, welcome::ROSTER, |out| roster.encode(out));
        }
        put_field(out, welcome::IDLE, |out| varint::encode(out, millis_of(self.idle)));
    }

    /// Reads the payload of a WELCOME frame. spec: HS-2
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut version, mut observed, mut tunnel, mut limits) = (None, None, None, PeerLimits::default());
        let (mut responder, mut keepalive, mut idle, mut reauth, mut roster) = (None, None, None, None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                welcome::VERSION => version = Some(whole(value, |cursor| cursor.varint_u32("version"))?),
                welcome::OBSERVED => observed = Some(some_text(value, limits::MAX_OBSERVED_BYTES, "observed address")?),
                welcome::TUNNEL => tunnel = Some(value.try_into().map_err(|_| Malformed::Invalid("tunnel id"))?),
                welcome::LIMITS => limits = PeerLimits::decode(value)?,
                welcome::RESPONDER => responder = Some(some_text(value, limits::MAX_RESPONDER_BYTES, "responder")?),
                welcome::REAUTH => reauth = Some(schemes(value)?),
                welcome::KEEPALIVE => keepalive = Some(whole(value, |cursor| cursor.millis("keepalive"))?),
                welcome::ROSTER => roster = Some(Roster::decode(value)?),
                welcome::IDLE => idle = Some(whole(value, |cursor| cursor.millis("idle timeout"))?),
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
            reauth,
            roster,
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

/// Signature schemes to the end of the value. spec: HS-25
fn schemes(value: &[u8]) -> Result<Vec<u16>, Malformed> {
    let (mut cursor, mut schemes) = (Cursor::new(value), Vec::new());
    while !cursor.is_empty() {
        let scheme = u16::try_from(cursor.varint()?).map_err(|_| Malformed::Invalid("signature scheme"))?;
        if schemes.len() == limits::MAX_SIGNATURE_SCHEMES {
            return Err(Malformed::Invalid("list of signature schemes"));
        }
        schemes.push(scheme);
    }
    Ok(schemes)
}

impl Refusal {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 3] =
        [("number", refuse::NUMBER), ("retry_after", refuse::RETRY_AFTER), ("reason", refuse::REASON)];

    /// Appends the payload of a REFUSE frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, refuse::NUMBER, |out| varint::encode(out, self.code.number().into()));
        if let Some(wait) = self.retry_after {
            put_field(out, refuse::RETRY_AFTER, |out| varint::encode(out, millis_of(wait)));
        }
        put_field(out, refuse::REASON, |out| {
            out.put_slice(printable(&self.reason, limits::MAX_REASON_BYTES).as_bytes())
        });
    }

    /// Reads the payload of a REFUSE frame. spec: HS-3
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut code, mut retry_after, mut reason) = (None, None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                refuse::NUMBER => {
                    let number = whole(value, Cursor::varint)?;
                    code = Some(RefusalCode::nearest(number).ok_or(Malformed::Invalid("number"))?);
                }
                refuse::RETRY_AFTER => retry_after = Some(whole(value, |cursor| cursor.millis("retry-after"))?),
                refuse::REASON => reason = Some(text(value, limits::MAX_REASON_BYTES, "reason")?),
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
