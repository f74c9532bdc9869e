//! Limits of message heads that change while tunnels are up. spec: CT-31, CT-33

use super::trigger::rewrite;
use super::world::tunnels;
use crate::support::eventually::eventually;
use crate::support::http1::{Response, get};
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    what_a_responder_takes_of_answers_is_followed_in_live_tunnels,
    what_an_initiator_takes_of_requests_is_followed_in_live_tunnels,
    limits_that_change_all_the_time_lose_no_request_that_is_within_all_of_them,
);

const LARGE: &str = "{ head_bytes: 256KiB, head_fields: 200 }";

async fn status(site: &Site, path: &str, expected: u16) {
    eventually("an answer by other limits", async || (site.get(path).await.status() == expected).then_some(())).await;
}

async fn what_a_responder_takes_of_answers_is_followed_in_live_tunnels(transport: Transport) {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport).initiator("limits", LARGE)).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let (many, long) = ("/fields/150/1", "/fields/20/5000");
    for path in [many, long] {
        assert_eq!(site.get(path).await.status(), 502);
    }
    let large = cloud.clone().responder("limits", LARGE);
    rewrite(&site.responder.0, &large.text()).await.changes();
    for path in [many, long] {
        status(&site, path, 200).await;
    }
    assert_eq!(site.get(long).await.field("x-19").map(str::len), Some(5000));
    load.goes_on().await;
    rewrite(&site.responder.0, &cloud.text()).await.changes();
    for path in [many, long] {
        status(&site, path, 502).await;
    }
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before, "no tunnel was replaced");
}

/// A request whose field has this many bytes.
async fn request_of(site: &Site, bytes: usize) -> Response {
    let large = format!("x-large: {}", "l".repeat(bytes / 2));
    let twice = format!("x-twice: {}", "t".repeat(bytes / 2));
    get(site.egress(), "/request", &[TO_NODE, &large, &twice]).await.unwrap()
}

async fn what_an_initiator_takes_of_requests_is_followed_in_live_tunnels(transport: Transport) {
    let edge = Edge::new(transport);
    let site = Site::with(Cloud::new().egress("limits", LARGE), edge.clone()).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let text = |edge: Edge| {
        let edge = edge.target(&format!("http://{}", site.target.address()));
        edge.text(&site.responder.tunnel_address().to_string())
    };
    assert_eq!(request_of(&site, 100_000).await.status(), 431);
    rewrite(&site.initiator, &text(edge.clone().initiator("limits", LARGE))).await.changes();
    eventually("a large request to be taken", async || {
        (request_of(&site, 100_000).await.status() == 200).then_some(())
    })
    .await;
    assert!(request_of(&site, 200_000).await.text().contains(&"t".repeat(100_000)), "it arrived whole");
    load.goes_on().await;
    rewrite(&site.initiator, &text(edge)).await.changes();
    eventually("a large request to be refused", async || {
        (request_of(&site, 100_000).await.status() == 431).then_some(())
    })
    .await;
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before, "no tunnel was replaced");
}

async fn limits_that_change_all_the_time_lose_no_request_that_is_within_all_of_them(transport: Transport) {
    let (cloud, edge) = (Cloud::new(), Edge::new(transport));
    let site = Site::with(cloud.clone(), edge.clone()).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let edge = edge.target(&format!("http://{}", site.target.address()));
    let to = site.responder.tunnel_address().to_string();
    for round in 0..12 {
        let limits = format!("{{ head_bytes: {}KiB, head_fields: {} }}", 4 + round % 3 * 100, 40 + round % 4 * 50);
        rewrite(&site.responder.0, &cloud.clone().responder("limits", &limits).text()).await.changes();
        rewrite(&site.initiator, &edge.clone().initiator("limits", &limits).text(&to)).await.changes();
        assert_eq!(site.get("/fields/30/10").await.status(), 200, "{limits}");
    }
    load.goes_on().await;
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before, "no tunnel was replaced");
}
