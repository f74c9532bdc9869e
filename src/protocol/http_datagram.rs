//! HTTP Datagrams as QUIC carries them: behind a number that says to which request they belong. RFC 9297 section 2.1
//!
//! What is behind that number, a Context ID and a UDP datagram, is the value of a [capsule](super::capsule), too. Without I/O.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::protocol::capsule::encode_value;
use crate::protocol::varint;

/// The highest number that may stand before a datagram: a quarter of the highest stream.
const MAX_QUARTER: u64 = (1 << 60) - 1;

/// Why a QUIC datagram ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a QUIC datagram names no stream of a request; expected a quarter of its id in front")]
pub struct NoStream;

/// The stream of the request, and what is there for it: nothing that need be well-formed.
///
/// # Errors
/// [`NoStream`]: there is no whole number in front, or one that is none of a stream.
pub fn decode(mut datagram: Bytes) -> Result<(u64, Bytes), NoStream> {
    let number = varint::decode_any(&datagram).filter(|(quarter, _)| *quarter <= MAX_QUARTER);
    let (quarter, size) = number.ok_or(NoStream)?;
    datagram.advance(size);
    Ok((quarter * 4, datagram))
}

/// Whether such a value has a Context ID. One without it is nobody's.
pub fn has_context(value: &[u8]) -> bool {
    varint::decode_any(value).is_some()
}

/// A UDP datagram for the request on this stream, one that a client has opened.
pub fn encode(stream: u64, payload: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(16 + payload.len());
    varint::encode(&mut datagram, stream / 4);
    encode_value(payload, &mut datagram);
    datagram.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_as_it_was_written() {
        for stream in [0, 4, 256, 4 * MAX_QUARTER] {
            let (of, value) = decode(encode(stream, b"hello")).unwrap();
            assert_eq!((of, &value[..]), (stream, &b"\0hello"[..]));
            assert!(has_context(&value));
        }
        assert_eq!(&encode(8, b"x")[..], b"\x02\0x");
    }

    #[test]
    fn what_names_no_stream_is_refused_and_what_has_no_context_is_told_apart() {
        let beyond = (MAX_QUARTER + 1) | 0xc000_0000_0000_0000;
        for bad in [&b""[..], b"\x40", b"\xc0\0\0\0\0\0\0", &beyond.to_be_bytes()] {
            assert_eq!(decode(Bytes::copy_from_slice(bad)), Err(NoStream), "{bad:?}");
        }
        // A number may be longer than it needs to be.
        for (bytes, has) in [(&b"\x40\x01"[..], false), (b"\x01\x40", false), (b"\x01\0", true)] {
            let (stream, value) = decode(Bytes::copy_from_slice(bytes)).unwrap();
            assert_eq!((stream, has_context(&value)), (4, has), "{bytes:?}");
        }
    }
}
