//! Messages round trip, every split of their bytes reads the same, and what breaks a rule is an error.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::limits::Limits;

fn request() -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTP,
        authority: "shop.example:8080".into(),
        path: "/items?id=7".into(),
        service: None,
        protocol: None,
        fields: [(http::header::ACCEPT, HeaderValue::from_static("*/*"))].into_iter().collect(),
    }
}

fn read_all(role: Role, limits: Limits, chunks: &[&[u8]]) -> Result<Vec<Event>, StreamError> {
    let mut reader = MessageReader::new(role, limits);
    let mut events: Vec<Event> = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = reader.next()? {
            match (events.last_mut(), event) {
                (Some(Event::Data(before)), Event::Data(more)) => *before = [&before[..], &more[..]].concat().into(),
                (_, event) => events.push(event),
            }
        }
    }
    reader.finish()?;
    Ok(events)
}

fn read_request(bytes: &[u8]) -> Result<Vec<Event>, StreamError> {
    read_all(Role::Request, Limits::default(), &[bytes])
}

fn read_response(bytes: &[u8]) -> Result<Vec<Event>, StreamError> {
    read_all(Role::Response, Limits::default(), &[bytes])
}

/// A request stream with this payload of HEAD.
fn head_frame(payload: &[u8]) -> Vec<u8> {
    [&[0x01, 0x01, payload.len() as u8][..], payload].concat()
}

/// The head of a request that has a body, with these fields in wire form.
fn with_fields(fields: &[u8]) -> Vec<u8> {
    head_frame(&[b"\x00\x01\x01\x01a\x01/", fields].concat())
}

// spec: ST-9
#[test]
fn a_stream_that_ends_before_end_is_truncated() {
    let mut out = BytesMut::new();
    encode_request(&request(), false, &mut out);
    assert_eq!(read_request(&out), Err(StreamError::Truncated));
    encode_data_header(5, &mut out);
    out.put_slice(b"12");
    assert_eq!(read_request(&out), Err(StreamError::Truncated));
    out.put_slice(b"345");
    assert_eq!(read_request(&out), Err(StreamError::Truncated));
    encode_end(&mut out);
    assert_eq!(read_request(&out).map(|events| events.len()), Ok(3));
    out.put_u8(0);
    assert_eq!(read_request(&out), Err(StreamError::AfterEnd));
}

// spec: ST-6, SE-5
#[test]
fn a_head_beyond_the_limit_is_rejected_by_its_length_alone() {
    let limits = Limits { head_bytes: 100, head_fields: 3 };
    let mut reader = MessageReader::new(Role::Request, limits);
    reader.push(Bytes::from_static(b"\x01\x01\x40\x65"));
    let error = StreamError::Limit { what: "the length of a head", actual: 101, max: 100 };
    assert_eq!(reader.next(), Err(error.clone()));
    assert_eq!(reader.next(), Err(error.clone()), "an error repeats");
    assert_eq!(reader.finish(), Err(error));
}

// spec: ST-7
#[test]
fn one_field_too_many_is_rejected() {
    let limits = Limits { head_bytes: 1000, head_fields: 2 };
    let two = with_fields(b"\x01\x01x\x01\x01x");
    assert!(read_all(Role::Request, limits, &[&two, b"\x09\x00"]).is_ok());
    let three = with_fields(b"\x01\x01x\x01\x01x\x01\x01x");
    let error = read_all(Role::Request, limits, &[&three]).unwrap_err();
    assert_eq!(error, StreamError::Limit { what: "the number of fields", actual: 3, max: 2 });
    assert_eq!(error.code(), StreamCode::Limit);
}

// spec: SE-5
#[test]
fn a_promised_length_reserves_nothing() {
    let limits = Limits { head_bytes: 1 << 30, head_fields: 100 };
    let mut reader = MessageReader::new(Role::Response, limits);
    reader.push(Bytes::from_static(b"\x01\x80\xff\xff\xff\x00"));
    assert_eq!(reader.next(), Ok(None));
    assert!(reader.held_capacity() < 1024, "{} bytes held for one byte received", reader.held_capacity());
}

#[test]
fn data_shares_the_memory_it_came_in() {
    let mut out = BytesMut::new();
    encode_response(&ResponseHead { status: StatusCode::OK, fields: HeaderMap::new() }, false, &mut out);
    encode_data_header(4, &mut out);
    out.put_slice(b"body");
    let received = out.freeze();
    let mut reader = MessageReader::new(Role::Response, Limits::default());
    reader.push(received.clone());
    assert!(matches!(reader.next(), Ok(Some(Event::Response(_, false)))));
    let Ok(Some(Event::Data(data))) = reader.next() else { panic!("expected DATA") };
    assert_eq!(data.as_ptr_range().end, received.as_ptr_range().end);
}

// spec: ST-22, ST-23
#[test]
fn what_is_empty_has_no_frame() {
    let mut out = BytesMut::new();
    encode_data_header(0, &mut out);
    encode_trailers(&HeaderMap::new(), &mut out);
    encode_trailers(&[(http::header::HOST, HeaderValue::from_static("a"))].into_iter().collect(), &mut out);
    assert!(out.is_empty());
}

// spec: ST-17, ST-18, ST-19
#[test]
fn a_sender_leaves_out_what_must_not_cross_and_trims_values() {
    let mut head = request();
    for (name, value) in [("host", "b"), ("connection", "close"), ("te", "gzip"), ("x-padded", " v\t")] {
        head.fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let mut out = BytesMut::new();
    encode_request(&head, true, &mut out);
    let mut expected = request();
    expected.fields.insert("x-padded", HeaderValue::from_static("v"));
    assert_eq!(read_request(&out), Ok(vec![Event::Request(Box::new(expected), true)]));
}

// spec: SE-7
#[test]
fn credentials_are_marked_as_secret() {
    let bytes = with_fields(b"\x11\x01x\x1b\x01x\x01\x01x");
    let events = read_request(&[&bytes[..], &[0x09, 0x00]].concat());
    let Ok([Event::Request(head, false), Event::End]) = events.as_deref() else { panic!("{events:?}") };
    assert!(head.fields["authorization"].is_sensitive());
    assert!(head.fields["cookie"].is_sensitive());
    assert!(!head.fields["accept"].is_sensitive());
}

// spec: ST-8
#[test]
fn only_the_order_of_a_message_is_accepted() {
    let part = |name: char| -> &[u8] {
        match name {
            'H' => b"\x01\x03\x00\x40\xc8",
            'I' => b"\x05\x02\x40\x67",
            'D' => b"\x03\x01x",
            'T' => b"\x07\x03\x01\x01x",
            'E' => b"\x09\x00",
            'S' => b"\x02\x02zz",
            _ => unreachable!(),
        }
    };
    let message = |names: &str| names.chars().flat_map(|name| part(name).to_vec()).collect::<Vec<u8>>();
    for whole in ["HE", "IHE", "IIHDDTE", "HTE", "SHSDSTSE"] {
        assert!(read_response(&message(whole)).is_ok(), "{whole}");
    }
    for (wrong, frame) in [
        ("DHE", FrameType::Data),
        ("E", FrameType::End),
        ("T", FrameType::Trailers),
        ("HIE", FrameType::Info),
        ("HHE", FrameType::Head),
        ("HTDE", FrameType::Data),
        ("HTTE", FrameType::Trailers),
    ] {
        assert_eq!(read_response(&message(wrong)), Err(StreamError::Order(frame)), "{wrong}");
    }
    assert_eq!(read_response(&message("HES")), Err(StreamError::AfterEnd));
    let interim_request = [&[0x01][..], &message("I")].concat();
    assert_eq!(read_request(&interim_request), Err(StreamError::Order(FrameType::Info)));
}

// spec: ST-24
#[test]
fn a_request_must_keep_what_its_content_length_promises() {
    let three = with_fields(b"\x16\x013");
    let body = |bytes: &[u8]| [&three[..], bytes].concat();
    assert!(read_request(&body(b"\x03\x01a\x03\x02bc\x09\x00")).is_ok());
    for wrong in [&b"\x03\x02ab\x09\x00"[..], b"\x03\x04", b"\x09\x00"] {
        assert_eq!(read_request(&body(wrong)), Err(Malformed::Invalid("content-length").into()), "{wrong:02x?}");
    }
    let twenty_digits = b"\x16\x1400000000000000000003";
    for value in [&b"\x16\x02+3"[..], b"\x16\x00", b"\x16\x013\x16\x013", twenty_digits] {
        let error = read_request(&with_fields(value));
        assert_eq!(error, Err(Malformed::Invalid("content-length").into()), "{value:02x?}");
    }
    let with_end = head_frame(b"\x01\x01\x01\x01a\x01/\x16\x013");
    assert_eq!(read_request(&with_end), Err(Malformed::Invalid("content-length").into()));
}

// spec: ST-24
#[test]
fn content_length_never_travels_in_trailers() {
    let fields = |names: &[&'static str]| -> HeaderMap {
        names.iter().map(|&name| (HeaderName::from_static(name), HeaderValue::from_static("3"))).collect()
    };
    let mut out = BytesMut::new();
    encode_trailers(&fields(&["content-length"]), &mut out);
    assert!(out.is_empty(), "{out:02x?}");
    let (mut with, mut without) = (BytesMut::new(), BytesMut::new());
    encode_trailers(&fields(&["content-length", "x-sum"]), &mut with);
    encode_trailers(&fields(&["x-sum"]), &mut without);
    assert_eq!(with, without);
}

// spec: ST-11, ST-12, ST-13, ST-15
#[test]
fn method_path_and_authority_must_fit_together() {
    let head = |method: Method, authority: &str, path: &str, protocol: Option<&str>| {
        let mut head = request();
        (head.method, head.authority, head.path) = (method, authority.into(), path.into());
        head.protocol = protocol.map(str::to_owned);
        let mut out = BytesMut::new();
        encode_request(&head, true, &mut out);
        read_request(&out).map(|_| ())
    };
    assert_eq!(head(Method::OPTIONS, "a", "*", None), Ok(()));
    assert_eq!(head(Method::CONNECT, "a:22", "", None), Ok(()));
    assert_eq!(head(Method::CONNECT, "a", "/chat", Some("websocket")), Ok(()));
    assert_eq!(head(Method::GET, "", "/", None), Ok(()));
    assert_eq!(head(Method::from_bytes(b"PROPFIND").unwrap(), "a", "/", None), Ok(()));
    let invalid = |what| Err(Malformed::Invalid(what).into());
    assert_eq!(head(Method::GET, "a", "*", None), invalid("path"));
    assert_eq!(head(Method::GET, "a", "", None), invalid("path"));
    assert_eq!(head(Method::GET, "a", "relative", None), invalid("path"));
    assert_eq!(head(Method::GET, "a", "/a b", None), invalid("path"));
    assert_eq!(head(Method::GET, "a", "/a#b", None), invalid("path"));
    assert_eq!(head(Method::CONNECT, "a:22", "/", None), invalid("path"));
    assert_eq!(head(Method::CONNECT, "a", "", Some("websocket")), invalid("path"));
    assert_eq!(head(Method::CONNECT, "", "", None), invalid("authority"));
    assert_eq!(head(Method::GET, "a", "/", Some("websocket")), Err(Malformed::Forbidden("protocol").into()));
    assert_eq!(head(Method::CONNECT, "a", "/", Some("web/2.0")), Ok(()));
    for protocol in ["", "web socket", "/", "web/", "/2", "web/2/3", &"w".repeat(65)] {
        assert_eq!(head(Method::CONNECT, "a", "/", Some(protocol)), invalid("protocol"), "{protocol:?}");
    }
    assert_eq!(head(Method::from_bytes(&[b'X'; 33]).unwrap(), "a", "/", None), invalid("method"));
}

// spec: ST-12
#[test]
fn an_authority_is_a_host_and_perhaps_a_port() {
    let read = |authority: &str| {
        let mut out = BytesMut::new();
        encode_request(&RequestHead { authority: authority.into(), ..request() }, true, &mut out);
        read_request(&out).is_ok()
    };
    for good in ["", "a", "a.b-c_d", "a:", "a:80", "a:65535", "[::1]", "[::1]:80", "10.0.0.1:8080", &"a".repeat(512)] {
        assert!(read(good), "{good}");
        assert!(good.is_empty() || good.parse::<http::uri::Authority>().is_ok(), "{good}");
    }
    for bad in ["u@a", "a:b", "a:65536", "a:1:2", "[::1", "[a]", "a/b", "a b", ":80", "a%41", "é", &"a".repeat(513)] {
        assert!(!read(bad), "{bad}");
    }
}

fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let literal = "x-[a-z0-9_]{1,12}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
    let known = (0..NAMES.len()).prop_map(|at| NAMES[at].clone());
    // Content-Length and TE have values of their own, which other tests cover.
    let name = prop_oneof![literal, known].prop_filter("ruled by value", |n| n != "content-length" && n != "te");
    let value = "([!-~]([ -~]{0,20}[!-~])?)?".prop_map(|value| HeaderValue::from_str(&value).unwrap());
    (name, value)
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    // Grouped by name, as the map gives them back.
    vec(field(), 0..8).prop_map(|fields| fields.into_iter().collect())
}

prop_compose! {
    fn any_request()(
        method in prop_oneof![Just(Method::GET), Just(Method::PATCH), Just(Method::from_bytes(b"PURGE").unwrap())],
        https in any::<bool>(),
        authority in "([a-z0-9.-]{1,20}(:[0-9]{1,4})?)?",
        path in "/[!-~&&[^#<>]]{0,30}",
        service in proptest::option::of("[a-z]{1,64}"),
        fields in fields(),
    ) -> RequestHead {
        let scheme = if https { Scheme::HTTPS } else { Scheme::HTTP };
        let service = service.map(|name| name.parse().unwrap());
        RequestHead { method, scheme, authority: authority.into(), path: path.into(), service, protocol: None, fields }
    }
}

proptest! {
    // spec: ST-10, ST-16
    #[test]
    fn a_request_head_round_trips_in_any_split(head in any_request(), end in any::<bool>(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let mut out = BytesMut::new();
        encode_request(&head, end, &mut out);
        if !end {
            encode_data_header(3, &mut out);
            out.put_slice(b"abc");
            encode_trailers(&head.fields, &mut out);
            encode_end(&mut out);
        }
        let whole = read_request(&out).unwrap();
        prop_assert_eq!(&whole[0], &Event::Request(Box::new(head), end));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(out.len())).collect();
        cuts.extend([0, out.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &out[pair[0]..pair[1]]).collect();
        prop_assert_eq!(read_all(Role::Request, Limits::default(), &chunks).unwrap(), whole);
    }

    // spec: ST-20, ST-21
    #[test]
    fn a_response_round_trips(status in 200u16..1000, interim in 102u16..200, fields in fields()) {
        let info = ResponseHead { status: StatusCode::from_u16(interim).unwrap(), fields: fields.clone() };
        let head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), fields };
        let mut out = BytesMut::new();
        encode_info(&info, &mut out);
        encode_response(&head, true, &mut out);
        let events = vec![Event::Info(Box::new(info)), Event::Response(head, true)];
        prop_assert_eq!(read_response(&out).unwrap(), events);
    }

    // spec: OV-11
    #[test]
    fn a_head_has_one_encoding(head in any_request(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = BytesMut::new();
        encode_request(&head, true, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(events) = read_request(&bytes) && let [Event::Request(head, end)] = &events[..] {
            let mut out = BytesMut::new();
            encode_request(&**head, *end, &mut out);
            // Fields of one name are grouped by the map, so only their order may differ.
            prop_assert_eq!(out.len(), bytes.len());
            prop_assert_eq!(read_request(&out).unwrap(), events);
        }
    }
}
