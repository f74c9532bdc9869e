//! Who asked goes away, and the target learns of it at once.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use http::Request;
use tokio::task::JoinSet;

use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::http2::{Http2, whole};
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(
    a_client_that_disconnects_ends_the_work_of_the_target,
    a_stream_that_is_reset_ends_the_work_of_the_target_and_no_other,
    a_client_that_half_closes_has_gone_away,
    a_client_that_half_closes_is_answered_where_the_file_says_so,
    of_a_thousand_requests_at_once_200_are_cancelled_and_the_others_come_back_whole,
);

async fn either_target(transport: Transport) -> [Site; 2] {
    [Site::start(transport).await, Site::h2c(Cloud::new(), Edge::new(transport)).await]
}

async fn open(egress: SocketAddr, path: &str) -> RawHttp<tokio::net::TcpStream> {
    let mut client = RawHttp::connect(egress).await.unwrap();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    client
}

fn request(method: &str, egress: SocketAddr, path: &str) -> Request<()> {
    let uri = format!("http://{egress}{path}");
    Request::builder().method(method).uri(uri).header("x-node-id", NODE.node).body(()).unwrap()
}

async fn a_client_that_disconnects_ends_the_work_of_the_target(transport: Transport) {
    for site in either_target(transport).await {
        let client = open(site.egress(), "/hang").await;
        site.arrived("/hang").await;
        drop(client);
        site.cancelled(1).await;

        let mut client = open(site.egress(), "/chunks/100000/1").await;
        client.head().await.unwrap();
        drop(client);
        site.cancelled(2).await;
    }
}

async fn a_stream_that_is_reset_ends_the_work_of_the_target_and_no_other(transport: Transport) {
    for site in either_target(transport).await {
        let mut client = Http2::connect(site.egress()).await;
        let (other, mut body) = client.send(request("POST", site.egress(), "/echo"), false).await;
        let (hanging, mut stream) = client.send(request("GET", site.egress(), "/hang"), true).await;
        site.arrived("/hang").await;
        site.arrived("/echo").await;
        stream.send_reset(Reason::CANCEL);
        drop(hanging);
        site.cancelled(1).await;
        body.send_data(Bytes::from_static(b"still here"), true).unwrap();
        assert_eq!(whole(other.await.unwrap()).await.unwrap().body().bytes, b"still here");
        assert_eq!(site.target.cancelled(), 1);
    }
}

async fn a_client_that_half_closes_has_gone_away(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = open(site.egress(), "/hang").await;
    site.arrived("/hang").await;
    client.finish().await.unwrap();
    site.cancelled(1).await;
}

async fn a_client_that_half_closes_is_answered_where_the_file_says_so(transport: Transport) {
    let site = Site::with(Cloud::new().egress("half_close", "true"), Edge::new(transport)).await;
    let mut client = open(site.egress(), "/slow/200").await;
    client.finish().await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "slow\n");
    assert_eq!(site.target.cancelled(), 0);
}

/// What is under way of one exchange.
struct Open {
    number: usize,
    response: ResponseFuture,
    upload: SendStream<Bytes>,
}

fn body_of(number: usize) -> [Bytes; 2] {
    let text = format!("{number}-").repeat(500);
    let (first, second) = text.split_at(text.len() / 2);
    [Bytes::copy_from_slice(first.as_bytes()), Bytes::copy_from_slice(second.as_bytes())]
}

/// Begins exchanges on one connection, each with the first half of its body.
async fn begin(client: &mut Http2, egress: SocketAddr, numbers: std::ops::Range<usize>) -> Vec<Open> {
    let mut opened = Vec::new();
    for number in numbers {
        let (response, mut upload) = client.send(request("POST", egress, "/echo"), false).await;
        let [first, _] = body_of(number);
        upload.send_data(first, false).unwrap();
        opened.push(Open { number, response, upload });
    }
    opened
}

async fn finish(Open { number, response, mut upload }: Open) {
    let [first, second] = body_of(number);
    upload.send_data(second.clone(), true).unwrap();
    let body = whole(response.await.unwrap()).await.unwrap().into_body().bytes;
    assert!(body == [first, second].concat(), "the body of request {number} came back changed");
}

async fn of_a_thousand_requests_at_once_200_are_cancelled_and_the_others_come_back_whole(transport: Transport) {
    let site = Site::start(transport).await;
    let mut clients = Vec::new();
    let mut opened = Vec::new();
    for from in (0..1000).step_by(100) {
        let mut client = Http2::connect(site.egress()).await;
        opened.extend(begin(&mut client, site.egress(), from..from + 100).await);
        clients.push(client);
    }
    eventually("1000 requests at the target", async || (site.target.requests().len() == 1000).then_some(())).await;
    let mut running = Vec::new();
    for mut exchange in opened {
        match exchange.number % 5 {
            0 => exchange.upload.send_reset(Reason::CANCEL),
            _ => running.push(exchange),
        }
    }
    site.cancelled(200).await;
    let others = async || (site.responder.0.tunnels().await.accepted[0].in_flight == 800).then_some(());
    eventually("the others under way", others).await;
    let mut finishing: JoinSet<()> = running.into_iter().map(finish).collect();
    while let Some(finished) = finishing.join_next().await {
        finished.unwrap();
    }
    assert_eq!(site.target.cancelled(), 200);
}
