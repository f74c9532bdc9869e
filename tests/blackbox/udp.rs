//! Datagrams: from a listener of the responder through flows to a target at the site, and back.

mod bounds;
mod connect;
mod ends;
mod policies;
mod programs;
mod reload;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::support::certificates::Node;
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    datagrams_of_every_size_come_back_as_they_were,
    each_source_has_a_flow_of_its_own,
    an_answer_leaves_from_the_address_that_was_spoken_to,
    flows_to_a_cluster_reach_a_node_of_it,
    a_flow_to_a_cluster_goes_to_a_node_that_has_room,
    datagrams_may_come_from_a_fixed_address_and_the_newest_flow_has_it,
    both_records_and_the_counters_have_what_passed,
);

/// A site that exports `echo` for datagrams, in front of which there is a listener.
async fn site(transport: Transport, peer: &Peer) -> Site {
    site_with(Cloud::new().and_udp("echo"), transport, peer).await
}

async fn site_with(cloud: Cloud, transport: Transport, peer: &Peer) -> Site {
    Site::with(cloud, edge(transport, peer, "")).await
}

fn edge(transport: Transport, peer: &Peer, keys: &str) -> Edge {
    Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: echo, target: \"udp://{}\"{keys} }}", peer.address()))
}

/// The value of a counter of both ends, summed over what stands in braces behind its name.
async fn open_flows(site: &Site) -> (u64, u64) {
    let of = |side| format!("adit_flows_open{{side=\"{side}\"}}");
    (site.responder.0.metric(&of("egress")).await, site.initiator.metric(&of("target")).await)
}

/// Waits until both ends have so many flows.
async fn have_flows(site: &Site, count: u64) {
    let what = format!("{count} flows at both ends");
    eventually(&what, async || (open_flows(site).await == (count, count)).then_some(())).await;
}

// spec: ST-40, ST-55, ST-72
async fn datagrams_of_every_size_come_back_as_they_were(transport: Transport) {
    let peer = Peer::echo().await;
    let site = site(transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    // A QUIC datagram takes about 1,150 to 1,450 bytes; what is longer goes on the stream.
    let sizes =
        [0, 1, 2, 63, 64, 500, 1100, 1172, 1200, 1300, 1400, 1452, 1472, 1500, 4096, 9000, 16_383, 16_384, 65_507];
    for (index, size) in sizes.into_iter().enumerate() {
        let sent = pattern(index as u64 * 7, size);
        assert!(ask(&client, &sent).await == sent, "{size} bytes");
    }
    assert_eq!(open_flows(&site).await, (1, 1), "one flow carried them");
}

async fn each_source_has_a_flow_of_its_own(transport: Transport) {
    const SOURCES: usize = 60;
    let peer = Peer::echo().await;
    let site = site(transport, &peer).await;
    let mut clients = Vec::new();
    for index in 0..SOURCES {
        let client = Client::new(site.responder.udp_at(0)).await;
        let said = format!("from {index}");
        assert_eq!(ask(&client, said.as_bytes()).await, said.as_bytes());
        clients.push(client);
    }
    for (index, client) in clients.iter().enumerate().rev() {
        let said = format!("again from {index}");
        assert_eq!(ask(client, said.as_bytes()).await, said.as_bytes());
    }
    let ports: BTreeSet<u16> = peer.seen().iter().map(|(from, _)| from.port()).collect();
    assert_eq!(ports.len(), SOURCES, "each has a socket of its own at the site");
    assert_eq!(open_flows(&site).await, (SOURCES as u64, SOURCES as u64));
}

// spec: ST-78
async fn an_answer_leaves_from_the_address_that_was_spoken_to(transport: Transport) {
    let peer = Peer::echo().await;
    let cloud = Cloud::new().and_udp("echo").egress("udp", "\"0.0.0.0:0\"");
    let site = site_with(cloud, transport, &peer).await;
    let port = site.responder.udp_at(0).port();
    // A connected socket takes nothing from anybody else.
    for address in [[127, 0, 0, 2], [127, 3, 2, 1], [127, 0, 0, 1]] {
        let client = Client::new((address, port).into()).await;
        assert_eq!(ask(&client, &address).await, address);
    }
    // One source, and two addresses to which it speaks: each has its own answers.
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut answered, mut room) = (BTreeSet::new(), [0; 16]);
    eventually("an answer from each of the two", async || {
        for last in [7, 8] {
            client.send_to(&[last], (IpAddr::from([127, 0, 0, last]), port)).await.unwrap();
        }
        while let Ok(Ok((length, from))) = timeout(Duration::from_millis(500), client.recv_from(&mut room)).await {
            assert_eq!(from, (IpAddr::from([127, 0, 0, room[0]]), port).into());
            assert_eq!(length, 1);
            answered.insert(room[0]);
        }
        (answered.len() == 2).then_some(())
    })
    .await;
    assert_eq!(open_flows(&site).await, (5, 5));
}

async fn flows_to_a_cluster_reach_a_node_of_it(transport: Transport) {
    let peer = Peer::echo().await;
    let to = format!("{{ cluster: {}, service: echo, tenant: {} }}", NODE.cluster, NODE.tenant);
    let cloud = Cloud::new().and_udp("echo").egress("to", &to).egress("balance", "hash");
    let site = site_with(cloud, transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    assert_eq!(ask(&client, b"anybody").await, b"anybody");
}

async fn a_flow_to_a_cluster_goes_to_a_node_that_has_room(transport: Transport) {
    let to = format!("{{ cluster: {}, service: echo, tenant: {} }}", NODE.cluster, NODE.tenant);
    // All sources have one address, so that both flows are for the same node.
    let cloud = Cloud::new().and_udp("echo").egress("to", &to).egress("balance", "hash");
    let cloud = cloud.responder("shares", "{ nodes: [ { node: \"edge-*\", flows: 1 } ] }");
    let peers = [Peer::echo().await, Peer::echo().await];
    let site = Site::with(cloud, edge(transport, &peers[0], "").count(2)).await;
    let other = Node { node: "edge-2", ..NODE };
    let _joined = site.join(edge(transport, &peers[1], "").claim(other).named("other").count(2)).await;
    site.responder.registered(4).await;
    let mut clients = Vec::new();
    for said in [b"first", b"other"] {
        let client = Client::new(site.responder.udp_at(0)).await;
        assert_eq!(ask(&client, said).await, said);
        clients.push(client);
    }
    let seen = peers.each_ref().map(|peer| peer.seen().len().min(1));
    assert_eq!(seen, [1, 1], "one each");
}

async fn datagrams_may_come_from_a_fixed_address_and_the_newest_flow_has_it(transport: Transport) {
    let peer = Peer::echo().await;
    // An address of its own for each test, where no port is taken: all of 127.0.0.0/8 is this machine.
    let from = if transport == Transport::Quic { "127.6.0.1:4789" } else { "127.6.0.2:4789" };
    let edge = edge(transport, &peer, &format!(", from: \"{from}\""));
    let site = Site::with(Cloud::new().and_udp("echo"), edge).await;
    for said in [b"first", b"other"] {
        let client = Client::new(site.responder.udp_at(0)).await;
        assert_eq!(ask(&client, said).await, said);
        assert_eq!(peer.got(said).await, from.parse().unwrap());
    }
}

async fn both_records_and_the_counters_have_what_passed(transport: Transport) {
    let peer = Peer::answering(|datagram| vec![datagram.repeat(3)]).await;
    let cloud = Cloud::new().and_udp("echo").egress("limits", "{ flow_idle: 1s }");
    let site = site_with(cloud, transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    // Once: nothing is lost here, and another one could be on its way while the counters are read.
    client.send(b"abcde").await;
    assert_eq!(client.recv_within(PATIENCE).await.unwrap(), b"abcdeabcdeabcde");
    let sent = 1;
    for (process, side) in [(&site.responder.0, "egress"), (&site.initiator, "target")] {
        let line = process.line_with("\"CONNECT-UDP\"").await;
        let said = (&line["side"], &line["service"], &line["outcome"], &line["node"]);
        assert_eq!(said, (&side.into(), &"echo".into(), &"complete".into(), &NODE.node.into()), "{line}");
        assert_eq!(
            (&line["request_bytes"], &line["response_bytes"]),
            (&(5 * sent).into(), &(15 * sent).into()),
            "{line}"
        );
        for direction in ["request", "response"] {
            let passed = format!("adit_flow_datagrams_total{{side=\"{side}\",direction=\"{direction}\"}}");
            process.counted(&passed, sent).await;
        }
    }
    let line = site.responder.0.line_with("\"CONNECT-UDP\"").await;
    assert_eq!(
        (&line["remote"], &line["listener"]),
        (&client.address().to_string().into(), &site.responder.udp_at(0).to_string().into())
    );
}
