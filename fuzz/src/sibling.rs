//! What siblings of a fleet say before that of a tunnel.

use adit::protocol::fleet::{Greeted, Greeting, Route, encode_refusal};
use bytes::BytesMut;

/// A greeting and a route are read from as many bytes as they have and from no fewer, and have one form, which reads the same.
///
/// The first byte says which of the two is read.
pub fn sibling(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    if choice & 1 == 0 { greeting(bytes) } else { route(bytes) }
}

fn greeting(bytes: &[u8]) {
    let mut received = BytesMut::from(bytes);
    let Ok(Some(greeted)) = Greeted::take(&mut received) else { return };
    let length = bytes.len() - received.len();
    assert_eq!(Greeted::take(&mut BytesMut::from(&bytes[..length - 1])), Ok(None));
    let mut out = BytesMut::new();
    match &greeted {
        Greeted::By(greeting) => Greeting::encode(greeting, &mut out),
        Greeted::Refused(refusal) => encode_refusal(refusal, &mut out),
    }
    assert_eq!(Greeted::take(&mut out), Ok(Some(greeted)));
    assert!(out.is_empty());
}

fn route(bytes: &[u8]) {
    let Ok(Some((route, length))) = Route::read(bytes) else { return };
    assert_eq!(Route::read(&bytes[..length - 1]), Ok(None));
    let mut out = BytesMut::new();
    route.encode(&mut out);
    assert_eq!(Route::read(&out), Ok(Some((route, out.len()))));
}
