//! What our responder answers to a handshake that is none: Envoy's checks in Envoy's order, each answer whole and without
//! a body, then the end of the connection.

use crate::envoy_interop::raw::{ACCEPTED, Wire, head, request};
use crate::support::site::{Cloud, Folder, NODE, Responder};

const NODE_ID: &str = "x-envoy-reverse-tunnel-node-id: edge-1";
const CLUSTER_ID: &str = "x-envoy-reverse-tunnel-cluster-id: stores";
const TENANT_ID: &str = "x-envoy-reverse-tunnel-tenant-id: acme";
const EMPTY_TENANT: &str = "x-envoy-reverse-tunnel-tenant-id:";
const UPSTREAM: &str = "x-envoy-reverse-tunnel-upstream-cluster-name";

/// A responder of ours that takes anybody in clear; `envoy` are further settings, each after a comma.
pub(super) async fn open_to_all(folder: &Folder, envoy: &str) -> Responder {
    open_cloud(envoy).start(folder).await
}

/// The file of such a responder.
pub(super) fn open_cloud(envoy: &str) -> Cloud {
    let envoy = format!("{{ security: none{envoy} }}");
    Cloud::new().without_identity().responder("insecure_accept_any", "true").responder("envoy", &envoy)
}

/// The whole answer, and the end of the connection after it.
async fn answer(responder: &Responder, request: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    wire.send(request).await;
    String::from_utf8(wire.rest().await).unwrap()
}

/// Asserts a status, a reason, an empty body and a close.
async fn rejected(responder: &Responder, request: impl AsRef<[u8]>, status: u16, reason: &str) {
    let shown = String::from_utf8_lossy(request.as_ref()).chars().take(200).collect::<String>();
    let answer = answer(responder, request).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}\nto {shown}");
    assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "nothing follows the head: {answer}");
    assert_eq!(answer.matches("\r\n\r\n").count(), 1, "{answer}");
    let said = answer.lines().find_map(|line| line.strip_prefix("x-adit-reason: "));
    assert!(said.is_some_and(|said| said.starts_with(reason)), "{reason:?} in {answer}\nto {shown}");
}

// spec: EV-10, EV-11, EV-12, EV-13, EV-14, EV-18
#[tokio::test]
async fn every_row_of_the_table_is_answered_with_its_status_and_reason() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, "").await;
    let good = request(NODE);
    let with = |field: &str| head(&[NODE_ID, CLUSTER_ID, TENANT_ID, field]);
    let no_body = "Reverse tunnel handshake must not carry a body";
    let rows: [(String, u16, &str); 18] = [
        ("\u{1}not http".into(), 400, "Bad Request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 400, "Bad Request"),
        (format!("{}\n", good.replace("\r\n", "\n")), 400, "Bad Request"),
        (with(&format!("x: {}", "y".repeat(61_440))), 431, "Request Header Fields Too Large"),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426, "Upgrade Required"),
        (with("content-length: 1\r\ncontent-length: 2"), 400, "Bad Request"),
        (with("content-length: 2") + "hi", 400, no_body),
        (with("transfer-encoding: chunked") + "2\r\nhi\r\n0\r\n\r\n", 400, no_body),
        (good.replace("GET", "POST"), 404, "Not a reverse tunnel request"),
        (good.replace("/request", "/request?a=b"), 404, "Not a reverse tunnel request"),
        (head(&[CLUSTER_ID, TENANT_ID]), 400, "Missing required reverse tunnel headers"),
        (head(&[NODE_ID, CLUSTER_ID, EMPTY_TENANT]), 400, "Empty tenant-id header value"),
        (good.replace("edge-1", "edge:1"), 400, "Reverse tunnel identifiers must not contain ':'"),
        (with(&format!("{NODE_ID}2")), 400, "Contradictory values of x-envoy-reverse-tunnel-node-id"),
        (good.replace("edge-1", ""), 400, "The node id"),
        (good.replace("stores", "st ores"), 400, "The cluster id"),
        (good.replace("edge-1", "edge@1"), 400, "The node id"),
        (good.replace("edge-1", &"x".repeat(129)), 400, "The node id"),
    ];
    for (request, status, reason) in rows {
        rejected(&responder, request, status, reason).await;
    }
    let metric =
        async |result| responder.0.metric(&format!("adit_envoy_handshakes_total{{result=\"{result}\"}}")).await;
    assert_eq!([metric("body_rejected").await, metric("parse_error").await, metric("accepted").await], [2, 8, 0]);
    assert!(responder.0.tunnels().await.accepted.is_empty());
}

// spec: EV-11
#[tokio::test]
async fn of_two_rows_the_first_is_answered() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", required_cluster: cloud").await;
    let missing = head(&[]);
    for (request, status, reason) in [
        // A body, an unknown path, no ids.
        (
            head(&["content-length: 1"]).replace("/request", "/other"),
            400,
            "Reverse tunnel handshake must not carry a body",
        ),
        // An unknown path, no ids.
        (missing.replace("/request", "/other"), 404, "Not a reverse tunnel request"),
        // No ids, no name of the responder.
        (missing, 400, "Missing required reverse tunnel headers"),
        // An empty tenant, a colon.
        (head(&["x-envoy-reverse-tunnel-node-id: a:b", CLUSTER_ID, EMPTY_TENANT]), 400, "Empty tenant-id header value"),
        // A colon, no name of the responder.
        (
            head(&["x-envoy-reverse-tunnel-node-id: a:b", CLUSTER_ID, TENANT_ID]),
            400,
            "Reverse tunnel identifiers must not",
        ),
        // Another name of the responder, an id that cannot be.
        (
            head(&["x-envoy-reverse-tunnel-node-id: a@b", CLUSTER_ID, TENANT_ID, &format!("{UPSTREAM}: other")]),
            400,
            "Cluster name mismatch",
        ),
    ] {
        rejected(&responder, request, status, reason).await;
    }
}

// spec: EV-11
#[tokio::test]
async fn the_responder_may_demand_its_name_and_another_path() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", required_cluster: cloud, path: /tunnels").await;
    let path = |request: String| request.replace("/reverse_connections/request", "/tunnels");
    let named = |name: &str| path(head(&[NODE_ID, CLUSTER_ID, TENANT_ID, &format!("{UPSTREAM}: {name}")]));
    rejected(&responder, request(NODE), 404, "Not a reverse tunnel request").await;
    rejected(&responder, path(request(NODE)), 400, "Missing upstream cluster name header").await;
    rejected(&responder, named("sky"), 400, "Cluster name mismatch").await;
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    wire.send(named("cloud")).await;
    assert!(wire.read().await.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let failed = responder.0.metric("adit_envoy_handshakes_total{result=\"validation_failed\"}").await;
    assert_eq!(failed, 1);
}

// spec: EV-2, EV-11, EV-15
#[tokio::test]
async fn in_upgrade_mode_101_answers_a_request_for_it_and_426_another() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", upgrade: true").await;
    rejected(&responder, request(NODE), 426, "Upgrade: reverse-tunnel required").await;
    assert!(answer(&responder, request(NODE)).await.contains("\r\nupgrade: reverse-tunnel\r\n"));
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    wire.send(head(&[NODE_ID, CLUSTER_ID, TENANT_ID, "connection: Upgrade", "upgrade: Reverse-Tunnel"])).await;
    let expected = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: reverse-tunnel\r\n\r\n";
    assert_eq!(String::from_utf8(wire.exactly(expected.len()).await).unwrap(), expected);
    wire.echo(1).await;
    responder.registered(1).await;
}

// spec: EV-10
#[tokio::test]
async fn a_request_in_pieces_with_odd_fields_is_taken() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, "").await;
    let odd = [
        "X-ENVOY-REVERSE-TUNNEL-TENANT-ID: acme",
        CLUSTER_ID,
        NODE_ID,
        NODE_ID,
        "x-envoy-reverse-tunnel-initiation-time: soon",
        "transfer-encoding: chunked",
    ];
    let request = (head(&odd) + "0\r\n\r\n").replace("host: x\r\n", "");
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    for piece in request.as_bytes().chunks(7) {
        wire.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.exactly(ACCEPTED.len()).await, ACCEPTED);
}

// spec: EV-16
#[tokio::test]
async fn a_request_that_does_not_come_ends_in_silence() {
    let folder = Folder::new();
    let cloud = open_cloud("").responder("handshake_timeout", "1s");
    let responder = cloud.start(&folder).await;
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    wire.send(&request(NODE)[..40]).await;
    assert!(wire.rest().await.is_empty(), "no answer");
    assert_eq!(responder.0.metric("adit_envoy_handshakes_total{result=\"timeout\"}").await, 1);
    responder.0.line_with("no reverse tunnel request within").await;
}
