//! Connections that a proxy passes on, with its word who connected.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Bytes, connect, site_with};
use crate::support::http1::RawHttp;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};

over_each_transport!(
    a_trusted_proxy_says_who_connected_in_either_version,
    a_trusted_proxy_that_does_not_say_it_is_reset,
    what_anybody_else_says_is_for_the_target,
    a_target_that_asks_for_it_is_told_who_connected,
);

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x67\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn arrived(target: &Bytes) -> Vec<u8> {
    let mut bytes = Vec::new();
    target.accept().await.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn proxied(from: &str) -> Cloud {
    Cloud::new().and_tcp("bytes").egress("proxy_protocol", from)
}

async fn a_trusted_proxy_says_who_connected_in_either_version(transport: Transport) {
    let target = Bytes::new().await;
    let site = site_with(proxied("[\"127.0.0.0/8\"]"), transport, target.address()).await;
    let mut own = String::new();
    for (header, remote) in [(V1, "192.0.2.7:4711"), (V2, "192.0.2.8:4711"), (LOCAL, "")] {
        for segment in [1, header.len() + 100] {
            let mut client = connect(&site).await;
            own = client.local_addr().unwrap().to_string();
            let sent = [header, b"and what follows"].concat();
            let sending = async {
                for part in sent.chunks(segment) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let ((), arrived) = tokio::join!(sending, arrived(&target));
            assert_eq!(arrived, b"and what follows", "{remote}");
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
        let remote = if remote.is_empty() { &own } else { remote };
        let line = site.responder.0.line_with(&format!("\"remote\":\"{remote}\"")).await;
        assert_eq!(line["outcome"], "complete", "{line}");
    }
}

async fn a_trusted_proxy_that_does_not_say_it_is_reset(transport: Transport) {
    let target = Bytes::new().await;
    let site = site_with(proxied("[\"127.0.0.1\"]"), transport, target.address()).await;
    for wrong in [&b"SSH-2.0-somebody\r\n"[..], b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", &[b'P'; 200]] {
        let mut client = connect(&site).await;
        client.write_all(wrong).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap_err();
    }
    let line = site.responder.0.line_with("\"refused\"").await;
    assert_eq!(line["cause"], "bad_request", "{line}");
    assert!(line["details"].as_str().unwrap().contains("PROXY header"), "{line}");
    let failed = "adit_exchanges_failed_total{side=\"egress\",cause=\"bad_request\"}";
    site.responder.0.counted(failed, 3).await;
}

async fn what_anybody_else_says_is_for_the_target(transport: Transport) {
    let target = Bytes::new().await;
    for cloud in [proxied("[\"192.0.2.0/24\"]"), Cloud::new().and_tcp("bytes")] {
        let site = site_with(cloud, transport, target.address()).await;
        let mut client = connect(&site).await;
        client.write_all(V1).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(arrived(&target).await, V1);
        let remote = client.local_addr().unwrap();
        site.responder.0.line_with(&format!("\"remote\":\"{remote}\"")).await;
    }
}

// spec: ST-66, TB-16
async fn a_target_that_asks_for_it_is_told_who_connected(transport: Transport) {
    let target = Bytes::new().await;
    let service = format!("{{ name: bytes, target: \"tcp://{}\", proxy_protocol: v2 }}", target.address());
    let cloud = proxied("[\"192.0.2.0/24\"]").and_tcp("bytes").egress("proxy_protocol", "[\"127.0.0.1\"]").and_egress();
    let site = Site::with(cloud.egress("connect", "true"), Edge::new(transport).service(&service)).await;

    let mut client = connect(&site).await;
    client.write_all(b"first words").await.unwrap();
    client.shutdown().await.unwrap();
    let (source, destination) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let told = |source: std::net::SocketAddr| {
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        [&V2[..16], &[127, 0, 0, 1, 127, 0, 0, 1], &ports].concat()
    };
    assert_eq!(arrived(&target).await, [&told(source)[..], b"first words"].concat());

    // By the word of a proxy that is trusted, which also says to where; that was the address of the listener before.
    for (header, last) in [(V1, 7), (V2, 8)] {
        let mut client = TcpStream::connect(site.responder.tcp_at(1)).await.unwrap();
        client.write_all(header).await.unwrap();
        client.shutdown().await.unwrap();
        let ports = [4711_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
        assert_eq!(arrived(&target).await, [&V2[..16], &[192, 0, 2, last, 198, 51, 100, 1], &ports].concat());
    }

    // A client of CONNECT.
    let stream = TcpStream::connect(site.responder.egress_at(1)).await.unwrap();
    let source = stream.local_addr().unwrap();
    let mut client = RawHttp::over(stream);
    let head = format!("CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\nx-node-id: {}\r\n\r\n", NODE.node);
    client.send(head.as_bytes()).await.unwrap();
    client.finish().await.unwrap();
    let header = arrived(&target).await;
    assert_eq!(header[..12], V2[..12]);
    assert_eq!(header[24..26], source.port().to_be_bytes());
}
