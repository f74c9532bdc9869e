//! A role as a whole, in the file of a process that has another one.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::trigger::rewrite;
use super::world::tunnels;
use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, NODE, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_responder_and_its_listeners_come_and_go_beside_an_initiator_that_stays,
    a_responder_that_is_removed_admits_nobody_while_it_finishes_what_runs,
);

/// Where the process said last that it does this.
fn address(running: &Running, message: &str) -> SocketAddr {
    running.lines_of(message).last().unwrap()["address"].as_str().unwrap().parse().unwrap()
}

async fn a_responder_and_its_listeners_come_and_go_beside_an_initiator_that_stays(transport: Transport) {
    let edge = Edge::new(transport);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let target = format!("http://{}", site.target.address());
    let alone = edge.target(&target).text(&site.responder.tunnel_address().to_string());
    let both = Cloud::new().text().replace("admin: 127.0.0.1:0\n", &alone);
    let node = Node { node: "edge-2", ..NODE };

    // Twice: nothing of the first time may be in the way of the second.
    for name in ["second", "third"] {
        let changes = rewrite(&site.initiator, &both).await.changes();
        assert!(changes.iter().any(|change| change.starts_with("+ responder")), "{changes:?}");
        assert!(changes.iter().any(|change| change.starts_with("+ egress")), "{changes:?}");
        let egress = address(&site.initiator, "taking requests");
        let joining = Edge::new(transport).named(name).claim(node).target(&target);
        let joined = joining.start(&site.folder, address(&site.initiator, "accepting tunnels")).await;
        eventually("an answer through the responder that came", async || {
            let answer = get(egress, "/", &["x-node-id: edge-2"]).await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
        let changes = rewrite(&site.initiator, &alone).await.changes();
        assert!(changes.iter().any(|change| change.starts_with("- responder")), "{changes:?}");
        eventually("its listener to be gone", async || TcpStream::connect(egress).await.is_err().then_some(())).await;
        joined.line_with("cannot open a tunnel").await;
    }
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}

// What broke: as long as a response of before went on, whoever dialled was admitted.
async fn a_responder_that_is_removed_admits_nobody_while_it_finishes_what_runs(transport: Transport) {
    let edge = Edge::new(transport);
    let site = Site::with(Cloud::new(), edge.clone()).await;
    let target = format!("http://{}", site.target.address());
    let alone = edge.target(&target).text(&site.responder.tunnel_address().to_string());
    let both = Cloud::new().text().replace("admin: 127.0.0.1:0\n", &alone);
    rewrite(&site.initiator, &both).await.changes();
    let (egress, tunnels) = (address(&site.initiator, "taking requests"), tunnel_address(&site, transport));
    let named = |node: &'static str| Edge::new(transport).named(node).claim(Node { node, ..NODE }).target(&target);
    let inside = named("edge-2").start(&site.folder, tunnels).await;
    let answers = async || (get(egress, "/", &["x-node-id: edge-2"]).await.ok()?.status() == 200).then_some(());
    eventually("an answer through the second responder", answers).await;
    let mut client = RawHttp::connect(egress).await.unwrap();
    // It runs until the test ends it.
    let head =
        b"POST /echo HTTP/1.1\r\nhost: x\r\nx-node-id: edge-2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    client.send(head).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);

    rewrite(&site.initiator, &alone).await.changes();
    let late = named("edge-3").start(&site.folder, tunnels).await;
    late.line_with("takes no tunnels any more").await;
    client.send(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    let (body, _) = client.body(&head).await.unwrap();
    assert_eq!(body, b"firstlast", "what runs is finished");
    let ups = site.initiator.lines_of("tunnel up");
    assert!(ups.iter().all(|line| !line.to_string().contains("edge-3")), "{ups:?}");
    drop(inside);
}

/// Where the process accepts tunnels over this transport.
fn tunnel_address(site: &Site, transport: Transport) -> SocketAddr {
    let over_tcp = transport == Transport::Tcp;
    address(&site.initiator, if over_tcp { "accepting tunnels over TCP" } else { "accepting tunnels" })
}
