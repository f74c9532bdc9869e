//! WELCOME and REFUSE: the responder's two answers. spec: HS-2, HS-3

use bytes::{BufMut, BytesMut};

use crate::id::TunnelId;
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::{PeerLimits, Refusal, Welcome, some_text};
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, millis_of, printable, put_field, text, unknown_field, whole};

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
