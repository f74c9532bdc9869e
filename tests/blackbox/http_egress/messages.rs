//! What becomes of a message between client and target: what is believed, joined, refused, and passed on as it came.

use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http1::Response;
use crate::support::http2::{Http2, whole};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    what_a_stranger_says_of_a_client_reaches_no_target,
    what_a_trusted_proxy_says_of_a_client_is_passed_on_and_extended,
    the_two_forms_that_tell_of_a_client_agree_whoever_wrote_them,
    a_request_that_may_go_no_further_is_answered_here_and_others_are_counted_down,
    a_target_says_nothing_of_clients_to_clients,
    a_field_that_decides_the_route_is_there_once_and_is_text,
    cookies_that_http2_has_split_are_one_field_for_the_target,
    an_authority_that_no_tunnel_takes_is_the_clients_fault,
    an_upgrade_is_refused_and_reaches_no_target,
    a_target_that_refuses_spares_the_client_its_body,
    a_target_that_wants_the_body_says_so_itself,
    a_target_that_knows_no_100_is_answered_for,
    a_malformed_head_costs_its_stream_and_no_neighbour,
    pseudo_fields_in_trailers_end_the_request_and_no_neighbour,
    a_head_on_a_stream_that_was_passed_by_ends_the_connection,
    a_service_is_chosen_by_the_normal_form_of_a_path,
    what_a_listener_takes_fits_the_tunnel_with_what_is_added_to_it,
    what_a_target_wrote_before_it_died_arrives_before_the_cut,
);

/// A site whose target is written by the test.
async fn scripted(transport: Transport, cloud: Cloud) -> (Site, RawTarget) {
    let target = RawTarget::new().await;
    let service = format!("{{ name: raw, match: {{}}, target: \"http://{}\" }}", target.address());
    (Site::with(cloud, Edge::new(transport).service(&service)).await, target)
}

/// Sends a request of these lines and reads the whole answer.
async fn ask(site: &Site, lines: &[&str]) -> Response {
    let mut client = site.connect().await;
    client.send(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

/// All values of a field that a target has seen.
fn seen(response: &Response, name: &str) -> Vec<String> {
    let seen: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    let fields: Vec<(String, String)> = serde_json::from_value(seen["fields"].clone()).unwrap();
    fields.into_iter().filter(|(of, _)| of == name).map(|(_, value)| value).collect()
}

const CLAIMS: [&str; 9] = [
    "GET /request HTTP/1.1",
    "host: shop.example",
    "x-node-id: edge-1",
    "x-forwarded-for: 6.6.6.6",
    "x-forwarded-client-cert: URI=spiffe://admin",
    "x-forwarded-host: bank.example",
    "x-envoy-internal: true",
    "x-real-ip: 6.6.6.6",
    "forwarded: for=6.6.6.6",
];

async fn what_a_stranger_says_of_a_client_reaches_no_target(transport: Transport) {
    let site = Site::start(transport).await;
    let answer = ask(&site, &CLAIMS).await;
    assert_eq!(seen(&answer, "forwarded"), ["for=127.0.0.1;host=shop.example;proto=http"]);
    assert_eq!(seen(&answer, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&answer, "x-forwarded-proto"), ["http"]);
    for gone in ["x-forwarded-client-cert", "x-forwarded-host", "x-envoy-internal", "x-real-ip"] {
        assert_eq!(seen(&answer, gone), [""; 0], "{gone}");
    }
}

async fn what_a_trusted_proxy_says_of_a_client_is_passed_on_and_extended(transport: Transport) {
    let site = Site::with(Cloud::new().egress("trust", "[\"127.0.0.0/8\"]"), Edge::new(transport)).await;
    let answer = ask(&site, &CLAIMS).await;
    assert_eq!(seen(&answer, "forwarded"), ["for=6.6.6.6", "for=127.0.0.1;host=shop.example;proto=http"]);
    assert_eq!(seen(&answer, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(seen(&answer, "x-forwarded-client-cert"), ["URI=spiffe://admin"]);
    assert_eq!(seen(&answer, "x-envoy-internal"), ["true"]);
}

async fn the_two_forms_that_tell_of_a_client_agree_whoever_wrote_them(transport: Transport) {
    let site = Site::with(Cloud::new().egress("trust", "[\"127.0.0.0/8\"]"), Edge::new(transport)).await;
    let balancer = "for=127.0.0.1;host=shop.example;proto=http";
    for (said, forwarded, x, proto) in [
        (&["x-forwarded-for: 6.6.6.6", "x-forwarded-proto: https"][..], "for=6.6.6.6", "6.6.6.6", "https"),
        (&["forwarded: for=6.6.6.6;proto=https"], "for=6.6.6.6;proto=https", "6.6.6.6", "https"),
        (&["forwarded: for=10.0.0.5", "x-forwarded-for: 6.6.6.6"], "for=unknown", "unknown", "http"),
    ] {
        let answer = ask(&site, &[&CLAIMS[..3], said].concat()).await;
        assert_eq!(seen(&answer, "forwarded"), [forwarded, balancer], "{said:?}");
        assert_eq!(seen(&answer, "x-forwarded-for"), [format!("{x}, 127.0.0.1")], "{said:?}");
        assert_eq!(seen(&answer, "x-forwarded-proto"), [proto], "{said:?}");
    }
}

// spec: ST-81
async fn a_request_that_may_go_no_further_is_answered_here_and_others_are_counted_down(transport: Transport) {
    let site = Site::start(transport).await;
    let asked = async |method: &str, left: &str| {
        let line = format!("{method} /request HTTP/1.1");
        ask(&site, &[&line, "host: a", "x-node-id: edge-1", &format!("max-forwards: {left}"), "cookie: secret"]).await
    };
    for method in ["OPTIONS", "TRACE"] {
        assert_eq!(seen(&asked(method, "3").await, "max-forwards"), ["2"], "{method}");
        assert_eq!(seen(&asked(method, "1").await, "max-forwards"), ["0"], "{method}");
        let refused = asked(method, "some").await;
        assert_eq!(refused.status(), 400);
        assert!(refused.text().contains("Max-Forwards"), "{}", refused.text());
    }
    assert_eq!(seen(&asked("GET", "0").await, "max-forwards"), ["0"], "it means nothing there");
    let reached = site.target.requests().len();
    let options = asked("OPTIONS", "0").await;
    assert_eq!((options.status(), options.body.len()), (200, 0));
    let trace = asked("TRACE", "0").await;
    assert_eq!((trace.status(), trace.field("content-type")), (200, Some("message/http")));
    assert!(trace.text().starts_with("TRACE http://a/request HTTP/1.1\r\n"), "{}", trace.text());
    assert!(trace.text().contains("max-forwards: 0\r\n") && !trace.text().contains("secret"), "{}", trace.text());
    let mut client = Http2::connect(site.egress()).await;
    let request = Request::options("http://a/request").header("x-node-id", "edge-1").header("max-forwards", "0");
    assert_eq!(client.get(request.body(()).unwrap()).await.status(), 200);
    assert_eq!(site.target.requests().len(), reached, "no target has seen them");
    let stranger = ask(&site, &["TRACE / HTTP/1.1", "host: a", "max-forwards: 0"]).await;
    assert_eq!(stranger.status(), 400, "the rules of the listener come first");
}

async fn a_target_says_nothing_of_clients_to_clients(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    let mut client = site.connect().await;
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
    let (mut peer, _) = target.accept().await;
    let claims = "x-forwarded-client-cert: a\r\nx-envoy-internal: true\r\nforwarded: for=b\r\nx-own: kept";
    peer.send(format!("HTTP/1.1 200 OK\r\n{claims}\r\ncontent-length: 2\r\n\r\nok")).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.text().as_str(), response.field("x-own")), ("ok", Some("kept")));
    for gone in ["x-forwarded-client-cert", "x-envoy-internal", "forwarded"] {
        assert_eq!(response.field(gone), None, "{gone}");
    }
}

async fn a_field_that_decides_the_route_is_there_once_and_is_text(transport: Transport) {
    let site = Site::start(transport).await;
    let twice = ask(&site, &["GET / HTTP/1.1", "host: a", "x-node-id: edge-1", "x-node-id: edge-1"]).await;
    assert_eq!(twice.status(), 400);
    assert!(twice.text().contains("header x-node-id is there more than once"), "{}", twice.text());
    let mut client = site.connect().await;
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nx-node-id: edge-1\xff\r\nx-cluster-id: stores-eu\r\n\r\n";
    client.send(head).await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 400, "no falling through to another field");
}

async fn cookies_that_http2_has_split_are_one_field_for_the_target(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    let mut client = Http2::connect(site.egress()).await;
    let mut request = Request::get(format!("http://{}/", site.egress()));
    for (name, value) in [("x-node-id", NODE.node), ("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")] {
        request = request.header(name, value);
    }
    let (response, _) = client.send(request.body(()).unwrap(), true).await;
    let (mut peer, head) = target.accept().await;
    assert_eq!(head.matches("cookie:").count(), 1, "{head}");
    assert!(head.contains("cookie: a=1; b=2; c=3\r\n"), "{head}");
    peer.send("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(response.await.unwrap().status(), 204);
}

// spec: ST-12
async fn an_authority_that_no_tunnel_takes_is_the_clients_fault(transport: Transport) {
    let site = Site::start(transport).await;
    for (length, status) in [(512, 200), (513, 400)] {
        let host = format!("host: {}", "a".repeat(length));
        assert_eq!(ask(&site, &["GET / HTTP/1.1", &host, "x-node-id: edge-1"]).await.status(), status, "{length}");
    }
}

// spec: ST-15
async fn an_upgrade_is_refused_and_reaches_no_target(transport: Transport) {
    let site = Site::start(transport).await;
    let upgrade = ["GET / HTTP/1.1", "host: a", "x-node-id: edge-1", "connection: Upgrade", "upgrade: tcp"];
    assert_eq!(ask(&site, &upgrade).await.status(), 501);
    let h2c = ["GET / HTTP/1.1", "host: a", "x-node-id: edge-1", "connection: upgrade", "upgrade: h2c"];
    assert_eq!(ask(&site, &h2c).await.status(), 200, "an offer for this connection is not taken");
}

const EXPECTS: &[u8] =
    b"POST / HTTP/1.1\r\nhost: a\r\nx-node-id: edge-1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";

// spec: ST-39
async fn a_target_that_refuses_spares_the_client_its_body(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    let mut client = site.connect().await;
    client.send(EXPECTS).await.unwrap();
    let (mut peer, head) = target.accept().await;
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    peer.send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno\n").await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.status(), response.text().as_str(), response.interim.len()), (413, "no\n", 0));
}

async fn a_target_that_wants_the_body_says_so_itself(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    let mut client = site.connect().await;
    client.send(EXPECTS).await.unwrap();
    let (mut peer, _) = target.accept().await;
    peer.send("HTTP/1.1 100 Continue\r\nx-from: target\r\n\r\n").await.unwrap();
    let interim = client.head().await.unwrap();
    assert_eq!((interim.status, interim.field("x-from")), (100, Some("target")));
    client.send(b"body").await.unwrap();
    assert_eq!(peer.exactly(4).await.unwrap(), b"body");
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 200);
}

async fn a_target_that_knows_no_100_is_answered_for(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    for _ in 0..2 {
        let mut client = site.connect().await;
        client.send(EXPECTS).await.unwrap();
        let (mut peer, _) = target.accept().await;
        assert_eq!(client.head().await.unwrap().status, 100);
        client.send(b"body").await.unwrap();
        assert_eq!(peer.exactly(4).await.unwrap(), b"body");
        peer.send("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(client.response().await.unwrap().status(), 200);
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name, &[length(value)], value].concat()
}

const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'a'];

/// An HTTP/2 connection of which a test decides every byte.
async fn raw_http2(site: &Site) -> TcpStream {
    let mut client = TcpStream::connect(site.egress()).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    client
}

/// Reads frames until one of this kind comes on this stream, and returns its payload. GOAWAY must not come.
async fn until(client: &mut TcpStream, kind: u8, stream: u8) -> Vec<u8> {
    loop {
        let (of_kind, of_stream, payload) = next_frame(client).await;
        assert_ne!(of_kind, 7, "GOAWAY: {payload:?}");
        if (of_kind, of_stream) == (kind, stream) {
            return payload;
        }
    }
}

/// Kind, stream and payload.
async fn next_frame(client: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    client.read_exact(&mut payload).await.unwrap();
    (head[3], head[8], payload)
}

// spec: ST-34
async fn a_malformed_head_costs_its_stream_and_no_neighbour(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = raw_http2(&site).await;
    let slow = [&[0x82, 0x86, 0x41, 0x01, b'a'][..], &field(b":path", b"/slow/300"), &field(b"x-node-id", b"edge-1")];
    client.write_all(&frame(1, 5, 1, &slow.concat())).await.unwrap();
    let bad = [field(b"x", b"a\x7f"), field(b"X-A", b"1"), field(b":odd", b"1"), field(b"x", b"\0")];
    let mut answer = None;
    for (stream, bad) in (3..).step_by(2).zip(bad) {
        client.write_all(&frame(1, 5, stream, &[GET, &bad].concat())).await.unwrap();
        // The neighbour may be answered at any moment of that.
        let told = loop {
            match next_frame(&mut client).await {
                (3, of, payload) if of == stream => break payload,
                (0, 1, payload) => answer = answer.or(Some(payload)),
                (kind, _, payload) => assert!(!matches!(kind, 3 | 7), "RST_STREAM or GOAWAY: {payload:?}"),
            }
        };
        assert_eq!(told, [0, 0, 0, 1], "PROTOCOL_ERROR");
    }
    let answer = match answer {
        Some(answer) => answer,
        None => until(&mut client, 0, 1).await,
    };
    assert_eq!(answer, b"slow\n");
}

async fn pseudo_fields_in_trailers_end_the_request_and_no_neighbour(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = raw_http2(&site).await;
    let post =
        [&[0x83, 0x86, 0x41, 0x01, b'a'][..], &field(b":path", b"/sink"), &field(b"x-node-id", b"edge-1")].concat();
    client.write_all(&frame(1, 4, 1, &post)).await.unwrap();
    client.write_all(&frame(0, 0, 1, b"body")).await.unwrap();
    client.write_all(&frame(1, 5, 1, &field(b":path", b"/"))).await.unwrap();
    assert_eq!(until(&mut client, 3, 1).await, [0, 0, 0, 1], "PROTOCOL_ERROR");

    let mut fresh = Http2::connect(site.egress()).await;
    let request =
        Request::post(format!("http://{}/echo", site.egress())).header("x-node-id", NODE.node).body(()).unwrap();
    let (response, mut body) = fresh.send(request, false).await;
    body.send_data(Bytes::from_static(b"body"), false).unwrap();
    body.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "4".parse().unwrap())])).unwrap();
    assert_eq!(whole(response.await.unwrap()).await.unwrap().body().bytes, b"body");
}

/// RFC 9113 section 5.1.1: a fault of the connection, whatever the head says.
async fn a_head_on_a_stream_that_was_passed_by_ends_the_connection(transport: Transport) {
    const GOAWAY: u8 = 7;
    const PROTOCOL_ERROR: u8 = 1;
    let site = Site::start(transport).await;
    let mut client = raw_http2(&site).await;
    for stream in [5, 3] {
        client.write_all(&frame(1, 5, stream, &[GET, &field(b"x-node-id", b"edge-1")].concat())).await.unwrap();
    }
    let told = loop {
        let (kind, _, payload) = next_frame(&mut client).await;
        if kind == GOAWAY {
            break payload[7];
        }
        assert_ne!(kind, 3, "a fault of a stream only");
    };
    assert_eq!(told, PROTOCOL_ERROR);
}

async fn a_service_is_chosen_by_the_normal_form_of_a_path(transport: Transport) {
    let (root, private) = (RawTarget::new().await, RawTarget::new().await);
    let service = |name: &str, prefix: &str, target: &RawTarget| {
        format!("{{ name: {name}, match: {{ prefix: {prefix} }}, target: \"http://{}\" }}", target.address())
    };
    let edge = Edge::new(transport).service(&service("root", "/", &root)).service(&service("private", "/p", &private));
    let site = Site::with(Cloud::new(), edge).await;
    for (path, target) in
        [("/p/../x", &root), ("/p/%2e%2e/x", &root), ("//p", &private), ("/x/../p", &private), ("/%70/a%2fb", &private)]
    {
        let mut client = site.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-node-id: edge-1\r\n\r\n");
        client.send(head.as_bytes()).await.unwrap();
        let (mut peer, head) = target.accept().await;
        assert!(head.starts_with(&format!("get {path} http/1.1\r\n")), "what goes on is what came: {head}");
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(client.response().await.unwrap().status(), 204, "{path}");
    }
    for path in ["/p/..%2fx", "/p%2fx", "/p/..\\x", "/p/..;a/x"] {
        let line = format!("GET {path} HTTP/1.1");
        assert_eq!(ask(&site, &[&line, "host: a", "x-node-id: edge-1"]).await.status(), 400, "{path}");
    }
}

/// Many servers take 100 fields themselves, so the target is one that counts none.
// spec: HS-15
async fn what_a_listener_takes_fits_the_tunnel_with_what_is_added_to_it(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    let many: Vec<String> = (0..98).map(|number| format!("x-{number}: value")).collect();
    let mut lines = vec!["GET / HTTP/1.1", "host: shop.example", "x-node-id: edge-1"];
    lines.extend(many.iter().map(String::as_str));
    let take = async {
        let (mut peer, head) = target.accept().await;
        assert!(head.contains("\r\nx-97: value\r\n"), "{head}");
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(ask(&site, &lines), take);
    assert_eq!(answer.status(), 204);
    lines.push("x-98: value");
    assert_eq!(ask(&site, &lines).await.status(), 431, "one field too many");
}

/// The data of a chunked body that has no last chunk.
fn without_chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        let line = bytes.windows(2).position(|end| end == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        assert_ne!(size, 0, "the body looks whole");
        data.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
    data
}

// spec: ST-38
async fn what_a_target_wrote_before_it_died_arrives_before_the_cut(transport: Transport) {
    let (site, target) = scripted(transport, Cloud::new()).await;
    let body = "0123456789".repeat(30_000);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
    let sized = format!("HTTP/1.1 500 Oh\r\ncontent-length: 400000\r\n\r\n{body}");
    for answer in [&chunked, &sized] {
        let mut client = site.connect().await;
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
        let (mut peer, _) = target.accept().await;
        peer.send(answer).await.unwrap();
        drop(peer);
        let head = client.head().await.unwrap();
        assert_eq!(head.status, answer[9..12].parse::<u16>().unwrap());
        let mut read = client.read_to_end().await.expect("the connection ends in order, behind all that there is");
        if head.field("transfer-encoding").is_some() {
            read = without_chunks(&read);
        }
        assert_eq!(read.len(), body.len(), "all that the target wrote");

        let mut client = Http2::connect(site.egress()).await;
        let request =
            Request::get(format!("http://{}/", site.egress())).header("x-node-id", NODE.node).body(()).unwrap();
        let (response, _) = client.send(request, true).await;
        let (mut peer, _) = target.accept().await;
        peer.send(answer).await.unwrap();
        drop(peer);
        let mut response = response.await.unwrap();
        let mut length = 0;
        let error = loop {
            match response.body_mut().data().await {
                Some(Ok(data)) => {
                    length += data.len();
                    response.body_mut().flow_control().release_capacity(data.len()).unwrap();
                }
                Some(Err(error)) => break error,
                None => panic!("the body looks whole"),
            }
        };
        assert!(error.is_reset(), "{error}");
        assert_eq!(length, body.len(), "all that the target wrote");
    }
}
