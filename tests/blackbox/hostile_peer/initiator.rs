//! A hostile initiator at our responder.

use std::sync::Arc;
use std::time::Duration;

use adit::protocol::ALPN;
use adit::protocol::code::{CloseCode, RefusalCode};
use adit::protocol::control::Frame;
use adit::protocol::varint;
use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::raw::{HOSTILE, closed, connect, connect_with, encoded, frame, hello, hello_bytes, loopback, open, trust};
use super::victim::{HANDSHAKE_TIMEOUT, Victim};
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, NODE, Transport};

impl Victim {
    async fn start() -> Self {
        Self::with(Cloud::new()).await
    }

    async fn with(cloud: Cloud) -> Self {
        Self::beside(Transport::Quic, cloud).await
    }

    async fn connect(&self) -> quinn::Connection {
        connect(&self.site.folder, self.site.responder.tunnel_address(), HOSTILE).await
    }

    /// Says these bytes instead of HELLO and returns how the connection ended.
    async fn says(&self, bytes: &[u8]) -> (u64, String) {
        let connection = self.connect().await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let end = closed(&connection).await;
        self.unharmed().await;
        end
    }
}

fn number(code: CloseCode) -> u64 {
    code.number().into()
}

#[tokio::test]
async fn without_a_control_stream_the_handshake_times_out() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    assert_eq!(closed(&connection).await.0, number(CloseCode::HandshakeTimeout));
    let line = victim.site.responder.0.line_with("the handshake failed").await;
    assert!(
        line["error"].as_str().unwrap().contains(&format!("no control stream within {HANDSHAKE_TIMEOUT}")),
        "{line}"
    );
    let series = "adit_handshakes_failed_total{role=\"responder\",reason=\"timeout\"}";
    assert_eq!(victim.site.responder.0.metric(series).await, 1);
    victim.unharmed().await;
}

// spec: SE-23
#[tokio::test]
async fn an_address_that_may_be_forged_is_answered_with_three_times_its_bytes_at_most() {
    let victim = Victim::start().await;
    let initial = first_datagram(&victim.site.folder).await;
    let forged = UdpSocket::bind(loopback()).await.unwrap();
    forged.send_to(&initial, victim.site.responder.tunnel_address()).await.unwrap();
    // Until then it repeats what is not acknowledged.
    let line = victim.site.responder.0.line_with("the handshake failed").await;
    assert!(
        line["error"].as_str().unwrap().contains(&format!("no TLS handshake within {HANDSHAKE_TIMEOUT}")),
        "{line}"
    );
    let (mut answered, mut buffer) = (0, [0; 2048]);
    while let Ok(length) = forged.try_recv(&mut buffer) {
        answered += length;
    }
    assert!(answered > initial.len(), "{answered} bytes: it was no Initial");
    assert!(answered <= 3 * initial.len(), "{answered} bytes for {}", initial.len());
    victim.unharmed().await;
}

/// A ClientHello that fits into one datagram.
async fn first_datagram(folder: &Folder) -> Vec<u8> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(trust(folder).roots);
    let tls = rustls::ClientConfig::builder_with_provider(provider.into());
    let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let tap = UdpSocket::bind(loopback()).await.unwrap();
    let client = quinn::Endpoint::client(loopback()).unwrap();
    let _connecting = client.connect_with(config, tap.local_addr().unwrap(), "localhost").unwrap();
    let mut datagram = vec![0; 2048];
    let length = tap.recv(&mut datagram).await.unwrap();
    datagram.truncate(length);
    assert_eq!(datagram.len(), 1200);
    datagram
}

#[tokio::test]
async fn half_a_hello_times_out() {
    let victim = Victim::start().await;
    let bytes = hello_bytes(HOSTILE);
    let (code, _) = victim.says(&bytes[..bytes.len() / 2]).await;
    assert_eq!(code, number(CloseCode::HandshakeTimeout));
    let line = victim.site.responder.0.line_with("the handshake failed").await;
    assert!(line["error"].as_str().unwrap().contains(&format!("no HELLO within {HANDSHAKE_TIMEOUT}")), "{line}");
}

#[tokio::test]
async fn a_hello_of_a_mebibyte_is_refused_by_its_header_alone() {
    let victim = Victim::start().await;
    let mut header = BytesMut::from(&[0x01][..]);
    varint::encode(&mut header, 1 << 20);
    assert_eq!(victim.says(&header).await.0, number(CloseCode::Refused));
    let line = victim.site.responder.0.line_with("no tunnel: refused").await;
    assert_eq!(line["code"], 400);
    assert!(line["reason"].as_str().unwrap().contains("1048576 bytes; expected at most 65536"), "{line}");
}

#[tokio::test]
async fn garbage_instead_of_a_hello_is_refused_with_400() {
    let victim = Victim::start().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 2000], &[0x01, 0x03, 0x00, 0x00, 0x00]] {
        assert_eq!(victim.says(bytes).await.0, number(CloseCode::Refused));
    }
    let series = "adit_handshakes_refused_total{role=\"responder\",code=\"malformed\"}";
    assert_eq!(victim.site.responder.0.metric(series).await, 3);
}

#[tokio::test]
async fn a_frame_before_hello_is_refused_with_400() {
    let victim = Victim::start().await;
    assert_eq!(victim.says(&encoded(&Frame::Ping([1; 8]))).await.0, number(CloseCode::Refused));
    assert_eq!(victim.site.responder.0.line_with("no tunnel: refused").await["code"], 400);
}

#[tokio::test]
async fn a_version_that_nobody_speaks_is_refused_with_404() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut claim = hello(HOSTILE);
    claim.versions = (2, 9);
    send.write_all(&encoded(&Frame::Hello(Box::new(claim)))).await.unwrap();
    let Frame::Refuse(refusal) = frame(&mut recv).await else { panic!("expected REFUSE") };
    assert_eq!(refusal.code, RefusalCode::Unsupported);
    let line = victim.site.responder.0.line_with("no tunnel: refused").await;
    assert_eq!(line["code"], 404);
    victim.unharmed().await;
}

#[tokio::test]
async fn an_unknown_odd_frame_ends_its_tunnel_and_an_even_one_does_not() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (mut send, mut recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    send.write_all(&[0x20, 0x03, 1, 2, 3]).await.unwrap();
    send.write_all(&encoded(&Frame::Ping([9; 8]))).await.unwrap();
    assert_eq!(frame(&mut recv).await, Frame::Pong([9; 8]), "0x20 was skipped");
    send.write_all(&[0x21, 0x03, 1, 2, 3]).await.unwrap();
    assert_eq!(closed(&connection).await.0, number(CloseCode::Protocol));
    victim.unharmed().await;
}

#[tokio::test]
async fn a_second_hello_ends_the_tunnel() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (mut send, _recv) = open(&connection, HOSTILE).await;
    send.write_all(&hello_bytes(HOSTILE)).await.unwrap();
    assert_eq!(closed(&connection).await.0, number(CloseCode::Protocol));
    victim.unharmed().await;
}

#[tokio::test]
async fn a_control_stream_that_ends_ends_the_tunnel() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (mut send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    send.finish().unwrap();
    assert_eq!(closed(&connection).await.0, number(CloseCode::Protocol));
    victim.unharmed().await;
}

#[tokio::test]
async fn only_the_control_stream_can_be_opened() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    for _ in 0..100 {
        assert!(timeout(Duration::from_millis(2), connection.open_bi()).await.is_err(), "a second stream was allowed");
        assert!(timeout(Duration::from_millis(2), connection.open_uni()).await.is_err(), "a stream was allowed");
    }
    assert_eq!(victim.site.get("/").await.status(), 200);
    victim.bounded();
}

#[tokio::test]
async fn pings_without_end_and_answers_never_read_are_bounded_and_hold_up_no_drain() {
    let mut victim = Victim::with(Cloud::new().process("drain_timeout", "2s")).await;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(quinn::VarInt::from_u32(2048));
    let address = victim.site.responder.tunnel_address();
    let connection = connect_with(&victim.site.folder, address, HOSTILE, transport).await;
    let (mut send, _never_read) = open(&connection, HOSTILE).await;
    let pings = encoded(&Frame::Ping([1; 8])).repeat(6000);
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(Duration::from_millis(300), send.write_all(&pings)).await {
        sent += pings.len();
        assert!(sent < 256 << 20, "nothing holds the peer back");
    }
    assert_eq!(victim.site.get("/").await.status(), 200);
    victim.bounded();
    victim.site.responder.0.terminate();
    assert!(victim.site.responder.0.exit().await.success());
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out_for_longer_than_the_handshake_timeout() {
    let victim = Victim::with(Cloud::new().responder("max_pending_handshakes", "16")).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(victim.connect().await);
    }
    let edge = Edge::new(Transport::Quic).claim(HOSTILE).named("late");
    let (_late, target) = victim.site.join(edge).await;
    assert_eq!(target.requests().len(), 0);
    eventually("the silent ones are gone", async || {
        silent.iter().all(|connection| connection.close_reason().is_some()).then_some(())
    })
    .await;
    victim.site.responder.registered(2).await;
    victim.bounded();
}

#[tokio::test]
async fn a_tunnel_that_answers_nothing_fails_its_requests_and_no_others() {
    // The other requests have no such deadline.
    let victim = Victim::with(Cloud::new().and_egress().egress("deadline", "500ms")).await;
    let connection = victim.connect().await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    let response = get(victim.site.responder.egress_at(1), "/", &["x-node-id: hostile"]).await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(victim.site.get("/").await.status(), 200);
}

/// It was in the registry as healthy, and requests for it waited for a minute, past its own end.
// spec: HS-38
#[tokio::test]
async fn a_tunnel_whose_welcome_is_held_back_is_not_chosen() {
    let victim = Victim::with(Cloud::new().egress("hold", "50ms")).await;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(0u32.into());
    let address = victim.site.responder.tunnel_address();
    let connection = connect_with(&victim.site.folder, address, HOSTILE, transport).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello_bytes(HOSTILE)).await.unwrap();
    victim.site.responder.registered(2).await;
    let of_node = get(victim.site.egress(), "/", &[&format!("x-node-id: {}", HOSTILE.node)]).await.unwrap();
    assert_eq!(of_node.status(), 503);
    for _ in 0..20 {
        let of_cluster = get(victim.site.egress(), "/", &[&format!("x-cluster-id: {}", NODE.cluster)]).await.unwrap();
        assert_eq!(of_cluster.status(), 200);
    }
    victim.unharmed().await;
}

#[tokio::test]
async fn a_tunnel_without_room_is_said_to_be_full_and_nobody_waits_for_it() {
    let victim = Victim::start().await;
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(2_u32.into());
    let address = victim.site.responder.tunnel_address();
    let connection = connect_with(&victim.site.folder, address, HOSTILE, transport).await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    let egress = victim.site.egress();
    let ask = move || get(egress, "/", &["x-node-id: hostile"]);
    let waiting = [tokio::spawn(ask()), tokio::spawn(ask())];
    let _streams = [connection.accept_bi().await.unwrap(), connection.accept_bi().await.unwrap()];
    let response = ask().await.unwrap();
    assert_eq!((response.status(), response.field("retry-after")), (503, Some("1")), "{}", response.text());
    assert!(response.field("proxy-status").unwrap().starts_with("adit; error=connection_limit_reached"));
    assert!(waiting.iter().all(|ask| !ask.is_finished()), "who has a stream is not disturbed");
    let full = victim.site.responder.0.metric("adit_exchanges_failed_total{side=\"egress\",cause=\"tunnel_full\"}");
    assert_eq!(full.await, 1);
}

#[tokio::test]
async fn answers_that_break_the_protocol_are_502_and_the_tunnel_stays() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    for answer in [&[0xff; 100][..], b"HTTP/1.1 200 OK\r\n\r\n", &[0x09, 0x00], &[0x03, 0x01, 0x00], &[]] {
        let ask = get(victim.site.egress(), "/", &["x-node-id: hostile"]);
        let reply = async {
            let (mut send, _recv) = connection.accept_bi().await.unwrap();
            let _ = send.write_all(answer).await;
            let _ = send.finish();
            // Whatever the other side makes of it: reset or read to the end.
            let _ = send.stopped().await;
        };
        let (response, ()) = tokio::join!(ask, reply);
        assert_eq!(response.unwrap().status(), 502, "{answer:?}");
    }
    assert_eq!(victim.site.responder.0.tunnels().await.accepted.len(), 2);
}

#[tokio::test]
async fn a_response_head_without_end_is_not_collected() {
    let victim = Victim::start().await;
    let connection = victim.connect().await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    let ask = get(victim.site.egress(), "/", &["x-node-id: hostile"]);
    let reply = async {
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        let mut head = BytesMut::from(&[0x01][..]);
        varint::encode(&mut head, 1 << 30);
        send.write_all(&head).await.unwrap();
        while send.write_all(&[0; 65_536]).await.is_ok() {}
    };
    let (response, ()) = tokio::join!(ask, reply);
    assert_eq!(response.unwrap().status(), 502);
    victim.bounded();
}
