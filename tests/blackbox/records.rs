//! Every exchange leaves one record on each side, however it ends.

use http::Request;
use serde_json::{Value, json};

use crate::support::http1::RawHttp;
use crate::support::http2::Http2;
use crate::support::http3::Http3;
use crate::support::ports::free_address;
use crate::support::raw_target::RawTarget;
use crate::support::site::{Cloud, Edge, Folder, NODE, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_whole_exchange_is_told_on_both_sides,
    the_query_is_told_only_where_the_file_says_so,
    a_client_that_leaves_before_the_head_is_told,
    a_request_that_the_codec_refuses_is_told_and_counted,
    what_http2_itself_refuses_is_told_and_counted_once,
    what_http3_itself_refuses_is_told_and_counted_once,
    a_client_that_leaves_in_the_middle_of_its_head_is_told_and_one_that_says_nothing_is_not,
    a_body_that_breaks_a_rule_is_no_cancellation,
    a_target_that_is_down_is_told_on_both_sides_and_warned_of,
    a_response_that_is_cut_is_told_on_both_sides_and_warned_of,
    a_request_for_nobody_is_told,
    a_flood_of_failures_is_a_few_warnings_and_a_number,
);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The record with this path, the only one.
async fn record(process: &Running, path: &str) -> Value {
    let line = process.line_with(&format!("\"path\":\"{path}\"")).await;
    assert_eq!(records(process, path), 1, "{line}");
    assert_eq!((&line["target"], &line["message"]), (&"adit::access".into(), &"exchange".into()));
    line
}

fn records(process: &Running, path: &str) -> usize {
    process.log().lines().filter(|line| line.contains(&format!("\"path\":\"{path}\""))).count()
}

#[track_caller]
fn assert_fields(line: &Value, fields: &[(&str, Value)]) {
    for (name, expected) in fields {
        assert_eq!(&line[name], expected, "{name} in {line}");
    }
}

fn failures(side: &str, cause: &str) -> String {
    format!("adit_exchanges_failed_total{{side=\"{side}\",cause=\"{cause}\"}}")
}

async fn failed(process: &Running, side: &str, cause: &str) -> u64 {
    process.metric(&failures(side, cause)).await
}

/// Waits until so many have failed. The line of one may be there before it is counted.
async fn failed_times(process: &Running, side: &str, cause: &str, times: u64) {
    process.counted(&failures(side, cause), times).await;
}

async fn a_whole_exchange_is_told_on_both_sides(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    let traced = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\ncontent-length: 10\r\n");
    let request = format!("POST /echo?secret=1 HTTP/1.1\r\nhost: shop.example\r\n{TO_NODE}\r\n{traced}\r\n0123456789");
    client.send(request.as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "0123456789");

    let sides = [(&site.responder.0, "egress"), (&site.initiator, "target")];
    for (process, side) in sides {
        let line = record(process, "/echo").await;
        assert_fields(
            &line,
            &[
                ("side", side.into()),
                ("service", if side == "target" { "web".into() } else { Value::Null }),
                ("method", "POST".into()),
                ("scheme", "http".into()),
                ("authority", "shop.example".into()),
                ("status", 200.into()),
                ("outcome", "complete".into()),
                ("cause", Value::Null),
                ("request_bytes", 10.into()),
                ("response_bytes", 10.into()),
                ("trace_id", TRACE.into()),
            ],
        );
        assert!(!line.to_string().contains("secret"), "{line}");
        let (first, total) = (line["first_byte_ms"].as_f64().unwrap(), line["total_ms"].as_f64().unwrap());
        assert!(0.0 < first && first <= total, "{line}");
        assert_eq!(first, (first * 1e3).round() / 1e3, "three decimals");
        let ended = format!("adit_exchanges_total{{side=\"{side}\",status=\"2xx\"}}");
        process.counted(&ended, 1).await;
    }
    let tunnel = &site.responder.0.tunnels().await.accepted[0].id;
    for (process, _) in sides {
        assert_fields(
            &record(process, "/echo").await,
            &[
                ("tenant", NODE.tenant.into()),
                ("node", NODE.node.into()),
                ("cluster", NODE.cluster.into()),
                ("tunnel", tunnel.as_str().into()),
                ("transport", transport.label().into()),
            ],
        );
    }
    assert_fields(
        &record(&site.responder.0, "/echo").await,
        &[("listener", site.egress().to_string().into()), ("host_id", NODE.node.into()), ("attempts", 1.into())],
    );
}

async fn the_query_is_told_only_where_the_file_says_so(transport: Transport) {
    let with_query = "{ query: true }";
    let edge = Edge::new(transport).initiator("access_log", with_query);
    let site = Site::with(Cloud::new().egress("access_log", with_query), edge).await;
    site.get("/bytes/3?a=b").await;
    for process in [&site.responder.0, &site.initiator] {
        assert_fields(&record(process, "/bytes/3?a=b").await, &[("response_bytes", 3.into())]);
    }
}

async fn a_client_that_leaves_before_the_head_is_told(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    client.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    site.arrived("/hang").await;
    drop(client);
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let line = record(process, "/hang").await;
        let cancelled = [("outcome", "cancelled".into()), ("cause", "cancelled".into()), ("status", Value::Null)];
        assert_fields(&line, &cancelled);
        failed_times(process, side, "cancelled", 1).await;
    }
    let line = record(&site.responder.0, "/hang").await;
    assert_fields(&line, &[("node", NODE.node.into()), ("attempts", 1.into()), ("first_byte_ms", Value::Null)]);
}

async fn a_request_that_the_codec_refuses_is_told_and_counted(transport: Transport) {
    let site = Site::start(transport).await;
    let responder = &site.responder.0;
    let smuggled = "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut client = site.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n{smuggled}").as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 400);
    let line = responder.line_with("\"outcome\":\"refused\"").await;
    let refused = [("status", 400.into()), ("cause", "bad_request".into()), ("side", "egress".into())];
    assert_fields(&line, &refused);
    assert_fields(&line, &[("version", "HTTP/1.1".into()), ("listener", site.egress().to_string().into())]);
    assert!(line["details"].as_str().unwrap().contains("exclude each other"), "{line}");
    failed_times(responder, "egress", "bad_request", 1).await;

    let mut client = Http2::connect(site.egress()).await;
    let request = Request::get(format!("http://{}/", site.egress())).header("expect", "a miracle").body(()).unwrap();
    let (response, _) = client.send(request, true).await;
    assert_eq!(response.await.unwrap().status(), 417);
    failed_times(responder, "egress", "bad_request", 2).await;
    assert!(site.target.requests().is_empty());
}

/// The line of a refusal that nobody was answered, with this in its details.
async fn unanswered(process: &Running, details: &str) -> Value {
    let line = process.line_with(details).await;
    assert_fields(&line, &[("outcome", "refused".into()), ("status", Value::Null), ("side", "egress".into())]);
    line
}

async fn what_http2_itself_refuses_is_told_and_counted_once(transport: Transport) {
    let site = Site::start(transport).await;
    let responder = &site.responder.0;
    let mut client = site.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // GET without Host or :authority, a name in upper case; a second path.
    for head in
        [&b"\0\0\x0a\x01\x05\0\0\0\x01\x82\x86\x84\0\x03X-A\x011"[..], b"\0\0\x04\x01\x05\0\0\0\x03\x82\x86\x84\x84"]
    {
        client.send(head).await.unwrap();
    }
    failed_times(responder, "egress", "bad_request", 2).await;
    let line = unanswered(responder, "reset with PROTOCOL_ERROR").await;
    let listener = site.egress().to_string();
    assert_fields(
        &line,
        &[("cause", "bad_request".into()), ("version", "HTTP/2".into()), ("listener", listener.into())],
    );
    // DATA without a stream.
    client.send(b"\0\0\x01\0\0\0\0\0\0x").await.unwrap();
    failed_times(responder, "egress", "bad_request", 3).await;
    let line = unanswered(responder, "ended with PROTOCOL_ERROR").await;
    assert_fields(&line, &[("cause", "bad_request".into()), ("version", "HTTP/2".into())]);
    assert_eq!(failed(responder, "egress", "cancelled").await, 0);
}

async fn what_http3_itself_refuses_is_told_and_counted_once(transport: Transport) {
    let cloud = Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let responder = &site.responder.0;
    // A second SETTINGS frame.
    let steps = vec![json!({ "do": "control", "hex": "0400" }), json!({ "do": "closed" })];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    client.did_once("closed").await;
    let line = unanswered(responder, "ended with H3_FRAME_UNEXPECTED").await;
    let listener = site.egress().to_string();
    assert_fields(
        &line,
        &[("cause", "bad_request".into()), ("version", "HTTP/3".into()), ("listener", listener.into())],
    );
    assert_eq!(failed(responder, "egress", "bad_request").await, 1);
}

async fn a_client_that_leaves_in_the_middle_of_its_head_is_told_and_one_that_says_nothing_is_not(transport: Transport) {
    let site = Site::with(Cloud::new().and_tcp("web"), Edge::new(transport)).await;
    let responder = &site.responder.0;
    let before = failed(responder, "egress", "request_cut").await;
    for (nth, is_reset) in [(1, false), (2, true)] {
        let mut client = site.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(client.response().await.unwrap().status(), 200);
        // The beginning of another one.
        client.send(b"GET /never HTTP/1.1\r\nhost").await.unwrap();
        let (client, _) = client.into_parts();
        if is_reset {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        failed_times(responder, "egress", "request_cut", before + nth).await;
    }
    let cut = responder.line_with("in the middle of its head").await;
    let fields = [("outcome", "refused".into()), ("cause", "request_cut".into()), ("status", Value::Null)];
    assert_fields(&cut, &fields);
    // Who says nothing is a balancer that looks whether somebody is there.
    for _ in 0..3 {
        drop(site.connect().await);
    }
    assert_eq!(site.get("/").await.status(), 200);
    assert_eq!(failed(responder, "egress", "request_cut").await, before + 2);
}

async fn a_body_that_breaks_a_rule_is_no_cancellation(transport: Transport) {
    let site = Site::start(transport).await;
    let responder = &site.responder.0;
    let mut client = site.connect().await;
    let head = format!("POST /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send(head.as_bytes()).await.unwrap();
    site.arrived("/hang").await;
    client.send(b"no number\r\n").await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 400);
    let broken = [
        ("outcome", "failed".into()),
        ("cause", "bad_request".into()),
        ("details", "a chunk size is malformed".into()),
        ("status", 400.into()),
        ("request_bytes", 3.into()),
    ];
    assert_fields(&record(responder, "/hang").await, &broken);
    failed_times(responder, "egress", "bad_request", 1).await;
    assert_eq!(failed(responder, "egress", "cancelled").await, 0);
}

async fn a_target_that_is_down_is_told_on_both_sides_and_warned_of(transport: Transport) {
    let down = format!("http://{}", free_address());
    let site = Site::with(
        Cloud::new(),
        Edge::new(transport).service(&format!("{{ name: down, match: {{}}, target: \"{down}\" }}")),
    )
    .await;
    assert_eq!(site.get("/down").await.status(), 502);
    let line = record(&site.initiator, "/down").await;
    let expected = [("outcome", "failed".into()), ("cause", "target_refused".into()), ("to", down.as_str().into())];
    assert_fields(&line, &expected);
    let expected = [("status", 502.into()), ("outcome", "failed".into()), ("cause", "target_refused".into())];
    assert_fields(&record(&site.responder.0, "/down").await, &expected);
    failed_times(&site.responder.0, "egress", "target_refused", 1).await;
    let warning = site.initiator.line_with("the target failed a request").await;
    let expected = [("level", "WARN".into()), ("service", "down".into()), ("cause", "target_refused".into())];
    assert_fields(&warning, &expected);
    failed_times(&site.initiator, "target", "target_refused", 1).await;
}

async fn a_response_that_is_cut_is_told_on_both_sides_and_warned_of(transport: Transport) {
    let (folder, target) = (Folder::new(), RawTarget::new().await);
    let responder = Cloud::new().start(&folder).await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    let mut client = RawHttp::connect(responder.egress()).await.unwrap();
    client.send(format!("GET /cut HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345").await.unwrap();
    let head = client.head().await.unwrap();
    drop(peer);
    assert!(client.body(&head).await.is_err());
    for (process, side, cause) in [(&responder.0, "egress", "peer_"), (&initiator, "target", "target_cut")] {
        let line = record(process, "/cut").await;
        let cut = [("outcome", "cut".into()), ("status", 200.into()), ("side", side.into())];
        assert_fields(&line, &cut);
        assert!(line["cause"].as_str().unwrap().starts_with(cause), "{line}");
        failed_times(process, side, line["cause"].as_str().unwrap(), 1).await;
    }
    assert_fields(&initiator.line_with("the target failed").await, &[("cause", "target_cut".into())]);
}

async fn a_request_for_nobody_is_told(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    client.send(b"GET /lost HTTP/1.1\r\nhost: x\r\nx-node-id: edge-9\r\n\r\n").await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 503);
    let lost = [
        ("host_id", "edge-9".into()),
        ("node", Value::Null),
        ("status", 503.into()),
        ("outcome", "failed".into()),
        ("cause", "unknown_host".into()),
        ("attempts", 0.into()),
    ];
    assert_fields(&record(&site.responder.0, "/lost").await, &lost);
}

async fn a_flood_of_failures_is_a_few_warnings_and_a_number(transport: Transport) {
    let folder = Folder::new();
    let responder = Cloud::new().start(&folder).await;
    let edge = Edge::new(transport).target(&format!("http://{}", free_address()));
    let initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(1).await;
    for _ in 0..20 {
        let response = crate::support::http1::get(responder.egress(), "/", &[TO_NODE]).await.unwrap();
        assert_eq!(response.status(), 502);
    }
    failed_times(&initiator, "target", "target_refused", 20).await;
    initiator.line_with("the target failed a request").await;
    let warnings = initiator.log().lines().filter(|line| line.contains("the target failed a request")).count();
    assert!((1..=5).contains(&warnings), "{warnings}");
}
