//! Raw streams and flows.

use adit::protocol::stream;
use adit::protocol::stream::{ServiceEvent, ServiceReader, StreamError, StreamType};
use bytes::{BufMut, Bytes, BytesMut};

/// Any split of a stream gives the same parts or the same error, and a whole stream round trips.
///
/// The first byte chooses: bits 0 and 1 who reads, the others how the rest is split.
pub fn service_stream(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let reader = || match choice & 3 {
        0 => ServiceReader::of_requests(),
        1 => ServiceReader::of_answers(StreamType::Raw),
        2 => ServiceReader::of_answers(StreamType::Flow),
        _ => ServiceReader::of_datagrams(),
    };
    let whole = read(reader(), std::iter::once(bytes));
    let split = read(reader(), bytes.chunks(usize::from(choice >> 2).max(1)));
    assert_eq!(whole, split, "the split changes the answer");
    if let (events, Ok(())) = whole {
        assert_eq!(read(reader(), std::iter::once(&encode(&events)[..])), (events, Ok(())));
    }
}

/// What a stream that finishes after these chunks gives; neighbouring pieces of DATA are put together.
fn read<'a>(
    mut reader: ServiceReader,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<ServiceEvent>, Result<(), StreamError>) {
    let mut events = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next() {
                Ok(Some(event)) => append(&mut events, event),
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
    }
    (events, reader.finish())
}

fn append(events: &mut Vec<ServiceEvent>, event: ServiceEvent) {
    match (events.last_mut(), event) {
        (Some(ServiceEvent::Data(before)), ServiceEvent::Data(more)) => {
            *before = [&before[..], &more[..]].concat().into();
        }
        (_, event) => events.push(event),
    }
}

fn encode(events: &[ServiceEvent]) -> BytesMut {
    let mut out = BytesMut::new();
    for event in events {
        match event {
            ServiceEvent::Open(open) => stream::encode_open(open, &mut out),
            ServiceEvent::Opened => stream::encode_opened(&mut out),
            ServiceEvent::Refused(refused) => stream::encode_refused(refused, &mut out),
            ServiceEvent::Data(data) => {
                stream::encode_data_header(data.len() as u64, &mut out);
                out.put_slice(data);
            }
            ServiceEvent::Datagram(datagram) => {
                stream::encode_datagram_header(datagram.len(), &mut out);
                out.put_slice(datagram);
            }
            ServiceEvent::End => stream::encode_end(&mut out),
        }
    }
    out
}
