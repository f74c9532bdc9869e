//! The responders of a fleet as they tell them to initiators, and whom an initiator draws among them. spec: HS-26, HS-27, FL-61

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::{BufMut, BytesMut};

use crate::id::{Claim, HostPort, ResponderId};
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, put_field, put_sized, unknown_field, whole};

/// Whom an initiator may dial: at most [`limits::MAX_ROSTER`] go on the wire, in [`limits::MAX_ROSTER_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The sender.
    pub own: Listed,
    /// Those beside it, none of them twice.
    pub siblings: Vec<Listed>,
}

/// One responder of a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the fleet.
    pub id: ResponderId,
    /// Where it stands: 1 to 128 bytes of printable ASCII and space. Another text does not go on the wire.
    pub region: Option<String>,
    /// Its share of the work; 0: it takes no new tunnels.
    pub weight: u16,
    /// Where initiators reach it; at most 16 go on the wire.
    pub addresses: Vec<HostPort>,
}

/// The ids of the fields of each responder.
mod listed {
    pub(super) const ID: u64 = 1;
    pub(super) const REGION: u64 = 2;
    pub(super) const WEIGHT: u64 = 3;
    pub(super) const ADDRESSES: u64 = 4;
}

/// The ids of ROSTER's fields.
mod id {
    pub(super) const ROSTER: u64 = 1;
}

impl Roster {
    /// The ids of ROSTER's fields, by name.
    pub const FIELDS: [(&str, u64); 1] = [("roster", id::ROSTER)];

    /// Everyone, the sender first.
    pub fn all(&self) -> impl Iterator<Item = &Listed> {
        std::iter::once(&self.own).chain(&self.siblings)
    }

    /// Appends the value of the field: as many, in their order, as there is room for.
    pub fn encode(&self, out: &mut BytesMut) {
        let begin = out.len();
        let mut one = BytesMut::new();
        for listed in self.all().take(limits::MAX_ROSTER) {
            one.clear();
            listed.encode(&mut one);
            if out.len() - begin + varint::size(one.len() as u64) + one.len() > limits::MAX_ROSTER_BYTES {
                break;
            }
            put_sized(out, &one);
        }
    }

    /// Reads the value of the field. spec: HS-26
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        if value.len() > limits::MAX_ROSTER_BYTES {
            return Err(Malformed::Invalid("length of the roster"));
        }
        let mut cursor = Cursor::new(value);
        let own = Listed::decode(cursor.sized()?)?;
        let (mut known, mut siblings) = (HashSet::from([own.id.clone()]), Vec::new());
        while !cursor.is_empty() {
            let sibling = Listed::decode(cursor.sized()?)?;
            if known.len() == limits::MAX_ROSTER || !known.insert(sibling.id.clone()) {
                return Err(Malformed::Invalid("roster"));
            }
            siblings.push(sibling);
        }
        Ok(Self { own, siblings })
    }
}

/// Appends the payload of a ROSTER frame: none where there is no fleet. spec: CT-62
pub(crate) fn put_roster(out: &mut BytesMut, roster: Option<&Roster>) {
    if let Some(roster) = roster {
        put_field(out, id::ROSTER, |out| roster.encode(out));
    }
}

/// Reads the payload of a ROSTER frame. spec: CT-62
pub(crate) fn read_roster(payload: &[u8]) -> Result<Option<Roster>, Malformed> {
    let (mut fields, mut roster) = (Fields::new(payload), None);
    while let Some((field, value)) = fields.next()? {
        match field {
            id::ROSTER => roster = Some(Roster::decode(value)?),
            other => unknown_field(other)?,
        }
    }
    Ok(roster)
}

impl Listed {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 4] =
        [("id", listed::ID), ("region", listed::REGION), ("weight", listed::WEIGHT), ("addresses", listed::ADDRESSES)];

    fn encode(&self, out: &mut BytesMut) {
        put_field(out, listed::ID, |out| out.put_slice(self.id.as_str().as_bytes()));
        if let Some(region) = self.region.as_ref().filter(|region| is_region(region.as_bytes())) {
            put_field(out, listed::REGION, |out| out.put_slice(region.as_bytes()));
        }
        put_field(out, listed::WEIGHT, |out| varint::encode(out, self.weight.into()));
        if !self.addresses.is_empty() {
            put_field(out, listed::ADDRESSES, |out| {
                for address in self.addresses.iter().take(limits::MAX_ROSTER_ADDRESSES) {
                    put_sized(out, address.to_string().as_bytes());
                }
            });
        }
    }

    fn decode(fields: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(fields);
        let (mut id, mut region, mut weight, mut addresses) = (None, None, None, Vec::new());
        while let Some((field, value)) = fields.next()? {
            match field {
                listed::ID => id = Some(read_id(value)?),
                listed::REGION if is_region(value) => region = Some(String::from_utf8_lossy(value).into_owned()),
                listed::REGION => return Err(Malformed::Invalid("region")),
                listed::WEIGHT => {
                    let number = whole(value, Cursor::varint)?;
                    weight = Some(u16::try_from(number).map_err(|_| Malformed::Invalid("weight"))?);
                }
                listed::ADDRESSES => addresses = read_addresses(value)?,
                other => unknown_field(other)?,
            }
        }
        Ok(Self {
            id: id.ok_or(Malformed::Missing("responder id"))?,
            region,
            weight: weight.ok_or(Malformed::Missing("weight"))?,
            addresses,
        })
    }

    /// How much a node wants its tunnels elsewhere: of several responders it prefers those with the lowest numbers. Each is
    /// lowest for as many nodes as its weight says, and stays what it is whoever else comes or goes. Infinite without a
    /// weight. spec: FL-61
    pub fn distance(&self, claim: &Claim) -> f64 {
        let parts = [claim.tenant.as_str(), claim.node.as_str(), self.id.as_str()];
        let hash = mixed(parts.iter().fold(FNV_OFFSET, |hash, part| fnv(fnv(hash, part.as_bytes()), &[0])));
        // The middle of one of 2^53 equal parts of the space between 0 and 1.
        let drawn = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -drawn.ln() / f64::from(self.weight)
    }
}

/// spec: FL-2
fn read_id(value: &[u8]) -> Result<ResponderId, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed::Invalid("responder id"))?;
    ResponderId::new(text).map_err(|error| Malformed::Id("responder id", error))
}

/// spec: HS-27
fn read_addresses(value: &[u8]) -> Result<Vec<HostPort>, Malformed> {
    let (mut cursor, mut addresses) = (Cursor::new(value), Vec::new());
    while !cursor.is_empty() {
        let text = std::str::from_utf8(cursor.sized()?).map_err(|_| Malformed::Invalid("address"))?;
        let address: HostPort = text.parse().map_err(|_| Malformed::Invalid("address"))?;
        // One form each, as everywhere.
        if address.to_string() != text || addresses.len() == limits::MAX_ROSTER_ADDRESSES {
            return Err(Malformed::Invalid("address"));
        }
        addresses.push(address);
    }
    if addresses.is_empty() { Err(Malformed::Invalid("address")) } else { Ok(addresses) }
}

fn is_region(text: &[u8]) -> bool {
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    (1..=limits::MAX_REGION_BYTES).contains(&text.len()) && text.iter().all(is_printable)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads what differs in the last bytes over all bits, as MurmurHash3 ends.
const fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
