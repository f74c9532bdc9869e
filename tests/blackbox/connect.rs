//! CONNECT to services of bytes: what passes, how it ends, what is refused, and what it costs; asked for over HTTP/1.1 and HTTP/2.

mod client;
mod ends;
mod programs;
mod refused;
mod rests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::client::{Client, Over};
use crate::support::eventually::standstill;
use crate::support::site::{Cloud, Edge, Site, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    every_byte_passes_in_both_directions_at_once,
    what_is_sent_ahead_is_for_the_target,
    what_is_not_read_is_held_back_and_not_lost,
    both_records_have_the_bytes_of_both_directions,
);

/// A target of bytes; the test is its other end.
struct Bytes(TcpListener);

impl Bytes {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn accept(&self) -> TcpStream {
        self.0.accept().await.unwrap().0
    }
}

/// A site that exports `bytes` beside a service for requests, `web`.
async fn site(transport: Transport, target: SocketAddr) -> Site {
    site_with(Cloud::new().egress("connect", "true"), transport, target).await
}

async fn site_with(cloud: Cloud, transport: Transport, target: SocketAddr) -> Site {
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: bytes, target: \"tcp://{target}\" }}"));
    Site::with(cloud, edge).await
}

/// A client and the target that it is connected to.
async fn opened(site: &Site, target: &Bytes, over: Over) -> (Client, TcpStream) {
    tokio::join!(async { Client::open(site.egress(), over, "bytes:1").await.unwrap() }, target.accept())
}

async fn every_byte_passes_in_both_directions_at_once(transport: Transport) {
    const LENGTH: u64 = 20 << 20;
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let mut echoes = JoinSet::new();
    for over in Over::ALL {
        let (Client { mut send, mut recv }, peer) = opened(&site, &target, over).await;
        echoes.spawn(async move {
            let (mut read, mut write) = peer.into_split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let sent = pattern(0, LENGTH);
        let sending = async {
            send.all(&sent).await.unwrap();
            send.finish().await;
        };
        let ((), received) = tokio::join!(sending, recv.whole());
        assert!(received.unwrap() == sent, "{over:?}");
    }
}

// spec: ST-57, ST-65
async fn what_is_sent_ahead_is_for_the_target(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let ahead = pattern(0, 300_000);
    for over in Over::ALL {
        let opening = Client::open_with(site.egress(), over, "bytes:1", &ahead);
        let arriving = async {
            let mut peer = target.accept().await;
            let mut bytes = Vec::new();
            peer.read_to_end(&mut bytes).await.unwrap();
            peer.write_all(b"got it").await.unwrap();
            bytes
        };
        let (client, arrived) = tokio::join!(opening, arriving);
        assert!(arrived == ahead, "{over:?}: {} bytes", arrived.len());
        assert_eq!(client.unwrap().recv.whole().await.unwrap(), b"got it", "{over:?}");
    }
}

async fn what_is_not_read_is_held_back_and_not_lost(transport: Transport) {
    // More than buffers and windows take on the way.
    const LENGTH: u64 = 64 << 20;
    const BEGIN: usize = 1 << 20;
    const PIECE: usize = 64 << 10;
    const STILL: Duration = Duration::from_secs(1);
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let expected = pattern(0, LENGTH);
    for over in Over::ALL {
        let (Client { mut send, mut recv }, mut peer) = opened(&site, &target, over).await;
        let before = site.responder.0.memory() + site.initiator.memory();
        let bounded = || site.responder.0.memory() + site.initiator.memory() < before + (24 << 20);

        let (sent, count) = (expected.clone(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&count);
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(PIECE) {
                send.all(piece).await.unwrap();
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            send
        });
        let mut bytes = vec![0; LENGTH as usize];
        peer.read_exact(&mut bytes[..BEGIN]).await.unwrap();
        let taken = standstill("what is taken", STILL, async || count.load(Ordering::Relaxed)).await;
        assert!(taken < LENGTH && bounded(), "{over:?}: held back on the way to the target, but for {taken}");
        peer.read_exact(&mut bytes[BEGIN..]).await.unwrap();
        assert!(bytes == expected, "{over:?}");
        let _send = sending.await.unwrap();

        let (sent, count) = (expected.clone(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&count);
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(PIECE) {
                peer.write_all(piece).await.unwrap();
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            peer
        });
        assert!(recv.exactly(BEGIN).await.unwrap() == expected[..BEGIN]);
        let taken = standstill("what is taken", STILL, async || count.load(Ordering::Relaxed)).await;
        assert!(taken < LENGTH && bounded(), "{over:?}: held back on the way to the client, but for {taken}");
        assert!(recv.exactly(LENGTH as usize - BEGIN).await.unwrap() == expected[BEGIN..], "{over:?}");
        sending.await.unwrap();
    }
}

async fn both_records_have_the_bytes_of_both_directions(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let (mut client, mut peer) = opened(&site, &target, Over::Http1).await;
    peer.write_all(b"from the target").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(client.recv.whole().await.unwrap(), b"from the target");
    // The response is over by now; the exchange is not.
    client.send.all(b"from the client").await.unwrap();
    client.send.finish().await;
    assert_eq!(peer.read_to_end(&mut Vec::new()).await.unwrap(), 15);
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let line = process.line_with("\"CONNECT\"").await;
        assert_eq!(
            (&line["side"], &line["service"], &line["outcome"]),
            (&side.into(), &"bytes".into(), &"complete".into())
        );
        assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&15.into(), &15.into()), "{line}");
        let bytes = |body| format!("adit_exchange_body_bytes_total{{side=\"{side}\",direction=\"{body}\"}}");
        assert_eq!((process.metric(&bytes("request")).await, process.metric(&bytes("response")).await), (15, 15));
    }
}
