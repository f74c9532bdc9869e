//! Listeners for bytes: what passes, how it ends, where it goes by the name in its TLS, who connected by the word of a proxy,
//! and what changes while they run.

mod ech;
mod ends;
mod passthrough;
mod postgres;
mod prefixes;
mod proxied;
mod refused;
mod reload;
mod templates;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::eventually::{eventually, standstill};
use crate::support::site::{Cloud, Edge, Site, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    every_byte_passes_in_both_directions_at_once,
    what_is_sent_ahead_is_for_the_target_and_whoever_speaks_first_may,
    what_is_not_read_is_held_back_and_not_lost,
    both_records_have_the_bytes_of_both_directions,
    more_connections_than_there_may_be_wait,
    connections_leave_nothing_behind,
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

/// A site that exports `bytes`, to which a listener leads.
async fn site(transport: Transport, target: SocketAddr) -> Site {
    site_with(Cloud::new().and_tcp("bytes"), transport, target).await
}

async fn site_with(cloud: Cloud, transport: Transport, target: SocketAddr) -> Site {
    let edge = Edge::new(transport).service(&format!("{{ name: bytes, target: \"tcp://{target}\" }}"));
    Site::with(cloud, edge).await
}

async fn connect(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(site.responder.tcp_at(0)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client and the target that it is connected to.
async fn opened(site: &Site, target: &Bytes) -> (TcpStream, TcpStream) {
    tokio::join!(connect(site), target.accept())
}

/// Neither end counts a connection any more.
async fn nothing_is_left(site: &Site) {
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let series = format!("adit_exchanges_in_flight{{side=\"{side}\"}}");
        eventually("no exchange under way", async || (process.metric(&series).await == 0).then_some(())).await;
    }
}

async fn every_byte_passes_in_both_directions_at_once(transport: Transport) {
    const LENGTH: u64 = 20 << 20;
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let (client, peer) = opened(&site, &target).await;
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = peer.into_split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let (mut recv, mut send) = client.into_split();
    let sent = pattern(0, LENGTH);
    let sending = async {
        send.write_all(&sent).await.unwrap();
        send.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let ((), read) = tokio::join!(sending, recv.read_to_end(&mut received));
    assert!(read.unwrap() as u64 == LENGTH && received == sent);
    echo.await.unwrap();
    nothing_is_left(&site).await;
}

// spec: ST-57
async fn what_is_sent_ahead_is_for_the_target_and_whoever_speaks_first_may(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let ahead = pattern(0, 300_000);
    let mut client = connect(&site).await;
    client.write_all(&ahead).await.unwrap();
    client.shutdown().await.unwrap();
    let mut peer = target.accept().await;
    let mut arrived = Vec::new();
    peer.read_to_end(&mut arrived).await.unwrap();
    assert!(arrived == ahead, "{} bytes", arrived.len());
    peer.write_all(b"got it").await.unwrap();
    drop(peer);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"got it");

    let (mut client, mut peer) = opened(&site, &target).await;
    peer.write_all(b"welcome").await.unwrap();
    let mut welcome = [0; 7];
    client.read_exact(&mut welcome).await.unwrap();
    assert_eq!(&welcome, b"welcome");
}

async fn what_is_not_read_is_held_back_and_not_lost(transport: Transport) {
    // More than buffers and windows take on the way.
    const LENGTH: u64 = 64 << 20;
    const BEGIN: usize = 1 << 20;
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let expected = pattern(0, LENGTH);
    for slow in ["target", "client"] {
        let (client, peer) = opened(&site, &target).await;
        let (mut fast, mut slow_one) = if slow == "target" { (client, peer) } else { (peer, client) };
        let before = site.responder.0.memory() + site.initiator.memory();
        let (sent, count) = (expected.clone(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&count);
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(64 << 10) {
                fast.write_all(piece).await.unwrap();
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            fast.shutdown().await.unwrap();
            fast
        });
        let mut bytes = vec![0; LENGTH as usize];
        slow_one.read_exact(&mut bytes[..BEGIN]).await.unwrap();
        let count = async || count.load(Ordering::Relaxed);
        let taken = standstill("what is taken", Duration::from_secs(1), count).await;
        assert!(taken < LENGTH, "{slow}: all was taken");
        assert!(site.responder.0.memory() + site.initiator.memory() < before + (24 << 20), "{slow}");
        slow_one.read_exact(&mut bytes[BEGIN..]).await.unwrap();
        assert!(bytes == expected, "{slow}");
        assert_eq!(slow_one.read(&mut [0]).await.unwrap(), 0, "{slow}");
        sending.await.unwrap();
    }
}

async fn both_records_have_the_bytes_of_both_directions(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let (mut client, mut peer) = opened(&site, &target).await;
    let remote = client.local_addr().unwrap().to_string();
    peer.write_all(b"from the target").await.unwrap();
    peer.shutdown().await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    client.write_all(b"from the client").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(peer.read_to_end(&mut Vec::new()).await.unwrap(), 15);
    let listener = site.responder.tcp_at(0).to_string();
    let line = site.responder.0.line_with("\"CONNECT\"").await;
    assert_eq!((&line["remote"], &line["listener"]), (&remote.into(), &listener.into()));
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let line = process.line_with("\"CONNECT\"").await;
        assert_eq!(
            (&line["side"], &line["service"], &line["outcome"]),
            (&side.into(), &"bytes".into(), &"complete".into())
        );
        assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&15.into(), &15.into()), "{line}");
    }
}

async fn more_connections_than_there_may_be_wait(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().and_tcp("bytes").egress("limits", "{ connections: 2 }");
    let site = site_with(cloud, transport, target.address()).await;
    let first = opened(&site, &target).await;
    let (_second, _second_peer) = opened(&site, &target).await;
    let mut third = connect(&site).await;
    third.write_all(b"x").await.unwrap();
    site.responder.0.line_with("a listener is full; others wait").await;
    drop(first);
    let mut peer = target.accept().await;
    assert_eq!(peer.read_u8().await.unwrap(), b'x');
}

async fn connections_leave_nothing_behind(transport: Transport) {
    const ROUNDS: usize = 40;
    const AT_ONCE: usize = 25;
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let echo = tokio::spawn(async move {
        loop {
            let mut peer = target.accept().await;
            tokio::spawn(async move {
                let (mut read, mut write) = peer.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let round = async |length: u64| {
        let sent = pattern(0, length);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (to, sent) = (site.responder.tcp_at(0), sent.clone());
            clients.spawn(async move {
                let mut client = TcpStream::connect(to).await.unwrap();
                client.write_all(&sent).await.unwrap();
                client.shutdown().await.unwrap();
                let mut received = Vec::new();
                client.read_to_end(&mut received).await.unwrap();
                assert!(received == sent);
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
    };
    round(1000).await;
    nothing_is_left(&site).await;
    let descriptors = |process: &crate::support::site::Running| {
        std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
    };
    let before = (descriptors(&site.responder.0), descriptors(&site.initiator));
    for length in 0..ROUNDS {
        round(length as u64 * 17).await;
    }
    nothing_is_left(&site).await;
    eventually("descriptors are back", async || {
        let now = (descriptors(&site.responder.0), descriptors(&site.initiator));
        (now.0 <= before.0 + 2 && now.1 <= before.1 + 2).then_some(())
    })
    .await;
    echo.abort();
}
