//! How flows end: for silence, because nobody is at the target, with their tunnel, with their listener.

use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::{edge, have_flows, site, site_with};
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::eventually;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_silent_flow_ends_at_both_ends_whoever_notices,
    a_target_that_refuses_ends_the_flow_with_its_cause,
    a_service_that_is_not_exported_for_datagrams_is_asked_once_a_second,
    the_next_datagram_after_a_lost_tunnel_opens_another_flow,
    what_is_sent_while_the_node_is_away_waits_for_it,
    a_drain_takes_no_new_source_and_ends_in_time,
    sources_that_go_on_hold_no_drain_up,
);

/// Longer than any test waits: what ends before was not ended by it.
const NEVER: &str = "600s";

// spec: ST-75, ST-76
async fn a_silent_flow_ends_at_both_ends_whoever_notices(transport: Transport) {
    let peer = Peer::echo().await;
    let cloud = Cloud::new().and_udp("echo").egress("limits", "{ flow_idle: 1s }").and_udp("echo");
    let site = Site::with(cloud, edge(transport, &peer, ", flow_idle: 2s")).await;
    for listener in 0..2 {
        let client = Client::new(site.responder.udp_at(listener)).await;
        assert_eq!(ask(&client, b"a").await, b"a");
        have_flows(&site, 0).await;
        assert_eq!(ask(&client, b"b").await, b"b", "the next datagram begins anew");
    }
}

// spec: ST-77
async fn a_target_that_refuses_ends_the_flow_with_its_cause(transport: Transport) {
    // Not one that the system gives away: nobody must have it while nobody is there.
    let address = free_address();
    let peer = Peer::at(address, |datagram| vec![datagram.to_vec()]).await;
    let site = site(transport, &peer).await;
    drop(peer);
    let client = Client::new(site.responder.udp_at(0)).await;
    eventually("the refusal at both ends", async || {
        client.send(b"is anybody there?").await;
        let failed = |side| format!("adit_exchanges_failed_total{{side=\"{side}\",cause=\"target_refused\"}}");
        let both = (site.responder.0.metric(&failed("egress")).await, site.initiator.metric(&failed("target")).await);
        (both.0 > 0 && both.1 > 0).then_some(())
    })
    .await;
    have_flows(&site, 0).await;
    assert!(client.waiting().is_empty());
    let _peer = Peer::at(address, |datagram| vec![datagram.to_vec()]).await;
    assert_eq!(ask(&client, b"now?").await, b"now?");
}

// spec: ST-56, ST-78
async fn a_service_that_is_not_exported_for_datagrams_is_asked_once_a_second(transport: Transport) {
    let peer = Peer::echo().await;
    let site = site_with(Cloud::new().and_udp("nobody").and_udp("web"), transport, &peer).await;
    let failed = "adit_exchanges_failed_total{side=\"egress\",cause=\"unknown_service\"}";
    let barred = "adit_flow_datagrams_dropped_total{side=\"egress\",reason=\"barred\"}";
    for listener in [0, 1] {
        let before = (site.responder.0.metric(failed).await, site.responder.0.metric(barred).await);
        let client = Client::new(site.responder.udp_at(listener)).await;
        let began = Instant::now();
        for _ in 0..50 {
            client.send(b"hello").await;
        }
        eventually("the failure", async || (site.responder.0.metric(failed).await > before.0).then_some(())).await;
        eventually("datagrams that cost nothing", async || {
            client.send(b"hello").await;
            (site.responder.0.metric(barred).await > before.1).then_some(())
        })
        .await;
        let asked = site.responder.0.metric(failed).await - before.0;
        let most = 2 + began.elapsed().as_secs();
        assert!(asked <= most, "fifty datagrams are no fifty flows: {asked} of {most}");
    }
}

async fn the_next_datagram_after_a_lost_tunnel_opens_another_flow(transport: Transport) {
    let peer = Peer::echo().await;
    let mut site = site(transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    assert_eq!(ask(&client, b"before").await, b"before");
    let before = peer.got(b"before").await;
    let file = site.initiator.kill();
    site.initiator = crate::support::site::Running::start(file).await;
    assert_eq!(ask(&client, b"after").await, b"after");
    assert_ne!(peer.got(b"after").await, before, "from another socket");
}

async fn what_is_sent_while_the_node_is_away_waits_for_it(transport: Transport) {
    let peer = Peer::echo().await;
    let cloud = Cloud::new().and_udp("echo").egress("hold", "5m");
    let mut site = site_with(cloud, transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    let file = site.initiator.kill();
    site.responder.registered(0).await;
    for number in 0..5_u8 {
        client.send(&[number]).await;
    }
    let under_way = "adit_exchanges_in_flight{side=\"egress\"}";
    eventually("a flow that waits", async || (site.responder.0.metric(under_way).await == 1).then_some(())).await;
    site.initiator = crate::support::site::Running::start(file).await;
    for number in 0..5_u8 {
        peer.got(&[number]).await;
    }
}

async fn a_drain_takes_no_new_source_and_ends_in_time(transport: Transport) {
    let peer = Peer::echo().await;
    // Who waits for the end of that has failed: who is silent holds nobody up.
    let cloud = Cloud::new().and_udp("echo").process("drain_timeout", NEVER);
    let mut site = site_with(cloud, transport, &peer).await;
    let (client, late) = (Client::new(site.responder.udp_at(0)).await, Client::new(site.responder.udp_at(0)).await);
    assert_eq!(ask(&client, b"hello").await, b"hello");
    // As long as a request is under way, the process stays.
    let mut held = site.connect().await;
    held.send(format!("GET /hang HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    site.arrived("/hang").await;
    site.responder.0.terminate();
    let dropped = "adit_flow_datagrams_dropped_total{side=\"egress\",reason=\"no_flow\"}";
    eventually("that no new source is taken", async || {
        Client::new(site.responder.udp_at(0)).await.send(b"in time?").await;
        (site.responder.0.metric(dropped).await > 0).then_some(())
    })
    .await;
    late.send(b"too late").await;
    drop(held);
    assert!(site.responder.0.exit().await.success());
    assert!(!peer.seen().iter().any(|(_, seen)| seen == b"too late"));
}

// Each of the two waited for its drain timeout, and said that it had cut something.
async fn sources_that_go_on_hold_no_drain_up(transport: Transport) {
    for at_the_site in [true, false] {
        let peer = Peer::echo().await;
        let cloud = Cloud::new().and_udp("echo").process("drain_timeout", NEVER);
        let mut site = Site::with(cloud, edge(transport, &peer, "").process("drain_timeout", NEVER)).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(site.responder.udp_at(0)).await.unwrap();
        eventually("an answer", async || {
            client.send(b"hello").await.unwrap();
            tokio::time::timeout(Duration::from_secs(1), client.recv(&mut [0; 16])).await.ok()
        })
        .await
        .unwrap();
        let ends = if at_the_site { &mut site.initiator } else { &mut site.responder.0 };
        ends.terminate();
        ends.line_with("draining").await;
        let goes_on = async {
            loop {
                // Nobody is there at last.
                let _ = client.send(b"and on").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let exit = tokio::select! {
            exit = ends.exit() => exit,
            () = goes_on => unreachable!(),
        };
        assert!(exit.success(), "{exit:?}");
        ends.line_with("drained: everything finished").await;
    }
}
