//! Rules of a listener for datagrams: by who sends.

use std::net::{IpAddr, Ipv4Addr};

use super::edge;
use crate::reload::trigger::rewrite;
use crate::support::datagrams::{Client, Peer, ask};
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Site, Transport, over_each_transport};

over_each_transport!(flows_are_denied_and_rerouted_by_who_sends_and_a_reload_is_for_new_ones);

const RULES: &str = "[{ priority: 900, name: closed, match: { source: 127.7.0.1 }, action: deny },\
    { priority: 800, name: moved, match: { source: 127.7.0.2 }, action: reroute, to: { service: other } }]";

async fn from(site: &Site, last: u8) -> Client {
    Client::at(IpAddr::V4(Ipv4Addr::new(127, 7, 0, last)), site.responder.udp_at(0)).await
}

async fn flows_are_denied_and_rerouted_by_who_sends_and_a_reload_is_for_new_ones(transport: Transport) {
    let (peer, other) = (Peer::echo().await, Peer::echo().await);
    let edge = edge(transport, &peer, "").service(&format!("{{ name: other, target: \"udp://{}\" }}", other.address()));
    let cloud = Cloud::new().and_udp("echo");
    let site = Site::with(cloud.clone().egress("policies", RULES), edge).await;
    let decided = async |rule: &str, action: &str| {
        let series = format!("adit_policy_decisions_total{{side=\"egress\",rule=\"{rule}\",action=\"{action}\"}}");
        site.responder.0.metric(&series).await
    };
    let (denied, moved, plain) = (from(&site, 1).await, from(&site, 2).await, from(&site, 3).await);

    denied.send(b"denied").await;
    let line = eventually("the line of a denial", async || {
        site.responder.0.lines_of("exchange").into_iter().find(|line| line["rule"] == "rule 900 (closed)")
    })
    .await;
    assert_eq!((&line["outcome"], &line["cause"]), (&"failed".into(), &"denied".into()), "{line}");
    assert_eq!(decided("closed", "deny").await, 1);
    assert_eq!(ask(&moved, b"moved").await, b"moved");
    other.got(b"moved").await;
    assert_eq!(decided("moved", "reroute").await, 1);
    assert_eq!(ask(&plain, b"plain").await, b"plain");
    let came: Vec<_> = [&peer, &other].map(Peer::seen).concat().into_iter().map(|(_, datagram)| datagram).collect();
    assert!(!came.contains(&b"denied".to_vec()) && peer.seen().iter().all(|(_, datagram)| datagram == b"plain"));

    let closed = "[{ priority: 5, name: all, match: any, action: deny }]";
    let changes = rewrite(&site.responder.0, &cloud.egress("policies", closed).text()).await.changes();
    assert!(changes.iter().any(|change| change.contains(".policies")), "{changes:?}");
    assert_eq!(ask(&plain, b"still").await, b"still", "a flow that is there goes on");
    from(&site, 4).await.send(b"too late").await;
    eventually("the new rule", async || (decided("all", "deny").await == 1).then_some(())).await;
}
