use bytes::BytesMut;

use super::*;
use crate::protocol::code::RefusalCode;

fn greeting() -> Greeting {
    Greeting { responder: "r1".parse().unwrap(), epoch: 7, limits: PeerLimits::default(), here: true }
}

fn route() -> Route {
    Route { tenant: "acme".parse().unwrap(), host_id: "edge-17".parse().unwrap(), affinity: Some(9) }
}

// spec: FL-33
#[test]
fn a_greeting_is_taken_once_it_is_whole_and_leaves_what_follows() {
    let (mut sent, mut received) = (BytesMut::new(), BytesMut::new());
    greeting().encode(&mut sent);
    let length = sent.len();
    sent.extend_from_slice(b"more");
    for (at, byte) in sent.iter().enumerate().take(length) {
        assert_eq!(Greeted::take(&mut received), Ok(None), "after {at} bytes");
        received.extend_from_slice(&[*byte]);
    }
    received.extend_from_slice(b"more");
    assert_eq!(Greeted::take(&mut received), Ok(Some(Greeted::By(greeting()))));
    assert_eq!(received, "more");
}

// spec: FL-34
#[test]
fn a_refusal_may_stand_in_the_place_of_a_greeting_and_nothing_else_may() {
    let refusal = Refusal { code: RefusalCode::Forbidden, reason: "no".into(), retry_after: None };
    let mut received = BytesMut::new();
    encode_refusal(&refusal, &mut received);
    assert_eq!(Greeted::take(&mut received), Ok(Some(Greeted::Refused(refusal))));
    assert_eq!(Greeted::take(&mut BytesMut::from(&b"\x01\x00"[..])), Err(GreetingError::Unexpected(1)));
    let long = Greeted::take(&mut BytesMut::from(&b"\x13\x80\x01\x00\x01"[..]));
    assert_eq!(long, Err(GreetingError::TooLong(65537)), "before any of it is kept");
}

// spec: FL-41, FL-43
#[test]
fn a_route_is_read_once_it_is_whole() {
    let mut sent = BytesMut::new();
    route().encode(&mut sent);
    for end in 0..sent.len() {
        assert_eq!(Route::read(&sent[..end]), Ok(None), "{end} bytes");
    }
    let length = sent.len();
    sent.extend_from_slice(&[1]);
    assert_eq!(Route::read(&sent), Ok(Some((route(), length))));
}

// spec: FL-42
#[test]
fn a_second_hop_is_malformed() {
    let mut sent = BytesMut::new();
    route().encode(&mut sent);
    sent[2] = 2;
    assert_eq!(Route::read(&sent), Err(Malformed::Invalid("number of hops").into()));
}

// spec: FL-40, FL-41
#[test]
fn another_type_and_a_route_that_is_too_long_are_known_from_their_first_bytes() {
    assert_eq!(Route::read(b"\x01"), Err(StreamError::UnknownType(1)));
    assert!(matches!(Route::read(b"\x07\x44\x01"), Err(StreamError::Limit { actual: 1025, .. })));
}
