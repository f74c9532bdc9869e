//! Other protocols behind an extended CONNECT over HTTP/3. RFC 9220

use serde_json::{Value, json};

use super::{cloud, site};
use crate::support::http3::{CUTS, Http3, cuts, request_with, wait};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Edge, NODE, Site, Transport, over_each_transport};
use crate::support::targets::pattern;
use crate::upgrades::{SWITCHED_TO_TCP, echoing_h2c};

over_each_transport!(
    nothing_reaches_the_target_before_it_consents_and_each_direction_ends_by_itself,
    the_target_may_end_first,
    a_cut_of_either_side_ends_both,
    a_target_of_http_2_gets_it_too,
    bad_forms_get_the_answers_that_they_get_over_http_2,
    what_the_target_answers_instead_is_no_consent,
);

/// The code of a stream that is cut. RFC 9220 section 3
const CANCELLED: u64 = 0x10c;

/// An extended CONNECT to the node for this protocol, with these fields.
fn extended(protocol: &str, fields: &[(&str, &str)]) -> Value {
    let head = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/chat"),
        ("x-node-id", NODE.node),
    ];
    head.iter().chain(fields).map(|(name, value)| json!([name, value])).collect()
}

fn connect(name: &str, head: &Value, more: Value) -> Value {
    let mut step = request_with(name, "CONNECT", "/", json!({ "head": head, "open": true }));
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

/// Waits until so many bytes have come back.
fn read(name: &str, bytes: u64) -> Value {
    json!({ "do": "read", "name": name, "bytes": bytes })
}

/// Sends more of the pattern.
fn body(name: &str, size: u64, end: bool) -> Value {
    json!({ "do": "body", "name": name, "size": size, "end": end })
}

/// A target whose service allows the protocol `tcp`, behind an HTTP/3 listener.
async fn raw(transport: Transport) -> (RawTarget, Site) {
    let target = RawTarget::new().await;
    let service = format!("{{ name: web, match: {{}}, target: \"http://{}\", upgrades: [tcp] }}", target.address());
    let site = Site::with(cloud(), Edge::new(transport).service(&service)).await;
    (target, site)
}

// spec: ST-25
async fn nothing_reaches_the_target_before_it_consents_and_each_direction_ends_by_itself(transport: Transport) {
    let (target, site) = raw(transport).await;
    let steps = vec![
        connect("a", &extended("tcp", &[]), json!({ "size": 5 })),
        json!({ "do": "head", "name": "a" }),
        read("a", 5),
        body("a", 100_000, true),
        wait("a"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let (mut peer, asked) = target.accept().await;
    assert!(asked.starts_with("get /chat ") && asked.contains("upgrade: tcp\r\n"), "{asked}");
    assert!(asked.contains("3.0 adit") && !asked.contains(":protocol"), "{asked}");
    assert!(!peer.has_more().await, "no byte of the new protocol yet");
    peer.send(SWITCHED_TO_TCP).await.unwrap();
    assert_eq!(client.did("head", "a").await["status"], 200);
    assert_eq!(peer.exactly(5).await.unwrap(), pattern(0, 5));
    peer.send("hello").await.unwrap();
    assert_eq!(peer.exactly(100_000).await.unwrap(), pattern(5, 100_000));
    peer.gone().await;
    peer.send("last words").await.unwrap();
    peer.finish().await.unwrap();
    let answer = client.answer("a").await;
    assert_eq!((answer.text(), answer.is_whole()), ("hellolast words", true), "{answer:?}");
    for field in ["content-length", "upgrade", "connection"] {
        assert_eq!(answer.field(field), None, "{field}");
    }
}

async fn the_target_may_end_first(transport: Transport) {
    let (target, site) = raw(transport).await;
    let steps = vec![connect("a", &extended("tcp", &[]), json!({})), wait("a"), body("a", 10, true)];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let (mut peer, _) = target.accept().await;
    peer.send(SWITCHED_TO_TCP).await.unwrap();
    peer.send("last words").await.unwrap();
    peer.finish().await.unwrap();
    assert_eq!(client.answer("a").await.text(), "last words");
    assert_eq!(peer.exactly(10).await.unwrap(), pattern(0, 10));
    peer.gone().await;
}

async fn a_cut_of_either_side_ends_both(transport: Transport) {
    let (target, site) = raw(transport).await;
    let open = |name| [connect(name, &extended("tcp", &[]), json!({})), json!({ "do": "head", "name": name })];
    let Some(client) = Http3::start(site.egress(), &site.folder, cuts(open)) else { return };
    for how in CUTS {
        let (mut peer, _) = target.accept().await;
        peer.send(SWITCHED_TO_TCP).await.unwrap();
        client.did(how, how).await;
        peer.gone().await;
    }
    let (mut peer, _) = target.accept().await;
    peer.send(SWITCHED_TO_TCP).await.unwrap();
    client.did("head", "target").await;
    peer.reset();
    let cut = client.answer("target").await;
    assert_eq!((&cut.0["reset"], &cut.0["closed"]), (&CANCELLED.into(), &Value::Null), "{cut:?}");
}

async fn a_target_of_http_2_gets_it_too(transport: Transport) {
    let (address, _tasks) = echoing_h2c().await;
    let service = format!("{{ name: web, match: {{}}, target: \"h2c://{address}\" }}");
    let site = Site::with(cloud(), Edge::new(transport).service(&service)).await;
    // The key is of HTTP/1.1, and the target would be misled by it. spec: ST-44
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let steps = vec![
        connect("a", &extended("websocket", &fields), json!({ "size": 3 })),
        read("a", 3),
        body("a", 0, true),
        wait("a"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let answer = client.answer("a").await;
    assert_eq!((answer.status(), answer.text()), (200, "\0\u{1}\u{2}bye"), "{answer:?}");
}

async fn bad_forms_get_the_answers_that_they_get_over_http_2(transport: Transport) {
    let site = site(transport).await;
    let version = [("sec-websocket-version", "13")];
    let websocket = |more: &[(&str, &str)]| extended("websocket", &[&version, more].concat());
    let without = |name: &str| -> Value {
        websocket(&[]).as_array().unwrap().iter().filter(|line| line[0] != name).cloned().collect()
    };
    let with_method = |method: &str| -> Value {
        let lines = websocket(&[]);
        let lines = lines.as_array().unwrap().iter();
        lines.map(|line| if line[0] == ":method" { json!([":method", method]) } else { line.clone() }).collect()
    };
    let long = "x".repeat(65);
    let bad = [
        ("no-path", without(":path"), 400),
        ("no-scheme", without(":scheme"), 400),
        ("no-authority", without(":authority"), 400),
        ("no-protocol", without(":protocol"), 400),
        ("get", with_method("GET"), 400),
        ("post", with_method("POST"), 400),
        ("twice", websocket(&[(":protocol", "websocket")]), 400),
        ("upgrade", websocket(&[("upgrade", "websocket")]), 400),
        ("connection", websocket(&[("connection", "upgrade")]), 400),
        ("no-version", extended("websocket", &[]), 426),
        ("old-version", extended("websocket", &[("sec-websocket-version", "8")]), 426),
        ("two-versions", websocket(&version), 426),
        ("empty", extended("", &[]), 501),
        ("no-token", extended("a b", &[]), 501),
        ("long", extended(&long, &[]), 501),
        ("own", extended("Adit-raw", &[]), 501),
        ("unknown", extended("other", &[]), 501),
        ("webtransport", extended("webtransport", &[]), 501),
        ("connect-udp", extended("connect-udp", &[]), 501),
    ];
    let mut steps: Vec<_> =
        bad.iter().map(|(name, head, _)| request_with(name, "CONNECT", "/", json!({ "head": head }))).collect();
    steps.extend(bad.iter().map(|(name, ..)| wait(name)));
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (name, _, status) in &bad {
        let answer = client.answer(name).await;
        assert_eq!((answer.status(), &answer.0["closed"]), (*status, &Value::Null), "{name}: {answer:?}");
    }
    assert_eq!(client.answer("old-version").await.field("sec-websocket-version"), Some("13"));
    assert!(site.target.requests().is_empty(), "{:?}", site.target.requests());
}

// spec: ST-43
async fn what_the_target_answers_instead_is_no_consent(transport: Transport) {
    let (target, site) = raw(transport).await;
    let steps = vec![
        connect("page", &extended("tcp", &[]), json!({})),
        wait("page"),
        connect("refusal", &extended("tcp", &[]), json!({})),
        wait("refusal"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (name, answer, status) in [
        ("page", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", 502),
        ("refusal", "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno", 403),
    ] {
        let (mut peer, _) = target.accept().await;
        peer.send(answer).await.unwrap();
        let answer = client.answer(name).await;
        assert_eq!((answer.status(), answer.field("adit-declined")), (status, None), "{answer:?}");
    }
}
