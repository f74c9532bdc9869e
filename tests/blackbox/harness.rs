//! The harness keeps its own promises; otherwise every other test here means little.

mod link;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use http_body::{Body, Frame};
use tokio::sync::mpsc;

use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::targets::pieces::{Piece, pieces};
use crate::support::targets::{Target, pattern};

async fn post(address: SocketAddr, path: &str, body: &[u8]) -> crate::support::http1::Response {
    let mut client = RawHttp::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), body].concat()).await.unwrap();
    client.response().await.unwrap()
}

#[tokio::test]
async fn a_target_answers_as_its_table_says() {
    let target = Target::http1().await;
    let address = target.address();
    assert_eq!(post(address, "/echo", b"ping").await.body, b"ping");
    assert_eq!(post(address, "/sink", &[7; 100_000]).await.text(), "100000");
    assert_eq!(get(address, "/status/204", &[]).await.unwrap().status(), 204);
    assert_eq!(get(address, "/bytes/100000", &[]).await.unwrap().body, pattern(0, 100_000));
    assert_eq!(get(address, "/chunks/3/1", &[]).await.unwrap().text(), "chunk 0\nchunk 1\nchunk 2\n");
    assert_eq!(get(address, "/slow/1", &[]).await.unwrap().text(), "slow\n");
    let mut held = RawHttp::connect(address).await.unwrap();
    held.send(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let head = held.head().await.unwrap();
    target.release();
    assert_eq!(held.body(&head).await.unwrap().0, b"begun\nended\n");
    assert!(get(address, "/request", &["x-a: b"]).await.unwrap().text().contains(r#"["x-a","b"]"#));
    let response = get(address, "/trailers", &["te: trailers"]).await.unwrap();
    assert_eq!(response.trailers, [("x-sum".into(), "42".into())]);
    assert_eq!(target.requests()[..2], ["POST /echo", "POST /sink"]);
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_to_the_client() {
    let target = Target::http1().await;
    let error = get(target.address(), "/cut/10", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_target_counts_what_was_cancelled_and_only_that() {
    let target = Target::http1().await;
    get(target.address(), "/bytes/100000", &[]).await.unwrap();
    get(target.address(), "/status/204", &[]).await.unwrap();
    assert_eq!(target.cancelled(), 0);
    for path in ["/hang", "/chunks/100000/1"] {
        let before = target.cancelled();
        let mut client = RawHttp::connect(target.address()).await.unwrap();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        eventually("the request", async || target.requests().last().filter(|r| r.ends_with(path)).cloned()).await;
        drop(client);
        eventually("the cancellation", async || (target.cancelled() > before).then_some(())).await;
    }
}

/// A waker that adds the last piece when nobody holds it any more.
struct LastPiece(mpsc::Sender<Piece>);

impl Wake for LastPiece {
    fn wake(self: Arc<Self>) {}
}

impl Drop for LastPiece {
    fn drop(&mut self) {
        self.0.try_send(Ok(Frame::data("last".into()))).unwrap();
    }
}

/// What broke: `/bytes/N` ended one piece early, when that piece came in the middle of a poll for it.
#[test]
fn a_piece_that_comes_while_its_body_is_polled_is_not_lost() {
    let (sender, body) = pieces();
    let mut body = pin!(body);
    let first = Waker::from(Arc::new(LastPiece(sender)));
    assert!(body.as_mut().poll_frame(&mut Context::from_waker(&first)).is_pending());
    // The body holds the only copy, until the next poll brings another waker.
    drop(first);
    let mut poll = || body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
    let piece = match poll() {
        Poll::Pending => poll(),
        ready => ready,
    };
    let Poll::Ready(Some(Ok(piece))) = piece else { panic!("{piece:?}") };
    assert_eq!(piece.into_data().unwrap(), "last");
    assert!(matches!(poll(), Poll::Ready(None)));
}
