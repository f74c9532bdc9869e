//! Bad requests cost one stream each, and who sits beside them is served.

use serde_json::{Value, json};

use super::{cloud, site};
use crate::support::eventually::eventually;
use crate::support::http3::{Http3, request, request_with, wait};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Edge, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    a_bad_request_costs_its_stream_and_never_reaches_the_target,
    host_and_authority_are_reconciled,
    connect_gets_the_answer_that_it_gets_over_http_2,
    floods_hold_little_and_leave_others_alone,
    what_a_client_breaks_in_its_body_is_its_own_fault,
    connections_over_tcp_and_udp_are_counted_together,
);

/// A head that is good but for `more`, which stands behind the pseudo-fields.
fn head(more: &[(&str, &str)]) -> Value {
    let good = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/bad")];
    let node = [("x-node-id", NODE.node)];
    good.iter().chain(more).chain(&node).map(|(name, value)| json!([name, value])).collect()
}

/// Without the line of this name.
fn without(name: &str) -> Value {
    head(&[]).as_array().unwrap().iter().filter(|line| line[0] != name).cloned().collect()
}

async fn a_bad_request_costs_its_stream_and_never_reaches_the_target(transport: Transport) {
    let site = site(transport).await;
    let large = "x".repeat(70_000);
    let medium = "x".repeat(3000);
    let many: Vec<(&str, &str)> = vec![("a", "b"); 200];
    let bad = [
        ("upper-case", head(&[("X-A", "1")])),
        ("method-twice", head(&[(":method", "GET")])),
        ("path-twice", head(&[(":path", "/other")])),
        ("authority-twice", head(&[(":authority", "other")])),
        ("unknown-pseudo", head(&[(":what", "1")])),
        ("status", head(&[(":status", "200")])),
        ("late-pseudo", json!([[":method", "GET"], ["a", "b"], [":scheme", "https"], [":path", "/bad"]])),
        ("no-path", without(":path")),
        ("no-method", without(":method")),
        ("no-scheme", without(":scheme")),
        ("no-authority", without(":authority")),
        ("connection", head(&[("connection", "close")])),
        ("upgrade", head(&[("upgrade", "websocket")])),
        ("coding", head(&[("transfer-encoding", "chunked")])),
        ("te", head(&[("te", "gzip")])),
        ("line-feed", head(&[("a", "b\nc: d")])),
        ("zero", head(&[("a", "b\0")])),
        ("space", head(&[("a", " b")])),
        ("lengths", head(&[("content-length", "1"), ("content-length", "2")])),
        ("length", head(&[("content-length", "5")])),
        ("host", head(&[("host", "other")])),
        ("large", head(&[("a", &large)])),
        ("many", head(&many)),
    ];
    let mut steps = vec![request("beside", "GET", "/slow/2000")];
    steps.extend(bad.iter().map(|(name, head)| request_with(name, "GET", "/bad", json!({ "head": head }))));
    steps.extend(bad.iter().map(|(name, _)| wait(name)));
    steps.extend([
        wait("beside"),
        request_with("after", "GET", "/", json!({ "fields": [["x-node-id", NODE.node], ["a", medium]] })),
        wait("after"),
    ]);
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (name, _) in &bad {
        let answer = client.answer(name).await;
        let is_refused = matches!(answer.status(), 400 | 431) || !answer.0["reset"].is_null();
        assert!(is_refused && answer.0["closed"].is_null(), "{name}: {answer:?}");
        if matches!(*name, "large" | "many") {
            assert_eq!(answer.status(), 431, "{name}: {answer:?}");
        }
    }
    assert_eq!(client.answer("beside").await.text(), "slow\n");
    assert_eq!(client.answer("after").await.text(), "hello\n");
    assert!(!site.target.requests().iter().any(|seen| seen.contains("/bad")), "{:?}", site.target.requests());
}

async fn host_and_authority_are_reconciled(transport: Transport) {
    let site = site(transport).await;
    let only_host = json!([
        [":method", "GET"],
        [":scheme", "https"],
        [":path", "/request"],
        ["host", "shop.example"],
        ["x-node-id", NODE.node]
    ]);
    let both = json!([
        [":method", "GET"],
        [":scheme", "https"],
        [":authority", "shop.example"],
        [":path", "/request"],
        ["host", "SHOP.example:443"],
        ["x-node-id", NODE.node]
    ]);
    let steps = vec![
        request_with("one", "GET", "/", json!({ "head": only_host })),
        request_with("both", "GET", "/", json!({ "head": both })),
        wait("one"),
        wait("both"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for name in ["one", "both"] {
        let answer = client.answer(name).await;
        assert!(answer.status() == 200 && answer.text().contains("host=shop.example"), "{answer:?}");
    }
}

async fn connect_gets_the_answer_that_it_gets_over_http_2(transport: Transport) {
    let site = site(transport).await;
    let connect = json!([[":method", "CONNECT"], [":authority", "localhost:22"], ["x-node-id", NODE.node]]);
    let extended = json!([
        [":method", "CONNECT"],
        [":protocol", "websocket"],
        [":scheme", "https"],
        [":authority", "localhost"],
        [":path", "/"],
        ["sec-websocket-version", "8"],
        ["x-node-id", NODE.node]
    ]);
    let steps = vec![
        request_with("plain", "CONNECT", "/", json!({ "head": connect })),
        request_with("extended", "CONNECT", "/", json!({ "head": extended })),
        wait("plain"),
        wait("extended"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    assert_eq!((client.answer("plain").await.status(), client.answer("extended").await.status()), (501, 426));
}

async fn what_a_client_breaks_in_its_body_is_its_own_fault(transport: Transport) {
    let site = site(transport).await;
    let declared = |name: &str, length: &str| {
        let fields = json!([["x-node-id", NODE.node], ["content-length", length]]);
        request_with(name, "POST", "/sink", json!({ "fields": fields, "body": "abc" }))
    };
    let steps = vec![
        declared("long", "2"),
        declared("short", "5"),
        wait("long"),
        wait("short"),
        request_with("cut", "POST", "/sink", json!({ "size": 100, "open": true })),
        request("beside", "GET", "/slow/300"),
        wait("beside"),
        json!({ "do": "reset", "name": "cut" }),
        wait("cut"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for name in ["long", "short", "cut"] {
        let answer = client.answer(name).await;
        assert_eq!((answer.status(), &answer.0["closed"]), (400, &Value::Null), "{name}: {answer:?}");
        let told = answer.field("proxy-status").unwrap();
        assert!(told.starts_with("adit; error=http_request_error; "), "{name}: {told}");
    }
    for (cause, times) in [("bad_request", 2), ("request_cut", 1)] {
        let series = format!("adit_exchanges_failed_total{{side=\"egress\",cause=\"{cause}\"}}");
        site.responder.0.counted(&series, times).await;
    }
}

/// The code of a connection that is cut for what it asks for. RFC 9114 section 8.1
const EXCESSIVE_LOAD: u64 = 0x107;

async fn floods_hold_little_and_leave_others_alone(transport: Transport) {
    let site = site(transport).await;
    let before = site.responder.0.memory();
    let mut attackers = Vec::new();
    for (kind, times) in [("bombs", 100), ("heads", 200), ("encoder", 1000), ("resets", 2000)] {
        let steps = vec![
            json!({ "do": "flood", "name": kind, "kind": kind, "times": times }),
            // What is not cut is looked at while it is open.
            request("beside", "GET", "/bytes/10"),
            wait("beside"),
        ];
        let Some(attacker) = Http3::start(site.egress(), &site.folder, steps) else { return };
        attackers.push((kind, attacker));
    }
    let honest = vec![request("honest", "GET", "/bytes/100000"), wait("honest")];
    let honest = Http3::start(site.egress(), &site.folder, honest).unwrap();
    assert!(honest.answer("honest").await.is_whole());
    for (kind, attacker) in &attackers {
        let answer = attacker.answer("beside").await;
        let is_cut = matches!(*kind, "encoder" | "resets");
        let closed = if is_cut { EXCESSIVE_LOAD.into() } else { Value::Null };
        assert_eq!((&answer.0["closed"], answer.is_whole()), (&closed, !is_cut), "{kind}: {answer:?}");
    }
    let held = site.responder.0.memory().saturating_sub(before);
    assert!(held < 32 << 20, "{held} bytes");
}

async fn connections_over_tcp_and_udp_are_counted_together(transport: Transport) {
    let target = RawTarget::new().await;
    let service = format!("{{ name: web, match: {{}}, target: \"http://{}\" }}", target.address());
    let cloud = cloud().egress("limits", "{ connections: 1 }").egress("http3", "true");
    let site = Site::with(cloud, Edge::new(transport).service(&service)).await;
    let steps = vec![request("a", "GET", "/udp"), wait("a")];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let (mut peer, asked) = target.accept().await;
    assert!(asked.starts_with("get /udp "), "{asked}");
    // The next one waits, over TCP, until there is room.
    let waiting = tokio::net::TcpStream::connect(site.egress()).await.unwrap();
    eventually("the listener to be full", async || {
        (site.responder.0.metric("adit_listener_limits_total{listener=\"egress\",limit=\"full\"}").await > 0)
            .then_some(())
    })
    .await;
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(client.answer("a").await.text(), "hi");
    // It has left, and its place is taken: one over UDP is refused now.
    let over_udp = async || {
        let client = Http3::start(site.egress(), &site.folder, vec![json!({ "do": "mark" })]).unwrap();
        client.first().await["did"] == "mark"
    };
    eventually("the one over TCP to be let in", async || (!over_udp().await).then_some(())).await;
    drop(waiting);
    eventually("room over UDP", async || over_udp().await.then_some(())).await;
}
