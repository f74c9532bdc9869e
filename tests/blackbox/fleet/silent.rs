//! A sibling that hangs.

use crate::fleet::hop::section;
use crate::fleet::world::{has, names, sees, start};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::site::{Cloud, Edge, Folder, TO_NODE, Transport};
use crate::support::targets::Target;

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";

/// Regression: the request waited until the silent sibling was given up, 30 s.
///
/// spec: CT-42, FL-36, FL-51
#[tokio::test]
async fn a_request_that_waits_at_a_sibling_that_falls_silent_goes_through_another_one() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let mut fleet = Vec::new();
    // The one with the larger share is asked first.
    for (id, weight) in [("a", 100), ("b", 1000), ("c", 1)] {
        let section = section(&etcd, &folder, id, LONG).replace(", id:", &format!(", weight: {weight}, id:"));
        fleet.push(start(&folder, id, &Cloud::new().process("fleet", &section)).await);
    }
    let [a, b, c] = &fleet[..] else { panic!("three were started") };
    let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
    let _edge = edge.also(c.tunnel_address()).start(&folder, b.tunnel_address()).await;
    let is_there = |report: &_| names(report) == ["a", "b", "c"] && has(report, "b", 1) && has(report, "c", 1);
    sees(a, "one tunnel at each of the others", is_there).await;
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    let open = async || a.0.metric("adit_fleet_connections_open{direction=\"out\"}").await;
    eventually("that both are connected", async || (open().await == 2).then_some(())).await;
    b.0.freeze();
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    assert_eq!(open().await, 2, "the silent one is not given up yet");
    let twice = async || a.0.lines_of("exchange").iter().any(|line| line["attempts"] == 2).then_some(());
    eventually("the record of a request for which the silent one was asked first", twice).await;
}
