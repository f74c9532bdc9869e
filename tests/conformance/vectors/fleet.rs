//! What siblings say: the first frame of the control stream, and where a stream goes.

use adit::protocol::fleet::{Greeted, Route, encode_refusal};
use bytes::BytesMut;
use toml::{Table, Value};

use super::{Outcome, failure};

pub(super) fn decode_greeting(bytes: &[u8]) -> Outcome {
    let mut received = BytesMut::from(bytes);
    let greeted = Greeted::take(&mut received).map_err(|error| failure("protocol", error))?;
    let greeted = greeted.ok_or_else(|| failure("incomplete", ""))?;
    assert!(received.is_empty());
    let (mut value, mut out) = (Table::new(), BytesMut::new());
    match greeted {
        Greeted::By(greeting) => {
            value.insert("responder".into(), greeting.responder.as_str().into());
            value.insert("epoch".into(), Value::from(greeting.epoch as i64));
            value.insert("head_bytes".into(), Value::from(i64::from(greeting.limits.head_bytes)));
            value.insert("head_fields".into(), Value::from(i64::from(greeting.limits.head_fields)));
            if greeting.here {
                value.insert("here".into(), true.into());
            }
            greeting.encode(&mut out);
        }
        Greeted::Refused(refusal) => {
            value.insert("refused".into(), Value::from(i64::from(refusal.code.number())));
            value.insert("reason".into(), refusal.reason.as_str().into());
            encode_refusal(&refusal, &mut out);
        }
    }
    Ok((Value::Table(value), out.to_vec()))
}

pub(super) fn decode_route(bytes: &[u8]) -> Outcome {
    let read = Route::read(bytes).map_err(|error| failure(error.code(), error))?;
    let (route, length) = read.ok_or_else(|| failure("incomplete", ""))?;
    assert_eq!(length, bytes.len());
    let (mut value, mut out) = (Table::new(), BytesMut::new());
    value.insert("tenant".into(), route.tenant.as_str().into());
    value.insert("host_id".into(), route.host_id.as_str().into());
    if let Some(affinity) = route.affinity {
        value.insert("affinity".into(), Value::from(affinity as i64));
    }
    route.encode(&mut out);
    Ok((Value::Table(value), out.to_vec()))
}
