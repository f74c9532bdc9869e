//! The datagrams of HTTP/3.

use adit::protocol::capsule::{CapsuleReader, encode_capsule};
use adit::protocol::http_datagram::{self, NoStream};
use adit::protocol::limits::MAX_DATAGRAM_BYTES;
use bytes::{Bytes, BytesMut};

/// A datagram is of the stream that a naive reader finds, with the rest of its bytes, and refused where that finds none. What is
/// for a UDP datagram comes out of the capsule that it goes on in, and is written to what reads the same.
pub fn http_datagram(data: &[u8]) {
    let read = http_datagram::decode(Bytes::copy_from_slice(data));
    // The length is in the first two bits, and the highest number is a quarter of the highest of a stream.
    let expected = number(data).filter(|(quarter, _)| *quarter < 1 << 60);
    let (stream, value) = match (read, expected) {
        (Ok(read), Some((quarter, rest))) => {
            assert_eq!((read.0, &read.1[..]), (quarter * 4, rest));
            read
        }
        (read, expected) => return assert_eq!((read, expected), (Err(NoStream), None)),
    };
    assert_eq!(http_datagram::has_context(&value), number(&value).is_some());
    let Some((context, payload)) = number(&value) else { return };
    let mut capsule = BytesMut::new();
    encode_capsule(&value, &mut capsule);
    let mut reader = CapsuleReader::default();
    reader.push(&capsule);
    let carried = reader.read();
    if context != 0 || payload.len() > MAX_DATAGRAM_BYTES {
        return assert!(!matches!(carried, Ok(Some(_))), "{context}: {carried:?}");
    }
    assert_eq!(carried, Ok(Some(Bytes::copy_from_slice(payload))));
    let written = http_datagram::decode(http_datagram::encode(stream, payload)).expect("what was written");
    assert_eq!(written.0, stream);
    assert_eq!(number(&written.1), Some((0, payload)));
}

/// A variable-length integer from the front, in any of its forms, and what is behind it. RFC 9000 section 16
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 << (bytes.first()? >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let value = number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((value & (u64::MAX >> (64 - (8 * length - 2))), rest))
}
