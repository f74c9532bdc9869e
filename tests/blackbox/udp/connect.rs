//! CONNECT-UDP (RFC 9298): a standard client asks an HTTP listener for a flow, and speaks in capsules.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request, Version};
use tokio::net::TcpStream;

use super::{edge, have_flows};
use crate::support::connect_udp;
use crate::support::datagrams::Peer;
use crate::support::http1::{Head, RawHttp};
use crate::support::http2::Http2;
use crate::support::site::{Cloud, NODE, Site, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(
    aioquic_speaks_quic_with_the_site_inside_of_http3,
    datagrams_pass_in_capsules_over_http_1_and_2,
    what_is_not_allowed_is_refused_and_nothing_else_is_reached,
    a_broken_capsule_ends_the_flow,
);

/// Of the service `echo`, at any port.
const PATH: &str = "/.well-known/masque/udp/echo/7/";

fn cloud() -> Cloud {
    Cloud::new().egress("connect_udp", "[echo, nobody]")
}

/// A datagram of at most 62 bytes in its capsule.
fn capsule(payload: &[u8]) -> Vec<u8> {
    [&[0, payload.len() as u8 + 1, 0], payload].concat()
}

/// An Upgrade of HTTP/1.1.
async fn upgrade(egress: SocketAddr, path: &str) -> (RawHttp<TcpStream>, Head) {
    let mut client = RawHttp::connect(egress).await.unwrap();
    let fields = format!("upgrade: connect-udp\r\ncapsule-protocol: ?1\r\nx-node-id: {}", NODE.node);
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n{fields}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let answer = client.head().await.unwrap();
    (client, answer)
}

// spec: ST-79
async fn aioquic_speaks_quic_with_the_site_inside_of_http3(transport: Transport) {
    let Some(python) = tools::python() else { return };
    let server = connect_udp::Server::start(python).await;
    let site = server.site(transport).await;
    for beside in [false, true] {
        let came = server.client(site.egress(), beside).served().await;
        let (used, other) = if beside { (came.datagrams, came.capsules) } else { (came.capsules, came.datagrams) };
        assert!(used > 100, "{came:?}");
        // What is too long for a QUIC datagram on this path goes in a capsule.
        assert!(beside || other == 0, "{came:?}");
        have_flows(&site, 0).await;
    }
}

// spec: ST-79
async fn datagrams_pass_in_capsules_over_http_1_and_2(transport: Transport) {
    let peer = Peer::echo().await;
    let site = Site::with(cloud(), edge(transport, &peer, "")).await;
    let (mut client, answer) = upgrade(site.egress(), PATH).await;
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("connect-udp")));
    assert_eq!(answer.field("capsule-protocol"), Some("?1"));
    // Another type and another context come between, and are passed over.
    let sent = [&capsule(b"one")[..], b"\x29\x03abc", b"\0\x03\x02xx", &capsule(b"two")].concat();
    client.send(&sent).await.unwrap();
    peer.got(b"two").await;
    let seen: Vec<Vec<u8>> = peer.seen().into_iter().map(|(_, seen)| seen).collect();
    assert_eq!(seen, [b"one", b"two"]);
    let expected = [capsule(b"one"), capsule(b"two")].concat();
    assert_eq!(client.exactly(expected.len()).await.unwrap(), expected);
    have_flows(&site, 1).await;
    drop(client);
    have_flows(&site, 0).await;

    let mut http2 = Http2::connect(site.egress()).await;
    let request = Request::builder().method(Method::CONNECT).uri(format!("https://x{PATH}")).version(Version::HTTP_2);
    let mut request = request.header("x-node-id", NODE.node).body(()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("connect-udp"));
    let (response, mut send) = http2.send(request, false).await;
    let response = response.await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["capsule-protocol"]), (200, &"?1".parse().unwrap()));
    let mut body = response.into_body();
    send.send_data(capsule(b"three").into(), false).unwrap();
    let mut got = Vec::new();
    while got.len() < capsule(b"three").len() {
        got.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    assert_eq!(got, capsule(b"three"));
    // The end of the request is the end of the flow, and of the response.
    send.send_data(Bytes::new(), true).unwrap();
    while let Some(data) = body.data().await {
        assert!(data.unwrap().is_empty());
    }
    have_flows(&site, 0).await;
}

// spec: ST-79
async fn what_is_not_allowed_is_refused_and_nothing_else_is_reached(transport: Transport) {
    let peer = Peer::echo().await;
    let site = Site::with(cloud(), edge(transport, &peer, "")).await;
    for (path, status) in [
        ("/.well-known/masque/udp/web/80/", 403),
        ("/.well-known/masque/udp/nobody/80/", 404),
        ("/.well-known/masque/udp/127.0.0.1/9/", 403),
        ("/.well-known/masque/udp/%2A/9/", 404),
        ("/.well-known/masque/udp/echo/0/", 400),
        ("/.well-known/masque/udp/echo/65536/", 400),
        ("/.well-known/masque/udp/echo/+7/", 400),
        ("/.well-known/masque/udp/echo/7/more/", 400),
        ("/.well-known/masque/udp/echo", 400),
        ("/.well-known/masque/udp//7/", 400),
        ("/elsewhere", 400),
    ] {
        let (mut client, answer) = upgrade(site.egress(), path).await;
        assert_eq!(answer.status, status, "{path}");
        // Whoever did not wait for the answer.
        let _ = client.send(&capsule(b"hello")).await;
    }
    let entered = site.responder.0.metric("adit_exchange_attempts_total{side=\"egress\"}").await;
    assert!(entered <= 1 && peer.seen().is_empty(), "{entered}: the site alone knows whom it does not export");
    drop(site);
    // Without the key it is a wish for a protocol that no service allows.
    let site = Site::with(Cloud::new(), edge(transport, &peer, "")).await;
    let (_client, answer) = upgrade(site.egress(), PATH).await;
    assert_eq!(answer.status, 501);
}

// spec: ST-79
async fn a_broken_capsule_ends_the_flow(transport: Transport) {
    let peer = Peer::echo().await;
    let site = Site::with(cloud(), edge(transport, &peer, "")).await;
    // Too long by its head alone; without a Context ID.
    for broken in [&b"\0\x80\x01\x00\x08"[..], b"\0\0"] {
        let (mut client, answer) = upgrade(site.egress(), PATH).await;
        assert_eq!(answer.status, 101);
        client.send(&capsule(b"before")).await.unwrap();
        assert_eq!(client.exactly(9).await.unwrap(), capsule(b"before"));
        client.send(broken).await.unwrap();
        assert!(client.read_to_end().await.is_err(), "it is cut, not ended");
        have_flows(&site, 0).await;
    }
}
