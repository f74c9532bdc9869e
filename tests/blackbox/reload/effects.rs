//! What a reload prints is also what it does: one observation for each of the changes that matter most.

use super::trigger::rewrite;
use super::world::tunnels;
use crate::support::eventually::eventually;
use crate::support::http1::{Response, get};
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(what_changes_of_an_egress_and_its_process_shows_in_what_comes_next);

async fn ask(site: &Site, path: &str, more: &[&str]) -> Response {
    let fields: Vec<_> = [TO_NODE].iter().chain(more).copied().collect();
    get(site.egress(), path, &fields).await.unwrap()
}

async fn what_changes_of_an_egress_and_its_process_shows_in_what_comes_next(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let (large, forwarded) = (format!("x-large: {}", "l".repeat(9_000)), "x-forwarded-for: 192.0.2.7");
    let change = async |changed: Cloud| rewrite(&site.responder.0, &changed.text()).await.changes();

    assert_eq!(ask(&site, "/", &[&large]).await.status(), 200);
    change(cloud.clone().egress("limits", "{ head_bytes: 8 KiB }")).await;
    assert_eq!(ask(&site, "/", &[&large]).await.status(), 431, "limits");

    assert!(!ask(&site, "/request", &[forwarded]).await.text().contains("192.0.2.7"));
    change(cloud.clone().egress("trust", "[127.0.0.1]")).await;
    assert_eq!(ask(&site, "/", &[&large]).await.status(), 200, "the limits of before");
    assert!(ask(&site, "/request", &[forwarded]).await.text().contains("192.0.2.7"), "trust");

    change(cloud.clone().egress("routes", "[ { prefix: /x, service: nobody } ]")).await;
    assert!(!ask(&site, "/request", &[forwarded]).await.text().contains("192.0.2.7"), "nobody is trusted");
    assert_ne!(ask(&site, "/x/1", &[]).await.status(), 200, "routes");

    change(cloud.clone().and_egress()).await;
    assert_eq!(ask(&site, "/x/1", &[]).await.status(), 200, "no routes");
    let second = site.responder.egress_at(1);
    assert_eq!(get(second, "/", &[TO_NODE]).await.unwrap().status(), 200, "another listener");

    change(cloud.clone().egress("access_log", "false")).await;
    let is_gone = async || get(second, "/", &[TO_NODE]).await.is_err().then_some(());
    eventually("a listener to be gone", is_gone).await;
    ask(&site, "/unseen", &[]).await;
    change(cloud.clone()).await;
    let line = |path: &str| site.responder.0.lines_of("exchange").into_iter().find(|line| line["path"] == path);
    // The log may leave lines out.
    eventually("the line of an exchange", async || {
        ask(&site, "/seen", &[]).await;
        line("/seen")
    })
    .await;
    assert_eq!(line("/unseen"), None, "access_log");

    let of_node = async || site.responder.0.ask(http::Method::GET, "/metrics").await.1.contains("node=\"edge-1\"");
    assert!(!of_node().await);
    change(cloud.clone().process("metrics", "{ names: true }")).await;
    assert!(of_node().await, "metrics.names");
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}
