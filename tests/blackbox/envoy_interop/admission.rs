//! Which Envoys our responder admits, by certificate or token, and what the others are told.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::envoy_interop::ends::adit_responder;
use crate::envoy_interop::envoy_alone::{OTHER, attentive, status};
use crate::envoy_interop::raw::{ACCEPTED, Wire, request};
use crate::envoy_interop::rejections::{open_cloud, open_to_all};
use crate::reload::trigger::rewrite;
use crate::support::certificates::{Node, RESPONDER_NAME};
use crate::support::envoy::{EnvoyInitiator, InitiatorOptions, Tls, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::site::{Cloud, Folder, NODE, Responder, TO_NODE};
use crate::support::targets::Target;

const TO_OTHER: &str = "x-node-id: edge-2";

/// Starts an Envoy whose certificate proves `proof`.
async fn envoy(
    responder: &Responder,
    target: &Target,
    folder: &Folder,
    claim: Node<'static>,
) -> Option<EnvoyInitiator> {
    let options = InitiatorOptions { claim, tls: Some(Tls::initiator(folder, NODE)), ..attentive() };
    EnvoyInitiator::start(Variant::Mtls, responder.tunnel_address(), target.address(), options).await
}

/// Starts an Envoy in clear.
async fn in_clear(responder: &Responder, target: &Target, options: InitiatorOptions) -> Option<EnvoyInitiator> {
    EnvoyInitiator::start(Variant::Plaintext, responder.tunnel_address(), target.address(), options).await
}

/// How many handshakes of this Envoy failed for this reason.
async fn failures(envoy: &EnvoyInitiator, reason: &str) -> u64 {
    envoy
        .stat(&format!("tunnels.handshake.worker.worker_0.cluster.responder.result.failed.failure_reason.{reason}"))
        .await
}

async fn fails(envoy: &EnvoyInitiator, reason: &str) {
    eventually(&format!("a failure {reason}"), async || (failures(envoy, reason).await > 0).then_some(())).await;
}

async fn counted(responder: &Responder, result: &str) -> u64 {
    responder.0.metric(&format!("adit_envoy_handshakes_total{{result=\"{result}\"}}")).await
}

/// TLS as an Envoy speaks it, without ALPN.
async fn tls(responder: &Responder, folder: &Folder, proof: Option<Node<'_>>) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(adit::tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(folder.authority.roots());
    let config = match proof {
        Some(node) => {
            let shown = folder.authority.node(node);
            config.with_client_auth_cert(shown.chain(), shown.private_key()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(responder.tunnel_address()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(RESPONDER_NAME).unwrap(), stream).await
}

// spec: EV-17, EV-18
#[tokio::test]
async fn a_claim_that_the_certificate_does_not_prove_is_403() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = adit_responder(Variant::Mtls, &folder).start(&folder).await;
    let Some(honest) = envoy(&responder, &target, &folder, NODE).await else { return };
    responder.registered(1).await;
    let liar = envoy(&responder, &target, &folder, OTHER).await.unwrap();
    fails(&liar, "http.403").await;
    assert!(counted(&responder, "validation_failed").await > 0);
    assert_eq!(counted(&responder, "accepted").await, 1);
    assert_eq!(status(responder.egress(), TO_OTHER).await, 503);
    honest.connected(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let line = responder.0.line_with("no tunnel").await;
    assert!(line["reason"].as_str().unwrap().contains("does not prove"), "{line}");
}

/// Where the victim is an Envoy of itself, Envoy hands over its requests: see `envoy_weak.rs`.
// spec: EV-17
#[tokio::test]
async fn a_cluster_named_after_a_live_node_is_409_and_its_requests_stay_where_they_were() {
    let (folder, target, elsewhere) = (Folder::new(), Target::http1().await, Target::http1().await);
    let responder = open_to_all(&folder, "").await;
    let Some(_victim) = in_clear(&responder, &target, attentive()).await else { return };
    responder.registered(1).await;
    let claim = Node { cluster: NODE.node, ..OTHER };
    let attacker = in_clear(&responder, &elsewhere, InitiatorOptions { claim, ..attentive() }).await.unwrap();
    fails(&attacker, "http.409").await;
    for _ in 0..10 {
        assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    }
    assert_eq!((target.requests().len(), elsewhere.requests().len()), (10, 0));
    assert_eq!(attacker.tunnels().await, 0);
}

// spec: EV-14, EV-17
#[tokio::test]
async fn one_tunnel_too_many_is_429_and_envoy_waits_as_long_as_it_is_told() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let cloud = open_cloud("").responder("quotas", "{ tunnels_per_node: 1 }");
    let responder = cloud.start(&folder).await;
    let patient = InitiatorOptions { max_reconnect_backoff: None, tunnels: 2, ..attentive() };
    let Some(envoy) = in_clear(&responder, &target, patient).await else { return };
    fails(&envoy, "http.429").await;
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    wire.send(request(NODE)).await;
    let answer = wire.head().await;
    assert!(answer.starts_with("http/1.1 429 "), "{answer}");
    let told = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!(told.parse::<u64>().unwrap() >= 3, "longer than this test looks: {told}");
    // Its own backoff would be over after 1.15 s.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(failures(&envoy, "http.429").await, 1);
    assert_eq!(counted(&responder, "rejected").await, 2);
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
}

// spec: EV-14, EV-17
#[tokio::test]
async fn a_responder_that_drains_says_503_and_when_to_come_back() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, "").await;
    let Some(_envoy) = in_clear(&responder, &target, attentive()).await else { return };
    responder.registered(1).await;
    let mut client = RawHttp::connect(responder.egress()).await.unwrap();
    client.send(format!("GET /held HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    responder.0.terminate();
    responder.0.line_with("draining: no new tunnels").await;
    let mut late = Wire::connect(responder.tunnel_address()).await;
    late.send(request(OTHER)).await;
    let answer = String::from_utf8(late.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    target.release();
    let (body, _) = client.body(&head).await.unwrap();
    assert_eq!(body, b"begun\nended\n", "what runs is finished");
}

// spec: EV-19
#[tokio::test]
async fn a_token_in_a_header_of_envoy_admits_its_node_and_no_other_token_does() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = listed("security: none").start(&folder).await;
    let with = |token: &str| {
        let additional_headers = vec![("authorization", format!("Bearer {token}"))];
        InitiatorOptions { additional_headers, ..attentive() }
    };
    let Some(guesser) = in_clear(&responder, &target, with("0123456789abcdef-guessed")).await else { return };
    fails(&guesser, "http.401").await;
    assert!(counted(&responder, "jwt_denied").await > 0);
    let _envoy = in_clear(&responder, &target, with("0123456789abcdef-secret")).await.unwrap();
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let other = InitiatorOptions { claim: OTHER, ..with("0123456789abcdef-secret") };
    let other = in_clear(&responder, &target, other).await.unwrap();
    eventually("a refusal", async || {
        (failures(&other, "http.403").await + failures(&other, "http.401").await > 0).then_some(())
    })
    .await;
    assert!(!responder.0.log().contains("0123456789abcdef"), "a token was logged");
}

/// A responder that knows [`NODE`] by its token alone.
fn listed(envoy: &str) -> Cloud {
    let node = format!(
        "[{{ node: {}, cluster: {}, tenant: {}, token: 0123456789abcdef-secret }}]",
        NODE.node, NODE.cluster, NODE.tenant
    );
    let tls = "{ cert: cloud.pem, key: cloud.key }";
    let cloud = Cloud::new().without_identity().responder("tls", tls).responder("nodes", &node);
    cloud.responder("envoy", &format!("{{ {envoy} }}"))
}

// spec: EV-17
#[tokio::test]
async fn without_a_certificate_tls_itself_refuses_and_without_a_token_it_is_401() {
    let folder = Folder::new();
    let (by_name, by_token) = (adit_responder(Variant::Mtls, &folder), listed("security: handshake_tls"));
    let by_name = by_name.start(&folder).await;
    let refused = async {
        let mut stream = RawHttp::over(tls(&by_name, &folder, None).await?);
        stream.send(request(NODE).as_bytes()).await?;
        stream.head().await
    };
    let error = refused.await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    drop(by_name);

    let by_token = by_token.start(&folder).await;
    let mut stream = RawHttp::over(tls(&by_token, &folder, None).await.unwrap());
    stream.send(request(NODE).as_bytes()).await.unwrap();
    assert_eq!(stream.head().await.unwrap().status, 401);
    assert_eq!(counted(&by_token, "jwt_denied").await, 1);
}

// spec: EV-41
#[tokio::test]
async fn nothing_less_and_nothing_more_than_its_security_is_taken() {
    let folder = Folder::new();
    let secure = adit_responder(Variant::InnerMtls, &folder).start(&folder).await;
    let mut wire = Wire::connect(secure.tunnel_address()).await;
    wire.send(request(NODE)).await;
    assert_eq!(String::from_utf8(wire.rest().await).unwrap(), "", "closed without a word in clear");
    secure.0.line_with("expected TLS").await;

    let clear = open_to_all(&folder, "").await;
    let refused = async {
        let mut stream = RawHttp::over(tls(&clear, &folder, Some(NODE)).await?);
        stream.send(request(NODE).as_bytes()).await?;
        stream.head().await
    };
    refused.await.unwrap_err();
    clear.0.line_with("does not offer the ALPN adit/1").await;
    let mut wire = Wire::connect(clear.tunnel_address()).await;
    wire.send(request(NODE)).await;
    assert_eq!(wire.exactly(ACCEPTED.len()).await, ACCEPTED);
    assert_eq!(clear.0.line_with("travel in clear").await["level"], "WARN");
}

// spec: EV-1, EV-2
#[tokio::test]
async fn an_envoy_may_upgrade_on_another_path_and_name_its_responder() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, ", upgrade: true, path: /tunnels, required_cluster: responder").await;
    let usual = InitiatorOptions { use_http_upgrade: true, ..attentive() };
    let Some(lost) = in_clear(&responder, &target, usual.clone()).await else { return };
    fails(&lost, "http.404").await;
    let request_path = Some("/tunnels");
    let plain = InitiatorOptions { request_path, ..attentive() };
    fails(&in_clear(&responder, &target, plain).await.unwrap(), "http.426").await;
    let right = InitiatorOptions { request_path, ..usual };
    let _envoy = in_clear(&responder, &target, right).await.unwrap();
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
}

// spec: EV-50
#[tokio::test]
async fn tunnels_that_other_settings_would_not_accept_end_when_these_are_put_in_force() {
    let folder = Folder::new();
    let names = "x-envoy-reverse-tunnel-upstream-cluster-name: cloud\r\n\r\n";
    let named = request(NODE).replacen("\r\n\r\n", &format!("\r\n{names}"), 1);
    for (more, asked, stays) in [
        (", required_cluster: cloud", &named, true),
        (", required_cluster: cloud", &request(NODE), false),
        (", path: /elsewhere", &named, false),
        (", upgrade: true", &named, false),
        (", security: inner_tls", &named, false),
    ] {
        let responder = open_to_all(&folder, "").await;
        let mut wire = Wire::connect(responder.tunnel_address()).await;
        wire.send(asked).await;
        assert_eq!(wire.exactly(ACCEPTED.len()).await, ACCEPTED);
        let tunnel = responder.registered(1).await.accepted.remove(0).id;
        let stricter = open_cloud(more).text().replace("security: none, security", "security");
        rewrite(&responder.0, &stricter).await.changes();
        let others = open_cloud(more).egress("hold", "1s").text().replace("security: none, security", "security");
        if stays {
            rewrite(&responder.0, &others).await.changes();
            assert_eq!(responder.registered(1).await.accepted[0].id, tunnel, "{more}");
        } else {
            responder.registered(0).await;
            let line = responder.0.line_with("tunnel down").await;
            assert_eq!(line["code"], "revoked", "{more}: {line}");
        }
    }
}
