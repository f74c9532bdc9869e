//! HTTP/2 in, over clear text and over TLS, to targets of both versions.

use std::net::SocketAddr;
use std::sync::Arc;

use adit::tls;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::http1::RawHttp;
use crate::support::http2::{Body, Http2, whole};
use crate::support::site::{Cloud, Edge, Folder, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    prior_knowledge_reaches_a_target_of_either_version,
    a_call_with_trailers_both_ways_comes_back_as_it_was_sent,
    alpn_chooses_the_version_and_the_target_learns_of_tls,
    a_cut_response_resets_its_stream_and_no_other,
    a_failure_names_its_cause,
);

/// A request to the node.
fn to_node(method: &str, address: SocketAddr, path: &str) -> Request<()> {
    let uri = format!("http://{address}{path}");
    Request::builder().method(method).uri(uri).header("x-node-id", NODE.node).body(()).unwrap()
}

async fn get(client: &mut Http2, address: SocketAddr, path: &str) -> Response<Body> {
    client.get(to_node("GET", address, path)).await
}

async fn either_target(transport: Transport) -> [Site; 2] {
    [Site::start(transport).await, Site::h2c(Cloud::new(), Edge::new(transport)).await]
}

async fn prior_knowledge_reaches_a_target_of_either_version(transport: Transport) {
    for site in either_target(transport).await {
        let mut client = Http2::connect(site.egress()).await;
        let response = get(&mut client, site.egress(), "/bytes/300000").await;
        assert_eq!((response.status().as_u16(), response.body().bytes.len()), (200, 300_000));
        assert!(response.headers().contains_key("via"));
        let (response, mut body) = client.send(to_node("POST", site.egress(), "/echo"), false).await;
        body.send_data(Bytes::from_static(b"ping"), true).unwrap();
        assert_eq!(whole(response.await.unwrap()).await.unwrap().body().bytes, b"ping");
    }
}

async fn a_call_with_trailers_both_ways_comes_back_as_it_was_sent(transport: Transport) {
    for site in either_target(transport).await {
        let mut client = Http2::connect(site.egress()).await;
        let mut request = to_node("POST", site.egress(), "/echo");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        request.headers_mut().insert("trailer", "grpc-status".parse().unwrap());
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (response, mut body) = client.send(request, false).await;
        body.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
        body.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])).unwrap();
        let response = whole(response.await.unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.body().bytes, b"\0\0\0\0\x02hi");
        let mut request = to_node("GET", site.egress(), "/trailers");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        assert_eq!(client.get(request).await.into_body().trailers.unwrap()["x-sum"], "42");
    }
}

async fn tls(folder: &Folder, address: SocketAddr, alpn: &[u8]) -> TlsStream<TcpStream> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let mut config = config.unwrap().with_root_certificates(folder.authority.roots()).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

async fn alpn_chooses_the_version_and_the_target_learns_of_tls(transport: Transport) {
    let cloud = Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    let site = Site::with(cloud, Edge::new(transport)).await;
    let mut client = Http2::over(tls(&site.folder, site.egress(), b"h2").await).await;
    let request = Request::get("https://localhost/request").header("x-node-id", NODE.node).body(()).unwrap();
    let seen = client.get(request).await;
    let seen = String::from_utf8(seen.into_body().bytes).unwrap();
    assert!(seen.contains("for=127.0.0.1;host=localhost;proto=https"), "{seen}");

    let mut client = RawHttp::over(tls(&site.folder, site.egress(), b"http/1.1").await);
    client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-node-id: edge-1\r\n\r\n").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "hello\n");
}

async fn a_cut_response_resets_its_stream_and_no_other(transport: Transport) {
    for site in either_target(transport).await {
        let mut client = Http2::connect(site.egress()).await;
        let (slow, _) = client.send(to_node("GET", site.egress(), "/slow/300"), true).await;
        let (cut, _) = client.send(to_node("GET", site.egress(), "/cut/1000"), true).await;
        // A reset may overtake the head that was sent before it (RFC 9000 section 3.2); then the failure is told, or, if
        // that happened on the way to this client, the reset is all there is.
        match cut.await {
            Ok(response) if response.status() == 200 => assert!(whole(response).await.unwrap_err().is_reset()),
            Ok(response) => assert_eq!(response.status(), 502),
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
        assert_eq!(whole(slow.await.unwrap()).await.unwrap().body().bytes, b"slow\n");
    }
}

async fn a_failure_names_its_cause(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = Http2::connect(site.egress()).await;
    let mut request = to_node("GET", site.egress(), "/");
    request.headers_mut().insert("x-node-id", "nobody".parse().unwrap());
    let response = client.get(request).await;
    assert_eq!(response.status(), 503);
    let cause = response.headers()["proxy-status"].to_str().unwrap();
    assert!(cause.starts_with("adit; error=destination_not_found"), "{cause}");
}
