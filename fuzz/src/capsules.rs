//! The capsules of CONNECT-UDP.

use adit::protocol::capsule::{CapsuleError, CapsuleReader, encode_datagram};
use adit::protocol::limits::MAX_DATAGRAM_BYTES;
use bytes::{Bytes, BytesMut};

/// Any split of a stream gives the same datagrams or the same error, none is longer than UDP's longest, and what is read
/// round trips.
///
/// The first byte says how the rest is split.
pub fn capsules(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let whole = read(std::iter::once(bytes));
    let split = read(bytes.chunks(usize::from(choice).max(1)));
    assert_eq!(whole, split, "the split changes the answer");
    let (datagrams, _) = whole;
    assert!(datagrams.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM_BYTES));
    let mut out = BytesMut::new();
    datagrams.iter().for_each(|datagram| encode_datagram(datagram, &mut out));
    assert_eq!(read(std::iter::once(&out[..])), (datagrams, Ok(())));
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, Result<(), CapsuleError>) {
    let (mut reader, mut datagrams) = (CapsuleReader::default(), Vec::new());
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.read() {
                Ok(Some(datagram)) => datagrams.push(datagram),
                Ok(None) => break,
                Err(error) => return (datagrams, Err(error)),
            }
        }
    }
    let end = reader.finish();
    (datagrams, end)
}
