use std::future::poll_fn;
use std::sync::Mutex;

use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body_util::{BodyExt, Empty, Full};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::message::failure::Cause;
use crate::message::interim::{InformationalSink, MAX_READ};

/// A target that does exactly what a test says.
struct Origin(TcpListener);

type Connection = server::Connection<TcpStream, Bytes>;
type Stream = (Request<RecvStream>, SendResponse<Bytes>);

impl Origin {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn client(&self) -> TargetClient {
        let target = format!("h2c://{}", self.0.local_addr().unwrap());
        TargetClient::new(&Target::parse(&target).unwrap(), TargetSettings::default()).unwrap()
    }

    async fn accept(&self) -> Connection {
        server::handshake(self.0.accept().await.unwrap().0).await.unwrap()
    }

    /// The first request of a new connection, whose bytes then keep moving in the background.
    async fn first(&self) -> Stream {
        let mut connection = self.accept().await;
        let stream = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        stream
    }
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("http://example.com/a?b").body(Empty::new()).unwrap()
}

fn post<B>(body: B) -> Request<B> {
    Request::post("http://example.com/").body(body).unwrap()
}

fn ok() -> Response<()> {
    Response::new(())
}

async fn text(response: Response<TargetBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Answers every request of a connection with `ok`.
async fn answer_all(mut connection: Connection) {
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        respond.send_response(ok(), false).unwrap().send_data(Bytes::from("ok"), true).unwrap();
    }
}

#[tokio::test]
async fn exchanges_share_one_connection() {
    let origin = Origin::new().await;
    let client = origin.client();
    let exchanges = async {
        let (a, b) = tokio::join!(client.exchange(get()), client.exchange(post(Full::from("x"))));
        assert_eq!(text(a.unwrap()).await, "ok");
        assert_eq!(text(b.unwrap()).await, "ok");
    };
    // Accepts once: an exchange on a second connection would wait forever.
    let target = async { answer_all(origin.accept().await).await };
    tokio::select! {
        () = exchanges => {}
        () = target => panic!("the connection ended"),
    }
}

#[tokio::test]
async fn the_target_sees_the_authority_and_no_host() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let (request, mut respond) = origin.first().await;
        respond.send_response(ok(), true).unwrap();
        request
    };
    let request = Request::get("/a?b").header("host", "example.com").body(Empty::<Bytes>::new()).unwrap();
    let (response, request) = tokio::join!(client.exchange(request), target);
    assert!(response.unwrap().body().is_end_stream());
    assert_eq!(request.uri(), "http://example.com/a?b");
    assert!(!request.headers().contains_key("host"));
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let target = async {
        let (request, mut respond) = origin.first().await;
        let mut send = respond.send_response(ok(), false).unwrap();
        let mut incoming = request.into_body();
        while let Some(data) = incoming.data().await {
            let data = data.unwrap();
            incoming.flow_control().release_capacity(data.len()).unwrap();
            send.send_data(data, false).unwrap();
        }
        send.send_trailers(incoming.trailers().await.unwrap().unwrap()).unwrap();
    };
    let exchange = async {
        let mut body = client.exchange(post(body)).await.unwrap().into_body();
        for part in ["one", "two"] {
            feed.data(part);
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        feed.trailers("grpc-status", "0");
        drop(feed);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(body.frame().await.is_none());
    };
    tokio::join!(target, exchange);
}

#[tokio::test]
async fn informational_responses_come_through() {
    let origin = Origin::new().await;
    let client = origin.client();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = InformationalSink::new({
        let seen = Arc::clone(&seen);
        move |response| seen.lock().unwrap().push(response.status().as_u16())
    });
    let target = async {
        let (_, mut respond) = origin.first().await;
        respond.send_informational(Response::builder().status(103).body(()).unwrap()).unwrap();
        respond.send_response(ok(), true).unwrap();
    };
    let request = Request::get("http://example.com/").extension(sink).body(Empty::<Bytes>::new()).unwrap();
    let (response, ()) = tokio::join!(client.exchange(request), target);
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), [103]);
}

#[tokio::test]
async fn informational_responses_without_end_are_a_failure_of_the_target() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let (_request, mut respond) = origin.first().await;
        for _ in 0..2 * MAX_READ {
            let early = Response::builder().status(103).body(()).unwrap();
            if respond.send_informational(early).is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    };
    let (response, ()) = tokio::join!(client.exchange(get()), target);
    assert_eq!(response.err().map(|failure| failure.cause()), Some(Cause::TargetProtocol));
}

#[tokio::test]
async fn an_upload_longer_than_it_said_never_ends_well() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let request = Request::post("http://example.com/").header("content-length", "3").body(body).unwrap();
    let target = async {
        let (request, _respond) = origin.first().await;
        feed.data("1234");
        let mut body = request.into_body();
        loop {
            match body.data().await {
                Some(Ok(data)) => assert!(data.len() <= 3),
                Some(Err(error)) => break error,
                None => panic!("the request ended well"),
            }
        }
    };
    let (response, error) = tokio::join!(client.exchange(request), target);
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    assert_eq!(response.err().map(|failure| failure.cause()), Some(Cause::RequestCut));
}

#[tokio::test]
async fn dropping_the_exchange_resets_the_stream() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let exchange = tokio::spawn(async move { client.exchange(post(body)).await.map(drop) });
    let (_request, mut respond) = origin.first().await;
    exchange.abort();
    assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    feed.unwanted().await;
}

#[tokio::test]
async fn dropping_the_response_body_resets_the_stream() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    let target = async {
        let (_request, mut respond) = origin.first().await;
        let mut send = respond.send_response(ok(), false).unwrap();
        assert_eq!(poll_fn(|cx| send.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    };
    let exchange = async {
        drop(client.exchange(post(body)).await.unwrap());
        feed.unwanted().await;
    };
    tokio::join!(target, exchange);
}

#[tokio::test]
async fn a_response_that_the_target_cancelled_is_an_error_and_never_an_end() {
    let origin = Origin::new().await;
    let client = origin.client();
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR] {
        let client = client.clone();
        let target = async {
            let mut connection = origin.accept().await;
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(Bytes::from("part"), false).unwrap();
            let moving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
            (send, moving)
        };
        let exchange = async { client.exchange(get()).await.unwrap().into_body() };
        let ((mut send, moving), mut body) = tokio::join!(target, exchange);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        send.send_reset(reason);
        assert!(body.frame().await.unwrap().is_err(), "{reason:?}");
        moving.abort();
    }
}

#[tokio::test]
async fn a_cut_request_resets_the_stream() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    feed.data("part");
    let target = async {
        let (request, _respond) = origin.first().await;
        let mut incoming = request.into_body();
        assert_eq!(incoming.data().await.unwrap().unwrap(), "part");
        feed.cut();
        assert!(incoming.data().await.unwrap().is_err());
    };
    let (outcome, ()) = tokio::join!(client.exchange(post(body)), target);
    assert_eq!(outcome.err().unwrap().cause(), Cause::RequestCut);
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let origin = Origin::new().await;
    let client = origin.client();
    for _ in 0..3 {
        let target = async {
            let mut connection = origin.accept().await;
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_response(ok(), true).unwrap();
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        };
        let (response, ()) = tokio::join!(client.exchange(post(Full::from("x"))), target);
        assert_eq!(response.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_again() {
    let origin = Origin::new().await;
    let client = origin.client();
    let target = async {
        let mut connection = origin.accept().await;
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(Reason::REFUSED_STREAM);
        answer_all(connection).await;
    };
    let exchange = async { text(client.exchange(post(Full::from("x"))).await.unwrap()).await };
    tokio::select! {
        text = exchange => assert_eq!(text, "ok"),
        () = target => panic!("the connection ended"),
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_while_its_body_comes() {
    let origin = Origin::new().await;
    let client = origin.client();
    let (feed, body) = fed();
    feed.data("be");
    let target = async {
        let mut connection = origin.accept().await;
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut incoming = request.into_body();
        let first = tokio::select! {
            first = incoming.data() => first.unwrap().unwrap(),
            _ = connection.accept() => panic!("the connection ended"),
        };
        assert_eq!(first, "be");
        respond.send_reset(Reason::REFUSED_STREAM);
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        feed.data("gun");
        drop(feed);
        let mut incoming = request.into_body();
        let all = async {
            let mut all = Vec::new();
            while let Some(data) = incoming.data().await {
                all.extend_from_slice(&data.unwrap());
            }
            assert_eq!(all, b"begun");
            respond.send_response(ok(), true).unwrap();
        };
        tokio::select! {
            () = all => {}
            _ = connection.accept() => panic!("the connection ended"),
        }
        while connection.accept().await.is_some() {}
    };
    tokio::select! {
        response = client.exchange(post(body)) => assert_eq!(response.unwrap().status(), 200),
        () = target => panic!("the connection ended"),
    }
}

#[tokio::test]
async fn a_large_body_flows_under_back_pressure() {
    let origin = Origin::new().await;
    let client = origin.client();
    let payload = Bytes::from(vec![7; 3 << 20]);
    let target = async {
        let (request, mut respond) = origin.first().await;
        let mut incoming = request.into_body();
        let mut total = 0;
        while let Some(data) = incoming.data().await {
            let data = data.unwrap();
            incoming.flow_control().release_capacity(data.len()).unwrap();
            total += data.len();
        }
        let mut fields = HeaderMap::new();
        fields.insert("x-total", total.into());
        let mut response = ok();
        *response.headers_mut() = fields;
        respond.send_response(response, true).unwrap();
    };
    let (feed, body) = fed();
    feed.data(payload.slice(..1 << 20));
    feed.data(payload.slice(1 << 20..));
    drop(feed);
    let (response, ()) = tokio::join!(client.exchange(post(body)), target);
    assert_eq!(response.unwrap().headers()["x-total"], (3 << 20).to_string());
}
