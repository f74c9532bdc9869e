//! Responses over HTTP/1.1: what is refused, where each ends, and what becomes of the request meanwhile.

use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;

use super::origin::{OK, Origin, cause, get, post, text};
use super::*;
use crate::message::failure::Cause;
use crate::message::interim::MAX_READ;

#[tokio::test]
async fn an_ambiguous_response_is_refused_and_its_connection_closed() {
    let origin = Origin::new().await;
    let client = origin.client();
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\n",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
    ] {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(head).await;
            wire.closed().await;
        };
        let (outcome, ()) = tokio::join!(client.exchange(get("/")), target);
        assert_eq!(cause(outcome), Cause::TargetProtocol, "{head:?}");
    }
}

#[tokio::test]
async fn a_malformed_chunk_is_an_error_and_closes_the_connection() {
    let origin = Origin::new().await;
    let client = origin.client();
    for rest in ["x\r\n", "2\r\nokx", "0\r\nhost : h\r\n\r\n", "2\nok"] {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
            wire.write(rest).await;
            wire.closed().await;
        };
        let exchange = async { client.exchange(get("/")).await.unwrap().into_body().collect().await };
        let (collected, ()) = tokio::join!(exchange, target);
        let error = collected.err().unwrap().downcast::<Failure>().unwrap();
        assert_eq!(error.cause(), Cause::TargetProtocol, "{rest:?}");
    }
}

#[tokio::test]
async fn a_response_that_comes_byte_by_byte_is_the_same() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut wire = origin.accept().await;
        wire.stream.set_nodelay(true).unwrap();
        wire.head().await;
        for byte in
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\na: b\r\n\r\n".chars()
        {
            wire.write(&byte.to_string()).await;
            tokio::task::yield_now().await;
        }
    };
    let exchange = async { client.exchange(get("/")).await.unwrap().into_body().collect().await.unwrap() };
    let (collected, ()) = tokio::join!(exchange, target);
    assert_eq!(collected.trailers().unwrap()["a"], "b");
    assert_eq!(collected.to_bytes(), "abcd");
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_its_connection() {
    let origin = Origin::new().await;
    let client = origin.client();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            wire.write(&format!("{version} 200 OK\r\n\r\nuntil ")).await;
            wire.write("the end").await;
            wire.stream.shutdown().await.unwrap();
            wire.closed().await;
        };
        let exchange = async { text(client.exchange(get("/")).await.unwrap()).await };
        let (text, ()) = tokio::join!(exchange, target);
        assert_eq!(text, "until the end");
    }
}

#[tokio::test]
async fn interim_responses_without_end_are_given_up() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        wire.write(&"HTTP/1.1 102 Processing\r\n\r\n".repeat(MAX_READ + 1)).await;
        wire.closed().await;
    };
    let (outcome, ()) = tokio::join!(client.exchange(get("/")), target);
    assert_eq!(cause(outcome), Cause::TargetProtocol);
}

#[tokio::test]
async fn an_early_answer_is_passed_on_whatever_becomes_of_the_upload() {
    let origin = Origin::new().await;
    let client = origin.client();
    let large = Bytes::from(vec![b'x'; 16 << 20]);
    for closes in [false, true] {
        for streaming in [false, true] {
            let target = async {
                let mut wire = origin.accept().await;
                wire.head().await;
                wire.write("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
                // Closing with the upload unread resets the connection.
                if !closes {
                    wire.closed().await;
                }
            };
            let exchange = async {
                let (feed, body) = fed();
                feed.data(large.clone());
                let response = if streaming {
                    client.exchange(post(body)).await
                } else {
                    drop(body);
                    client.exchange(post(Full::new(large.clone()))).await
                };
                let response = response.unwrap();
                assert_eq!(response.status(), 413);
                assert_eq!(text(response).await, "no");
                feed.unwanted().await;
            };
            tokio::join!(exchange, target);
        }
    }
}

#[tokio::test]
async fn a_target_slow_to_take_the_request_does_not_hold_up_its_response() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    feed.data(vec![b'x'; 16 << 20]);
    let target = async {
        let mut wire = origin.accept().await;
        wire.head().await;
        // Nothing is read until the response is there.
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        wire.write(&"y".repeat(1_000_000)).await;
        wire
    };
    let exchange = async { text(client.exchange(post(body)).await.unwrap()).await };
    let (text, _) = tokio::join!(exchange, target);
    assert_eq!(text.len(), 1_000_000);
}

#[tokio::test]
async fn a_request_cut_behind_the_head_of_its_response_never_looks_complete() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    feed.data("part");
    let target = async {
        let mut wire = origin.accept().await;
        wire.until("part\r\n").await;
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        assert_eq!(wire.closed().await, "");
    };
    let exchange = async {
        let mut body = client.exchange(post(body)).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
        feed.cut();
        let error = body.frame().await.unwrap().unwrap_err().downcast::<Failure>().unwrap();
        assert_eq!(error.cause(), Cause::RequestCut);
    };
    tokio::join!(exchange, target);
}

#[tokio::test]
async fn an_upload_that_contradicts_its_length_never_looks_complete() {
    let origin = Origin::new().await;
    let client = origin.client();
    for pieces in [["abc", "de"], ["a", "b"]] {
        let (feed, body) = fed();
        let request = Request::post("http://example.com/").header("content-length", "4").body(body).unwrap();
        let target = async {
            let mut wire = origin.accept().await;
            wire.head().await;
            feed.data(pieces[0]);
            wire.until(pieces[0]).await;
            feed.data(pieces[1]);
            drop(feed);
            assert_ne!((pieces[0].to_owned() + &wire.closed().await).len(), 4);
        };
        let (outcome, ()) = tokio::join!(client.exchange(request), target);
        assert_eq!(cause(outcome), Cause::RequestCut, "{pieces:?}");
    }
}

#[tokio::test]
async fn a_target_without_a_path_is_asked_for_one() {
    let origin = Origin::new().await;
    let client = origin.client();
    for (uri, line) in [("http://h", "GET / "), ("http://h?a=b", "GET /?a=b "), ("/only/path", "GET /only/path ")] {
        let target = async {
            let mut wire = origin.accept().await;
            let head = wire.head().await;
            assert!(head.starts_with(line) && head.ends_with("\r\n\r\n"), "{head}");
            wire.write(&OK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        };
        let request = Request::get(uri).body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let (response, ()) = tokio::join!(client.exchange(request), target);
        assert_eq!(text(response.unwrap()).await, "ok");
    }
}
