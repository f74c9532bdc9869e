//! The header of one QUIC datagram: which flow its payload belongs to. spec: ST-40, ST-41

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Malformed};

/// One UDP payload of a flow. spec: ST-40
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The flow it belongs to; at most 2^62 - 1.
    pub flow: u64,
    /// The payload, possibly empty.
    pub payload: Bytes,
}

impl Datagram {
    /// How many bytes a datagram of this flow takes beside its payload.
    pub const fn overhead(flow: u64) -> usize {
        varint::size(flow)
    }

    /// Appends flow id and payload.
    pub fn encode(&self, out: &mut BytesMut) {
        varint::encode(out, self.flow);
        out.put_slice(&self.payload);
    }

    /// Reads a whole datagram; the payload shares its memory. One beyond 65,527 bytes is an error.
    pub fn decode(datagram: Bytes) -> Result<Self, Malformed> {
        let flow = Cursor::new(&datagram).varint()?;
        let payload = datagram.slice(Self::overhead(flow)..);
        if payload.len() > limits::MAX_DATAGRAM_BYTES {
            return Err(Malformed::Invalid("length"));
        }
        Ok(Self { flow, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ST-40
    #[test]
    fn a_datagram_round_trips_and_an_empty_one_is_an_error() {
        let datagram = Datagram { flow: 70, payload: Bytes::from_static(b"dns") };
        let mut out = BytesMut::new();
        datagram.encode(&mut out);
        assert_eq!(&out[..], b"\x40\x46dns");
        assert_eq!(Datagram::decode(out.freeze()), Ok(datagram));
        assert_eq!(Datagram::decode(Bytes::new()), Err(Malformed::Short));
    }

    // spec: ST-40
    #[test]
    fn a_datagram_carries_what_udp_can_carry_and_no_more() {
        let decode =
            |length: usize| Datagram::decode(vec![0; 1 + length].into()).map(|datagram| datagram.payload.len());
        assert_eq!(decode(limits::MAX_DATAGRAM_BYTES), Ok(limits::MAX_DATAGRAM_BYTES));
        assert_eq!(decode(limits::MAX_DATAGRAM_BYTES + 1), Err(Malformed::Invalid("length")));
    }
}
