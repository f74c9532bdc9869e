//! Requests that a proxy passes on, with its word who connected at the beginning of the connection.

use std::io::ErrorKind;
use std::sync::Arc;

use adit::tls;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::reload::trigger::rewrite;
use crate::support::http1::RawHttp;
use crate::support::http2::Http2;
use crate::support::http3::{Http3, request_with, wait};
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_trusted_proxy_says_who_asks_in_either_version_of_both_protocols,
    before_tls_a_trusted_proxy_says_it_too_and_over_http3_nobody_does,
    a_trusted_proxy_that_does_not_say_who_asks_is_reset,
    what_anybody_else_says_before_a_request_is_no_request,
    who_a_proxy_names_is_judged_and_told_to_the_target_of_a_connect,
    whom_a_proxy_must_name_changes_at_run_time,
);

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x67\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const NEAR: &str = "[\"127.0.0.0/8\"]";

fn proxied(cloud: Cloud) -> Cloud {
    cloud.egress("proxy_protocol", NEAR)
}

/// A connection that has begun with this header, in pieces of so many bytes.
async fn introduced(site: &Site, header: &[u8], piece: usize) -> TcpStream {
    let mut stream = TcpStream::connect(site.egress()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in header.chunks(piece) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream
}

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{TO_NODE}\r\n{fields}\r\n").into_bytes()
}

/// What the target sees of a request with these fields.
async fn seen(stream: TcpStream, fields: &str) -> String {
    let mut client = RawHttp::over(stream);
    client.send(&get("/request", fields)).await.unwrap();
    client.response().await.unwrap().text()
}

async fn a_trusted_proxy_says_who_asks_in_either_version_of_both_protocols(transport: Transport) {
    let site = Site::with(proxied(Cloud::new()).egress("trust", NEAR), Edge::new(transport)).await;
    for (header, client) in [(V1, "192.0.2.7"), (V2, "192.0.2.8"), (LOCAL, "127.0.0.1")] {
        for piece in [1, 20, 100] {
            let stream = introduced(&site, header, piece).await;
            // What it says in fields is the word of whom the header names, who is trusted only if it is the proxy itself.
            let told = seen(stream, "x-forwarded-for: 203.0.113.9\r\n").await;
            assert!(told.contains(&format!("for={client}")), "{told}");
            assert_eq!(told.contains("203.0.113.9"), header == LOCAL, "{told}");
        }
        let mut both = header.to_vec();
        both.extend(get("/request", ""));
        let mut client_of = RawHttp::over(introduced(&site, &both, both.len()).await);
        let told = client_of.response().await.unwrap().text();
        assert!(told.contains(&format!("for={client}")), "header and request in one piece: {told}");

        let mut http2 = Http2::over(introduced(&site, header, 7).await).await;
        let request = Request::get("http://shop.example/request").header("x-node-id", NODE.node).body(()).unwrap();
        let told = String::from_utf8(http2.get(request).await.into_body().bytes).unwrap();
        assert!(told.contains(&format!("for={client}")), "{told}");
    }
    site.responder.0.line_with("\"remote\":\"192.0.2.7:4711\"").await;
    site.responder.0.line_with("\"remote\":\"192.0.2.8:4711\"").await;
}

async fn before_tls_a_trusted_proxy_says_it_too_and_over_http3_nobody_does(transport: Transport) {
    let cloud = proxied(Cloud::new()).egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let config = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(site.folder.authority.roots()).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    for (header, client) in [(V1, "192.0.2.7"), (V2, "192.0.2.8"), (LOCAL, "127.0.0.1")] {
        let stream = introduced(&site, header, 5).await;
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let mut http = RawHttp::over(stream);
        http.send(&get("/request", "")).await.unwrap();
        let told = http.response().await.unwrap().text();
        assert!(told.contains(&format!("for={client};")) && told.contains("proto=https"), "{told}");
    }
    let bare = TcpStream::connect(site.egress()).await.unwrap();
    assert!(connector.connect("localhost".try_into().unwrap(), bare).await.is_err(), "a ClientHello is no header");
    let asked = serde_json::json!({ "authority": "localhost", "fields": [["x-node-id", NODE.node]] });
    let steps = vec![request_with("a", "GET", "/request", asked), wait("a")];
    if let Some(client) = Http3::start(site.egress(), &site.folder, steps) {
        let answer = client.answer("a").await;
        assert!(answer.status() == 200 && answer.text().contains("for=127.0.0.1"), "{}", answer.text());
    }
}

async fn a_trusted_proxy_that_does_not_say_who_asks_is_reset(transport: Transport) {
    let site = Site::with(proxied(Cloud::new()), Edge::new(transport)).await;
    for wrong in [&get("/", "")[..], b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", &[b'P'; 200]] {
        let mut stream = introduced(&site, wrong, wrong.len()).await;
        let end = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }
    let line = site.responder.0.line_with("\"refused\"").await;
    assert!(line["details"].as_str().unwrap().contains("PROXY header"), "{line}");
    let failed = "adit_exchanges_failed_total{side=\"egress\",cause=\"bad_request\"}";
    site.responder.0.counted(failed, 3).await;
    assert_eq!(site.target.requests().len(), 0);
}

async fn what_anybody_else_says_before_a_request_is_no_request(transport: Transport) {
    for cloud in [Cloud::new(), Cloud::new().egress("proxy_protocol", "[\"192.0.2.0/24\"]")] {
        let site = Site::with(cloud, Edge::new(transport)).await;
        // The line of version 1 reads as one of a request, of a version that nobody speaks.
        for (header, status) in [(V1, 505), (V2, 400)] {
            let mut client = RawHttp::over(introduced(&site, header, 100).await);
            client.send(&get("/request", "")).await.unwrap();
            assert_eq!(client.response().await.unwrap().status(), status);
        }
        assert_eq!(site.target.requests().len(), 0);
    }
}

async fn who_a_proxy_names_is_judged_and_told_to_the_target_of_a_connect(transport: Transport) {
    let bytes = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rules = "[{ priority: 9, match: { source: 192.0.2.7 }, action: deny },\
        { priority: 8, match: { source: 127.0.0.1, path: /near }, action: deny }]";
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: bytes, target: \"tcp://{}\", proxy_protocol: v2 }}", bytes.local_addr().unwrap()));
    let cloud = proxied(Cloud::new()).egress("connect", "true").egress("policies", rules);
    let site = Site::with(cloud, edge).await;
    let asked = async |header: &[u8], path: &str| {
        let mut client = RawHttp::over(introduced(&site, header, 100).await);
        client.send(&get(path, "")).await.unwrap();
        client.response().await.unwrap().status()
    };
    assert_eq!((asked(V1, "/").await, asked(V2, "/near").await, asked(LOCAL, "/near").await), (403, 200, 403));

    let mut client = RawHttp::over(introduced(&site, V2, 100).await);
    let head = format!("CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\n{TO_NODE}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let mut told = [0; 28];
    bytes.accept().await.unwrap().0.read_exact(&mut told).await.unwrap();
    assert_eq!((&told[..20], &told[24..26]), (&V2[..20], &V2[24..26]));
}

async fn whom_a_proxy_must_name_changes_at_run_time(transport: Transport) {
    let site = Site::with(Cloud::new(), Edge::new(transport)).await;
    assert!(seen(introduced(&site, b"", 1).await, "").await.contains("for=127.0.0.1"));
    let changes = rewrite(&site.responder.0, &proxied(Cloud::new()).text()).await.changes();
    assert!(changes.iter().any(|change| change.contains("proxy_protocol")), "{changes:?}");
    assert!(seen(introduced(&site, V1, 100).await, "").await.contains("for=192.0.2.7"));
    rewrite(&site.responder.0, &Cloud::new().text()).await;
    assert!(seen(introduced(&site, b"", 1).await, "").await.contains("for=127.0.0.1"));
}
