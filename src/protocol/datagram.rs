//! The header of one QUIC datagram: which flow its payload belongs to. spec: ST-40, ST-41

use bytes::{BufMut, Bytes, BytesMut};

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
    /// Appends flow id and payload.
    pub fn encode(&self, out: &mut BytesMut) {
        varint::encode(out, self.flow);
        out.put_slice(&self.payload);
    }

    /// Reads a whole datagram; the payload shares its memory.
    pub fn decode(datagram: Bytes) -> Result<Self, Malformed> {
        let flow = Cursor::new(&datagram).varint()?;
        Ok(Self { flow, payload: datagram.slice(varint::size(flow)..) })
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
}
