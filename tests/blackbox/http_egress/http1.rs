//! HTTP/1.1 in, HTTP/1.1 out.

use crate::support::http1::{RawHttp, Response};
use crate::support::raw_target::{RawPeer, RawTarget};
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_body_of_known_length_comes_back_whole,
    a_chunked_body_and_its_trailers_come_back,
    a_body_that_ends_with_its_connection_reaches_the_client_whole,
    a_target_sees_the_request_as_it_was_sent_and_who_passed_it_on,
    a_response_says_that_it_came_through_a_proxy,
    fields_for_one_hop_do_not_cross,
    a_head_request_tells_the_length_and_sends_no_body,
    responses_without_a_body_leave_the_connection_usable,
    pipelined_requests_are_answered_in_order,
    an_early_hint_arrives_before_the_response,
    a_client_that_expects_100_is_told_to_continue,
    a_refusal_spares_the_client_that_expects_100_its_body,
    a_response_cut_by_the_target_is_not_a_clean_end,
    a_response_cut_by_the_loss_of_the_tunnel_is_not_a_clean_end,
    a_request_that_could_smuggle_another_reaches_no_target,
    a_head_over_the_limit_is_431,
);

/// Sends a whole request, `\n` standing for line ends of the head, and reads the whole answer.
async fn ask(site: &Site, head: &str, body: &str) -> Response {
    let mut client = site.connect().await;
    client.send(request(head, body).as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

fn request(head: &str, body: &str) -> String {
    format!("{}\r\nhost: shop.example\r\n{TO_NODE}\r\n\r\n{body}", head.replace('\n', "\r\n"))
}

/// A site whose target is written by the test.
async fn scripted(transport: Transport) -> (Site, RawTarget) {
    let target = RawTarget::new().await;
    let service = format!("{{ name: raw, match: {{}}, target: \"http://{}\" }}", target.address());
    (Site::with(Cloud::new(), Edge::new(transport).service(&service)).await, target)
}

/// Sends a GET and hands over both ends of its way.
async fn get_scripted(site: &Site, target: &RawTarget) -> (RawHttp<tokio::net::TcpStream>, RawPeer, String) {
    let mut client = site.connect().await;
    client.send(request("GET / HTTP/1.1", "").as_bytes()).await.unwrap();
    let (peer, head) = target.accept().await;
    (client, peer, head)
}

async fn a_body_of_known_length_comes_back_whole(transport: Transport) {
    let site = Site::start(transport).await;
    let body = "0123456789".repeat(30_000);
    let response = ask(&site, &format!("POST /echo HTTP/1.1\ncontent-length: {}", body.len()), &body).await;
    assert_eq!(response.status(), 200);
    assert!(response.text() == body);
}

async fn a_chunked_body_and_its_trailers_come_back(transport: Transport) {
    let site = Site::start(transport).await;
    let head = "POST /echo HTTP/1.1\ntransfer-encoding: chunked\ntrailer: x-sum\nte: trailers";
    let response = ask(&site, head, "5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 11\r\n\r\n").await;
    assert_eq!(response.text(), "hello world");
    let trailers = ask(&site, "GET /trailers HTTP/1.1\nte: trailers", "").await.trailers;
    assert_eq!(trailers, [("x-sum".into(), "42".into())]);
}

async fn a_body_that_ends_with_its_connection_reaches_the_client_whole(transport: Transport) {
    let (site, target) = scripted(transport).await;
    let (mut client, mut peer, _) = get_scripted(&site, &target).await;
    peer.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await.unwrap();
    drop(peer);
    let response = client.response().await.unwrap();
    assert_eq!(response.text(), "until the end");
    assert_eq!(response.field("transfer-encoding"), Some("chunked"), "the client can tell that it is whole");
}

async fn a_target_sees_the_request_as_it_was_sent_and_who_passed_it_on(transport: Transport) {
    let site = Site::with(Cloud::new().egress("trust", "[\"127.0.0.1\"]"), Edge::new(transport)).await;
    let seen = ask(&site, "GET /request?a=b%20c HTTP/1.1\nx-own: kept\nforwarded: for=192.0.2.1", "").await;
    let seen: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!((seen["method"].as_str(), seen["uri"].as_str()), (Some("GET"), Some("/request?a=b%20c")));
    let fields: Vec<(String, String)> = serde_json::from_value(seen["fields"].clone()).unwrap();
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(of, _)| of == name).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(all("host"), ["shop.example"]);
    assert_eq!(all("x-own"), ["kept"]);
    assert_eq!(all("via"), ["1.1 adit"]);
    assert_eq!(all("forwarded"), ["for=192.0.2.1", "for=127.0.0.1;host=shop.example;proto=http"]);
}

async fn a_response_says_that_it_came_through_a_proxy(transport: Transport) {
    let site = Site::start(transport).await;
    let response = site.get("/").await;
    assert_eq!(response.field("via"), Some("1.1 adit"));
    assert_eq!(response.field("proxy-status"), None, "nothing went wrong");
}

async fn fields_for_one_hop_do_not_cross(transport: Transport) {
    let (site, target) = scripted(transport).await;
    let mut client = site.connect().await;
    let hop = "connection: x-hop, keep-alive\nx-hop: 1\nkeep-alive: timeout=9\nproxy-connection: keep-alive\nte: gzip";
    client.send(request(&format!("GET / HTTP/1.1\n{hop}"), "").as_bytes()).await.unwrap();
    let (mut peer, head) = target.accept().await;
    for field in ["x-hop", "keep-alive", "proxy-connection", "te:"] {
        assert!(!head.contains(field), "{field} crossed: {head}");
    }
    let answer =
        "HTTP/1.1 200 OK\r\nconnection: x-back\r\nx-back: 1\r\nkeep-alive: timeout=9\r\ncontent-length: 2\r\n\r\n";
    peer.send(format!("{answer}ok")).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.field("x-back"), response.field("keep-alive")), (None, None));
    assert_eq!(response.text(), "ok");
}

async fn a_head_request_tells_the_length_and_sends_no_body(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    client.send(request("HEAD /bytes/1000 HTTP/1.1", "").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.field("content-length")), (200, Some("1000")));
    client.send(request("GET / HTTP/1.1", "").as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hello\n", "the next response starts where that one ended");
}

async fn responses_without_a_body_leave_the_connection_usable(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    for status in [204, 304] {
        client.send(request(&format!("GET /status/{status} HTTP/1.1"), "").as_bytes()).await.unwrap();
        let response = client.response().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.field("transfer-encoding"), None);
    }
    client.send(request("GET / HTTP/1.1", "").as_bytes()).await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hello\n");
}

async fn pipelined_requests_are_answered_in_order(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    let requests = [request("GET /slow/100 HTTP/1.1", ""), request("POST /echo HTTP/1.1\ncontent-length: 2", "hi")];
    client.send((requests.concat() + &request("GET / HTTP/1.1", "")).as_bytes()).await.unwrap();
    for expected in ["slow\n", "hi", "hello\n"] {
        assert_eq!(client.response().await.unwrap().text(), expected);
    }
}

async fn an_early_hint_arrives_before_the_response(transport: Transport) {
    let (site, target) = scripted(transport).await;
    let (mut client, mut peer, _) = get_scripted(&site, &target).await;
    peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n").await.unwrap();
    let hint = client.head().await.unwrap();
    assert_eq!((hint.status, hint.field("link")), (103, Some("</a.css>; rel=preload")));
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "ok");
}

async fn a_client_that_expects_100_is_told_to_continue(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    let head = request("POST /sink HTTP/1.1\nexpect: 100-continue\ncontent-length: 4", "");
    client.send(head.as_bytes()).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send(b"body").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "4");
}

async fn a_refusal_spares_the_client_that_expects_100_its_body(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = site.connect().await;
    let head =
        "POST /echo HTTP/1.1\r\nhost: x\r\nx-node-id: nobody\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    client.send(head.as_bytes()).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 503);
}

async fn a_response_cut_by_the_target_is_not_a_clean_end(transport: Transport) {
    let (site, target) = scripted(transport).await;
    for head in ["transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "content-length: 10\r\n\r\nhello"] {
        let (mut client, mut peer, _) = get_scripted(&site, &target).await;
        peer.send(format!("HTTP/1.1 200 OK\r\n{head}")).await.unwrap();
        let head = client.head().await.unwrap();
        drop(peer);
        client.body(&head).await.unwrap_err();
    }
}

async fn a_response_cut_by_the_loss_of_the_tunnel_is_not_a_clean_end(transport: Transport) {
    let cloud = Cloud::new().responder("keepalive", "1s").responder("idle_timeout", "5s");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let mut client = site.connect().await;
    client.send(request("GET /chunks/100000/1 HTTP/1.1", "").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    site.initiator.kill();
    client.body(&head).await.unwrap_err();
}

async fn a_request_that_could_smuggle_another_reaches_no_target(transport: Transport) {
    let site = Site::start(transport).await;
    let before = site.target.requests().len();
    for head in [
        "POST /echo HTTP/1.1\ncontent-length: 3\ntransfer-encoding: chunked",
        "POST /echo HTTP/1.1\ncontent-length: 3\ncontent-length: 4",
        "POST /echo HTTP/1.1\ntransfer-encoding: gzip, chunked, chunked",
        "GET / HTTP/1.1\nhost: another.example",
        "GET / HTTP/1.1\nx-bad : 1",
        "GET / HTTP/1.1\nx-folded: 1\n  2",
    ] {
        let mut client = site.connect().await;
        client.send(request(head, "0\r\n\r\n").as_bytes()).await.unwrap();
        let status = client.head().await.unwrap().status;
        assert!(matches!(status, 400 | 501), "{status} to {head}");
        let _ = client.read_to_end().await;
    }
    assert_eq!(site.target.requests().len(), before);
}

async fn a_head_over_the_limit_is_431(transport: Transport) {
    let site = Site::with(Cloud::new().egress("limits", "{ head_bytes: 4096, head_fields: 20 }"), Edge::new(transport));
    let site = site.await;
    let long = format!("GET / HTTP/1.1\nx-long: {}", "x".repeat(5000));
    let many = "GET / HTTP/1.1".to_owned() + &"\nx-one: 1".repeat(30);
    for head in [long, many] {
        let mut client = site.connect().await;
        client.send(request(&head, "").as_bytes()).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 431);
    }
    assert_eq!(site.get("/").await.status(), 200);
}
