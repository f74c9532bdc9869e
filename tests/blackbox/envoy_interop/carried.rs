//! What goes through Envoy's tunnels beside plain requests: calls of gRPC and WebSockets, with clients and servers that others
//! wrote. Envoy takes a WebSocket only where its configuration says so, and then as an extended CONNECT.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::{Method, Request};
use serde_json::json;

use super::ends::{adit_initiator, adit_responder};
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response};
use crate::support::http2::Http2;
use crate::support::http3::{Http3, request, request_with, wait};
use crate::support::process::Program;
use crate::support::site::{Cloud, Folder, NODE, Responder, Running, TO_NODE};
use crate::support::targets::Target;
use crate::support::tools;

/// A program of `tests/foreign`; `None` when this test is skipped.
fn foreign(name: &str, arguments: &[&str]) -> Option<Command> {
    let mut program = Command::new(tools::python()?);
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name)).args(arguments);
    Some(program)
}

/// Starts the server of such a program, and says where it is.
async fn server(name: &str) -> Option<(Program, SocketAddr)> {
    let program = Program::spawn("a foreign server", foreign(name, &["server"])?);
    let port = program.line_with("port ").await.split_off("port ".len()).parse().unwrap();
    Some((program, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// Lets the client of such a program judge, which must succeed.
async fn judge(name: &str, arguments: &[&str]) {
    let mut client = foreign(name, &[&["client"], arguments].concat()).unwrap();
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// A target behind our initiator, and an Envoy that takes requests.
struct Out {
    envoy: EnvoyResponder,
    _adit: Running,
    _folder: Folder,
}

impl Out {
    async fn start(variant: Variant, target: &str) -> Option<Self> {
        let folder = Folder::new();
        let tls = variant.has_tls().then(|| Tls::responder(&folder, NODE));
        let options =
            ResponderOptions { tls, websockets: true, request_timeout: Some(Duration::ZERO), ..Default::default() };
        let envoy = EnvoyResponder::start(variant, options).await?;
        let edge = adit_initiator(variant, &folder).target(target);
        let adit = Running::start(folder.write("edge.yaml", &edge.text(&envoy.tunnel_address().to_string()))).await;
        envoy.registered(1).await;
        Some(Self { envoy, _adit: adit, _folder: folder })
    }
}

/// A target behind an Envoy, and our responder that takes requests, also over HTTP/3 where it has TLS.
struct In {
    adit: Responder,
    _envoy: EnvoyInitiator,
    folder: Folder,
}

impl In {
    async fn start(variant: Variant, target: SocketAddr, options: InitiatorOptions) -> Option<Self> {
        let folder = Folder::new();
        let adit = adit_responder(variant, &folder);
        Self::of((folder, &adit), variant, target, options).await
    }

    async fn http3(variant: Variant, target: SocketAddr, options: InitiatorOptions) -> Option<Self> {
        let folder = Folder::new();
        let adit = adit_responder(variant, &folder).egress("tls", "{ cert: cloud.pem, key: cloud.key }");
        Self::of((folder, &adit), variant, target, options).await
    }

    async fn of(
        (folder, adit): (Folder, &Cloud),
        variant: Variant,
        target: SocketAddr,
        options: InitiatorOptions,
    ) -> Option<Self> {
        let adit = adit.start(&folder).await;
        let tls = variant.has_tls().then(|| Tls::initiator(&folder, NODE));
        let options = InitiatorOptions { tls, request_timeout: Some(Duration::ZERO), ..options };
        let envoy = EnvoyInitiator::start(variant, adit.tunnel_address(), target, options).await?;
        envoy.connected(1).await;
        adit.registered(1).await;
        Some(Self { adit, _envoy: envoy, folder })
    }
}

const VARIANTS: [Variant; 2] = [Variant::Plaintext, Variant::InnerMtls];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_every_form_come_from_an_envoy_to_a_target_of_ours() {
    let Some((_server, target)) = server("calls.py").await else { return };
    for variant in VARIANTS {
        let Some(pair) = Out::start(variant, &format!("h2c://{target}")).await else { return };
        judge("calls.py", &[&pair.envoy.egress().to_string(), NODE.node, "envoy"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_every_form_come_from_us_to_a_target_of_an_envoy() {
    let Some((_server, target)) = server("calls.py").await else { return };
    for variant in VARIANTS {
        let options = InitiatorOptions { is_target_http2: true, ..InitiatorOptions::default() };
        let Some(pair) = In::start(variant, target, options).await else { return };
        judge("calls.py", &[&pair.adit.egress().to_string(), NODE.node]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_over_http_3_reaches_a_target_of_an_envoy_whole_and_so_does_its_cancellation() {
    for variant in VARIANTS {
        let target = Target::h2c().await;
        let options = InitiatorOptions { is_target_http2: true, ..InitiatorOptions::default() };
        let Some(pair) = In::http3(variant, target.address(), options).await else { return };
        let fields = json!([["x-node-id", NODE.node], ["te", "trailers"], ["trailer", "x-end"]]);
        let echo = json!({ "body": "hi", "fields": fields, "trailers": [["x-end", "7"]] });
        let mut steps = vec![
            request_with("large", "POST", "/echo", json!({ "size": 1_000_000 })),
            request("bytes", "GET", "/bytes/20000"),
            request_with("echo", "POST", "/echo", echo),
            request("missing", "GET", "/status/404"),
            request_with("nobody", "GET", "/", json!({ "fields": [["x-node-id", "nobody"]] })),
        ];
        steps.extend(["large", "bytes", "echo", "missing", "nobody"].map(wait));
        steps.extend([
            request("endless", "GET", "/chunks/100000/5"),
            json!({ "do": "head", "name": "endless" }),
            json!({ "do": "cancel", "name": "endless" }),
            json!({ "do": "mark" }),
        ]);
        let Some(client) = Http3::start(pair.adit.egress(), &pair.folder, steps) else { return };
        for (name, bytes) in [("large", 1_000_000), ("bytes", 20_000)] {
            let answer = client.answer(name).await;
            assert_eq!((answer.status(), answer.bytes()), (200, bytes), "{variant:?} {name}: {answer:?}");
            assert!(answer.is_whole() && answer.0["is_pattern"] == true, "{variant:?} {name}: {answer:?}");
        }
        let echo = client.answer("echo").await;
        assert_eq!((echo.text(), echo.trailer("x-end"), echo.is_whole()), ("hi", Some("7"), true), "{echo:?}");
        assert_eq!((client.answer("missing").await.status(), client.answer("nobody").await.status()), (404, 503));
        client.did_once("mark").await;
        eventually("the target hears of it", async || (target.cancelled() == 1).then_some(())).await;
    }
}

/// The client asks with an Upgrade, and then with an extended CONNECT.
async fn judge_websockets(egress: SocketAddr, extended: &str) {
    let port = egress.port().to_string();
    judge("websocket.py", &["127.0.0.1", &port, NODE.node]).await;
    judge("websocket.py", &["127.0.0.1", &port, NODE.node, extended]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_come_from_an_envoy_to_a_target_of_ours() {
    let Some((_server, target)) = server("websocket.py").await else { return };
    for variant in VARIANTS {
        let Some(pair) = Out::start(variant, &format!("http://{target}")).await else { return };
        judge_websockets(pair.envoy.egress(), "h2").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_come_from_us_to_a_target_of_an_envoy() {
    let Some((_server, target)) = server("websocket.py").await else { return };
    for variant in VARIANTS {
        let options = InitiatorOptions { websockets: true, ..InitiatorOptions::default() };
        let Some(pair) = In::start(variant, target, options).await else { return };
        judge_websockets(pair.adit.egress(), "envoy").await;
    }
}

// spec: EV-48, EV-49
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_does_not_switch_is_no_consent() {
    let target = Target::http1().await;
    let Some(pair) = Out::start(Variant::Plaintext, &format!("http://{}", target.address())).await else { return };
    assert_eq!(wish(pair.envoy.egress()).await.status(), 502, "Envoy would make 101 of 200");
    let options = InitiatorOptions { websockets: true, ..InitiatorOptions::default() };
    let Some(pair) = In::start(Variant::Plaintext, target.address(), options).await else { return };
    let answer = wish(pair.adit.egress()).await;
    // As the target has answered, but for the body: of an Upgrade that was declined Envoy passes none on.
    assert_eq!(answer.status(), 200, "{answer:?}");
    for of_consent in ["upgrade", "sec-websocket-accept", "adit-declined"] {
        assert_eq!(answer.field(of_consent), None, "{answer:?}");
    }
}

/// The answer to an Upgrade to WebSocket.
async fn wish(egress: SocketAddr) -> Response {
    let mut client = RawHttp::connect(egress).await.unwrap();
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13";
    let head = format!(
        "GET /bytes/3 HTTP/1.1\r\nhost: a\r\n{TO_NODE}\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n\r\n"
    );
    client.send(head.as_bytes()).await.unwrap();
    client.response().await.unwrap()
}

/// As an Envoy is without a word in its configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_takes_no_websockets_is_told_of_and_keeps_its_tunnel() {
    let Some((_server, target)) = server("websocket.py").await else { return };
    let Some(pair) = In::start(Variant::Plaintext, target, InitiatorOptions::default()).await else { return };
    let mut client = Http2::connect(pair.adit.egress()).await;
    let request = Request::builder().method(Method::CONNECT).uri("http://adit.test/echo");
    let request = request.header("x-node-id", NODE.node).header("sec-websocket-version", "13");
    let refused = client.get(request.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap()).await;
    let told = refused.headers()["proxy-status"].to_str().unwrap().to_owned();
    assert_eq!((refused.status().as_u16(), told.contains("error=http_upgrade_failed")), (501, true), "{told}");
    let tunnels = pair.adit.0.tunnels().await;
    assert_eq!((tunnels.accepted.len(), tunnels.accepted[0].health.as_str()), (1, "healthy"));
}
