//! How what CONNECT opened ends: each direction by itself, or both with a cut.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Over, Receiving, Sending};
use super::{Bytes, opened, site, site_with};
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Site, Transport, over_each_transport};

over_each_transport!(
    each_direction_ends_by_itself_in_either_order,
    a_client_that_leaves_is_a_reset_at_the_target,
    a_target_that_dies_is_a_reset_at_the_client,
    a_tunnel_that_is_lost_is_a_reset_at_both_ends,
    a_drain_lets_bytes_pass_up_to_its_limit_and_then_cuts,
);

/// Waits for the end of what comes; a reset shows.
async fn end(peer: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.map_err(|error| error.kind())?;
    Ok(bytes)
}

/// How a client sees that the other end was cut.
fn cut(over: Over) -> Result<Vec<u8>, String> {
    Err(match over {
        Over::Http1 => format!("{:?}", ErrorKind::ConnectionReset),
        Over::Http2 => format!("{:?}", h2::Reason::CONNECT_ERROR),
    })
}

// spec: ST-60
async fn each_direction_ends_by_itself_in_either_order(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    for over in Over::ALL {
        let (mut client, mut peer) = opened(&site, &target, over).await;
        client.send.all(b"question").await.unwrap();
        client.send.finish().await;
        assert_eq!(end(&mut peer).await.unwrap(), b"question", "{over:?}");
        peer.write_all(b"answer").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(client.recv.whole().await.unwrap(), b"answer", "{over:?}");

        let (mut client, mut peer) = opened(&site, &target, over).await;
        peer.write_all(b"last words").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(client.recv.whole().await.unwrap(), b"last words", "{over:?}");
        client.send.all(b"still here").await.unwrap();
        client.send.finish().await;
        assert_eq!(end(&mut peer).await.unwrap(), b"still here", "{over:?}");
    }
    nothing_is_left(&site).await;
}

/// Neither end counts an exchange any more.
async fn nothing_is_left(site: &Site) {
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let series = format!("adit_exchanges_in_flight{{side=\"{side}\"}}");
        eventually("no exchange under way", async || (process.metric(&series).await == 0).then_some(())).await;
    }
}

// spec: ST-62, ST-63
async fn a_client_that_leaves_is_a_reset_at_the_target(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    for over in Over::ALL {
        let (client, mut peer) = opened(&site, &target, over).await;
        client.reset();
        assert_eq!(end(&mut peer).await, Err(ErrorKind::ConnectionReset), "{over:?}");

        let (mut client, mut peer) = opened(&site, &target, over).await;
        client.send.finish().await;
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        client.reset();
        let gone = eventually("the target is reset", async || peer.write_all(b"x").await.err());
        assert!(
            matches!(gone.await.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{over:?}, half-closed"
        );

        let (mut client, mut peer) = opened(&site, &target, over).await;
        peer.shutdown().await.unwrap();
        assert_eq!(client.recv.whole().await.unwrap(), b"");
        client.reset();
        assert_eq!(end(&mut peer).await, Err(ErrorKind::ConnectionReset), "{over:?}, half-closed by the target");

        let (mut client, mut peer) = opened(&site, &target, over).await;
        fill(&mut client.send).await;
        client.reset();
        assert_eq!(end(&mut peer).await, Err(ErrorKind::ConnectionReset), "{over:?}, held back");
    }
    nothing_is_left(&site).await;
}

/// Sends until nothing is taken any more.
async fn fill(send: &mut Sending) {
    let piece = vec![7; 64 << 10];
    while tokio::time::timeout(std::time::Duration::from_secs(1), send.all(&piece)).await.is_ok() {}
}

// spec: ST-61
async fn a_target_that_dies_is_a_reset_at_the_client(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    for over in Over::ALL {
        let (mut client, mut peer) = opened(&site, &target, over).await;
        peer.write_all(b"last words").await.unwrap();
        assert_eq!(client.recv.exactly(10).await.unwrap(), b"last words");
        reset(peer);
        assert_eq!(client.recv.whole().await, cut(over), "{over:?}");

        let (mut client, mut peer) = opened(&site, &target, over).await;
        client.send.finish().await;
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        reset(peer);
        assert_eq!(client.recv.whole().await, cut(over), "{over:?}, half-closed");
    }
    nothing_is_left(&site).await;
}

fn reset(peer: TcpStream) {
    peer.set_zero_linger().unwrap();
}

async fn a_tunnel_that_is_lost_is_a_reset_at_both_ends(transport: Transport) {
    let cloud =
        || Cloud::new().egress("connect", "true").responder("keepalive", "500ms").responder("idle_timeout", "5s");
    for over in Over::ALL {
        let target = Bytes::new().await;
        let site = site_with(cloud(), transport, target.address()).await;
        let (mut client, _peer) = opened(&site, &target, over).await;
        drop(site.initiator.kill());
        assert_eq!(client.recv.whole().await, cut(over), "{over:?}: the site is gone");

        let site = site_with(cloud(), transport, target.address()).await;
        let (_client, mut peer) = opened(&site, &target, over).await;
        drop(site.responder.0.kill());
        assert_eq!(end(&mut peer).await, Err(ErrorKind::ConnectionReset), "{over:?}: the responder is gone");
    }
}

async fn a_drain_lets_bytes_pass_up_to_its_limit_and_then_cuts(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().egress("connect", "true").process("drain_timeout", "10s").process("lame_duck", "0");
    let mut site = site_with(cloud, transport, target.address()).await;
    let (mut old, mut old_peer) = opened(&site, &target, Over::Http1).await;
    let (mut new, mut new_peer) = opened(&site, &target, Over::Http2).await;
    let connection = match &new.recv {
        Receiving::Http2 { connection, .. } => connection.sender(),
        Receiving::Http1 { .. } => unreachable!("it was opened over HTTP/2"),
    };
    site.responder.0.terminate();
    eventually("GOAWAY", async || connection.clone().ready().await.err()).await;
    for (client, peer) in [(&mut old, &mut old_peer), (&mut new, &mut new_peer)] {
        client.send.all(b"x").await.unwrap();
        assert_eq!(peer.read_u8().await.unwrap(), b'x', "it drains");
    }
    assert_eq!(old.recv.whole().await, cut(Over::Http1));
    new.recv.whole().await.unwrap_err();
    for peer in [&mut old_peer, &mut new_peer] {
        assert_eq!(end(peer).await, Err(ErrorKind::ConnectionReset));
    }
    assert!(site.responder.0.exit().await.success());
}
