//! A hostile initiator at our responder.

use std::time::Duration;

use adit::protocol::budgets::STREAM_WINDOW;
use adit::protocol::code::{CloseCode, RefusalCode};
use adit::protocol::control::{Close, Frame};
use adit::protocol::limits::Limits;
use adit::protocol::varint;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::peer::{
    ALPN, CONTROL, DATA, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, Peer, RST_STREAM, SETTINGS, control, data,
    headers, http2,
};
use crate::hostile_peer::raw::{HOSTILE, encoded, hello, hello_bytes};
use crate::hostile_peer::victim::{HANDSHAKE_TIMEOUT, Victim};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::{RawHttp, Response, get};
use crate::support::site::{Cloud, Edge, Transport};

/// Whatever takes longer than this is held back.
const STALLED: Duration = Duration::from_millis(500);

impl Victim {
    async fn over_tcp() -> Self {
        Self::beside(Transport::Tcp, Cloud::new()).await
    }

    async fn dial(&self) -> Peer {
        Peer::connect(&self.site.folder, self.site.responder.tunnel_address()).await
    }

    /// A hostile tunnel beside the honest one.
    async fn tunnel(&self) -> Peer {
        let peer = Peer::open(&self.site.folder, self.site.responder.tunnel_address()).await;
        self.site.responder.registered(2).await;
        peer
    }

    /// A request to the hostile node.
    async fn ask(&self, path: &str) -> Response {
        self.ask_at(0, path).await
    }

    /// The same through this listener of the file.
    async fn ask_at(&self, listener: usize, path: &str) -> Response {
        get(self.site.responder.egress_at(listener), path, &["x-node-id: hostile"]).await.unwrap()
    }

    /// Says these bytes instead of HELLO; returns the number of the refusal and what the responder logs of it.
    async fn refused(&self, bytes: &[u8]) -> (RefusalCode, String) {
        let mut peer = self.dial().await;
        peer.send(bytes).await.unwrap();
        let Some(Frame::Refuse(refusal)) = peer.bare_frame().await else { panic!("expected REFUSE") };
        peer.gone().await;
        let line = self.site.responder.0.line_with("no tunnel: refused").await;
        assert_eq!(line["code"], refusal.code.number());
        self.never_registered().await;
        (refusal.code, line["reason"].as_str().unwrap().to_owned())
    }

    /// The hostile peer was no tunnel for any time, and the honest one works.
    async fn never_registered(&self) {
        self.unharmed().await;
        assert!(!self.site.responder.0.log().contains(r#""node":"hostile""#), "it was up for a moment");
    }

    /// What the responder logs of a handshake that failed.
    async fn failure(&self) -> String {
        let line = self.site.responder.0.line_with("the handshake failed").await;
        line["error"].as_str().unwrap().to_owned()
    }

    /// What the responder logs of the end of the hostile tunnel.
    async fn down(&self) -> (String, String) {
        let line = self.site.responder.0.line_with("tunnel down").await;
        (line["code"].as_str().unwrap().to_owned(), line["reason"].as_str().unwrap().to_owned())
    }
}

// spec: TB-1
#[tokio::test]
async fn without_our_alpn_there_is_no_tunnel_and_the_log_says_so() {
    for offered in [&[][..], &[&b"h2"[..]]] {
        let victim = Victim::over_tcp().await;
        let address = victim.site.responder.tunnel_address();
        // In TLS 1.3 the alert may come after the client is done.
        if let Ok(mut peer) = Peer::dial(&victim.site.folder, address, HOSTILE, offered).await {
            let _ = peer.send(&hello_bytes(HOSTILE)).await;
            assert_eq!(peer.bare_frame().await, None);
        }
        let error = victim.failure().await;
        assert!(error.contains("does not offer the ALPN adit/1"), "{error}");
        victim.never_registered().await;
    }
}

// spec: TB-1
#[tokio::test]
async fn bytes_without_tls_are_no_tunnel_and_the_log_says_so() {
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &hello_bytes(HOSTILE), PREFACE] {
        let victim = Victim::over_tcp().await;
        let mut stream = TcpStream::connect(victim.site.responder.tunnel_address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < 20, "an alert at most: {answer:?}");
        let error = victim.failure().await;
        assert!(error.starts_with("TLS: "), "{error}");
        victim.never_registered().await;
    }
}

#[tokio::test]
async fn half_a_hello_times_out() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.dial().await;
    let bytes = hello_bytes(HOSTILE);
    peer.send(&bytes[..bytes.len() / 2]).await.unwrap();
    let Some(Frame::Close(close)) = peer.bare_frame().await else { panic!("expected CLOSE") };
    assert_eq!(close.code, u64::from(CloseCode::HandshakeTimeout.number()));
    peer.gone().await;
    let error = victim.failure().await;
    assert!(error.contains(&format!("no HELLO within {HANDSHAKE_TIMEOUT}")), "{error}");
    victim.never_registered().await;
}

#[tokio::test]
async fn a_tls_handshake_that_stops_times_out() {
    let victim = Victim::over_tcp().await;
    let mut stream = TcpStream::connect(victim.site.responder.tunnel_address()).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 100]).await.unwrap_or(0), 0);
    let error = victim.failure().await;
    assert!(error.contains(&format!("no TLS handshake within {HANDSHAKE_TIMEOUT}")), "{error}");
    victim.never_registered().await;
}

// spec: TB-3
#[tokio::test]
async fn a_hello_of_a_mebibyte_is_refused_by_its_header_alone() {
    let victim = Victim::over_tcp().await;
    let mut header = BytesMut::from(&[0x01][..]);
    varint::encode(&mut header, 1 << 20);
    let (code, reason) = victim.refused(&header).await;
    assert_eq!(code, RefusalCode::Malformed);
    assert!(reason.contains("1048576 bytes; expected at most 65536"), "{reason}");
}

#[tokio::test]
async fn what_is_no_hello_is_refused_with_400() {
    for bytes in [&encoded(&Frame::Ping([1; 8]))[..], &[0xff; 2000], &[0x01, 0x03, 0x00, 0x00, 0x00], b"GET / HTTP/1.1"]
    {
        let (code, reason) = Victim::over_tcp().await.refused(bytes).await;
        assert_eq!(code, RefusalCode::Malformed, "{bytes:?}");
        assert!(!reason.is_empty());
    }
}

/// HTTP/2 reads as a frame of an unknown even type, which would be skipped once a tunnel is open.
// spec: HS-1, HS-7
#[tokio::test]
async fn http2_instead_of_a_hello_is_refused_with_400() {
    let (code, reason) = Victim::over_tcp().await.refused(PREFACE).await;
    assert_eq!(code, RefusalCode::Malformed);
    assert!(reason.contains("in the place of HELLO"), "{reason}");
}

#[tokio::test]
async fn a_version_that_nobody_speaks_is_refused_with_404() {
    let mut claim = hello(HOSTILE);
    claim.versions = (2, 9);
    let (code, reason) = Victim::over_tcp().await.refused(&encoded(&Frame::Hello(Box::new(claim)))).await;
    assert_eq!(code, RefusalCode::Unsupported);
    assert!(reason.contains("a range that includes 1"), "{reason}");
}

// spec: HS-33, TB-4
#[tokio::test]
async fn what_follows_hello_before_welcome_is_refused_with_400() {
    let ping = encoded(&Frame::Ping([1; 8]));
    for behind in [&ping[..], &hello_bytes(HOSTILE), &http2(SETTINGS, 0, 0, &[]), &[0x00]] {
        let (code, reason) = Victim::over_tcp().await.refused(&[&hello_bytes(HOSTILE)[..], behind].concat()).await;
        assert_eq!(code, RefusalCode::Malformed, "{behind:?}");
        assert!(reason.contains("before WELCOME"), "{reason}");
    }
}

// spec: CT-34
#[tokio::test]
async fn an_initiator_that_closes_right_behind_its_hello_is_no_tunnel() {
    let victim = Victim::over_tcp().await;
    let close = encoded(&Frame::Close(Close { code: 0, reason: "changed my mind".into() }));
    let mut peer = victim.dial().await;
    peer.offend(&[hello_bytes(HOSTILE), close].concat()).await;
    let error = victim.failure().await;
    assert!(error.contains("changed my mind"), "{error}");
    victim.never_registered().await;
}

#[tokio::test]
async fn a_reset_at_any_point_of_the_handshake_is_no_tunnel() {
    let victim = Victim::over_tcp().await;
    let address = victim.site.responder.tunnel_address();
    let silent = TcpStream::connect(address).await.unwrap();
    silent.set_zero_linger().unwrap();
    drop(silent);
    let mut in_tls = TcpStream::connect(address).await.unwrap();
    in_tls.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    in_tls.set_zero_linger().unwrap();
    drop(in_tls);
    victim.dial().await.reset();
    let mut in_hello = victim.dial().await;
    in_hello.send(&hello_bytes(HOSTILE)[..10]).await.unwrap();
    in_hello.reset();
    let series = "adit_handshakes_failed_total{role=\"responder\",reason=\"protocol\"}";
    eventually("four handshakes failed", async || (victim.site.responder.0.metric(series).await == 4).then_some(()))
        .await;
    victim.never_registered().await;
}

#[tokio::test]
async fn a_reset_right_behind_the_hello_leaves_no_tunnel() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.dial().await;
    peer.send(&hello_bytes(HOSTILE)).await.unwrap();
    peer.reset();
    victim.down().await;
    victim.unharmed().await;
}

// spec: SE-21
#[tokio::test]
async fn the_oldest_connection_that_says_nothing_gives_way_to_the_newest() {
    let cloud = Cloud::new().responder("max_pending_handshakes", "16");
    let victim = Victim::beside(Transport::Tcp, cloud).await;
    let address = victim.site.responder.tunnel_address();
    let mut oldest = TcpStream::connect(address).await.unwrap();
    let mut newer = Vec::new();
    // Closed by whoever is one too many, and not for its age.
    let mut first = [0];
    let closed = tokio::select! {
        closed = oldest.read(&mut first) => closed,
        () = async { loop { newer.push(TcpStream::connect(address).await.unwrap()) } } => unreachable!(),
    };
    assert_eq!(closed.unwrap_or(0), 0);
    let (_late, target) = victim.site.join(Edge::new(Transport::Tcp).claim(HOSTILE).named("late")).await;
    assert_eq!(target.requests().len(), 0);
    victim.site.responder.registered(2).await;
    victim.bounded();
}

#[tokio::test]
async fn garbage_instead_of_http2_ends_the_tunnel() {
    for garbage in [&[0xff; 2000][..], &[0; 3], b"HTTP/1.1 200 OK\r\n\r\n"] {
        let victim = Victim::over_tcp().await;
        let mut peer = victim.dial().await;
        peer.send(&hello_bytes(HOSTILE)).await.unwrap();
        peer.welcomed().await;
        peer.send(garbage).await.unwrap();
        if garbage.len() < 9 {
            // Less than the head of a frame: only its end tells.
            drop(peer);
        } else {
            peer.gone().await;
            assert_eq!(victim.down().await.0, "protocol");
        }
        victim.unharmed().await;
    }
}

// spec: TB-5
#[tokio::test]
async fn an_unknown_odd_frame_ends_its_tunnel_and_an_even_one_does_not() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    peer.send(&data(CONTROL, false, &[0x20, 0x03, 1, 2, 3])).await.unwrap();
    peer.send(&control(&Frame::Ping([9; 8]))).await.unwrap();
    loop {
        match peer.control_frame().await.unwrap() {
            Frame::Pong(echo) => break assert_eq!(echo, [9; 8], "0x20 was skipped"),
            Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    peer.send(&data(CONTROL, false, &[0x21, 0x03, 1, 2, 3])).await.unwrap();
    assert_eq!(peer.closed().await.code, u64::from(CloseCode::Protocol.number()));
    victim.unharmed().await;
}

#[tokio::test]
async fn a_second_hello_ends_the_tunnel() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    peer.send(&data(CONTROL, false, &hello_bytes(HOSTILE))).await.unwrap();
    let close = peer.closed().await;
    assert_eq!(close.code, u64::from(CloseCode::Protocol.number()), "{}", close.reason);
    assert_eq!(victim.down().await, ("protocol".into(), close.reason));
    victim.unharmed().await;
}

// spec: TB-5
#[tokio::test]
async fn a_control_stream_that_ends_ends_the_tunnel() {
    let cancel = http2(RST_STREAM, 0, CONTROL, &8u32.to_be_bytes());
    let trailers = headers(CONTROL, true, &[("x", "y")]);
    for end in [http2(DATA, END_STREAM, CONTROL, &[]), cancel, trailers] {
        let victim = Victim::over_tcp().await;
        let mut peer = victim.tunnel().await;
        peer.offend(&end).await;
        assert_eq!(victim.down().await.0, "protocol", "{end:?}");
        victim.unharmed().await;
    }
}

// spec: TB-5
#[tokio::test]
async fn a_control_stream_that_is_not_taken_ends_the_tunnel() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.dial().await;
    peer.send(&hello_bytes(HOSTILE)).await.unwrap();
    peer.welcomed().await;
    peer.send(&http2(SETTINGS, 0, 0, &[])).await.unwrap();
    peer.frame_of(HEADERS, CONTROL).await;
    peer.send(&headers(CONTROL, false, &[(":status", "404")])).await.unwrap();
    let close = peer.closed().await;
    assert_eq!(close.code, u64::from(CloseCode::Protocol.number()));
    assert!(close.reason.contains("404"), "{}", close.reason);
    victim.unharmed().await;
}

// spec: TB-10, ER-5
#[tokio::test]
async fn a_close_with_a_code_that_nobody_knows_is_internal_and_its_words_are_kept() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    let close = Frame::Close(Close { code: 0x3fff, reason: "for no reason".into() });
    peer.offend(&data(CONTROL, true, &encoded(&close))).await;
    assert_eq!(victim.down().await, ("internal".into(), "for no reason".into()));
    victim.unharmed().await;
}

// spec: SE-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_that_a_client_does_not_read_cost_others_nothing() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    let before = victim.site.responder.0.memory();
    let mut deaf = RawHttp::connect(victim.site.egress()).await.unwrap();
    deaf.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: hostile\r\n\r\n").await.unwrap();
    let stream = peer.request().await;
    peer.send(&headers(stream, false, &[(":status", "200")])).await.unwrap();
    peer.trickle(stream, STREAM_WINDOW as usize).await;
    let answers = async {
        let stream = peer.request().await;
        peer.send(&headers(stream, true, &[(":status", "204")])).await.unwrap();
    };
    let (answer, ()) = tokio::join!(victim.ask("/"), answers);
    assert_eq!(answer.status(), 204, "through the same tunnel");
    assert_eq!(victim.site.get("/").await.status(), 200);
    let growth = victim.site.responder.0.memory().saturating_sub(before) >> 20;
    assert!(growth < 16, "{growth} MiB for a window of 2");
    drop(peer);
    victim.unharmed().await;
}

/// What one frame costs is bounded, and so is how many of them wait.
#[tokio::test]
async fn floods_of_small_frames_are_bounded_and_harm_nobody_else() {
    let empty = http2(DATA, 0, CONTROL, &[]);
    let ping = http2(PING, 0, 0, &[1; 8]);
    let settings = http2(SETTINGS, 0, 0, &[]);
    let skipped = data(CONTROL, false, &[0x20, 0x00]);
    let pings = control(&Frame::Ping([1; 8]));
    for frame in [empty, ping, settings, skipped, pings] {
        let victim = Victim::over_tcp().await;
        let mut peer = victim.tunnel().await;
        let many = frame.repeat(10_000);
        // Nothing is read: the responder's answers fill all buffers on the way.
        for _ in 0..100 {
            if !matches!(timeout(STALLED, peer.send(&many)).await, Ok(Ok(()))) {
                break;
            }
        }
        assert_eq!(victim.site.get("/").await.status(), 200);
        victim.bounded();
        drop(peer);
        victim.unharmed().await;
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_holds_up_no_drain_and_no_other_tunnel() {
    let mut victim = Victim::beside(Transport::Tcp, Cloud::new().process("drain_timeout", "2s")).await;
    let mut peer = victim.tunnel().await;
    // With no window on the control stream nothing can be said to it.
    let no_window = [0, 4, 0, 0, 0, 0];
    peer.send(&http2(SETTINGS, 0, 0, &no_window)).await.unwrap();
    let pings = control(&Frame::Ping([1; 8])).repeat(1000);
    for _ in 0..100 {
        if !matches!(timeout(STALLED, peer.send(&pings)).await, Ok(Ok(()))) {
            break;
        }
    }
    let ask = async {
        let mut client = RawHttp::connect(victim.site.egress()).await.unwrap();
        client
            .send(b"POST / HTTP/1.1\r\nhost: x\r\nx-node-id: hostile\r\ncontent-length: 1000000000\r\n\r\n")
            .await
            .unwrap();
        while timeout(STALLED, client.send(&[0; 65_536])).await.is_ok_and(|sent| sent.is_ok()) {}
    };
    ask.await;
    assert_eq!(victim.site.get("/").await.status(), 200);
    victim.bounded();
    victim.site.responder.0.terminate();
    assert!(victim.site.responder.0.exit().await.success());
}

/// What broke: a control stream that the peer does not read held up the tunnel's own clock.
// spec: CT-43, TB-9
#[tokio::test]
async fn a_peer_that_reads_nothing_and_says_nothing_is_given_up_after_the_idle_timeout() {
    let cloud = Cloud::new().responder("keepalive", "500ms").responder("idle_timeout", "5s");
    let victim = Victim::beside(Transport::Tcp, cloud).await;
    let mut peer = victim.tunnel().await;
    peer.send(&http2(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    let line = victim.site.responder.0.line_with("tunnel down").await;
    assert_eq!(line["code"], "idle", "{line}");
    drop(peer);
    victim.unharmed().await;
}

#[tokio::test]
async fn a_tunnel_that_takes_or_answers_nothing_fails_its_requests_and_no_others() {
    // The other requests have no such deadline.
    let victim = Victim::beside(Transport::Tcp, Cloud::new().and_egress().egress("deadline", "500ms")).await;
    let mut peer = victim.tunnel().await;
    assert_eq!(victim.ask_at(1, "/").await.status(), 504);
    // SETTINGS_MAX_CONCURRENT_STREAMS: none beside those that are there.
    peer.send(&http2(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])).await.unwrap();
    for _ in 0..3 {
        assert_eq!(victim.ask_at(1, "/").await.status(), 504);
    }
    eventually("nothing is under way", async || {
        let tunnels = victim.site.responder.0.tunnels().await.accepted;
        tunnels.iter().all(|tunnel| tunnel.in_flight == 0).then_some(())
    })
    .await;
    assert_eq!(victim.site.get("/").await.status(), 200);
    drop(peer);
    victim.unharmed().await;
}

// spec: TB-7
#[tokio::test]
async fn answers_that_break_the_protocol_are_502_and_the_tunnel_stays() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    let many: Vec<_> = (0..=Limits::OURS.head_fields).map(|_| ("x", "y")).collect();
    let long = "x".repeat(Limits::OURS.head_bytes);
    let answers: &[&[(&str, &str)]] = &[
        &[("connection", "close")],
        &[("keep-alive", "timeout=5")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("host", "other.example")],
        &[("x", " y")],
        &[("content-length", "5"), ("content-length", "6")],
        &many,
        &[("x", &long)],
    ];
    for fields in answers {
        let reply = async {
            let stream = peer.request().await;
            peer.send(&headers(stream, true, &[&[(":status", "200")], *fields].concat())).await.unwrap();
        };
        let (response, ()) = tokio::join!(victim.ask("/"), reply);
        assert_eq!(response.status(), 502, "{:?}", fields.first());
    }
    let upgrade = async {
        let stream = peer.request().await;
        peer.send(&headers(stream, false, &[(":status", "101")])).await.unwrap();
    };
    let (response, ()) = tokio::join!(victim.ask("/"), upgrade);
    assert_eq!(response.status(), 502);
    assert_eq!(victim.site.responder.0.tunnels().await.accepted.len(), 2, "both tunnels are well");
    drop(peer);
    victim.unharmed().await;
}

/// The HTTP/2 library would take each for a fault of the compression, which it cannot go on after.
// spec: ST-34, TB-7
#[tokio::test]
async fn a_head_with_a_field_that_is_none_is_502_and_the_tunnel_stays() {
    let victim = Victim::beside(Transport::Tcp, Cloud::new().egress("hold", "0s")).await;
    let mut peer = victim.tunnel().await;
    let status = |status| vec![(":status", status)];
    let field = |name, value| vec![(":status", "200"), (name, value)];
    let heads = ["abc", "1000", "99", "0200", "20"].map(status).into_iter().chain([
        field("x", "a\x7f"),
        field("x", "a\nb"),
        field("x", "a\0"),
        field("X-A", "1"),
        field("x a", "1"),
        field(":odd", "1"),
    ]);
    for head in heads {
        let reply = async {
            let stream = peer.request().await;
            peer.send(&headers(stream, false, &head)).await.unwrap();
        };
        let (response, ()) = tokio::join!(victim.ask("/"), reply);
        assert_eq!(response.status(), 502, "{head:?}");
    }
    assert_eq!(victim.site.responder.0.tunnels().await.accepted.len(), 2);
}

// spec: TB-7
#[tokio::test]
async fn trailers_that_break_the_protocol_cut_the_body_and_the_tunnel_stays() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    let long = "x".repeat(Limits::OURS.head_bytes);
    for field in [("host", "x"), ("content-length", "2"), ("connection", "x"), ("x", &long), ("x", "y ")] {
        let ask = async {
            let mut client = RawHttp::connect(victim.site.egress()).await.unwrap();
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: hostile\r\nte: trailers\r\n\r\n").await.unwrap();
            client.response().await
        };
        let reply = async {
            let stream = peer.request().await;
            let head = headers(stream, false, &[(":status", "200")]);
            peer.send(&[head, data(stream, false, b"ab"), headers(stream, true, &[field])].concat()).await.unwrap();
        };
        let (response, ()) = tokio::join!(ask, reply);
        assert!(response.is_err(), "{} {response:?}", field.0);
    }
    assert_eq!(victim.site.responder.0.tunnels().await.accepted.len(), 2, "both tunnels are well");
    drop(peer);
    victim.unharmed().await;
}

#[tokio::test]
async fn a_response_head_without_end_is_not_collected() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    let field = "x".repeat(16_000);
    let reply = async {
        let stream = peer.request().await;
        let mut frame = headers(stream, false, &[(":status", "200"), ("x", &field)]);
        // Without END_HEADERS there is more to come, over and over.
        let first = frame.iter().position(|&byte| byte == 4).unwrap();
        frame[first] = 0;
        let mut sent = peer.send(&frame).await;
        let more = http2(9, 0, stream, &frame[9..]);
        for _ in 0..2000 {
            if sent.is_err() {
                break;
            }
            sent = peer.send(&more).await;
        }
        sent
    };
    let (response, sent) = tokio::join!(victim.ask("/"), reply);
    assert_eq!(response.status(), 502);
    assert!(sent.is_err(), "it took 32 MB of one head");
    victim.unharmed().await;
}

#[tokio::test]
async fn interim_responses_without_end_are_bounded() {
    let victim = Victim::beside(Transport::Tcp, Cloud::new().and_egress().egress("deadline", "3s")).await;
    let mut peer = victim.tunnel().await;
    let reply = async {
        let stream = peer.request().await;
        let early = headers(stream, false, &[(":status", "103"), ("link", &"x".repeat(1000))]).repeat(100);
        for _ in 0..1000 {
            if !matches!(timeout(STALLED, peer.send(&early)).await, Ok(Ok(()))) {
                break;
            }
        }
    };
    let ask = async {
        // It does not read.
        let mut client = RawHttp::connect(victim.site.responder.egress_at(1)).await.unwrap();
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: hostile\r\n\r\n").await.unwrap();
        client
    };
    let (client, ()) = tokio::join!(ask, reply);
    victim.bounded();
    assert_eq!(victim.site.get("/").await.status(), 200);
    drop((client, peer));
    victim.unharmed().await;
}

/// It broke: HTTP/2 kept any number of requests for which there was no stream.
#[tokio::test]
async fn a_tunnel_without_room_is_said_to_be_full_and_nobody_waits_for_it() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    // MAX_CONCURRENT_STREAMS: the control stream and two.
    peer.send(&[http2(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 3]), http2(PING, 0, 0, &[7; 8])].concat()).await.unwrap();
    peer.frame_of(PING, 0).await;
    let egress = victim.site.egress();
    let ask = move || get(egress, "/", &["x-node-id: hostile"]);
    let mut waiting = [tokio::spawn(ask()), tokio::spawn(ask())];
    let streams = [peer.request().await, peer.request().await];
    let response = ask().await.unwrap();
    assert_eq!((response.status(), response.field("retry-after")), (503, Some("1")), "{}", response.text());
    assert!(response.field("proxy-status").unwrap().starts_with("adit; error=connection_limit_reached"));
    assert!(waiting.iter().all(|ask| !ask.is_finished()), "who has a stream is not disturbed");
    let full = victim.site.responder.0.metric("adit_exchanges_failed_total{side=\"egress\",cause=\"tunnel_full\"}");
    assert_eq!(full.await, 1);
    peer.send(&headers(streams[0], true, &[(":status", "200")])).await.unwrap();
    peer.send(&headers(streams[1], true, &[(":status", "200")])).await.unwrap();
    for ask in &mut waiting {
        assert_eq!(ask.await.unwrap().unwrap().status(), 200);
    }
    let (response, ()) = tokio::join!(ask(), async {
        let stream = peer.request().await;
        peer.send(&headers(stream, true, &[(":status", "200")])).await.unwrap();
    });
    assert_eq!(response.unwrap().status(), 200, "there is room again");
}

/// It broke: two bytes that name an entry of the table were written out as thousands, and 128 KiB as gigabytes.
// spec: SE-5
#[tokio::test]
async fn a_head_that_would_grow_when_it_is_read_takes_no_memory() {
    let victim = Victim::over_tcp().await;
    let entry = |name: &[u8]| [&literal(name)[..], &[0]].concat();
    let frame = [entry(&[b'A'; 4000]), [0x7e, 0x00].repeat(6000)].concat();
    let large = [entry(&vec![b'a'; 65_535]), [0x7e, 0x00].repeat(30_000)].concat();
    for block in [frame, large] {
        let mut peer = victim.tunnel().await;
        let (response, ()) = tokio::join!(victim.ask("/"), async {
            let stream = peer.request().await;
            peer.offend(&http2(HEADERS, 0x4, stream, &block)).await;
        });
        assert_eq!(response.status(), 502);
        victim.unharmed().await;
    }
}

/// A name that goes into the table.
fn literal(name: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x40, 0x7f];
    let mut rest = name.len() - 0x7f;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    [&bytes[..], name].concat()
}

/// HTTP/2 has a farewell of its own, which a tunnel does not use.
// spec: TB-11
#[tokio::test]
async fn a_goaway_ends_the_tunnel_when_a_request_comes() {
    let victim = Victim::beside(Transport::Tcp, Cloud::new().egress("hold", "0s")).await;
    let mut peer = victim.tunnel().await;
    let last_stream_and_reason = [0, 0, 0, 1, 0, 0, 0, 0];
    peer.send(&http2(GOAWAY, 0, 0, &last_stream_and_reason)).await.unwrap();
    // Whatever came before the GOAWAY was read gets an answer from nobody.
    eventually("a request that finds no tunnel", async || {
        let ask = timeout(STALLED, victim.ask("/")).await;
        ask.is_ok_and(|response| response.status() == 503).then_some(())
    })
    .await;
    let (code, reason) = victim.down().await;
    assert_eq!((code.as_str(), reason.as_str()), ("protocol", "the initiator sent GOAWAY"));
    victim.unharmed().await;
}

#[tokio::test]
async fn answers_that_nobody_asked_for_end_the_tunnel() {
    let victim = Victim::over_tcp().await;
    let mut peer = victim.tunnel().await;
    peer.offend(&headers(2, true, &[(":status", "200")])).await;
    assert_eq!(victim.down().await.0, "protocol");
    victim.unharmed().await;
}

/// The peer says HELLO as somebody that its certificate does not prove.
#[tokio::test]
async fn a_false_claim_is_refused_and_the_connection_ends() {
    let victim = Victim::over_tcp().await;
    let (folder, address) = (&victim.site.folder, victim.site.responder.tunnel_address());
    let mut peer = Peer::dial(folder, address, HOSTILE, ALPN).await.unwrap();
    peer.send(&hello_bytes(crate::support::site::NODE)).await.unwrap();
    let Some(Frame::Refuse(refusal)) = peer.bare_frame().await else { panic!("expected REFUSE") };
    assert_eq!(refusal.code, RefusalCode::Forbidden);
    peer.gone().await;
    victim.unharmed().await;
}
