//! Which HTTP/1.1 connections are used again, and what becomes of those that wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Empty;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::origin::{OK, Origin, get, io_turn, post, text};
use super::*;

#[tokio::test]
async fn a_connection_that_must_not_be_used_again_closes_behind_its_response() {
    let origin = Origin::new().await;
    let client = origin.client();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: Close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n ",
    ] {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(answer).await;
            wire.closed().await;
        };
        let exchange = async { text(client.exchange(get("/")).await.unwrap()).await };
        let (text, ()) = tokio::join!(exchange, target);
        assert_eq!(text, "ok", "{answer:?}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_response_without_a_body() {
    let origin = Origin::new().await;
    let client = origin.client();
    let answers = [
        "HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
    ];
    let target = async {
        let mut wire = origin.accept().await;
        for answer in answers {
            wire.head().await;
            wire.write(answer).await;
        }
    };
    let exchanges = async {
        for _ in answers {
            let response = client.exchange(get("/")).await.unwrap();
            assert!(response.body().is_end_stream());
        }
    };
    // Were a second connection made, its exchange would wait forever.
    tokio::join!(target, exchanges);
}

#[tokio::test]
async fn a_waiting_connection_that_its_target_closes_is_closed_at_once() {
    let origin = Origin::new().await;
    let client = origin.client();
    for rounds in 1..3 {
        let target = async {
            let mut wire = origin.accept().await;
            for _ in 0..rounds {
                wire.head().await;
                wire.write(OK).await;
            }
            wire
        };
        let exchanges = async {
            for _ in 0..rounds {
                assert_eq!(text(client.exchange(get("/")).await.unwrap()).await, "ok");
            }
        };
        let (mut wire, ()) = tokio::join!(target, exchanges);
        wire.stream.shutdown().await.unwrap();
        // No exchange comes by to notice.
        wire.closed().await;
    }
}

#[tokio::test]
async fn what_a_target_says_unasked_is_no_response_to_anybody() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire
    };
    let exchange = async { text(client.exchange(get("/")).await.unwrap()).await };
    let (mut wire, _) = tokio::join!(target, exchange);
    wire.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged").await;
    io_turn().await;
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
    };
    let exchange = async { text(client.exchange(get("/")).await.unwrap()).await };
    let ((), text) = tokio::join!(target, exchange);
    assert_eq!(text, "ok");
}

/// Answers every request of every connection as soon as `at_once` of them wait, so that they truly are at once.
async fn serve_at_once(origin: Origin, accepted: Arc<AtomicUsize>, at_once: usize) {
    let barrier = Arc::new(tokio::sync::Barrier::new(at_once));
    let mut tasks = JoinSet::new();
    loop {
        let mut wire = origin.accept().await;
        accepted.fetch_add(1, Ordering::Relaxed);
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            loop {
                wire.head().await;
                barrier.wait().await;
                wire.write(OK).await;
            }
        });
    }
}

#[tokio::test]
async fn as_many_connections_wait_as_were_in_use_at_once() {
    const AT_ONCE: usize = 200;
    let origin = Origin::new().await;
    let client = origin.client();
    let accepted = Arc::new(AtomicUsize::new(0));
    let target = tokio::spawn(serve_at_once(origin, Arc::clone(&accepted), AT_ONCE));
    for _ in 0..3 {
        let mut exchanges = JoinSet::new();
        for _ in 0..AT_ONCE {
            let client = client.clone();
            exchanges.spawn(async move { text(client.exchange(get("/")).await.unwrap()).await });
        }
        exchanges.join_all().await;
    }
    assert_eq!(accepted.load(Ordering::Relaxed), AT_ONCE);
    target.abort();
}

/// A target on a thread of its own that closes each connection behind one answer, and says when it has.
fn target_that_closes() -> (TargetClient, std::sync::mpsc::Receiver<()>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (closed, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                assert!(stream.read(&mut request).unwrap() > 0);
            }
            stream.write_all(OK.as_bytes()).unwrap();
            drop(stream);
            if closed.send(()).is_err() {
                return;
            }
        }
    });
    (TargetClient::new(&Target::parse(&format!("http://{address}")).unwrap(), TargetSettings::default()).unwrap(), told)
}

// Regression: tokio had not looked at its sockets since the target closed, and a POST went into the closed connection.
#[tokio::test]
async fn a_connection_closed_a_moment_ago_takes_no_request_that_must_not_be_sent_twice() {
    let (client, closed) = target_that_closes();
    for round in 0..50 {
        let response = client.exchange(post(Empty::<Bytes>::new())).await;
        let response = response.unwrap_or_else(|failure| panic!("round {round}: {failure}"));
        text(response).await;
        // Blocks the runtime: nothing looks at its sockets before the next request.
        closed.recv().unwrap();
    }
}

// Regression: a target that closes what waits met a POST at the very moment it closed, and nobody could send it again.
#[tokio::test]
async fn a_request_that_must_not_be_sent_twice_keeps_clear_of_the_moment_a_target_closes() {
    let origin = Origin::new().await;
    let client = origin.client();
    // It is closed when the client has read the answer: this target lets nothing wait.
    let closes = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire.stream.shutdown().await.unwrap();
        wire
    };
    let keeps = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire
    };
    let exchange = async |request| assert_eq!(text(client.exchange(request).await.unwrap()).await, "ok");
    let (_closed, ()) = tokio::join!(closes, exchange(get("/")));
    let (_kept, ()) = tokio::join!(keeps, exchange(get("/")));
    // Were it sent on the connection that waits, its exchange would wait forever.
    let fresh = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
    };
    tokio::join!(fresh, exchange(post(Empty::<Bytes>::new())));
}

// A target that has worked on a request may say 408 as well: done twice, an order is two.
#[tokio::test]
async fn a_408_that_does_not_end_the_connection_is_the_answer_to_what_must_not_be_done_twice() {
    let origin = Origin::new().await;
    let client = origin.client();
    let answers = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire.head().await;
        // In two pieces: what is not here yet cannot be known.
        wire.write("HTTP/1.1 408 Request Timeout\r\n").await;
        wire.write("content-length: 3\r\n\r\n408").await;
        origin.accept().await;
        panic!("it is sent again");
    };
    let asks = async {
        text(client.exchange(get("/")).await.unwrap()).await;
        let body = http_body_util::Full::new(Bytes::from_static(b"once"));
        client.exchange(Request::post("/").body(body).unwrap()).await.unwrap()
    };
    let answered = async {
        let answer = asks.await;
        assert_eq!(answer.status(), 408);
        assert_eq!(text(answer).await, "408");
    };
    tokio::select! {
        () = answers => {}
        () = answered => {}
    }
}

// A target that has waited for too long says so at the very moment a request comes: that is no answer to the request.
#[tokio::test]
async fn a_408_on_a_connection_that_waited_sends_the_request_to_another_one() {
    let origin = Origin::new().await;
    let client = origin.client();
    let exchange = async |request| client.exchange(request).await.unwrap();
    let waits = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire
    };
    let (mut wire, first) = tokio::join!(waits, exchange(get("/")));
    text(first).await;
    let times_out = async {
        wire.head().await;
        wire.write("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        let mut wire = origin.accept().await;
        let head = wire.head().await;
        wire.write("HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\n408").await;
        head
    };
    let body = http_body_util::Full::new(Bytes::from_static(b"once"));
    let request = Request::post("/").header("x-mark", "kept").body(body).unwrap();
    let (head, second) = tokio::join!(times_out, async { client.exchange(request).await.unwrap() });
    assert!(head.contains("x-mark: kept"), "{head}");
    // Of a connection that is new it is an answer.
    assert_eq!(second.status(), 408);
    assert_eq!(text(second).await, "408");
}
