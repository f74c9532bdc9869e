//! Clients that hold what others need, and do nothing with it, lose it.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_body_that_does_not_come_is_answered_408_and_holds_nothing_any_more,
    an_exchange_in_which_nothing_moves_ends,
    a_client_that_leaves_while_its_upload_is_held_back_holds_nothing_any_more,
    a_client_that_leaves_behind_many_requests_ends_the_work_of_the_target,
);

/// A write that takes longer than this is held back.
const STALLED: Duration = Duration::from_millis(300);

/// Waits until one exchange has failed at the egress of this cause.
async fn failed_once(site: &Site, cause: &str) {
    let series = format!("adit_exchanges_failed_total{{side=\"egress\",cause=\"{cause}\"}}");
    site.responder.0.counted(&series, 1).await;
}

/// Waits until neither end holds an exchange. A target that does not read cannot tell whether it was let go.
async fn nothing_is_under_way(site: &Site) {
    eventually("no exchange under way at either end", async || {
        let here = site.responder.0.metric("adit_exchanges_in_flight{side=\"egress\"}").await;
        let there = site.initiator.metric("adit_exchanges_in_flight{side=\"target\"}").await;
        (here == 0 && there == 0).then_some(())
    })
    .await;
}

async fn begin(site: &Site, line: &str, more: &str) -> RawHttp<TcpStream> {
    let mut client = site.connect().await;
    client.send(format!("{line} HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n{more}\r\n").as_bytes()).await.unwrap();
    client
}

/// Sends until nothing is taken any more.
async fn fill(client: &mut RawHttp<TcpStream>, piece: &[u8]) {
    while let Ok(sent) = timeout(STALLED, client.send(piece)).await {
        sent.unwrap();
    }
}

async fn a_body_that_does_not_come_is_answered_408_and_holds_nothing_any_more(transport: Transport) {
    let limits = "{ body_idle: 1s }";
    let site = Site::with(Cloud::new().egress("limits", limits), Edge::new(transport)).await;
    let mut client = begin(&site, "POST /sink", "content-length: 10\r\n").await;
    client.send(b"x").await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.status(), response.field("connection")), (408, Some("close")), "{}", response.text());
    assert!(response.field("proxy-status").unwrap().starts_with("adit; error=http_request_error"));
    nothing_is_under_way(&site).await;
    failed_once(&site, "body_timeout").await;
}

async fn an_exchange_in_which_nothing_moves_ends(transport: Transport) {
    // Long enough for the response to begin, on a machine with other things to do.
    let limits = "{ exchange_idle: 3s }";
    let site = Site::with(Cloud::new().egress("limits", limits), Edge::new(transport)).await;
    let mut client = begin(&site, "GET /chunks/2/3600000", "").await;
    assert!(client.response().await.is_err(), "it is cut, and does not look whole");
    site.cancelled(1).await;
    failed_once(&site, "idle").await;
}

async fn a_client_that_leaves_while_its_upload_is_held_back_holds_nothing_any_more(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = begin(&site, "POST /hang", "content-length: 1000000000\r\n").await;
    site.arrived("/hang").await;
    fill(&mut client, &[7; 64 << 10]).await;
    drop(client);
    nothing_is_under_way(&site).await;
}

async fn a_client_that_leaves_behind_many_requests_ends_the_work_of_the_target(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = begin(&site, "GET /hang", "").await;
    site.arrived("/hang").await;
    let next = format!("GET /status/204 HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").repeat(1000);
    fill(&mut client, next.as_bytes()).await;
    drop(client);
    site.cancelled(1).await;
}
