use std::sync::Mutex;

use http_body_util::{BodyExt, Empty, Full};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::origin::{OK, Origin, Wire, cause, get, io_turn, post, text};
use super::*;
use crate::message::failure::Cause;
use crate::message::interim::InformationalSink;

#[tokio::test]
async fn the_target_sees_origin_form_and_the_original_host() {
    let origin = Origin::new().await;
    let client = origin.client();
    let request = Request::get("https://api.example.com:8443/a?b=c").header("x-kept", "1");
    let exchange = client.exchange(request.body(Empty::<Bytes>::new()).unwrap());
    let target = async {
        let mut wire = origin.accept().await;
        let head = wire.head().await;
        wire.write(OK).await;
        head
    };
    let (response, head) = tokio::join!(exchange, target);
    assert_eq!(text(response.unwrap()).await, "ok");
    assert_eq!(head, "GET /a?b=c HTTP/1.1\r\nx-kept: 1\r\nhost: api.example.com:8443\r\n\r\n");
}

#[tokio::test]
async fn a_connection_is_used_again_after_each_kind_of_exchange() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire.head().await;
        wire.until("whole").await;
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        wire.head().await;
        wire.until("0\r\n\r\n").await;
        wire.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        wire.head().await;
        wire.write(OK).await;
    };
    let exchanges = async {
        assert_eq!(text(client.exchange(get("/")).await.unwrap()).await, "ok");
        assert_eq!(text(client.exchange(post(Full::from("whole"))).await.unwrap()).await, "ok");
        let (feed, body) = fed();
        let streaming = client.exchange(post(body));
        let upload = async {
            tokio::task::yield_now().await;
            feed.data("streamed");
            drop(feed);
        };
        let (response, ()) = tokio::join!(streaming, upload);
        assert_eq!(text(response.unwrap()).await, "");
        assert_eq!(text(client.exchange(get("/")).await.unwrap()).await, "ok");
    };
    // Were a second connection made, its exchange would wait forever.
    tokio::join!(target, exchanges);
}

#[tokio::test]
async fn a_connection_that_the_target_closed_is_not_used_again() {
    let origin = Origin::new().await;
    let client = origin.client();
    for _ in 0..3 {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(OK).await;
            wire
        };
        let exchange = async { text(client.exchange(post(Full::from("x"))).await.unwrap()).await };
        let (mut wire, text) = tokio::join!(target, exchange);
        assert_eq!(text, "ok");
        wire.stream.shutdown().await.unwrap();
        io_turn().await;
    }
}

/// Answers once, then closes the connection upon the second request.
async fn give_up_on_the_second(origin: &Origin) {
    let mut wire = origin.accept().await;
    wire.head().await;
    wire.write(OK).await;
    wire.head().await;
}

#[tokio::test]
async fn an_idempotent_request_survives_a_connection_closed_under_it() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        give_up_on_the_second(&origin).await;
        let mut wire = origin.accept().await;
        assert!(wire.head().await.starts_with("PUT /again"));
        assert_eq!(wire.until("again").await, "again");
        wire.write(OK).await;
    };
    let exchanges = async {
        text(client.exchange(get("/")).await.unwrap()).await;
        let again = Request::put("http://example.com/again").body(Full::from("again")).unwrap();
        assert_eq!(text(client.exchange(again).await.unwrap()).await, "ok");
    };
    tokio::join!(target, exchanges);
}

#[tokio::test]
async fn a_request_that_must_not_run_twice_is_sent_once() {
    let origin = Origin::new().await;
    let client = origin.client();
    let exchanges = async {
        text(client.exchange(get("/")).await.unwrap()).await;
        cause(client.exchange(post(Empty::<Bytes>::new())).await)
    };
    let ((), cause) = tokio::join!(give_up_on_the_second(&origin), exchanges);
    assert_eq!(cause, Cause::TargetClosed);
}

#[tokio::test]
async fn dropping_the_exchange_closes_the_connection() {
    let origin = Origin::new().await;
    let client = origin.client();
    for streaming in [false, true] {
        let (feed, body) = fed();
        let exchange = {
            let client = client.clone();
            tokio::spawn(async move {
                if streaming {
                    client.exchange(post(body)).await.map(drop)
                } else {
                    client.exchange(get("/")).await.map(drop)
                }
            })
        };
        let mut wire = origin.accept().await;
        wire.head().await;
        exchange.abort();
        wire.closed().await;
        feed.unwanted().await;
    }
}

#[tokio::test]
async fn dropping_the_response_body_closes_the_connection() {
    let origin = Origin::new().await;
    let client = origin.client();
    for streaming in [false, true] {
        let (feed, body) = fed();
        let exchange = async {
            let response = if streaming { client.exchange(post(body)).await } else { client.exchange(get("/")).await };
            let mut body = response.unwrap().into_body();
            body.frame().await.unwrap().unwrap();
        };
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            wire.closed().await;
        };
        tokio::join!(exchange, target);
        if streaming {
            feed.unwanted().await;
        }
    }
}

#[tokio::test]
async fn a_cut_response_is_an_error_and_never_an_end() {
    let origin = Origin::new().await;
    let client = origin.client();
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n",
    ] {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(cut).await;
        };
        let (response, ()) = tokio::join!(client.exchange(get("/")), target);
        let mut body = response.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "01234");
        assert!(body.frame().await.unwrap().is_err(), "{cut:?}");
    }
}

#[tokio::test]
async fn a_cut_request_never_looks_complete() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    feed.data("part");
    let target = async {
        let mut wire = origin.accept().await;
        assert!(wire.head().await.contains("transfer-encoding: chunked"));
        wire.until("part").await;
        feed.cut();
        assert_eq!(wire.closed().await, "\r\n");
    };
    let (outcome, ()) = tokio::join!(client.exchange(post(body)), target);
    assert_eq!(cause(outcome), Cause::RequestCut);
}

#[tokio::test]
async fn a_body_that_failed_before_it_was_sent_dials_nothing() {
    let origin = Origin::new().await;
    let (feed, body) = fed();
    feed.cut();
    assert_eq!(cause(origin.client().exchange(post(body)).await), Cause::RequestCut);
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_sends_it() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let target = async {
        let mut wire = origin.accept().await;
        assert!(wire.head().await.contains("transfer-encoding: chunked"));
        feed.data("late");
        drop(feed);
        wire.until("late\r\n0\r\n\r\n").await;
        wire.write(OK).await;
    };
    let request = Request::get("http://example.com/").body(body).unwrap();
    let (response, ()) = tokio::join!(client.exchange(request), target);
    assert_eq!(text(response.unwrap()).await, "ok");
}

#[tokio::test]
async fn a_length_that_contradicts_the_body_never_reaches_the_target() {
    let origin = Origin::new().await;
    let client = origin.client();
    for length in ["5", "x", "1, 1"] {
        let request = Request::post("http://example.com/").header("content-length", length);
        let outcome = client.exchange(request.body(Full::from("a")).unwrap()).await;
        assert_eq!(cause(outcome), Cause::BadRequest, "{length}");
        let request = Request::get("http://example.com/").header("content-length", length);
        let outcome = client.exchange(request.body(Empty::<Bytes>::new()).unwrap()).await;
        assert_eq!(cause(outcome), Cause::BadRequest, "{length}");
    }
}

#[tokio::test]
async fn an_empty_post_says_so() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut wire = origin.accept().await;
        assert!(wire.head().await.contains("content-length: 0\r\n"));
        wire.write(OK).await;
    };
    let (response, ()) = tokio::join!(client.exchange(post(Empty::<Bytes>::new())), target);
    assert_eq!(text(response.unwrap()).await, "ok");
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    feed.data("a");
    feed.trailers("x-sum", "1");
    drop(feed);
    let target = async {
        let mut wire = origin.accept().await;
        let head = wire.head().await;
        assert!(head.contains("te: trailers\r\n") && head.contains("connection: te\r\n"), "{head}");
        wire.until("0\r\nx-sum: 1\r\n\r\n").await;
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-back\r\n\r\n").await;
        wire.write("2\r\nok\r\n0\r\nx-back: 2\r\n\r\n").await;
    };
    let request = Request::post("http://example.com/").header("trailer", "x-sum").header("te", "trailers");
    let (response, ()) = tokio::join!(client.exchange(request.body(body).unwrap()), target);
    let response = response.unwrap();
    assert!(!response.headers().contains_key("transfer-encoding"));
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-back"], "2");
    assert_eq!(collected.to_bytes(), "ok");
}

#[tokio::test]
async fn informational_responses_come_through_in_order() {
    let origin = Origin::new().await;
    let client = origin.client();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = InformationalSink::new({
        let seen = Arc::clone(&seen);
        move |response| seen.lock().unwrap().push((response.status().as_u16(), response.headers().len()))
    });
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        wire.write("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x\r\n\r\n").await;
        wire.write(OK).await;
    };
    let request = Request::get("http://example.com/").extension(sink).body(Empty::<Bytes>::new()).unwrap();
    let (response, ()) = tokio::join!(client.exchange(request), target);
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), [(100, 0), (103, 1)]);
}

#[tokio::test]
async fn a_caller_slow_to_read_does_not_hold_up_its_upload() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        wire.until("after the response began").await;
        wire
    };
    let exchange = async {
        let response = client.exchange(post(body)).await.unwrap();
        feed.data("after the response began");
        // Held, not read: only a driver of its own can move the upload now.
        response
    };
    let (wire, response) = tokio::join!(target, exchange);
    drop((wire, response));
}

#[tokio::test]
async fn a_response_that_ends_first_ends_the_upload() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(OK).await;
        wire.closed().await;
    };
    let exchange = async {
        let response = client.exchange(post(body)).await.unwrap();
        assert_eq!(text(response).await, "ok");
        feed.unwanted().await;
    };
    tokio::join!(target, exchange);
}

#[tokio::test]
async fn a_head_response_has_a_length_and_no_body() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut wire = origin.accept().await;
        for _ in 0..2 {
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n").await;
        }
    };
    let exchanges = async {
        for _ in 0..2 {
            let request = Request::head("http://example.com/").body(Empty::<Bytes>::new()).unwrap();
            let response = client.exchange(request).await.unwrap();
            assert_eq!(response.headers()["content-length"], "12345");
            assert!(response.body().is_end_stream());
        }
    };
    tokio::join!(target, exchanges);
}

#[tokio::test]
async fn a_target_that_breaks_http_is_told_apart() {
    let origin = Origin::new().await;
    let client = origin.client();
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(DEFAULT_HEAD_BYTES));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(DEFAULT_HEAD_FIELDS + 1));
    for (answer, expected) in [
        ("", Cause::TargetClosed),
        ("HTTP/1.1 20", Cause::TargetClosed),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", Cause::TargetProtocol),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Cause::TargetProtocol),
        (&long, Cause::TargetHeadTooLarge),
        (&many, Cause::TargetHeadTooLarge),
    ] {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(answer).await;
            wire.stream.shutdown().await.unwrap();
            wire.closed().await;
        };
        let (outcome, ()) = tokio::join!(client.exchange(get("/")), target);
        assert_eq!(cause(outcome), expected, "{:?}", &answer[..answer.len().min(40)]);
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_is_refused() {
    // A port that was free a moment ago may be the one of another test.
    for (target, expected) in
        [("http://127.0.0.1:1", Cause::TargetRefused), ("unix:/nowhere/at/all.sock", Cause::TargetUnreachable)]
    {
        let client = TargetClient::new(&Target::parse(target).unwrap(), TargetSettings::default()).unwrap();
        assert_eq!(cause(client.exchange(get("/")).await), expected, "{target}");
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed_in_time() {
    let origin = Origin::new().await;
    let client = origin.client_with(TargetSettings { idle_timeout: Duration::from_millis(20), ..Default::default() });
    for _ in 0..2 {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(OK).await;
            wire.closed().await;
        };
        let exchange = async { text(client.exchange(get("/")).await.unwrap()).await };
        tokio::join!(target, exchange);
    }
}

#[tokio::test]
async fn unused_connections_are_bounded() {
    let origin = Origin::new().await;
    let client = origin.client_with(TargetSettings { max_idle: 1, ..Default::default() });
    let target = async {
        let mut first = origin.accept().await;
        let mut second = origin.accept().await;
        first.head().await;
        second.head().await;
        first.write(OK).await;
        second.write(OK).await;
        tokio::select! {
            _ = first.closed() => {}
            _ = second.closed() => {}
        }
    };
    let exchange = async { text(client.exchange(get("/")).await.unwrap()).await };
    let same = async { text(client.exchange(get("/")).await.unwrap()).await };
    tokio::join!(target, exchange, same);
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let target = Target::parse(&format!("unix:{}", path.display())).unwrap();
    let client = TargetClient::new(&target, TargetSettings::default()).unwrap();
    let serve = async {
        let mut wire = Wire { stream: listener.accept().await.unwrap().0, read: Vec::new() };
        wire.head().await;
        wire.write(OK).await;
    };
    let (response, ()) = tokio::join!(client.exchange(get("/")), serve);
    assert_eq!(text(response.unwrap()).await, "ok");
}
