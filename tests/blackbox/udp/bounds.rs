//! What sources may have of a listener, and what they are sent.

use std::time::Instant;

use super::{edge, have_flows, open_flows, site, site_with};
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Running, Site, Transport, over_each_transport};

over_each_transport!(
    a_source_is_sent_nothing_before_the_site_has_answered_and_nothing_more_than_that,
    who_is_answered_keeps_its_flow_while_others_come,
    one_prefix_has_its_share_and_no_more,
    sockets_of_a_service_are_bounded,
    shares_bound_the_flows_of_a_node,
    shares_bound_the_bytes_of_flows,
);

async fn dropped(running: &Running, reason: &str) -> u64 {
    running.metric(&format!("adit_flow_datagrams_dropped_total{{side=\"egress\",reason=\"{reason}\"}}")).await
}

async fn refused(running: &Running, side: &str, limit: &str) -> u64 {
    running.metric(&format!("adit_flows_refused_total{{side=\"{side}\",limit=\"{limit}\"}}")).await
}

// spec: ST-78
async fn a_source_is_sent_nothing_before_the_site_has_answered_and_nothing_more_than_that(transport: Transport) {
    let peer = Peer::silent().await;
    let site = site(transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    for _ in 0..20 {
        client.send(b"to whom it may concern").await;
    }
    let flow = peer.got(b"to whom it may concern").await;
    peer.send(flow, b"one answer").await;
    let first = eventually("the answer", async || client.waiting().into_iter().next()).await;
    assert_eq!(first, b"one answer", "nothing came before it");

    // Whoever is no flow of the target is not passed on, and a source without a datagram has none.
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(b"from a stranger", flow).await.unwrap();
    peer.send(flow, b"another").await;
    let next = eventually("the next answer", async || client.waiting().into_iter().next()).await;
    assert_eq!(next, b"another");
}

// spec: ST-78
async fn who_is_answered_keeps_its_flow_while_others_come(transport: Transport) {
    let peer = Peer::answering(|datagram| if datagram == b"mute" { Vec::new() } else { vec![datagram.to_vec()] }).await;
    let cloud = Cloud::new().and_udp("echo").egress("limits", "{ flows: 4 }");
    let site = site_with(cloud, transport, &peer).await;
    let listener = site.responder.udp_at(0);
    let mut served = Vec::new();
    for _ in 0..3 {
        let client = Client::new(listener).await;
        ask(&client, b"hello").await;
        served.push(client);
    }
    // The fourth place is for those that nobody answers, one after the other.
    for _ in 0..3 {
        let mute = Client::new(listener).await;
        let before = refused(&site.responder.0, "egress", "gave_way").await;
        let gave_way = async || (refused(&site.responder.0, "egress", "gave_way").await > before).then_some(());
        mute.send(b"mute").await;
        eventually("four flows", async || (open_flows(&site).await.0 == 4).then_some(())).await;
        let next = Client::new(listener).await;
        eventually("a flow that gave way", async || {
            next.send(b"mute").await;
            gave_way().await
        })
        .await;
    }
    assert!(refused(&site.responder.0, "egress", "listener").await > 0, "each had its second first");
    assert!(dropped(&site.responder.0, "no_flow").await > 0);
    for client in &served {
        assert_eq!(ask(client, b"still here").await, b"still here");
    }
    let flows = peer.seen().iter().filter(|(_, seen)| seen == b"still here").map(|(from, _)| *from).collect::<Vec<_>>();
    let before = peer.seen().iter().filter(|(_, seen)| seen == b"hello").map(|(from, _)| *from).collect::<Vec<_>>();
    assert!(flows.iter().all(|flow| before.contains(flow)), "on the flows that they had");
}

// spec: ST-78
async fn one_prefix_has_its_share_and_no_more(transport: Transport) {
    let peer = Peer::echo().await;
    let cloud = Cloud::new().and_udp("echo").egress("limits", "{ flows: 100, flows_per_prefix: 2 }");
    let site = site_with(cloud, transport, &peer).await;
    let listener = site.responder.udp_at(0);
    let (one, two, three) = (Client::new(listener).await, Client::new(listener).await, Client::new(listener).await);
    ask(&one, b"1").await;
    ask(&two, b"2").await;
    three.send(b"3").await;
    eventually("a refusal", async || (refused(&site.responder.0, "egress", "prefix").await > 0).then_some(())).await;
    assert_eq!((open_flows(&site).await, three.waiting().len()), ((2, 2), 0));
    assert_eq!(ask(&one, b"1").await, b"1");
}

async fn sockets_of_a_service_are_bounded(transport: Transport) {
    let peer = Peer::echo().await;
    let site = Site::with(Cloud::new().and_udp("echo"), edge(transport, &peer, ", max_flows: 2, flow_idle: 1s")).await;
    let listener = site.responder.udp_at(0);
    let (one, two, three) = (Client::new(listener).await, Client::new(listener).await, Client::new(listener).await);
    ask(&one, b"1").await;
    ask(&two, b"2").await;
    eventually("a refusal", async || {
        ask(&one, b"1").await;
        ask(&two, b"2").await;
        three.send(b"3").await;
        (refused(&site.initiator, "target", "service").await > 0).then_some(())
    })
    .await;
    let line = site.responder.0.line_with("\"service_full\"").await;
    assert!(line["details"].as_str().unwrap().contains("has as many flows as it may"), "{line}");
    // Where the others rest, there is room.
    assert_eq!(ask(&three, b"3").await, b"3");
}

async fn shares_bound_the_flows_of_a_node(transport: Transport) {
    let peer = Peer::echo().await;
    let cloud = Cloud::new().responder("shares", "{ per_node: { flows: 1 } }").and_udp("echo");
    let site = site_with(cloud.egress("limits", "{ flow_idle: 1s }"), transport, &peer).await;
    let listener = site.responder.udp_at(0);
    let (one, two) = (Client::new(listener).await, Client::new(listener).await);
    let series = "adit_shares_exceeded_total{of=\"node\",limit=\"flows\"}";
    eventually("a refusal", async || {
        // Where the first one has rested for too long meanwhile, the other one has its place.
        ask(&one, b"1").await;
        two.send(b"2").await;
        (site.responder.0.metric(series).await > 0).then_some(())
    })
    .await;
    have_flows(&site, 0).await;
    assert_eq!(ask(&two, b"2").await, b"2");
}

// A tenant had as much as it liked in datagrams.
async fn shares_bound_the_bytes_of_flows(transport: Transport) {
    const RATE: usize = 16 << 10;
    const PIECE: usize = 1 << 10;
    let peer = Peer::silent().await;
    let cloud = Cloud::new().responder("shares", "{ per_tenant: { bytes: 16KiB } }").and_udp("echo");
    let site = site_with(cloud, transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    let began = Instant::now();
    eventually("datagrams beyond the rate", async || {
        for _ in 0..8 {
            client.send(&[7; PIECE]).await;
        }
        (dropped(&site.responder.0, "rate").await >= 32).then_some(())
    })
    .await;
    let got = peer.seen().len() * PIECE;
    // A second's worth was there, and the last one may go on credit.
    let most = RATE + PIECE + (began.elapsed().as_secs_f64() * RATE as f64) as usize;
    assert!(got <= most, "{got} of {most}");
    eventually("what is within it again", async || {
        client.send(b"later").await;
        peer.seen().iter().any(|(_, seen)| seen == b"later").then_some(())
    })
    .await;
}
