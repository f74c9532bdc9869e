//! How large a head may be is said at each end, and what is larger is told the limit.

use crate::support::http1::{Response, get};
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    an_answer_beyond_the_limits_is_502_and_names_the_limit,
    larger_answers_and_requests_pass_where_both_ends_take_them,
);

const LARGE: &str = "{ head_bytes: 256KiB, head_fields: 200 }";

/// A request whose fields have this many bytes.
async fn request_of(site: &Site, bytes: usize) -> Response {
    let large = format!("x-large: {}", "l".repeat(bytes / 2));
    let twice = format!("x-twice: {}", "t".repeat(bytes / 2));
    get(site.egress(), "/request", &[TO_NODE, &large, &twice]).await.unwrap()
}

async fn an_answer_beyond_the_limits_is_502_and_names_the_limit(transport: Transport) {
    let site = Site::start(transport).await;
    for (path, limit) in [("/fields/150/1", "100"), ("/fields/20/5000", "65536")] {
        let response = site.get(path).await;
        assert_eq!(response.status(), 502);
        assert!(response.text().contains(limit), "{path}: {}", response.text());
    }
    assert_eq!(request_of(&site, 100_000).await.status(), 431);
    assert_eq!(site.get("/").await.status(), 200, "the tunnel serves others");
}

async fn larger_answers_and_requests_pass_where_both_ends_take_them(transport: Transport) {
    let cloud = Cloud::new().responder("limits", LARGE).egress("limits", LARGE);
    let site = Site::with(cloud, Edge::new(transport).initiator("limits", LARGE)).await;
    let many = site.get("/fields/150/1").await;
    assert_eq!((many.status(), many.field("x-149")), (200, Some("v")), "{}", many.text());
    let large = site.get("/fields/20/5000").await;
    assert_eq!((large.status(), large.field("x-19").map(str::len)), (200, Some(5000)), "{}", large.text());
    let request = request_of(&site, 100_000).await;
    assert_eq!(request.status(), 200);
    assert!(request.text().contains(&"t".repeat(50_000)), "it arrived whole");
    assert_eq!(site.get("/fields/210/1").await.status(), 502);
}
