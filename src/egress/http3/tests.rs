use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3::error::Code;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::*;
use crate::egress::budget::{ListenerBudget, MAX_AHEAD};
use crate::egress::standing::Source;
use crate::egress::terms::{Accepting, Current, Terms};
use crate::egress::testing::{
    ENDLESS_PIECES, Endless, OnDrop, PATIENCE, Refusals, TestBody, WithContext, all_get_on, data, describe, echo, full,
    pieces, told,
};
use crate::egress::{Context, End, RequestBody, Settings};
use crate::message::BoxError;
use crate::message::upgrade::Protocol;
use crate::message::violation::{ErrorCode, Violation};
use crate::routing::RouterSettings;
use crate::telemetry::{AcceptWatch, Entrance, Metrics, Side};
use crate::tls::pki::{Authority, Validity};
use crate::tls::{ClientCertificates, EgressTls};
use tokio_util::sync::CancellationToken;

/// A listener on loopback for HTTP/3 alone.
pub(super) struct Server {
    address: SocketAddr,
    roots: rustls::RootCertStore,
    end: End,
    current: Arc<Current>,
    budget: Arc<ListenerBudget>,
    task: JoinHandle<()>,
}

pub(super) fn start<S: ExchangeService>(service: S, settings: Settings) -> Server {
    let validity = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(3600) };
    let authority = Authority::create("test", validity).unwrap();
    let credentials = authority.responder(&["edge.test".to_owned()], validity).unwrap().credentials().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let tls = Some(Arc::new(EgressTls { credentials, clients: ClientCertificates::NotAsked }));
    let router = RouterSettings::new("any".parse().unwrap());
    let terms = Terms { tls, settings, ..Terms::new(router) };
    let current = Arc::new(Current::new(terms, Metrics::new().targets(Side::Egress)).unwrap());
    let Accepting { http3: Some(config), .. } = current.accepting() else { panic!("HTTP/3 is on") };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::new(socket, quinn::ServerConfig::clone(&config)).unwrap();
    let address = endpoint.local_addr();
    let end = End { leaving: CancellationToken::new(), drain: CancellationToken::new() };
    let watch = AcceptWatch::new(&Metrics::new(), Entrance::Egress);
    let source = Source::Current(Arc::clone(&current));
    let budget = Arc::<ListenerBudget>::default();
    let accept = Accept { service, end: end.clone(), budget: Arc::clone(&budget), watch, source };
    Server { address, roots, end, current, budget, task: tokio::spawn(endpoint.run(accept)) }
}

pub(super) fn serve<S: ExchangeService>(service: S) -> Server {
    start(service, Settings::default())
}

/// A client on `h3`, and its QUIC, on which it can break every rule.
pub(super) struct Client {
    pub(super) quic: quinn::Connection,
    http: SendRequest<h3_quinn::OpenStreams, Bytes>,
    driver: JoinHandle<h3::error::ConnectionError>,
    _endpoint: quinn::Endpoint,
}

impl Server {
    /// A connection on which nothing is said yet.
    pub(super) async fn quic(&self) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
        self.quic_at(self.address).await
    }

    /// The same, where a link to it begins.
    async fn quic_at(
        &self,
        address: SocketAddr,
    ) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
        let mut tls = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let quic = endpoint.connect_with(config, address, "edge.test").unwrap().await?;
        Ok((endpoint, quic))
    }

    pub(super) async fn connect(&self) -> Client {
        self.connect_at(self.address).await
    }

    async fn connect_at(&self, address: SocketAddr) -> Client {
        let (endpoint, quic) = self.quic_at(address).await.unwrap();
        let (mut driver, http) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
        let driver = tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
        Client { quic, http, driver, _endpoint: endpoint }
    }

    /// Drains; it is over once nothing runs any more.
    async fn drained(self) {
        self.end.leaving.cancel();
        self.end.drain.cancel();
        timeout(PATIENCE, self.task).await.expect("the listener ends once drained").unwrap();
    }
}

type Exchange = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

impl Client {
    async fn send(&mut self, request: Request<()>) -> Exchange {
        timeout(PATIENCE, self.http.send_request(request)).await.unwrap().unwrap()
    }

    /// A whole exchange without a request body.
    pub(super) async fn get(&mut self, path: &str) -> (Response<()>, Bytes) {
        let mut exchange = self.send(get(path)).await;
        exchange.finish().await.unwrap();
        read(&mut exchange).await
    }

    /// Sends these bytes on a stream of its own, and its end.
    pub(super) async fn raw(&self, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = self.quic.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        (send, recv)
    }
}

/// The code with which the server ends the connection.
pub(super) async fn closed(quic: &quinn::Connection) -> u64 {
    match timeout(PATIENCE, quic.closed()).await.expect("the connection is ended") {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into(),
        other => panic!("{other}"),
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://edge.test{path}")).body(()).unwrap()
}

fn put(path: &str) -> Request<()> {
    Request::put(format!("https://edge.test{path}")).body(()).unwrap()
}

async fn read(exchange: &mut Exchange) -> (Response<()>, Bytes) {
    let response = timeout(PATIENCE, exchange.recv_response()).await.unwrap().unwrap();
    let body = timeout(PATIENCE, collect(exchange)).await.unwrap().unwrap();
    (response, body)
}

async fn collect(exchange: &mut Exchange) -> Result<Bytes, h3::error::StreamError> {
    let mut all = Vec::new();
    while let Some(mut data) = exchange.recv_data().await? {
        all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok(all.into())
}

/// What is left of a stream.
pub(super) async fn rest(mut recv: quinn::RecvStream) -> Result<Vec<u8>, quinn::ReadToEndError> {
    timeout(PATIENCE, recv.read_to_end(1 << 20)).await.expect("the stream ends")
}

/// The status of a response as it was sent: behind type, length and prefix, by index or with its name by index.
fn status(bytes: &[u8]) -> String {
    let section = match bytes {
        [1, length, section @ ..] if *length < 0x40 => section,
        [1, 0x40..=0x7f, _, section @ ..] => section,
        other => panic!("no response: {:x?}", &other[..other.len().min(16)]),
    };
    match section {
        [0, 0, 0xff, 0x04, ..] => "400".into(),
        [0, 0, 0x5f, 0x09, 0x83, 0x69, 0x90, 0xff, ..] => "431".into(),
        other => format!("{:x?}", &other[..other.len().min(16)]),
    }
}

/// HEADERS with GET, https, /, :authority edge.test, and what follows.
pub(super) fn head(more: &[u8]) -> Vec<u8> {
    let section = [b"\0\0\xd1\xd7\xc1\x50\x09edge.test", more].concat();
    [&[1, 0x40 | (section.len() >> 8) as u8, section.len() as u8][..], &section].concat()
}

#[tokio::test]
async fn exchanges_run_side_by_side_on_one_connection() {
    let service = |request: Request<RequestBody>, context: Context| async move {
        assert!(context.connection.tls && request.version() == Version::HTTP_3);
        assert_eq!(context.connection.server_name.as_deref(), Some("edge.test"));
        describe(request).await
    };
    let server = serve(WithContext(service));
    let mut client = server.connect().await;
    let mut first = client.send(put("/1")).await;
    assert_eq!(client.get("/2?a=b").await.1, "GET https://edge.test/2?a=b 0");
    first.send_data(Bytes::from_static(b"12345")).await.unwrap();
    first.finish().await.unwrap();
    assert_eq!(read(&mut first).await.1, "PUT https://edge.test/1 5");
    server.drained().await;
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_while_they_come() {
    let server = serve(echo);
    let mut client = server.connect().await;
    let mut exchange = client.send(put("/")).await;
    let mut all = Vec::new();
    let response = timeout(PATIENCE, exchange.recv_response()).await.unwrap().unwrap();
    assert!(response.headers().contains_key("date"));
    for piece in [&b"one"[..], b"two"] {
        exchange.send_data(Bytes::from_static(piece)).await.unwrap();
        let mut data = timeout(PATIENCE, exchange.recv_data()).await.unwrap().unwrap().unwrap();
        all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    assert_eq!(all, b"onetwo");
    exchange.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "6".parse().unwrap())])).await.unwrap();
    exchange.finish().await.unwrap();
    assert!(timeout(PATIENCE, exchange.recv_data()).await.unwrap().unwrap().is_none());
    let trailers = timeout(PATIENCE, exchange.recv_trailers()).await.unwrap().unwrap();
    assert_eq!(trailers.unwrap()["x-sum"], "6");
}

#[tokio::test]
async fn a_bad_request_costs_its_stream_and_is_answered() {
    let server = serve(describe);
    let mut client = server.connect().await;
    let too_many = [0xc2; 101];
    for (bad, expected) in [
        (head(b"\xd1"), "400"),
        (head(b"\x25:what\x011"), "400"),
        (head(b"\x23X-A\x011"), "400"),
        (head(b"\x27\x03connection\x011"), "400"),
        (head(b"\x24host\x05other"), "400"),
        (vec![1, 4, 0, 0, 0xd1, 0xd7], "400"),
        (head(&too_many), "431"),
        (vec![1, 0xbf, 0xff, 0xff, 0xff], "431"),
    ] {
        let (_send, recv) = client.raw(&bad).await;
        assert_eq!(status(&rest(recv).await.unwrap()), expected, "{bad:x?}");
        assert_eq!(client.get("/").await.1, "GET https://edge.test/ 0");
    }
}

// spec: SE-44
#[tokio::test]
async fn what_ends_a_stream_or_a_connection_before_anybody_has_a_request_is_told_once() {
    const WAITING: &[u8] = &[0x40, 0x40];
    let refusals = Refusals::default();
    let server = serve(refusals.clone());
    let told = |violation| (Some(Version::HTTP_3), violation);
    let client = server.connect().await;
    let (_send, recv) = client.raw(&head(b"\xd1")).await;
    rest(recv).await.unwrap();
    assert_eq!(refusals.next().await, told(Violation::Syntax), "answered 400");
    // More than there may be of frames that carry nothing.
    let (_send, _recv) = client.raw(&[&[0x21, 0x80, 1, 0, 0][..], &[0; 65_536]].concat().repeat(2)).await;
    let overload = ErrorCode::Http3(Code::H3_EXCESSIVE_LOAD.value());
    assert_eq!(refusals.next().await, told(Violation::Reset(overload)));
    // The client resets a head that it has begun.
    let (mut send, _recv) = client.quic.open_bi().await.unwrap();
    send.write_all(&[1, 20, 0]).await.unwrap();
    send.reset(7_u32.into()).unwrap();
    assert_eq!(refusals.next().await, told(Violation::HeadCut));
    for (bytes, code) in [
        (&[1, 3, 0, 0, 0x10][..], Code::QPACK_DECOMPRESSION_FAILED),
        (&[1, 20, 0, 0], Code::H3_FRAME_ERROR),
        (WAITING, Code::H3_FRAME_ERROR),
        (&[0, 1, 7], Code::H3_FRAME_UNEXPECTED),
        (&[4, 0], Code::H3_FRAME_UNEXPECTED),
    ] {
        let client = server.connect().await;
        let _streams = client.raw(bytes).await;
        let expected = ErrorCode::Http3(code.value());
        assert_eq!(closed(&client.quic).await, code.value(), "{bytes:x?}");
        assert_eq!(refusals.next().await, told(Violation::Connection(expected)), "{bytes:x?}");
    }
    // Who leaves in the middle of a head, and who leaves without one.
    let client = server.connect().await;
    let (mut send, _recv) = client.quic.open_bi().await.unwrap();
    send.write_all(&[1, 20, 0]).await.unwrap();
    // By now it has been read.
    let (_send, recv) = client.raw(&head(&[])).await;
    rest(recv).await.unwrap();
    client.quic.close(quinn::VarInt::from_u32(0x100), b"");
    assert_eq!(refusals.next().await, told(Violation::HeadCut));
    server.connect().await.quic.close(quinn::VarInt::from_u32(0x100), b"");
    server.drained().await;
    assert!(refusals.is_empty());
}

#[tokio::test]
async fn a_head_that_comes_in_pieces_needs_none_of_what_others_have_used_up() {
    let server = serve(echo);
    assert!(server.budget.read_ahead(MAX_AHEAD));
    let mut client = server.connect().await;
    let (mut send, recv) = client.quic.open_bi().await.unwrap();
    let head = head(&[]);
    let (first, second) = head.split_at(head.len() / 2);
    send.write_all(first).await.unwrap();
    // By now the first piece has been read.
    assert_eq!(client.get("/").await.0.status(), 200);
    send.write_all(second).await.unwrap();
    send.finish().unwrap();
    assert_eq!(rest(recv).await.unwrap().first(), Some(&1), "a response, and no reset");
    assert!(!server.budget.read_ahead(1), "nothing was given back that was not taken");
}

#[tokio::test]
async fn a_service_that_vanishes_costs_its_stream() {
    let server = serve(|request: Request<RequestBody>| async move {
        if request.uri().path() == "/panic" {
            panic!("as the test wants it");
        }
        describe(request).await
    });
    let mut client = server.connect().await;
    let mut lost = client.send(get("/panic")).await;
    lost.finish().await.unwrap();
    assert!(timeout(PATIENCE, lost.recv_response()).await.unwrap().is_err());
    assert_eq!(client.get("/").await.1, "GET https://edge.test/ 0");
}

#[tokio::test]
async fn a_client_that_gives_up_ends_the_service_and_nothing_else() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let server = serve(move |request: Request<RequestBody>| {
        let sender = sender.clone();
        async move {
            if request.uri().path() == "/" {
                return describe(request).await;
            }
            let _told = OnDrop(sender.clone(), "dropped");
            sender.send("begun").unwrap();
            std::future::pending().await
        }
    });
    let mut client = server.connect().await;
    let mut exchange = client.send(get("/hang")).await;
    exchange.finish().await.unwrap();
    assert_eq!(told(&mut receiver).await, "begun");
    exchange.stop_sending(Code::H3_REQUEST_CANCELLED);
    assert_eq!(told(&mut receiver).await, "dropped");
    assert_eq!(client.get("/").await.1, "GET https://edge.test/ 0");
    let mut lost = client.send(get("/hang")).await;
    lost.finish().await.unwrap();
    assert_eq!(told(&mut receiver).await, "begun");
    client.quic.close(0u32.into(), b"");
    assert_eq!(told(&mut receiver).await, "dropped");
}

#[tokio::test]
async fn a_response_that_is_cut_or_of_another_length_is_reset() {
    let server = serve(|request: Request<RequestBody>| async move {
        let (feed, body) = pieces();
        tokio::spawn(async move {
            feed.send(data(b"half")).await.unwrap();
            if request.uri().path() == "/cut" {
                feed.send(Err(BoxError::from("cut"))).await.unwrap();
            }
        });
        Response::builder().header("content-length", "8").body(body).unwrap()
    });
    let mut client = server.connect().await;
    for path in ["/cut", "/short"] {
        let mut exchange = client.send(get(path)).await;
        exchange.finish().await.unwrap();
        let response = timeout(PATIENCE, exchange.recv_response()).await.unwrap();
        if response.is_ok() {
            assert!(timeout(PATIENCE, collect(&mut exchange)).await.unwrap().is_err(), "{path}");
        }
    }
}

#[tokio::test]
async fn a_frame_that_is_cut_by_the_end_of_its_stream_is_no_body() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let server = serve(move |request: Request<RequestBody>| {
        let sender = sender.clone();
        async move {
            let is_whole = request.into_body().collect().await.is_ok();
            sender.send(if is_whole { "whole" } else { "cut" }).unwrap();
            Response::new(full(""))
        }
    });
    let client = server.connect().await;
    let (mut send, _recv) = client.quic.open_bi().await.unwrap();
    send.write_all(&[&head(b"")[..], &[0, 10, 1, 2, 3]].concat()).await.unwrap();
    send.finish().unwrap();
    // The connection's end may come first, and then nobody is asked any more.
    let said = timeout(PATIENCE, receiver.recv()).await.unwrap();
    assert!(matches!(said, Some("cut") | None), "{said:?}");
    assert_eq!(closed(&client.quic).await, Code::H3_FRAME_ERROR.value());
}

#[tokio::test]
async fn a_drain_lets_what_runs_finish_and_refuses_what_comes_late() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let (release, _) = tokio::sync::broadcast::channel::<()>(1);
    let gate = release.clone();
    let server = serve(move |_: Request<RequestBody>| {
        let (sender, mut gate) = (sender.clone(), gate.subscribe());
        async move {
            sender.send("begun").unwrap();
            let _ = gate.recv().await;
            Response::new(full("done"))
        }
    });
    let mut client = server.connect().await;
    let mut exchange = client.send(get("/")).await;
    exchange.finish().await.unwrap();
    assert_eq!(told(&mut receiver).await, "begun");
    let drained = tokio::spawn(server.drained());
    let refused = loop {
        let Ok((mut send, mut recv)) = client.quic.open_bi().await else { panic!("the connection is kept") };
        send.write_all(&head(b"")).await.unwrap();
        send.finish().unwrap();
        // What comes before the last word is served.
        tokio::select! {
            began = receiver.recv() => assert_eq!(began, Some("begun")),
            read = recv.read_to_end(100) => break read,
        }
    };
    let quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)) = refused.unwrap_err() else { panic!("a reset") };
    assert_eq!(u64::from(code), Code::H3_REQUEST_REJECTED.value());
    release.send(()).unwrap();
    assert_eq!(read(&mut exchange).await.1, "done");
    timeout(PATIENCE, drained).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, client.driver).await.unwrap().unwrap().is_h3_no_error());
}

#[tokio::test]
async fn a_direction_that_has_ended_leaves_the_other_and_a_drain_waits_for_it() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let server = serve(move |request: Request<RequestBody>| {
        let sender = sender.clone();
        async move {
            if request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.is("tcp")) {
                tokio::spawn(async move {
                    let body = request.into_body().collect().await;
                    let is_whole = body.is_ok_and(|body| body.to_bytes() == "late");
                    sender.send(if is_whole { "whole" } else { "cut" }).unwrap();
                });
            }
            Response::new(full("last words"))
        }
    });
    let client = server.connect().await;
    let (mut send, recv) = client.quic.open_bi().await.unwrap();
    // CONNECT, https, /, :authority a, :protocol tcp.
    let connect = b"\0\0\xcf\xd7\xc1\x50\x01a\x27\x02:protocol\x03tcp";
    send.write_all(&[&[1, connect.len() as u8], &connect[..]].concat()).await.unwrap();
    assert!(rest(recv).await.unwrap().ends_with(b"last words"));
    let drained = tokio::spawn(server.drained());
    loop {
        let (mut send, recv) = client.quic.open_bi().await.expect("the connection is kept");
        send.write_all(&head(b"")).await.unwrap();
        send.finish().unwrap();
        // What comes before the last word is served.
        if rest(recv).await.is_err() {
            break;
        }
    }
    send.write_all(b"\0\x04late").await.unwrap();
    send.finish().unwrap();
    assert_eq!(told(&mut receiver).await, "whole");
    timeout(PATIENCE, drained).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_that_are_given_up_without_end_cost_the_connection() {
    let server = serve(|_: Request<RequestBody>| std::future::pending::<Response<TestBody>>());
    let client = server.connect().await;
    let mut resets = JoinSet::new();
    let quic = client.quic.clone();
    resets.spawn(async move {
        while let Ok((mut send, mut recv)) = quic.open_bi().await {
            let _ = send.write_all(&head(b"")).await;
            let _ = send.finish();
            let _ = recv.stop(0u32.into());
        }
    });
    assert_eq!(closed(&client.quic).await, Code::H3_EXCESSIVE_LOAD.value());
}

#[tokio::test]
async fn frames_of_the_control_stream_without_end_cost_the_connection() {
    let server = serve(describe);
    let (_endpoint, quic) = server.quic().await.unwrap();
    let mut control = quic.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    let flood = [0x21, 0].repeat(10_000);
    while control.write_all(&flood).await.is_ok() {}
    assert_eq!(closed(&quic).await, Code::H3_EXCESSIVE_LOAD.value());
    assert_eq!(server.connect().await.get("/").await.1, "GET https://edge.test/ 0");
}

#[tokio::test]
async fn frames_that_must_not_be_there_cost_the_connection_and_nobody_keeps_what_is_in_them() {
    let server = serve(describe);
    for unexpected in [&[4, 0xbf, 0xff, 0xff, 0xff][..], &[0, 1, b'x'], &[7, 1, 0]] {
        let (_endpoint, quic) = server.quic().await.unwrap();
        let (mut send, _recv) = quic.open_bi().await.unwrap();
        send.write_all(unexpected).await.unwrap();
        assert_eq!(closed(&quic).await, Code::H3_FRAME_UNEXPECTED.value(), "{unexpected:x?}");
    }
}

#[tokio::test]
async fn what_the_terms_say_holds_for_connections_from_then_on_and_limits_of_heads_for_those_that_are_open() {
    let server = serve(describe);
    let mut before = server.connect().await;
    server.current.update(|terms| terms.settings.max_head_fields = 0).unwrap();
    let mut after = server.connect().await;
    let with_field = || Request::get("https://edge.test/").header("a", "b").body(()).unwrap();
    for client in [&mut before, &mut after] {
        let mut exchange = client.send(with_field()).await;
        exchange.finish().await.unwrap();
        assert_eq!(read(&mut exchange).await.0.status(), 431);
    }
    server.current.update(|terms| terms.tls = None).unwrap();
    assert!(server.quic().await.is_err(), "there is no HTTP/3 in clear text");
}

// RFC 9297 section 2.1
#[tokio::test]
async fn a_datagram_for_nobody_is_dropped_and_one_that_names_no_stream_ends_the_connection() {
    let server = serve(echo);
    let mut client = server.connect().await;
    // A request that there is not yet; one that takes none.
    client.quic.send_datagram(Bytes::from_static(&[0x40, 0x40, 0, 1])).unwrap();
    client.quic.send_datagram(Bytes::from_static(&[0, 0, 1])).unwrap();
    assert_eq!(client.get("/").await.0.status(), 200);
    for broken in [&[][..], &[0xd0, 0, 0, 0, 0, 0, 0, 0], &[0x40]] {
        let client = server.connect().await;
        client.quic.send_datagram(Bytes::copy_from_slice(broken)).unwrap();
        assert_eq!(closed(&client.quic).await, Code::H3_DATAGRAM_ERROR.value(), "{broken:?}");
    }
    assert_eq!(client.get("/").await.0.status(), 200, "others go on");
}

// spec: SE-20
#[tokio::test]
async fn a_complete_response_is_read_to_its_end_over_however_slow_a_link() {
    const BODY: usize = 1 << 20;
    // The end of it, which is in the hands of QUIC at once, takes longer than one that takes nothing is waited for.
    let settings = Settings { send_timeout: Duration::from_secs(3), ..Settings::default() };
    let server = start(|_: Request<RequestBody>| async { Response::new(full(vec![7; BODY])) }, settings);
    let (link, _moved) = slow_link(server.address, 128 << 10).await;
    let mut client = server.connect_at(link).await;
    let mut exchange = client.send(get("/")).await;
    exchange.finish().await.unwrap();
    exchange.recv_response().await.unwrap();
    let mut got = 0;
    while let Some(data) = exchange.recv_data().await.unwrap_or_else(|error| panic!("{error} after {got} bytes")) {
        got += data.remaining();
    }
    assert_eq!(got, BODY);
}

// spec: SE-20
#[tokio::test]
async fn whoever_waits_behind_others_is_not_given_up_while_the_client_takes_those() {
    const ANSWERS: usize = 40;
    const BODY: usize = 160 << 10;
    // A round of turns takes longer than one that takes nothing is waited for.
    let settings = Settings { send_timeout: Duration::from_secs(3), ..Settings::default() };
    let server = start(|_: Request<RequestBody>| async { Response::new(full(vec![7; BODY])) }, settings);
    let (link, _moved) = slow_link(server.address, 512 << 10).await;
    let mut client = server.connect_at(link).await;
    let mut reading = JoinSet::new();
    for _ in 0..ANSWERS {
        let mut exchange = client.send(get("/")).await;
        reading.spawn(async move {
            exchange.finish().await.unwrap();
            exchange.recv_response().await.unwrap();
            let mut got = 0;
            while let Some(data) =
                exchange.recv_data().await.unwrap_or_else(|error| panic!("{error} after {got} bytes"))
            {
                got += data.remaining();
            }
            got
        });
    }
    assert_eq!(reading.join_all().await, [BODY; ANSWERS]);
}

/// A link to a server over which so many bytes a second come back, and whoever moves them.
async fn slow_link(server: SocketAddr, rate: u32) -> (SocketAddr, JoinSet<()>) {
    let [outer, inner] = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    inner.connect(server).await.unwrap();
    let (address, ends) = (outer.local_addr().unwrap(), Arc::new((outer, inner)));
    let (client, mut known) = watch::channel(None);
    let mut moved = JoinSet::new();
    let there = Arc::clone(&ends);
    moved.spawn(async move {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = there.0.recv_from(&mut packet).await {
            client.send_replace(Some(from));
            let _ = there.1.send(&packet[..length]).await;
        }
    });
    // It is slow, and loses nothing.
    let (queue, mut queued) = mpsc::unbounded_channel::<Vec<u8>>();
    let back = Arc::clone(&ends);
    moved.spawn(async move {
        let mut packet = [0; 2048];
        while let Ok(length) = back.1.recv(&mut packet).await {
            queue.send(packet[..length].to_vec()).unwrap();
        }
    });
    moved.spawn(async move {
        let mut free = Instant::now();
        while let Some(packet) = queued.recv().await {
            free = free.max(Instant::now()) + Duration::from_secs(1) * packet.len() as u32 / rate;
            tokio::time::sleep_until(free).await;
            let Some(client) = *known.borrow_and_update() else { continue };
            let _ = ends.0.send_to(&packet, client).await;
        }
    });
    (address, moved)
}

#[tokio::test]
async fn answers_that_never_end_all_get_on() {
    for piece in ENDLESS_PIECES {
        answers_that_never_end_in_pieces_of(piece).await;
    }
}

async fn answers_that_never_end_in_pieces_of(bytes: usize) {
    const ANSWERS: usize = 16;
    let server = serve(move |_: Request<RequestBody>| async move { Response::new(Endless(bytes).boxed_unsync()) });
    let mut client = server.connect().await;
    let (told, got) = mpsc::unbounded_channel();
    let mut reading = JoinSet::new();
    for answer in 0..ANSWERS {
        let mut exchange = client.send(get("/")).await;
        let told = told.clone();
        reading.spawn(async move {
            exchange.finish().await.unwrap();
            exchange.recv_response().await.unwrap();
            while let Some(data) = exchange.recv_data().await.unwrap() {
                told.send((answer, data.remaining())).unwrap();
            }
        });
    }
    all_get_on::<ANSWERS>(got).await;
}
