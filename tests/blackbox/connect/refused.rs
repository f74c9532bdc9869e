//! What is not opened: a status with its cause, and nobody is connected to.

use std::net::SocketAddr;

use super::client::{Client, Over, Refused, head};
use super::{Bytes, site};
use crate::support::http1::{RawHttp, get};
use crate::support::http2::Http2;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    what_cannot_be_opened_is_a_status_with_its_cause,
    a_listener_takes_connect_only_where_its_file_says_so,
    a_service_of_bytes_takes_no_requests,
    a_malformed_connect_is_400_and_reaches_nobody,
    what_came_behind_a_refused_connect_is_never_a_request,
);

async fn refused(egress: SocketAddr, over: Over, to: &str) -> Refused {
    match Client::open(egress, over, to).await {
        Ok(_) => panic!("{to} is open over {over:?}"),
        Err(refused) => refused,
    }
}

// spec: ER-9, ST-56
async fn what_cannot_be_opened_is_a_status_with_its_cause(transport: Transport) {
    let cloud = Cloud::new().egress("connect", "true").egress("hold", "0");
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: closed, target: \"tcp://{}\" }}", free_address()))
        .service("{ name: no-name, target: \"tcp://no-such-name.invalid:1\" }")
        .service("{ name: no-socket, target: \"unix+raw:/no/such/socket\" }");
    let site = Site::with(cloud, edge).await;
    for over in Over::ALL {
        for (to, status, error) in [
            ("nobody:1", 404, "destination_not_found; details=\"the initiator refused, unknown_service"),
            ("web:80", 404, "destination_not_found; details=\"the initiator refused, wrong_kind"),
            ("closed:1", 502, "connection_refused"),
            ("no-name:1", 502, "destination_unavailable"),
            ("no-socket:1", 502, "destination_unavailable"),
        ] {
            let refused = refused(site.egress(), over, to).await;
            assert_eq!(refused.status, status, "{over:?} {to}: {refused:?}");
            assert!(refused.proxy_status.starts_with(&format!("adit; error={error}")), "{over:?} {to}: {refused:?}");
        }
    }
    let elsewhere = head("closed:1").replace("edge-1", "edge-2");
    let unknown = Client::open_http1(site.egress(), &elsewhere, b"", false).await.err().unwrap();
    assert_eq!(unknown.status, 503, "{unknown:?}");
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        process.counted(&format!("adit_exchanges_failed_total{{side=\"{side}\",cause=\"target_refused\"}}"), 2).await;
    }
}

async fn a_listener_takes_connect_only_where_its_file_says_so(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new()
        .and_egress()
        .egress("connect", "[bytes]")
        .egress("routes", "[{ host: \"*.sites.example\", service: bytes, host_id: edge-1 }]");
    let edge = Edge::new(transport)
        .service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address()))
        .service(&format!("{{ name: other, target: \"tcp://{}\" }}", target.address()));
    let site = Site::with(cloud, edge).await;
    for over in Over::ALL {
        assert_eq!(refused(site.egress(), over, "bytes:1").await.status, 501, "{over:?}");
        let other = refused(site.responder.egress_at(1), over, "other:1").await;
        assert_eq!(other.status, 403, "{over:?}");
        assert!(other.proxy_status.starts_with("adit; error=http_request_denied"), "{other:?}");
        for to in ["bytes:65535", "edge-1.sites.example:22"] {
            let opening = Client::open(site.responder.egress_at(1), over, to);
            let (client, _peer) = tokio::join!(opening, target.accept());
            assert!(client.is_ok(), "{over:?} {to}");
        }
    }
}

// spec: ST-14
async fn a_service_of_bytes_takes_no_requests(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().egress("service", "bytes");
    let edge = Edge::new(transport).service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address()));
    let site = Site::with(cloud, edge).await;
    let answer = get(site.egress(), "/", &[TO_NODE]).await.unwrap();
    assert_eq!(answer.status(), 404, "{}", answer.text());
    assert!(answer.text().contains("the service bytes takes no requests, only bytes"), "{}", answer.text());
}

// spec: ST-65
async fn a_malformed_connect_is_400_and_reaches_nobody(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    for to in [
        "bytes",
        "bytes:",
        "bytes:0",
        "bytes:65536",
        "bytes:x",
        ":1",
        "u@bytes:1",
        "/",
        "/bytes:1",
        "http://bytes:1/",
        "*",
    ] {
        let head = format!("CONNECT {to} HTTP/1.1\r\nhost: bytes:1\r\n{TO_NODE}\r\n\r\n");
        let refused = Client::open_http1(site.egress(), &head, b"", false).await.err();
        assert_eq!(refused.unwrap_or_else(|| panic!("{to} is open")).status, 400, "{to}");
    }
    for line in
        ["content-length: 0", "content-length: 4", "transfer-encoding: chunked", "host: bytes:1", "x-node-id: edge-1"]
    {
        let head = head("bytes:1").replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
        let refused = Client::open_http1(site.egress(), &head, b"", false).await.err();
        assert_eq!(refused.unwrap_or_else(|| panic!("{line} is open")).status, 400, "{line}");
    }
    let other_host = head("bytes:1").replace("host: bytes:1", "host: other:1");
    assert_eq!(Client::open_http1(site.egress(), &other_host, b"", false).await.err().unwrap().status, 400);
    for to in ["bytes", "bytes:0", "u@bytes:1"] {
        let connection = Http2::connect(site.egress()).await;
        assert_eq!(Client::open_http2(connection, to, &[], false).await.err().unwrap().status, 400, "{to}");
    }
    let (client, _peer) = tokio::join!(Client::open(site.egress(), Over::Http1, "bytes:1"), target.accept());
    assert!(client.is_ok(), "the first connection that the target gets");
    let attempts = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    assert_eq!(attempts, 1);
}

// spec: ST-65
async fn what_came_behind_a_refused_connect_is_never_a_request(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let request = format!("GET /status/204 HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\n\r\n");
    for (to, status) in [("nobody:1", 404), ("web:1", 404), ("bytes:0", 400)] {
        let refused = Client::open_http1(site.egress(), &head(to), request.as_bytes(), false).await.err().unwrap();
        assert_eq!(refused.status, status);
        assert!(!refused.text.contains("HTTP/1.1"), "{to}: {}", refused.text);
    }
    assert!(site.target.requests().is_empty());
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    client.send(request.as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().status(), 204, "in front of a CONNECT it is one");
}
