//! WebSocket and other protocols behind a request: asked for by an Upgrade or an extended CONNECT, to targets of HTTP/1.1 and
//! HTTP/2, with programs that others wrote and byte by byte.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::http1::RawHttp;
use crate::support::http2::{Http2, whole};
use crate::support::process::Program;
use crate::support::raw_target::{RawPeer, RawTarget};
use crate::support::site::{Cloud, Edge, NODE, Site, Transport, over_each_transport};
use crate::support::targets::pattern;
use crate::support::tools;

over_each_transport!(
    a_websocket_comes_through_however_it_is_asked_for,
    an_upgrade_reaches_a_target_of_http_2_and_each_direction_ends_by_itself,
    what_a_target_answers_instead_comes_back_as_it_is,
    a_target_that_accepts_something_else_is_a_bad_gateway,
    another_protocol_needs_to_be_allowed_by_name,
    a_direction_that_has_ended_leaves_the_other_and_a_cut_ends_both,
    what_is_not_read_is_held_back_and_not_lost,
);

/// The key and its answer of RFC 6455 section 1.3.
const WEBSOCKET: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
const TO_TCP: &str = "connection: upgrade\r\nupgrade: tcp\r\n";
pub(crate) const SWITCHED_TO_TCP: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n";

/// `tests/foreign/websocket.py`; `None` when this test is skipped.
fn program(arguments: &[&str]) -> Option<Command> {
    let mut program = Command::new(tools::python()?);
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/websocket.py")).args(arguments);
    Some(program)
}

async fn site(transport: Transport, target: &str, more: &str) -> Site {
    let service = format!("{{ name: web, match: {{}}, target: {target:?}{more} }}");
    Site::with(Cloud::new(), Edge::new(transport).service(&service)).await
}

/// The same behind a listener with TLS, and so HTTP/3.
async fn encrypted(transport: Transport, target: &str, more: &str) -> Site {
    let service = format!("{{ name: web, match: {{}}, target: {target:?}{more} }}");
    let cloud = Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    Site::with(cloud, Edge::new(transport).service(&service)).await
}

async fn a_websocket_comes_through_however_it_is_asked_for(transport: Transport) {
    let Some(server) = program(&["server"]) else { return };
    let server = Program::spawn("websockets", server);
    let port = server.line_with("port ").await.split_off("port ".len());
    let target = format!("http://127.0.0.1:{port}");
    let (clear, encrypted) = (site(transport, &target, "").await, encrypted(transport, &target, "").await);
    let ca = encrypted.folder.path().join("ca.pem");
    for (site, over) in [(&clear, &[][..]), (&clear, &["h2"]), (&encrypted, &["h3", ca.to_str().unwrap()])] {
        let at = site.egress().port().to_string();
        let mut client = program(&[&["client", "127.0.0.1", &at, NODE.node], over].concat()).unwrap();
        let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{over:?}: {}", String::from_utf8_lossy(&said));
    }
}

/// A client that has sent a GET with these lines, and nothing more.
async fn ask(site: &Site, lines: &str) -> TcpStream {
    let mut client = TcpStream::connect(site.egress()).await.unwrap();
    let head = format!("GET /chat HTTP/1.1\r\nhost: adit.test\r\nx-node-id: edge-1\r\n{lines}\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

/// The next head, in lower case.
async fn head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn exactly(client: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

/// A target of HTTP/2 that takes extended CONNECTs, and says back what it is told.
pub(crate) async fn echoing_h2c() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection = builder.enable_connect_protocol().handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(echo(request, respond));
                }
            });
        }
    });
    (address, tasks)
}

async fn echo(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.method(), Method::CONNECT);
    assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    assert!(!request.headers().contains_key("sec-websocket-key"));
    assert_eq!((request.uri().path(), &request.headers()["sec-websocket-version"]), ("/chat", &"13".parse().unwrap()));
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        send.send_data(data, false).unwrap();
    }
    send.send_data(Bytes::from_static(b"bye"), true).unwrap();
}

async fn an_upgrade_reaches_a_target_of_http_2_and_each_direction_ends_by_itself(transport: Transport) {
    let (address, _tasks) = echoing_h2c().await;
    let site = site(transport, &format!("h2c://{address}"), "").await;
    let mut client = ask(&site, WEBSOCKET).await;
    let switched = head(&mut client).await;
    assert!(switched.starts_with("http/1.1 101 ") && switched.contains(ACCEPT), "{switched}");
    assert!(switched.contains("upgrade: websocket\r\n") && !switched.contains("content-length"), "{switched}");
    client.write_all(b"abc").await.unwrap();
    exactly(&mut client, b"abc").await;
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");

    let mut client = Http2::connect(site.egress()).await;
    // The key is of HTTP/1.1, and the target would be misled by it. spec: ST-44
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let (response, mut send) = client.send(extended("websocket", &fields), false).await;
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    send.send_data(Bytes::from_static(b"abc"), true).unwrap();
    assert_eq!(whole(response).await.unwrap().body().bytes, b"abcbye");
}

/// An extended CONNECT to the node.
fn extended(protocol: &'static str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri("http://adit.test/chat");
    for (name, value) in [("x-node-id", NODE.node)].iter().chain(fields) {
        request = request.header(*name, *value);
    }
    request.extension(Protocol::from_static(protocol)).body(()).unwrap()
}

// spec: ST-43
async fn what_a_target_answers_instead_comes_back_as_it_is(transport: Transport) {
    let site = Site::start(transport).await;
    let mut client = RawHttp::connect(site.egress()).await.unwrap();
    for (path, status, text) in [("/bytes/3", 200, "\0\u{1}\u{2}"), ("/status/404", 404, ""), ("/status/426", 426, "")]
    {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-node-id: edge-1\r\n{WEBSOCKET}\r\n");
        client.send(head.as_bytes()).await.unwrap();
        let response = client.response().await.unwrap();
        assert_eq!((response.status(), response.text().as_str()), (status, text), "{path}, on the same connection");
        assert_eq!(response.field("adit-declined"), None);
    }
    let mut client = Http2::connect(site.egress()).await;
    let declined = client.get(extended("websocket", &[("sec-websocket-version", "13")])).await;
    assert_eq!(declined.status(), 502, "200 would be consent");
    assert!(declined.headers()["proxy-status"].to_str().unwrap().contains("http_upgrade_failed"));
    let old = client.get(extended("websocket", &[("sec-websocket-version", "8")])).await;
    assert_eq!((old.status().as_u16(), &old.headers()["sec-websocket-version"]), (426, &"13".parse().unwrap()));
}

// spec: ST-44
async fn a_target_that_accepts_something_else_is_a_bad_gateway(transport: Transport) {
    let target = RawTarget::new().await;
    let site = site(transport, &format!("http://{}", target.address()), "").await;
    for answer in [
        "connection: upgrade\r\nupgrade: tcp\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        let mut client = ask(&site, WEBSOCKET).await;
        let (mut peer, asked) = target.accept().await;
        assert!(asked.contains("upgrade: websocket\r\n") && asked.contains("sec-websocket-version: 13\r\n"), "{asked}");
        assert!(!asked.contains("dghlihnhbxbszsbub25jzq=="), "a key of this hop's own: {asked}");
        peer.send(format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n")).await.unwrap();
        let refused = head(&mut client).await;
        assert!(refused.starts_with("http/1.1 502 ") && refused.contains("http_upgrade_failed"), "{refused}");
        peer.gone().await;
    }
    let mut client = ask(&site, "").await;
    let (mut peer, _) = target.accept().await;
    peer.send(SWITCHED_TO_TCP).await.unwrap();
    assert!(head(&mut client).await.starts_with("http/1.1 502 "), "nobody asked for it");
}

// spec: ST-25
async fn another_protocol_needs_to_be_allowed_by_name(transport: Transport) {
    let target = RawTarget::new().await;
    let site = site(transport, &format!("http://{}", target.address()), ", upgrades: [tcp]").await;
    let (mut client, mut peer) = switched(&site, &target).await;
    peer.send("from the target").await.unwrap();
    exactly(&mut client, b"from the target").await;
    client.write_all(b"from the client").await.unwrap();
    assert_eq!(peer.exactly(15).await.unwrap(), b"from the client");
    let mut client = ask(&site, "connection: upgrade\r\nupgrade: other\r\n").await;
    let refused = head(&mut client).await;
    assert!(refused.starts_with("http/1.1 501 ") && refused.contains("http_upgrade_failed"), "{refused}");
    let mut client = Http2::connect(site.egress()).await;
    for own in ["adit-raw", "Adit-Flow"] {
        assert_eq!(client.get(extended(own, &[])).await.status(), 501, "{own}");
    }
}

/// A client and a target that go on in a protocol of their own.
async fn switched(site: &Site, target: &RawTarget) -> (TcpStream, RawPeer) {
    let mut client = ask(site, TO_TCP).await;
    let (mut peer, asked) = target.accept().await;
    assert!(asked.starts_with("get /chat ") && asked.contains("upgrade: tcp\r\n"), "{asked}");
    peer.send(SWITCHED_TO_TCP).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: tcp\r\n"), "{answer}");
    (client, peer)
}

async fn a_direction_that_has_ended_leaves_the_other_and_a_cut_ends_both(transport: Transport) {
    let target = RawTarget::new().await;
    let site = site(transport, &format!("http://{}", target.address()), ", upgrades: [tcp]").await;
    let (mut client, mut peer) = switched(&site, &target).await;
    peer.send("last words").await.unwrap();
    peer.finish().await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"last words");
    client.write_all(b"still here").await.unwrap();
    assert_eq!(peer.exactly(10).await.unwrap(), b"still here");
    client.shutdown().await.unwrap();
    peer.gone().await;

    let (client, mut peer) = switched(&site, &target).await;
    client.set_zero_linger().unwrap();
    drop(client);
    peer.gone().await;

    let (mut client, peer) = switched(&site, &target).await;
    peer.reset();
    let ended = client.read_to_end(&mut Vec::new()).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

async fn what_is_not_read_is_held_back_and_not_lost(transport: Transport) {
    const LENGTH: u64 = 24 << 20;
    let target = RawTarget::new().await;
    let site = site(transport, &format!("http://{}", target.address()), ", upgrades: [tcp]").await;
    let (mut client, mut peer) = switched(&site, &target).await;
    let sent = pattern(0, LENGTH);
    let (before, expected) = (site.responder.0.memory(), sent.clone());
    let sending = tokio::spawn(async move { client.write_all(&sent).await.map(|()| client) });
    // What is read is all there is to learn of: the first bytes show that the rest is under way.
    assert_eq!(peer.exactly(1 << 20).await.unwrap(), expected[..1 << 20]);
    assert!(site.responder.0.memory() < before + (16 << 20), "held back");
    assert_eq!(peer.exactly((LENGTH - (1 << 20)) as usize).await.unwrap(), expected[1 << 20..]);
    sending.await.unwrap().unwrap();
}
