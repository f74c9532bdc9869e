//! Vectors of raw streams and flows.

use adit::protocol::stream;
use adit::protocol::stream::{Open, ServiceEvent, ServiceReader, StreamError};
use bytes::{BufMut, Bytes, BytesMut};
use toml::{Table, Value};

use super::{Outcome, failure, hex, insert_some, table};

/// What a stream gives that finishes after these bytes, which must not depend on how they are cut.
pub(super) fn decode(reader: impl Fn() -> ServiceReader, bytes: &[u8]) -> Outcome {
    let whole = read(reader(), &[bytes]);
    let single_bytes: Vec<&[u8]> = bytes.chunks(1).collect();
    let in_single_bytes = read(reader(), &single_bytes);
    assert_eq!(in_single_bytes, whole, "the split changes the answer");
    let events = whole.map_err(|error| failure(error.code(), &error))?;
    let mut out = BytesMut::new();
    events.iter().for_each(|event| encode(event, &mut out));
    Ok((Value::Array(events.iter().map(describe).map(Value::Table).collect()), out.to_vec()))
}

/// Neighbouring pieces of DATA are put together: how it is cut depends on how it arrives.
fn read(mut reader: ServiceReader, chunks: &[&[u8]]) -> Result<Vec<ServiceEvent>, StreamError> {
    let mut events: Vec<ServiceEvent> = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = reader.next()? {
            match (events.last_mut(), event) {
                (Some(ServiceEvent::Data(before)), ServiceEvent::Data(more)) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
    }
    reader.finish()?;
    Ok(events)
}

fn encode(event: &ServiceEvent, out: &mut BytesMut) {
    match event {
        ServiceEvent::Open(open) => stream::encode_open(open, out),
        ServiceEvent::Opened => stream::encode_opened(out),
        ServiceEvent::Refused(refused) => stream::encode_refused(refused, out),
        ServiceEvent::Data(data) => {
            stream::encode_data_header(data.len() as u64, out);
            out.put_slice(data);
        }
        ServiceEvent::Datagram(datagram) => {
            stream::encode_datagram_header(datagram.len(), out);
            out.put_slice(datagram);
        }
        ServiceEvent::End => stream::encode_end(out),
    }
}

fn describe(event: &ServiceEvent) -> Table {
    match event {
        ServiceEvent::Open(Open { service, flow, client }) => {
            let mut open = table([("event", "open".into()), ("service", service.as_str().into())]);
            insert_some(&mut open, "flow", flow.map(|flow| flow as i64));
            insert_some(&mut open, "client", client.map(|client| client.to_string()));
            open
        }
        ServiceEvent::Opened => table([("event", "opened".into())]),
        ServiceEvent::Refused(refused) => table([
            ("event", "refused".into()),
            ("cause", refused.cause.label().into()),
            ("reason", refused.reason.as_str().into()),
        ]),
        ServiceEvent::Data(data) => table([("event", "data".into()), ("bytes", hex(data))]),
        ServiceEvent::Datagram(data) => table([("event", "datagram".into()), ("bytes", hex(data))]),
        ServiceEvent::End => table([("event", "end".into())]),
    }
}
