//! Messages on a request stream.

use adit::protocol::limits::Limits;
use adit::protocol::stream;
use adit::protocol::stream::{Event, MessageReader, ResponseHead, Role, StreamError};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

/// Any split of a stream gives the same parts or the same error, and a whole message round trips.
///
/// The first byte chooses: bit 0 the role, bit 1 narrow limits, the others how the rest is split.
pub fn stream_header(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Request } else { Role::Response };
    let limits = if choice & 2 == 0 { Limits::default() } else { Limits { head_bytes: 64, head_fields: 3 } };
    let whole = read(role, limits, std::iter::once(bytes));
    let split = read(role, limits, bytes.chunks(usize::from(choice >> 2).max(1)));
    assert_eq!(whole, split, "the split changes the answer");
    if let (events, Ok(())) = whole {
        assert_eq!(read(role, limits, std::iter::once(&encode(&events)[..])), (events, Ok(())));
    }
}

/// Reads a response with these fields in its trailers, which must be these fields.
pub(crate) fn crosses_unchanged(fields: HeaderMap) {
    let limits = Limits { head_bytes: usize::MAX, head_fields: usize::MAX };
    let head = ResponseHead { status: StatusCode::OK, fields };
    let expected = vec![Event::Response(head, true)];
    let bytes = encode(&expected);
    assert_eq!(read(Role::Response, limits, std::iter::once(&bytes[..])), (expected, Ok(())));
}

/// What a stream that finishes after these chunks gives; neighbouring pieces of the body are put together.
fn read<'a>(
    role: Role,
    limits: Limits,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Event>, Result<(), StreamError>) {
    let (mut reader, mut events) = (MessageReader::new(role, limits), Vec::new());
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

fn append(events: &mut Vec<Event>, event: Event) {
    match (events.last_mut(), event) {
        (Some(Event::Data(before)), Event::Data(more)) => *before = [&before[..], &more[..]].concat().into(),
        (_, event) => events.push(event),
    }
}

fn encode(events: &[Event]) -> BytesMut {
    let mut out = BytesMut::new();
    for event in events {
        match event {
            Event::Request(head, end) => {
                stream::encode_request(&**head, *end, &mut out);
            }
            Event::Response(head, end) => {
                stream::encode_response(head, *end, &mut out);
            }
            Event::Here => stream::encode_here(&mut out),
            Event::Info(head) => {
                stream::encode_info(head, &mut out);
            }
            Event::Data(data) => {
                stream::encode_data_header(data.len() as u64, &mut out);
                out.put_slice(data);
            }
            Event::Trailers(fields) => {
                stream::encode_trailers(fields, &mut out);
            }
            Event::End => stream::encode_end(&mut out),
        }
    }
    out
}
