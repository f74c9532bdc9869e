//! Clients that say what they must not, or far too much, and who sits beside them.

use h3::error::Code;

use super::tests::{Client, closed, head, rest, serve};
use crate::egress::testing::describe;

const HONEST: &str = "GET https://edge.test/ 0";

/// Waits for the end of a connection on which that was said, and asks `beside` whether it is served.
async fn ends(quic: &quinn::Connection, beside: &mut Client, code: Code, what: &str) {
    assert_eq!(closed(quic).await, code.value(), "{what}");
    assert_eq!(beside.get("/").await.1, HONEST, "beside {what}");
}

#[tokio::test]
async fn what_qpack_must_not_say_ends_its_connection_and_no_other() {
    let server = serve(describe);
    let mut beside = server.connect().await;
    let encoder =
        [&[0x21][..], &[0x3f, 0xe1, 0x1f], &[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0xc1, 1, b'a'], &[0x02]];
    let decoder = [&[0x80][..], &[0xff, 0x7f], &[0x01], &[0x3f, 0xff, 0xff, 0xff, 0x7f]];
    let encoder = encoder.map(|said| (2, said, Code::QPACK_ENCODER_STREAM_ERROR));
    let decoder = decoder.map(|said| (3, said, Code::QPACK_DECODER_STREAM_ERROR));
    for (kind, said, code) in encoder.into_iter().chain(decoder) {
        let (_endpoint, quic) = server.quic().await.unwrap();
        let mut stream = quic.open_uni().await.unwrap();
        stream.write_all(&[&[kind], said].concat()).await.unwrap();
        ends(&quic, &mut beside, code, &format!("{kind} {said:x?}")).await;
    }
}

#[tokio::test]
async fn streams_of_qpack_are_there_once_and_for_as_long_as_their_connection() {
    let server = serve(describe);
    let mut beside = server.connect().await;
    for kind in [2, 3] {
        let (_endpoint, quic) = server.quic().await.unwrap();
        for _ in 0..2 {
            quic.open_uni().await.unwrap().write_all(&[kind]).await.unwrap();
        }
        let code = closed(&quic).await;
        // Those that this test drops have ended.
        assert!([Code::H3_STREAM_CREATION_ERROR.value(), Code::H3_CLOSED_CRITICAL_STREAM.value()].contains(&code));
        let (_endpoint, quic) = server.quic().await.unwrap();
        let mut stream = quic.open_uni().await.unwrap();
        stream.write_all(&[kind]).await.unwrap();
        stream.finish().unwrap();
        ends(&quic, &mut beside, Code::H3_CLOSED_CRITICAL_STREAM, "a stream that ends").await;
    }
}

#[tokio::test]
async fn what_a_client_must_not_say_of_itself_ends_its_connection_and_no_other() {
    let server = serve(describe);
    let mut beside = server.connect().await;
    for (said, code) in [
        (&[1, 0][..], Code::H3_STREAM_CREATION_ERROR),
        (&[0, 0x21, 0, 4, 0], Code::H3_MISSING_SETTINGS),
        (&[0, 4, 0, 0xd, 1, 5, 0xd, 1, 3], Code::H3_ID_ERROR),
        (&[0, 4, 0, 3, 1, 9], Code::H3_ID_ERROR),
        (&[0, 4, 4, 0x21, 0, 0x21, 0], Code::H3_SETTINGS_ERROR),
        (&[0, 4, 2, 8, 2], Code::H3_SETTINGS_ERROR),
    ] {
        let (_endpoint, quic) = server.quic().await.unwrap();
        let mut stream = quic.open_uni().await.unwrap();
        stream.write_all(said).await.unwrap();
        ends(&quic, &mut beside, code, &format!("{said:x?}")).await;
    }
}

/// Required Insert Count 1, 0 and 2 of a table that there is not, one far beyond every table, and numbers with more bytes than
/// they need.
const PREFIXES: [&[u8]; 6] = [
    &[1, 0],
    &[2, 0],
    &[3, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x7f, 0],
    &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0],
    &[0, 0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
];

#[tokio::test]
async fn a_section_that_cannot_be_judged_ends_its_connection_whatever_else_is_in_it() {
    let server = serve(describe);
    let mut beside = server.connect().await;
    for prefix in PREFIXES {
        // Apart from the prefix both are good.
        let head = [prefix, b"\xd1\xd7\xc1\x50\x01a"].concat();
        let trailers = [prefix, b"\x27\x04grpc-status\x010"].concat();
        let head = [&[1, head.len() as u8], &head[..]].concat();
        let trailers = [&super::tests::head(b"")[..], &[0, 1, b'x', 1, trailers.len() as u8], &trailers].concat();
        for said in [head, trailers] {
            let (_endpoint, quic) = server.quic().await.unwrap();
            let (mut send, _recv) = quic.open_bi().await.unwrap();
            send.write_all(&said).await.unwrap();
            send.finish().unwrap();
            ends(&quic, &mut beside, Code::QPACK_DECOMPRESSION_FAILED, &format!("{said:x?}")).await;
        }
    }
}

/// What is poured on a connection until it is ended.
#[derive(Debug, Clone, Copy)]
enum Flood {
    Encoder,
    Decoder,
    Resets,
    Trailers,
}

/// Returns once the connection takes no more.
async fn pour(quic: &quinn::Connection, flood: Flood) {
    match flood {
        Flood::Encoder => repeat(quic, &[2], &[0x20; 4096]).await,
        Flood::Decoder => repeat(quic, &[3], &[0x44; 4096]).await,
        Flood::Resets | Flood::Trailers => {
            while let Ok((mut send, _recv)) = quic.open_bi().await {
                // A pseudo-field, which no trailers have.
                let more = if let Flood::Resets = flood { [0, 9, b'x'].as_slice() } else { &[1, 3, 0, 0, 0xc1] };
                let _ = send.write_all(&[&head(b"")[..], more].concat()).await;
                if let Flood::Resets = flood {
                    let _ = send.reset(0x10c_u32.into());
                }
            }
        }
    }
}

async fn repeat(quic: &quinn::Connection, begin: &[u8], again: &[u8]) {
    let mut stream = quic.open_uni().await.unwrap();
    stream.write_all(begin).await.unwrap();
    while stream.write_all(again).await.is_ok() {}
}

#[tokio::test]
async fn floods_end_their_connection_and_no_other() {
    let server = serve(describe);
    let mut beside = server.connect().await;
    for flood in [Flood::Encoder, Flood::Decoder, Flood::Resets, Flood::Trailers] {
        let (_endpoint, quic) = server.quic().await.unwrap();
        pour(&quic, flood).await;
        ends(&quic, &mut beside, Code::H3_EXCESSIVE_LOAD, &format!("{flood:?}")).await;
    }
}

#[tokio::test]
async fn many_requests_at_once_pass_the_gate_and_are_all_served() {
    let server = serve(describe);
    let client = server.connect().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(client.raw(&head(b"")).await);
    }
    for (_send, recv) in streams {
        assert!(rest(recv).await.unwrap().ends_with(HONEST.as_bytes()));
    }
}
