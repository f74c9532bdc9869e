//! Listeners for bytes that come, change, move and go while the process runs.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Bytes;
use crate::reload::trigger::rewrite;
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Edge, Site, Transport, over_each_transport};

over_each_transport!(a_listener_comes_changes_moves_and_goes_and_who_is_connected_stays);

async fn a_listener_comes_changes_moves_and_goes_and_who_is_connected_stays(transport: Transport) {
    let (one, two) = (Bytes::new().await, Bytes::new().await);
    let edge = Edge::new(transport)
        .service(&format!("{{ name: one, target: \"tcp://{}\" }}", one.address()))
        .service(&format!("{{ name: two, target: \"tcp://{}\" }}", two.address()));
    let site = Site::with(Cloud::new(), edge).await;
    let responder = &site.responder;

    let added = Cloud::new().and_tcp("one");
    let changes = rewrite(&responder.0, &added.text()).await.changes();
    assert_eq!(changes, ["+ egress[127.0.0.1:0#2]"]);
    let first = responder.tcp_at(0);
    let (mut client, mut peer) = tokio::join!(async { TcpStream::connect(first).await.unwrap() }, one.accept());

    let changed = Cloud::new().and_tcp("two").egress("limits", "{ idle: 1h }");
    let mut changes = rewrite(&responder.0, &changed.text()).await.changes();
    changes.sort();
    assert_eq!(changes, ["+ egress[127.0.0.1:0#2].limits.idle: 1h", "~ egress[127.0.0.1:0#2].service: one -> two"]);
    let (_other, _other_peer) = tokio::join!(async { TcpStream::connect(first).await.unwrap() }, two.accept());

    let moved = Cloud::new().and_tcp("two").egress("tcp", "\"127.0.0.2:0\"");
    rewrite(&responder.0, &moved.text()).await.changes();
    let second = responder.tcp_at(1);
    eventually("the former address is free", async || TcpStream::connect(first).await.err()).await;
    let (_third, _third_peer) = tokio::join!(async { TcpStream::connect(second).await.unwrap() }, two.accept());

    let changes = rewrite(&responder.0, &Cloud::new().text()).await.changes();
    assert_eq!(changes, ["- egress[127.0.0.2:0]"]);
    // Who comes in the moment of its end is reset, and the next one refused.
    eventually("nobody listens", async || {
        let error = TcpStream::connect(second).await.err()?;
        (error.kind() == ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"still here");
}
