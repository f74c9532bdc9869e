//! An initiator that shares no code with us and was written from `proto-spec/` alone (`tests/foreign/`) works with the
//! real responder.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::certificates::{Authority, Certificate, Node};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::process::Adit;
use crate::support::site::{Cloud, Folder, NODE, Responder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::pattern;
use crate::support::tools;

/// The program, ready for its arguments; `None` when this test is skipped.
fn program() -> Option<Command> {
    let mut program = Command::new(tools::python()?);
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/initiator.py"));
    Some(program)
}

/// A responder and the foreign initiator, which claims to be [`NODE`].
struct Pair {
    responder: Responder,
    initiator: Adit,
    folder: Folder,
}

impl Pair {
    /// Shows a certificate that proves the claim, and is admitted.
    async fn start(transport: Transport) -> Option<Self> {
        let pair = Self::dial(transport, |authority| authority.node(NODE)).await?;
        let report = pair.responder.registered(1).await;
        assert_eq!(report.accepted[0].transport, transport.label());
        Some(pair)
    }

    /// Shows this certificate.
    async fn dial(transport: Transport, shown: impl FnOnce(&Authority) -> Certificate) -> Option<Self> {
        Self::dial_to(&Cloud::new(), transport, shown).await
    }

    /// The same, of this responder.
    async fn dial_to(
        cloud: &Cloud,
        transport: Transport,
        shown: impl FnOnce(&Authority) -> Certificate,
    ) -> Option<Self> {
        let folder = Folder::new();
        let responder = cloud.start(&folder).await;
        shown(&folder.authority).write(folder.path(), "foreign");
        let initiator = Self::spawn(transport, &folder, &responder)?;
        Some(Self { responder, initiator, folder })
    }

    /// One that shows the certificate which is in the folder.
    fn spawn(transport: Transport, folder: &Folder, responder: &Responder) -> Option<Adit> {
        let mut program = program()?;
        program.args(["--transport", transport.label(), "--address", &responder.tunnel_address().to_string()]);
        program.args(["--tenant", NODE.tenant, "--cluster", NODE.cluster, "--node", NODE.node]);
        for (option, file) in [("--ca", "ca.pem"), ("--cert", "foreign.pem"), ("--key", "foreign.key")] {
            program.arg(option).arg(folder.path().join(file));
        }
        Some(Adit::spawn(program))
    }

    async fn connect(&self) -> RawHttp<tokio::net::TcpStream> {
        RawHttp::connect(self.responder.egress()).await.unwrap()
    }

    /// What the initiator prints about this event, the first time.
    async fn said(&self, event: &str) -> Value {
        let line = self.initiator.line_with(&format!("\"event\": \"{event}\"")).await;
        serde_json::from_str(&line).unwrap()
    }

    /// Waits until the initiator was asked for `path`.
    async fn arrived(&self, path: &str) {
        self.initiator.line_with(&format!("\"path\": \"{path}\"")).await;
    }

    /// Waits for the end of the initiator, which printed this close code.
    async fn ends_with(&mut self, code: &str, success: bool) {
        assert_eq!(self.said("closed").await["code"], code);
        assert_eq!(self.initiator.exit().await.success(), success);
    }
}

/// A request for [`NODE`] with these further fields, without a body.
fn request(line: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line} HTTP/1.1\r\nhost: shop.example\r\n{TO_NODE}\r\n{fields}\r\n")
}

#[tokio::test]
async fn it_agrees_with_every_vector() {
    let Some(mut program) = program() else { return };
    let output = program.args(["--selftest", "proto-spec/vectors"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

over_each_transport! {
    requests_come_back_as_it_answers_them,
    a_large_body_comes_back_whole,
    an_answer_that_it_cuts_is_cut_for_the_client,
    a_client_that_leaves_is_cancelled_there,
    a_false_claim_is_refused_with_number_and_reason,
    a_certificate_rejected_in_tls_looks_like_a_refusal,
    a_drain_of_the_responder_lets_what_runs_finish,
    a_drain_of_the_initiator_lets_what_runs_finish,
    another_process_in_its_place_closes_it_as_superseded,
    it_is_told_who_is_in_the_fleet_of_its_responder,
    one_that_hangs_is_suspect_until_it_goes_on,
}

/// spec: CT-62, HS-26
async fn it_is_told_who_is_in_the_fleet_of_its_responder(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let member = |id: &str| Cloud::new().process("fleet", &format!("{{ etcd: {:?}, id: {id} }}", etcd.url()));
    let Some(pair) = Pair::dial_to(&member("a"), transport, |authority| authority.node(NODE)).await else { return };
    pair.responder.registered(1).await;
    let _sibling = member("b").start(&Folder::new()).await;
    pair.initiator.line_with("\"responders\": [\"a\", \"b\"]").await;
    let plain = get(pair.responder.egress(), "/still", &[TO_NODE]).await.unwrap();
    assert_eq!((plain.status(), plain.text()), (200, "GET /still\n".to_owned()));
}

async fn requests_come_back_as_it_answers_them(transport: Transport) {
    let Some(pair) = Pair::start(transport).await else { return };
    let plain = get(pair.responder.egress(), "/a?b=c", &[TO_NODE]).await.unwrap();
    assert_eq!((plain.status(), plain.text()), (200, "GET /a?b=c\n".to_owned()));
    assert_eq!(plain.field("content-type"), Some("text/plain"));

    let mut client = pair.connect().await;
    client.send(request("GET /info", &[]).as_bytes()).await.unwrap();
    let early = client.response().await.unwrap();
    assert_eq!(early.interim.iter().map(|head| head.status).collect::<Vec<_>>(), [103]);
    assert_eq!(early.interim[0].field("link"), Some("</style.css>; rel=preload"));
    assert_eq!(early.text(), "GET /info\n");

    client.send(request("GET /trailers", &["te: trailers"]).as_bytes()).await.unwrap();
    let trailers = client.response().await.unwrap().trailers;
    assert_eq!(trailers, [("x-echo".into(), "done".into()), ("grpc-status".into(), "0".into())]);
}

async fn a_large_body_comes_back_whole(transport: Transport) {
    let Some(pair) = Pair::start(transport).await else { return };
    let body = pattern(0, 1 << 20);
    let head = request("POST /echo", &[&format!("content-length: {}", body.len())]);
    let mut client = pair.connect().await;
    client.send(&[head.as_bytes(), &body].concat()).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!(response.body, [b"POST /echo\n", &body[..]].concat());
}

async fn an_answer_that_it_cuts_is_cut_for_the_client(transport: Transport) {
    let Some(pair) = Pair::start(transport).await else { return };
    let mut client = pair.connect().await;
    client.send(request("GET /cut", &[]).as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.field("content-length")), (200, Some("1000")));
    assert!(client.body(&head).await.is_err());
    assert_eq!(pair.responder.registered(1).await.accepted.len(), 1, "the tunnel is well");
}

async fn a_client_that_leaves_is_cancelled_there(transport: Transport) {
    let Some(pair) = Pair::start(transport).await else { return };
    let mut client = pair.connect().await;
    client.send(request("GET /hang", &[]).as_bytes()).await.unwrap();
    pair.arrived("/hang").await;
    drop(client);
    let cancelled = pair.said("cancelled").await;
    assert_eq!((&cancelled["code"], &cancelled["path"]), (&"cancelled".into(), &"/hang".into()));
}

async fn a_false_claim_is_refused_with_number_and_reason(transport: Transport) {
    let other = Node { node: "edge-2", ..NODE };
    let Some(mut pair) = Pair::dial(transport, |authority| authority.node(other)).await else { return };
    let refused = pair.said("refuse").await;
    assert_eq!(refused["number"], 403);
    assert!(!refused["reason"].as_str().unwrap().is_empty());
    pair.ends_with("refused", false).await;
}

async fn a_certificate_rejected_in_tls_looks_like_a_refusal(transport: Transport) {
    let Some(mut pair) = Pair::dial(transport, |_| Authority::new("somebody else").node(NODE)).await else { return };
    assert_eq!(pair.said("refuse").await["number"], 401);
    assert!(!pair.initiator.exit().await.success());
}

async fn a_drain_of_the_responder_lets_what_runs_finish(transport: Transport) {
    let Some(mut pair) = Pair::start(transport).await else { return };
    let mut client = pair.connect().await;
    client.send(request("GET /later", &[]).as_bytes()).await.unwrap();
    pair.arrived("/later").await;
    pair.responder.0.terminate();
    pair.said("drain").await;
    assert_eq!(client.response().await.unwrap().text(), "GET /later\n");
    pair.said("drained").await;
    pair.ends_with("done", true).await;
}

async fn a_drain_of_the_initiator_lets_what_runs_finish(transport: Transport) {
    let Some(mut pair) = Pair::start(transport).await else { return };
    let mut client = pair.connect().await;
    client.send(request("GET /later", &[]).as_bytes()).await.unwrap();
    pair.arrived("/later").await;
    pair.initiator.terminate();
    assert_eq!(client.response().await.unwrap().text(), "GET /later\n");
    pair.said("drained").await;
    pair.ends_with("done", true).await;
    let gone = async || pair.responder.0.tunnels().await.accepted.is_empty().then_some(());
    eventually("the tunnel to be gone", gone).await;
}

async fn another_process_in_its_place_closes_it_as_superseded(transport: Transport) {
    let Some(mut pair) = Pair::start(transport).await else { return };
    let Some(second) = Pair::spawn(transport, &pair.folder, &pair.responder) else { return };
    second.line_with("\"event\": \"welcome\"").await;
    pair.ends_with("superseded", false).await;
    let gone = async || (pair.responder.0.tunnels().await.accepted.len() == 1).then_some(());
    eventually("only the second to be there", gone).await;
    assert_eq!(get(pair.responder.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
}

/// An interpreter that is frozen answers no PING.
async fn one_that_hangs_is_suspect_until_it_goes_on(transport: Transport) {
    let Some(mut pair) = Pair::start(transport).await else { return };
    pair.initiator.freeze();
    let suspect = async || (pair.responder.0.tunnels().await.accepted[0].health == "suspect").then_some(());
    eventually("it is suspect", suspect).await;
    pair.initiator.thaw();
    let healthy = async || (pair.responder.0.tunnels().await.accepted[0].health == "healthy").then_some(());
    eventually("it is healthy", healthy).await;
    pair.initiator.terminate();
    pair.ends_with("done", true).await;
}
