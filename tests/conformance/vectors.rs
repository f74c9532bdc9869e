//! Every valid vector decodes to its value and encodes to its bytes; every invalid one fails with its code.

mod envoy;
mod fleet;
mod service;

use std::collections::HashSet;
use std::time::Duration;

use adit::message::h2::guard as http2;
use adit::protocol::control::{Frame, FrameError, FrameReader};
use adit::protocol::datagram::Datagram;
use adit::protocol::handshake::{Hello, PeerLimits, Service, ServiceKind};
use adit::protocol::health::Down;
use adit::protocol::limits::Limits;
use adit::protocol::reauth::{ProvenChain, Reauth};
use adit::protocol::roster::{Listed, Roster};
use adit::protocol::session::SessionError;
use adit::protocol::stream;
use adit::protocol::stream::{Event, MessageReader, RequestHead, ResponseHead, Role, StreamError};
use adit::protocol::stream::{ServiceReader, StreamType};
use adit::protocol::varint;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use toml::{Table, Value};

use crate::vector_file::{Vector, load, parse_hex};

/// What a vector's bytes are: the decoded value and how it encodes again, or the failure.
type Outcome = Result<(Value, Vec<u8>), Failure>;

#[derive(Debug, PartialEq)]
struct Failure {
    /// The name of the code, or the number of the refusal: what a peer would see.
    code: String,
    /// What we say about it.
    because: String,
}

#[test]
fn valid_vectors_decode_to_their_value_and_encode_to_their_bytes() {
    for vector in load("valid") {
        let name = &vector.name;
        let (value, encoded) = decode(&vector).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        assert_eq!(&value, vector.decoded.as_ref().unwrap(), "{name}");
        assert_eq!(encoded, vector.canonical_bytes(), "{name} encodes to other bytes");
    }
}

// spec: ER-4, SE-8
#[test]
fn invalid_vectors_fail_with_their_code() {
    for vector in load("invalid") {
        let name = &vector.name;
        let failure = decode(&vector).expect_err(name);
        let refuse = vector.refuse.map(|number| number.to_string());
        let code = [&vector.error, &vector.close, &vector.reset, &refuse].into_iter().flatten().next().unwrap();
        assert_eq!(&failure.code, code, "{name}: {failure:?}");
        let because = vector.because.as_deref().unwrap_or_default();
        assert!(failure.because.contains(because), "{name}: {failure:?}, not {because:?}");
    }
}

#[test]
fn vectors_have_names_of_their_own() {
    let mut names = HashSet::new();
    for vector in load("valid").into_iter().chain(load("invalid")) {
        assert!(names.insert((vector.kind.clone(), vector.name.clone())), "{} {}", vector.kind, vector.name);
        assert!(!vector.spec.is_empty(), "{} cites no requirement", vector.name);
    }
}

fn decode(vector: &Vector) -> Outcome {
    let bytes = vector.bytes();
    match vector.kind.as_str() {
        "varint" => decode_varint(&bytes),
        "control" => decode_control(&bytes, vector.refuse.is_some()),
        "request" => decode_stream(Role::Request, &bytes),
        "response" => decode_stream(Role::Response, &bytes),
        "relayed_response" => decode_stream(Role::Relayed, &bytes),
        "service_request" => service::decode(ServiceReader::of_requests, &bytes),
        "raw_answer" => service::decode(|| ServiceReader::of_answers(StreamType::Raw), &bytes),
        "flow_answer" => service::decode(|| ServiceReader::of_answers(StreamType::Flow), &bytes),
        "flow_body" => service::decode(ServiceReader::of_datagrams, &bytes),
        "greeting" => fleet::decode_greeting(&bytes),
        "route" => fleet::decode_route(&bytes),
        "datagram" => decode_datagram(bytes),
        "envoy_request" => envoy::decode_request(&bytes, false),
        "envoy_request_upgrade" => envoy::decode_request(&bytes, true),
        "envoy_response" => envoy::decode_response(&bytes, false),
        "envoy_response_upgrade" => envoy::decode_response(&bytes, true),
        "http2_requests" => decode_http2(http2::Role::Server, bytes),
        "http2_responses" => decode_http2(http2::Role::Client, bytes),
        "envoy_idle" => envoy::decode_idle(&bytes),
        other => panic!("{}: unknown kind {other}", vector.name),
    }
}

fn failure(code: impl ToString, because: impl ToString) -> Failure {
    Failure { code: code.to_string(), because: because.to_string() }
}

fn decode_varint(bytes: &[u8]) -> Outcome {
    let mut input = bytes;
    let value = varint::decode(&mut input).map_err(|error| failure("not_shortest", error))?;
    let value = value.ok_or_else(|| failure("incomplete", ""))?;
    assert!(input.is_empty());
    let mut out = Vec::new();
    varint::encode(&mut out, value);
    Ok((Value::from(value as i64), out))
}

fn decode_control(bytes: &[u8], in_handshake: bool) -> Outcome {
    let fail = |error: FrameError| {
        let because = error.to_string();
        let error = SessionError::from(error);
        if in_handshake {
            failure(error.refusal_code().number(), because)
        } else {
            failure(error.close_code(), because)
        }
    };
    let (mut reader, mut input) = (FrameReader::new(), bytes);
    let (mut frames, mut out) = (Vec::new(), BytesMut::new());
    while let Some(frame) = reader.next(&mut input).map_err(fail)? {
        frame.encode(&mut out);
        frames.push(Value::Table(describe_frame(&frame)));
    }
    assert!(reader.is_between_frames(), "the vector ends inside a frame");
    Ok((Value::Array(frames), out.to_vec()))
}

/// Frames behind the preface; what is sound is not judged any further here.
fn decode_http2(role: http2::Role, bytes: Vec<u8>) -> Outcome {
    let mut guard = http2::Guard::new(role, 65_536);
    if role == http2::Role::Server {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(guard.pass(preface), http2::Passed::Bytes(preface.len()));
    }
    match guard.pass(&bytes) {
        http2::Passed::Instead { .. } => Err(failure("protocol", "")),
        http2::Passed::Bytes(length) => {
            assert_eq!(length, bytes.len(), "the vector ends inside a frame");
            Ok((Value::Array(Vec::new()), bytes))
        }
        other => panic!("the vector has no empty frames: {other:?}"),
    }
}

fn decode_datagram(bytes: Vec<u8>) -> Outcome {
    let datagram = Datagram::decode(bytes.into()).map_err(|error| failure("dropped", error))?;
    let mut out = BytesMut::new();
    datagram.encode(&mut out);
    let value = table([("flow", Value::from(datagram.flow as i64)), ("payload", hex(&datagram.payload))]);
    Ok((Value::Array(vec![Value::Table(value)]), out.to_vec()))
}

fn decode_stream(role: Role, bytes: &[u8]) -> Outcome {
    let whole = read_message(role, &[bytes]);
    let single_bytes: Vec<&[u8]> = bytes.chunks(1).collect();
    let in_single_bytes = read_message(role, &single_bytes);
    assert_eq!(in_single_bytes.map(join_data), whole.clone().map(join_data), "the split changes the answer");
    let events = whole.map_err(|error| failure(error.code(), &error))?;
    let mut out = BytesMut::new();
    events.iter().for_each(|event| encode_event(event, &mut out));
    Ok((Value::Array(events.iter().map(describe_event).map(Value::Table).collect()), out.to_vec()))
}

fn read_message(role: Role, chunks: &[&[u8]]) -> Result<Vec<Event>, StreamError> {
    let mut reader = MessageReader::new(role, Limits::default());
    let mut events = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = reader.next()? {
            events.push(event);
        }
    }
    reader.finish()?;
    Ok(events)
}

/// Puts neighbouring pieces of the body together: how it is cut depends on how it arrives.
fn join_data(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Data(before)), Event::Data(more)) => *before = [&before[..], &more[..]].concat().into(),
            (_, event) => joined.push(event),
        }
    }
    joined
}

fn encode_event(event: &Event, out: &mut BytesMut) {
    match event {
        Event::Request(head, end) => {
            stream::encode_request(&**head, *end, out);
        }
        Event::Response(head, end) => {
            stream::encode_response(head, *end, out);
        }
        Event::Here => stream::encode_here(out),
        Event::Info(head) => {
            stream::encode_info(head, out);
        }
        Event::Data(data) => {
            stream::encode_data_header(data.len() as u64, out);
            out.put_slice(data);
        }
        Event::Trailers(fields) => {
            stream::encode_trailers(fields, out);
        }
        Event::End => stream::encode_end(out),
    }
}

fn describe_event(event: &Event) -> Table {
    match event {
        Event::Request(head, end) => describe_request(head, *end),
        Event::Response(head, end) => {
            let mut response = describe_response("response", head);
            response.insert("end".to_owned(), (*end).into());
            response
        }
        Event::Here => table([("event", "here".into())]),
        Event::Info(head) => describe_response("info", head),
        Event::Data(data) => table([("event", "data".into()), ("bytes", hex(data))]),
        Event::Trailers(fields) => table([("event", "trailers".into()), ("fields", describe_fields(fields))]),
        Event::End => table([("event", "end".into())]),
    }
}

fn describe_request(head: &RequestHead, end: bool) -> Table {
    let mut request = table([
        ("event", "request".into()),
        ("method", head.method.as_str().into()),
        ("scheme", head.scheme.as_str().into()),
        ("authority", head.authority.as_str().into()),
        ("path", head.path.as_str().into()),
        ("fields", describe_fields(&head.fields)),
        ("end", end.into()),
    ]);
    insert_some(&mut request, "service", head.service.as_ref().map(|name| name.as_str()));
    insert_some(&mut request, "protocol", head.protocol.as_deref());
    request
}

fn describe_response(event: &str, head: &ResponseHead) -> Table {
    let status = i64::from(head.status.as_u16());
    table([("event", event.into()), ("status", status.into()), ("fields", describe_fields(&head.fields))])
}

fn describe_fields(fields: &HeaderMap) -> Value {
    let text = |value: &http::HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
    let pair = |(name, value): (&http::HeaderName, _)| Value::from(vec![name.as_str().to_owned(), text(value)]);
    Value::Array(fields.iter().map(pair).collect())
}

fn describe_frame(frame: &Frame) -> Table {
    let mut described = match frame {
        Frame::Hello(hello) => describe_hello(hello),
        Frame::Welcome(welcome) => {
            let mut described = table([
                ("version", i64::from(welcome.version).into()),
                ("tunnel", welcome.tunnel.to_string().into()),
                ("limits", describe_limits(welcome.limits)),
                ("responder", welcome.responder.as_str().into()),
                ("keepalive_ms", (welcome.keepalive.as_millis() as i64).into()),
                ("idle_ms", (welcome.idle.as_millis() as i64).into()),
            ]);
            insert_some(&mut described, "observed", welcome.observed.as_deref());
            let schemes = welcome.reauth.as_ref();
            let schemes = schemes.map(|schemes| schemes.iter().map(|&scheme| i64::from(scheme)).collect::<Vec<_>>());
            insert_some(&mut described, "reauth", schemes);
            insert_some(&mut described, "roster", welcome.roster.as_ref().map(describe_roster));
            described
        }
        Frame::Refuse(refusal) => {
            let number = i64::from(refusal.code.number());
            let mut described = table([("number", number.into()), ("reason", refusal.reason.as_str().into())]);
            insert_some(&mut described, "retry_after_ms", refusal.retry_after.map(|wait| wait.as_millis() as i64));
            described
        }
        Frame::Drain(drain) => {
            let millis = |time: Duration| time.as_millis() as i64;
            let mut described = table([
                ("deadline_ms", millis(drain.deadline).into()),
                ("reconnect_after_ms", millis(drain.reconnect_after).into()),
            ]);
            insert_some(&mut described, "serves_ms", Some(millis(drain.serves)).filter(|serves| *serves > 0));
            described
        }
        Frame::Drained => Table::new(),
        Frame::Close(close) => table([("code", (close.code as i64).into()), ("reason", close.reason.as_str().into())]),
        Frame::Reauth(reauth) => describe_reauth(reauth),
        Frame::Reauthed(reauthed) => {
            let mut described = table([("number", (reauthed.number as i64).into())]);
            let refusal = reauthed.refusal.as_ref();
            insert_some(&mut described, "refusal", refusal.map(|refusal| i64::from(refusal.code.number())));
            insert_some(&mut described, "reason", refusal.map(|refusal| refusal.reason.as_str()));
            described
        }
        Frame::Ping(echo) | Frame::Pong(echo) => table([("echo", hex(echo))]),
        Frame::Services(services) => table([("services", describe_services(services))]),
        Frame::Health(health) => {
            let down =
                |down: &Down| table([("cause", down.cause.label().into()), ("name", down.service.as_str().into())]);
            table([("down", health.down.iter().map(|one| Value::Table(down(one))).collect::<Vec<_>>().into())])
        }
        Frame::Roster(roster) => {
            table([("roster", roster.as_ref().map_or_else(|| Value::Array(Vec::new()), describe_roster))])
        }
        Frame::Limits(limits) => table([("limits", describe_limits(*limits))]),
    };
    described.insert("frame".to_owned(), frame.frame_type().name().into());
    described
}

fn describe_roster(roster: &Roster) -> Value {
    let listed = |listed: &Listed| {
        let addresses: Vec<Value> = listed.addresses.iter().map(|address| address.to_string().into()).collect();
        let mut described = table([
            ("id", listed.id.as_str().into()),
            ("weight", i64::from(listed.weight).into()),
            ("addresses", addresses.into()),
        ]);
        insert_some(&mut described, "region", listed.region.as_deref());
        Value::Table(described)
    };
    Value::Array(roster.all().map(listed).collect())
}

fn describe_reauth(reauth: &Reauth) -> Table {
    let mut described = table([("number", (reauth.number as i64).into())]);
    insert_some(&mut described, "token", reauth.token.as_ref().map(|token| hex(token)));
    if let Some(ProvenChain { chain, scheme, signature }) = &reauth.certificate {
        let chain = chain.iter().map(|certificate| hex(certificate)).collect();
        described.insert("certificates".to_owned(), Value::Array(chain));
        let signature = vec![i64::from(*scheme).into(), hex(signature)];
        described.insert("signature".to_owned(), Value::Array(signature));
    }
    described
}

fn describe_hello(hello: &Hello) -> Table {
    let place = &hello.place;
    let versions = vec![i64::from(hello.versions.0), i64::from(hello.versions.1)];
    let mut described = table([
        ("versions", versions.into()),
        ("tenant", place.claim.tenant.as_str().into()),
        ("services", describe_services(&hello.services)),
        ("cluster", place.claim.cluster.as_str().into()),
        ("limits", describe_limits(hello.limits)),
        ("node", place.claim.node.as_str().into()),
        ("build", hello.build.as_str().into()),
        ("instance", place.instance.to_string().into()),
        ("slot", i64::from(place.slot).into()),
        ("generation", (place.generation as i64).into()),
    ]);
    insert_some(&mut described, "token", hello.token.as_ref().map(|token| hex(token)));
    described
}

fn describe_services(services: &[Service]) -> Value {
    let describe = |service: &Service| {
        let kind = match service.kind {
            ServiceKind::Http => "http",
            ServiceKind::Tcp => "tcp",
            ServiceKind::Udp => "udp",
            other => panic!("{other:?}"),
        };
        Value::Table(table([("kind", kind.into()), ("name", service.name.as_str().into())]))
    };
    Value::Array(services.iter().map(describe).collect())
}

fn describe_limits(limits: PeerLimits) -> Value {
    vec![i64::from(limits.head_bytes), i64::from(limits.head_fields)].into()
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn insert_some(table: &mut Table, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        table.insert(key.to_owned(), value.into());
    }
}

fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[test]
fn the_example_in_the_prose_is_right() {
    let prose = include_str!("../../proto-spec/2-handshake.md");
    let (_, example) = prose.split_once("## Example").unwrap();
    let blocks: Vec<String> =
        example.split("\n\n").filter(|paragraph| paragraph.starts_with("    ")).map(str::to_owned).collect();
    let [hello, welcome, request, response] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    let valid = load("valid");
    let vector = |name: &str| valid.iter().find(|vector| vector.name == name).unwrap().bytes();
    assert_eq!(parse_hex(hello), vector("hello-smallest"));
    assert_eq!(parse_hex(welcome), vector("welcome-smallest"));
    assert_eq!(parse_hex(response), vector("no-content"));
    let (_, bytes) = decode_stream(Role::Request, &parse_hex(request)).unwrap();
    assert_eq!(bytes, parse_hex(request));
}
