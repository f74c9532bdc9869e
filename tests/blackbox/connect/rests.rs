//! What CONNECT opened and where nothing is said: as long as both ends keep it, at little cost.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Over, head};
use super::{Bytes, opened, site, site_with};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::RawHttp;
use crate::support::site::{Cloud, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    what_ends_an_exchange_that_rests_leaves_a_tunnel_that_does,
    a_limit_of_its_own_ends_what_rests,
    what_waits_for_its_rate_does_not_rest,
    a_thousand_that_rest_cost_little,
);

async fn what_ends_an_exchange_that_rests_leaves_a_tunnel_that_does(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().egress("connect", "true").egress("limits", "{ body_idle: 1s, exchange_idle: 1s }");
    let site = site_with(cloud, transport, target.address()).await;
    let mut tunnels = Vec::new();
    for over in Over::ALL {
        tunnels.push(opened(&site, &target, over).await);
    }
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    let request = format!("GET /chunks/2/3600000 HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\n\r\n");
    client.send(request.as_bytes()).await.unwrap();
    assert!(client.response().await.is_err(), "nothing moves in it");
    for (client, peer) in &mut tunnels {
        client.send.all(b"x").await.unwrap();
        assert_eq!(peer.read_u8().await.unwrap(), b'x');
        peer.write_all(b"y").await.unwrap();
        assert_eq!(client.recv.exactly(1).await.unwrap(), b"y");
    }
}

// spec: ST-64
async fn a_limit_of_its_own_ends_what_rests(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().egress("connect", "true").egress("limits", "{ connect_idle: 3s }");
    let site = site_with(cloud, transport, target.address()).await;
    let mut tunnels = Vec::new();
    for over in Over::ALL {
        let (mut client, mut peer) = opened(&site, &target, over).await;
        peer.shutdown().await.unwrap();
        assert_eq!(client.recv.whole().await.unwrap(), b"");
        tunnels.push((client, peer));
    }
    for over in Over::ALL {
        let (mut client, mut peer) = opened(&site, &target, over).await;
        client.recv.whole().await.unwrap_err();
        peer.read_to_end(&mut Vec::new()).await.unwrap_err();
    }
    for (_client, mut peer) in tunnels {
        peer.read_to_end(&mut Vec::new()).await.expect_err("half-closed, and the client says nothing");
    }
    for over in Over::ALL {
        let (mut client, mut peer) = opened(&site, &target, over).await;
        peer.shutdown().await.unwrap();
        assert_eq!(client.recv.whole().await.unwrap(), b"");
        let cut = async { while client.send.all(&[0; 64 << 10]).await.is_ok() {} };
        timeout(PATIENCE, cut).await.expect("half-closed, and the target takes nothing");
    }
    site.responder.0.counted("adit_exchanges_failed_total{side=\"egress\",cause=\"idle\"}", 2).await;
}

/// One direction has ended, and the other one waits for longer than it might rest.
async fn what_waits_for_its_rate_does_not_rest(transport: Transport) {
    const BYTES: usize = 160 << 10;
    let target = Bytes::new().await;
    let cloud = Cloud::new().egress("connect", "true").egress("limits", "{ connect_idle: 1s }");
    let cloud = cloud.responder("shares", "{ per_tenant: { bytes: 16KiB } }");
    let site = site_with(cloud, transport, target.address()).await;
    let (mut client, mut peer) = opened(&site, &target, Over::ALL[0]).await;
    peer.shutdown().await.unwrap();
    assert_eq!(client.recv.whole().await.unwrap(), b"");
    let sent = client.send.all(&[7; BYTES]);
    let (sent, received) = tokio::join!(sent, async { peer.read_exact(&mut [0; BYTES]).await });
    sent.unwrap();
    received.expect("it is waited for, and not cut");
}

async fn a_thousand_that_rest_cost_little(transport: Transport) {
    const COUNT: usize = 1000;
    const BYTES_EACH: u64 = 64 << 10;
    let target = Arc::new(Bytes::new().await);
    let site = site(transport, target.address()).await;
    let accepting = Arc::clone(&target);
    let mut peers = JoinSet::new();
    peers.spawn(async move {
        let mut peers = Vec::new();
        while peers.len() < COUNT {
            let mut peer = accepting.accept().await;
            // Each has been used: its buffers were there.
            let mut bytes = vec![0; 64 << 10];
            peer.read_exact(&mut bytes).await.unwrap();
            peer.write_all(&bytes).await.unwrap();
            peers.push(peer);
        }
        peers
    });
    // The first one has set up all that there is once.
    let (responder, initiator) = (site.responder.0.memory(), site.initiator.memory());
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        clients.push(used(site.egress()).await);
    }
    let mut peers = peers.join_next().await.unwrap().unwrap();
    for (process, before, name) in
        [(&site.responder.0, responder, "responder"), (&site.initiator, initiator, "initiator")]
    {
        let each = (process.memory().saturating_sub(before)) / COUNT as u64;
        eprintln!("{name} over {transport:?}: {each} bytes for each");
        assert!(each < BYTES_EACH, "{name}: {each} bytes for each");
    }
    for index in [0, COUNT / 2, COUNT - 1] {
        clients[index].write_all(b"x").await.unwrap();
        eventually("a byte at its target", async || {
            let mut byte = [0];
            peers
                .iter_mut()
                .find_map(|peer| peer.try_read(&mut byte).ok())
                .map(|read| assert_eq!((read, byte), (1, *b"x")))
        })
        .await;
    }
    drop((clients, peers));
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let series = format!("adit_exchanges_in_flight{{side=\"{side}\"}}");
        eventually("all have ended", async || (process.metric(&series).await == 0).then_some(())).await;
    }
}

/// A client that has sent and got some bytes.
async fn used(egress: std::net::SocketAddr) -> TcpStream {
    let mut client = RawHttp::connect(egress).await.unwrap();
    client.send(head("bytes:1").as_bytes()).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    let (mut client, _) = client.into_parts();
    let mut bytes = vec![7; 64 << 10];
    client.write_all(&bytes).await.unwrap();
    client.read_exact(&mut bytes).await.unwrap();
    client
}
