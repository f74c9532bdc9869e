//! HEALTH: which services of an initiator have a target that cannot be had now. spec: CT-58, CT-59

use std::collections::HashSet;

use bytes::BytesMut;

use crate::id::ServiceName;
use crate::protocol::code::DownCause;
use crate::protocol::handshake::identifier;
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, put_field, put_sized, unknown_field};

/// A service that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Its name.
    pub service: ServiceName,
    /// Why.
    pub cause: DownCause,
}

/// What HEALTH says: these services are down, and no others. At most [`limits::MAX_SERVICES`] go on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Each named once.
    pub down: Vec<Down>,
}

/// The ids of HEALTH's fields.
mod id {
    pub(super) const DOWN: u64 = 1;
}

impl Health {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 1] = [("down", id::DOWN)];

    /// Appends the payload of a HEALTH frame: none, where nothing is down.
    pub fn encode(&self, out: &mut BytesMut) {
        if self.down.is_empty() {
            return;
        }
        put_field(out, id::DOWN, |out| {
            for Down { service, cause } in self.down.iter().take(limits::MAX_SERVICES) {
                varint::encode(out, cause.number().into());
                put_sized(out, service.as_str().as_bytes());
            }
        });
    }

    /// Reads the payload of a HEALTH frame. A cause that is not known here is one all the same. spec: CT-58, CT-59
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let mut down = Vec::new();
        while let Some((field, value)) = fields.next()? {
            match field {
                id::DOWN => down = read_down(value)?,
                other => unknown_field(other)?,
            }
        }
        Ok(Self { down })
    }
}

fn read_down(value: &[u8]) -> Result<Vec<Down>, Malformed> {
    let mut cursor = Cursor::new(value);
    let (mut names, mut down) = (HashSet::new(), Vec::new());
    while !cursor.is_empty() {
        let cause = DownCause::from_number(cursor.varint()?).unwrap_or(DownCause::Failed);
        let name = cursor.sized()?;
        if down.len() == limits::MAX_SERVICES || !names.insert(name) {
            return Err(Malformed::Invalid("down"));
        }
        down.push(Down { service: identifier(name, "service name", ServiceName::new)?, cause });
    }
    if down.is_empty() { Err(Malformed::Invalid("down")) } else { Ok(down) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(name: &str) -> Down {
        Down { service: name.parse().unwrap(), cause: DownCause::TargetRefused }
    }

    fn encoded(health: &Health) -> BytesMut {
        let mut out = BytesMut::new();
        health.encode(&mut out);
        out
    }

    #[test]
    fn what_is_said_is_what_is_read() {
        for names in [&[][..], &["api"], &["api", "ssh"]] {
            let health = Health { down: names.iter().map(|name| down(name)).collect() };
            assert_eq!(Health::decode(&encoded(&health)), Ok(health));
        }
    }

    // spec: CT-59
    #[test]
    fn a_cause_of_a_later_version_is_one_all_the_same() {
        let read = Health::decode(&[1, 5, 0x3f, 3, b'a', b'p', b'i']).unwrap();
        assert_eq!(read.down, [Down { cause: DownCause::Failed, ..down("api") }]);
    }

    // spec: CT-58
    #[test]
    fn no_more_services_are_named_than_there_may_be() {
        let many = |count: usize| Health { down: (0..count).map(|nth| down(&format!("s{nth}"))).collect() };
        assert_eq!(Health::decode(&encoded(&many(257))).unwrap().down.len(), 256);
        let mut value = BytesMut::new();
        for Down { service, cause } in &many(257).down {
            varint::encode(&mut value, cause.number().into());
            put_sized(&mut value, service.as_str().as_bytes());
        }
        let mut payload = BytesMut::new();
        put_field(&mut payload, id::DOWN, |out| out.extend_from_slice(&value));
        assert_eq!(Health::decode(&payload), Err(Malformed::Invalid("down")));
    }
}
