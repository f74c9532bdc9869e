//! A sender that leaves is noticed although nothing is read from its connection.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::egress::testing::{OnDrop, TestBody, Wire, data, pieces, serve, serve_with, told};
use crate::egress::{ExchangeService, Pace, RequestBody, Settings};

type Told = mpsc::UnboundedReceiver<&'static str>;

/// A service that keeps the body of the request and reads nothing of it, and tells when it is dropped. It may answer with
/// the beginning of a response.
fn holding(answers: bool) -> (impl ExchangeService<Body = TestBody>, Told) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = move |request: Request<RequestBody>| {
        let guard = (OnDrop(sender.clone(), "dropped"), request.into_body());
        let sender = sender.clone();
        async move {
            sender.send("called").unwrap();
            if !answers {
                let _guard = guard;
                std::future::pending::<()>().await;
                unreachable!();
            }
            let (feed, body) = pieces();
            feed.send(data(b"first")).await.unwrap();
            Response::new(body.map_frame(move |frame| (&guard, &feed, frame).2).boxed_unsync())
        }
    };
    (service, receiver)
}

/// Sends until nothing is taken any more.
async fn fill(wire: &mut Wire, bytes: &[u8]) {
    while let Ok(Ok(())) = timeout(Duration::from_millis(300), wire.0.write_all(bytes)).await {}
}

/// Requests behind the first one, as many as are taken.
fn pipelined() -> Bytes {
    "GET /next HTTP/1.1\r\nHost: h\r\n\r\n".repeat(4000).into()
}

const UPLOAD: &str = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";
const DOWNLOAD: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn a_sender_whose_upload_is_held_back_is_missed_when_it_leaves() {
    for (answers, resets) in [(false, false), (false, true), (true, false), (true, true)] {
        let (service, mut receiver) = holding(answers);
        let mut wire = serve(service).await.connect().await;
        wire.send(UPLOAD).await;
        assert_eq!(told(&mut receiver).await, "called");
        fill(&mut wire, &[7; 65536]).await;
        if resets {
            wire.0.set_zero_linger().unwrap();
        }
        drop(wire);
        assert_eq!(told(&mut receiver).await, "dropped", "answers: {answers}, resets: {resets}");
    }
}

#[tokio::test]
async fn a_sender_that_sent_more_than_is_read_ahead_is_missed_when_it_leaves() {
    let (service, mut receiver) = holding(false);
    let mut wire = serve(service).await.connect().await;
    wire.send(DOWNLOAD).await;
    assert_eq!(told(&mut receiver).await, "called");
    fill(&mut wire, &pipelined()).await;
    drop(wire);
    assert_eq!(told(&mut receiver).await, "dropped");
}

#[tokio::test]
async fn a_sender_that_only_sends_no_more_is_still_there_where_the_settings_say_so() {
    let (service, mut receiver) = holding(false);
    let settings = Settings { half_close: true, ..Settings::default() };
    let mut wire = serve_with(service, settings, None).await.connect().await;
    wire.send(UPLOAD).await;
    assert_eq!(told(&mut receiver).await, "called");
    fill(&mut wire, &[7; 65536]).await;
    wire.0.shutdown().await.unwrap();
    let dropped = timeout(Duration::from_secs(1), told(&mut receiver)).await;
    assert!(dropped.is_err(), "it still reads");
    wire.0.set_zero_linger().unwrap();
    drop(wire);
    assert_eq!(told(&mut receiver).await, "dropped", "now it is gone");
}

#[tokio::test]
async fn an_exchange_whose_upload_is_held_back_ends_when_nothing_moves() {
    let (service, mut receiver) = holding(true);
    let pace = Pace { body_idle: Duration::from_millis(500), ..Pace::default() };
    let settings = Settings { pace, ..Settings::default() };
    let mut wire = serve_with(service, settings, None).await.connect().await;
    wire.send(UPLOAD).await;
    assert_eq!(told(&mut receiver).await, "called");
    fill(&mut wire, &[7; 65536]).await;
    assert_eq!(told(&mut receiver).await, "dropped");
}

#[tokio::test]
async fn a_reader_that_takes_next_to_nothing_is_given_up() {
    let (service, mut receiver) = endless();
    let settings = Settings { send_timeout: Duration::from_millis(300), ..Settings::default() };
    let mut wire = serve_with(service, settings, None).await.connect().await;
    wire.send(DOWNLOAD).await;
    assert_eq!(told(&mut receiver).await, "dropped");
}

/// A response without end.
fn endless() -> (impl ExchangeService<Body = TestBody>, Told) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = move |_: Request<RequestBody>| {
        let guard = OnDrop(sender.clone(), "dropped");
        async move {
            let (feed, body) = pieces();
            tokio::spawn(async move { while feed.send(data(&[7; 16384])).await.is_ok() {} });
            Response::new(body.map_frame(move |frame| (&guard, frame).1).boxed_unsync())
        }
    };
    (service, receiver)
}
