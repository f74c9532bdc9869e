//! Listeners for datagrams that come, change, move and go while the process runs.

use super::{edge, open_flows, site};
use crate::reload::trigger::rewrite;
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::eventually;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Site, Transport, over_each_transport};

over_each_transport!(
    listeners_come_change_and_go_and_flows_that_stay_are_not_touched,
    another_target_is_for_new_flows,
    a_listener_that_was_removed_is_there_again_while_it_still_drains,
);

async fn listeners_come_change_and_go_and_flows_that_stay_are_not_touched(transport: Transport) {
    let peer = Peer::echo().await;
    let site = site(transport, &peer).await;
    let responder = &site.responder;
    let client = Client::new(responder.udp_at(0)).await;
    assert_eq!(ask(&client, b"a").await, b"a");
    let flow = peer.got(b"a").await;

    let added = Cloud::new().and_udp("echo").and_udp("echo");
    let changes = rewrite(&responder.0, &added.text()).await.changes();
    assert_eq!(changes, ["+ egress[udp:127.0.0.1:0#2]"]);
    let other = Client::new(
        eventually("another listener", async || {
            (responder.0.log().matches("taking datagrams").count() == 2).then(|| responder.udp_at(1))
        })
        .await,
    )
    .await;
    assert_eq!(ask(&other, b"b").await, b"b");

    let changed = Cloud::new().and_udp("echo").egress("limits", "{ flows: 1 }").and_udp("web");
    let changes = rewrite(&responder.0, &changed.text()).await.changes();
    let expected =
        ["~ egress[udp:127.0.0.1:0].limits.flows: 4096 -> 1", "~ egress[udp:127.0.0.1:0#2].to.service: echo -> web"];
    assert_eq!(changes, expected);
    assert_eq!(ask(&other, b"still").await, b"still", "a flow goes on where it goes");
    let late = Client::new(responder.udp_at(0)).await;
    late.send(b"late").await;
    let refused = "adit_flows_refused_total{side=\"egress\",limit=\"listener\"}";
    eventually("the new bound", async || (responder.0.metric(refused).await > 0).then_some(())).await;

    let gone = Cloud::new().and_udp("echo").egress("limits", "{ flows: 1 }");
    let changes = rewrite(&responder.0, &gone.text()).await.changes();
    assert_eq!(changes, ["- egress[udp:127.0.0.1:0#2]"]);
    eventually("the end of the flow of the listener that is gone", async || {
        (open_flows(&site).await == (1, 1)).then_some(())
    })
    .await;
    assert_eq!(ask(&client, b"c").await, b"c");
    assert_eq!(peer.got(b"c").await, flow, "the flow that was there from the start");
}

async fn another_target_is_for_new_flows(transport: Transport) {
    let (peer, next) = (Peer::echo().await, Peer::echo().await);
    let site = site(transport, &peer).await;
    let client = Client::new(site.responder.udp_at(0)).await;
    assert_eq!(ask(&client, b"a").await, b"a");
    let text = std::fs::read_to_string(site.initiator.file()).unwrap();
    let text = text.replace(&peer.address().to_string(), &next.address().to_string());
    let changes = rewrite(&site.initiator, &text).await.changes();
    let (before, after) = (peer.address(), next.address());
    assert_eq!(changes, [format!("~ services.echo.target: udp://{before} -> udp://{after}")]);
    assert_eq!(ask(&client, b"b").await, b"b");
    peer.got(b"b").await;
    let another = Client::new(site.responder.udp_at(0)).await;
    assert_eq!(ask(&another, b"c").await, b"c");
    next.got(b"c").await;
}

// Regression: its address could not be bound, as long as one of its sources went on.
async fn a_listener_that_was_removed_is_there_again_while_it_still_drains(transport: Transport) {
    let (peer, next, address) = (Peer::echo().await, Peer::echo().await, free_address());
    let other = format!("{{ name: other, target: \"udp://{}\" }}", next.address());
    let at = |service: &str| Cloud::new().and_udp(service).egress("udp", &format!("\"{address}\""));
    let site = Site::with(at("echo"), edge(transport, &peer, "").service(&other)).await;
    let client = Client::new(address).await;
    assert_eq!(ask(&client, b"a").await, b"a");

    let drained = async {
        rewrite(&site.responder.0, &Cloud::new().text()).await.changes();
        // It takes no new source; the one that it has goes on.
        let late = Client::new(address).await;
        eventually("that no new source is taken", async || {
            late.send(b"late").await;
            let dropped = "adit_flow_datagrams_dropped_total{side=\"egress\",reason=\"no_flow\"}";
            (site.responder.0.metric(dropped).await > 0).then_some(())
        })
        .await;
        rewrite(&site.responder.0, &at("other").text()).await.changes()
    };
    let goes_on = async {
        loop {
            assert_eq!(ask(&client, b"on").await, b"on");
        }
    };
    let changes = tokio::select! {
        changes = drained => changes,
        () = goes_on => unreachable!(),
    };
    assert_eq!(changes, [format!("+ egress[udp:{address}]")]);
    for client in [client, Client::new(address).await] {
        eventually("the service that is asked now", async || {
            client.send(b"new").await;
            client.recv_within(std::time::Duration::from_secs(1)).await.filter(|answer| answer == b"new")
        })
        .await;
    }
    next.got(b"new").await;
    eventually("the flows of one listener", async || (open_flows(&site).await == (2, 2)).then_some(())).await;

    // Once more: of those that were removed the last one has the socket, and nobody reads it beside the new one.
    let client = Client::new(address).await;
    assert_eq!(ask(&client, b"other").await, b"other");
    for text in [Cloud::new().text(), at("echo").text()] {
        rewrite(&site.responder.0, &text).await.changes();
    }
    for client in [client, Client::new(address).await] {
        eventually("the service that is asked again", async || {
            client.send(b"again").await;
            client.recv_within(std::time::Duration::from_secs(1)).await.filter(|answer| answer == b"again")
        })
        .await;
        peer.got(b"again").await;
        for _ in 0..20 {
            assert_eq!(ask(&client, b"settled").await, b"settled");
        }
    }
    assert!(next.seen().iter().all(|(_, datagram)| datagram != b"settled"));
}
