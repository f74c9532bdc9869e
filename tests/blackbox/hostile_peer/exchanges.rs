//! An initiator over QUIC that answers requests as no initiator should, or asks for more than the rules let it.

use std::time::Duration;

use adit::protocol::code::{CloseCode, StreamCode};
use adit::protocol::control::Frame;
use adit::protocol::handshake::{Hello, PeerLimits};
use tokio::time::timeout;

use super::raw::{HOSTILE, closed, connect, encoded, frame, hello, open};
use super::victim::Victim;
use crate::support::http1::get;
use crate::support::site::{Cloud, Transport};

const TO_HOSTILE: &[&str] = &["x-node-id: hostile"];

async fn victim() -> (Victim, quinn::Connection) {
    let victim = Victim::beside(Transport::Quic, Cloud::new()).await;
    let connection = connect(&victim.site.folder, victim.site.responder.tunnel_address(), HOSTILE).await;
    (victim, connection)
}

/// The control stream of an initiator that takes the smallest heads there may be.
async fn open_small(victim: &Victim, connection: &quinn::Connection) -> (quinn::SendStream, quinn::RecvStream) {
    let limits = PeerLimits { head_bytes: 4096, head_fields: 32 };
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let small = Hello { limits, ..hello(HOSTILE) };
    send.write_all(&encoded(&Frame::Hello(Box::new(small)))).await.unwrap();
    assert!(matches!(frame(&mut recv).await, Frame::Welcome(_)));
    victim.site.responder.registered(2).await;
    (send, recv)
}

fn number(code: StreamCode) -> quinn::VarInt {
    quinn::VarInt::from_u32(code.number())
}

// spec: CT-9
#[tokio::test]
async fn a_control_stream_that_is_stopped_ends_the_tunnel() {
    let (victim, connection) = victim().await;
    let (_send, mut recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    recv.stop(0u32.into()).unwrap();
    let (code, reason) = closed(&connection).await;
    assert_eq!(code, u64::from(CloseCode::Protocol.number()), "{reason}");
    victim.unharmed().await;
}

// spec: ST-26, ER-4
#[tokio::test]
async fn an_answer_that_breaks_its_length_is_stopped_as_a_fault_and_cut() {
    let (victim, connection) = victim().await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    // 200, content-length: 5; "ok"; END.
    let short = [0x01, 0x06, 0x00, 0x40, 0xc8, 0x16, 0x01, 0x35, 0x03, 0x02, 0x6f, 0x6b, 0x09, 0x00];
    // 200, content-length: 1; "ok".
    let long = [0x01, 0x06, 0x00, 0x40, 0xc8, 0x16, 0x01, 0x31, 0x03, 0x02, 0x6f, 0x6b];
    // The same with END in the head: nothing of the five comes.
    let nothing = [0x01, 0x06, 0x01, 0x40, 0xc8, 0x16, 0x01, 0x35];
    for answer in [&short[..], &long, &nothing] {
        let ask = get(victim.site.egress(), "/", TO_HOSTILE);
        let reply = async {
            let (mut send, _recv) = connection.accept_bi().await.unwrap();
            send.write_all(answer).await.unwrap();
            send.stopped().await.unwrap()
        };
        let (response, stopped) = tokio::join!(ask, reply);
        assert_eq!(stopped, Some(number(StreamCode::Protocol)), "{answer:?}");
        assert!(response.is_err(), "cut, and not ended: {answer:?}");
    }
    assert_eq!(victim.site.responder.0.tunnels().await.accepted.len(), 2);
}

// spec: ER-3
#[tokio::test]
async fn a_tunnel_that_knows_no_requests_is_not_asked_again() {
    let (victim, connection) = victim().await;
    let (_send, _recv) = open(&connection, HOSTILE).await;
    victim.site.responder.registered(2).await;
    let reply = async {
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        recv.stop(number(StreamCode::UnknownType)).unwrap();
        send.reset(number(StreamCode::UnknownType)).unwrap();
    };
    let (response, ()) = tokio::join!(get(victim.site.egress(), "/", TO_HOSTILE), reply);
    assert!(matches!(response.unwrap().status(), 502 | 503));
    tokio::select! {
        biased;
        _ = connection.accept_bi() => panic!("it was asked again"),
        response = get(victim.site.egress(), "/", TO_HOSTILE) => assert_eq!(response.unwrap().status(), 503),
    }
    assert!(timeout(Duration::from_millis(50), connection.accept_bi()).await.is_err(), "it was asked again");
}

// spec: HS-15, ER-10
#[tokio::test]
async fn trailers_beyond_what_an_initiator_takes_are_not_sent() {
    let (victim, connection) = victim().await;
    let _control = open_small(&victim, &connection).await;
    for trailers in ["x: ".to_owned() + &"a".repeat(5000) + "\r\n", "x: 1\r\n".repeat(40)] {
        let mut client = victim.site.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nx-node-id: hostile\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}2\r\nok\r\n0\r\n{trailers}\r\n").as_bytes()).await.unwrap();
        let (_send, mut recv) = connection.accept_bi().await.unwrap();
        match recv.read_to_end(1 << 16).await {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                assert_eq!(code, number(StreamCode::Limit));
            }
            other => panic!("not reset: {other:?}"),
        }
    }
}

// spec: HS-15, ER-7
#[tokio::test]
async fn a_head_is_sent_up_to_the_last_byte_that_an_initiator_takes() {
    let (victim, connection) = victim().await;
    let _control = open_small(&victim, &connection).await;
    // The payload bytes of a request with so many bytes in one field, or nothing where the client is told 431.
    let sent = async |padding: usize| {
        let line = format!("x-padding: {}", "a".repeat(padding));
        let fields = [TO_HOSTILE[0], &line];
        tokio::select! {
            response = get(victim.site.egress(), "/", &fields) => {
                assert_eq!(response.unwrap().status(), 431, "{padding}");
                None
            }
            opened = connection.accept_bi() => {
                let bytes = opened.unwrap().1.read_to_end(1 << 16).await.unwrap();
                // Behind the types of stream and frame, an integer of two bytes.
                Some(usize::from(u16::from_be_bytes([bytes[2], bytes[3]]) & 0x3fff))
            }
        }
    };
    let some = sent(1000).await.unwrap();
    assert_eq!(sent(1000 + 4096 - some).await, Some(4096));
    assert_eq!(sent(1001 + 4096 - some).await, None);
}
