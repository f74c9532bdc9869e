//! One hop, by what the file says: a request on one responder for a node of the other, found in a real etcd.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use adit::admin::FleetReport;
use http::Method;
use serde_json::Value;

use crate::fleet::world::{answers, has, names, of, sees, start};
use crate::hop::world::{certificate_lasting, certificate_of};
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, get};
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, TO_NODE, Transport, over_each_transport};
use crate::support::targets::{Target, pattern};

over_each_transport!(
    a_node_of_the_other_responder_is_reached_until_that_dies,
    what_a_node_answers_through_a_sibling_is_charged_to_it,
);

const LONG: &str = "300s";

/// A section of the file with a hop on a free port, and the certificate that it names.
pub(super) fn section(etcd: &Etcd, folder: &Folder, id: &str, lease: &str) -> String {
    certificate_of(&folder.authority, &format!("spiffe://example.org/responder/{id}"))
        .write(folder.path(), &format!("hop-{id}"));
    let hop = format!(
        "{{ listen: \"127.0.0.1:0\", identity: \"spiffe://example.org/responder/{{responder}}\", \
         tls: {{ cert: hop-{id}.pem, key: hop-{id}.key, ca: ca.pem }} }}"
    );
    // Where nobody is: initiators stay at the responder that they dial.
    let initiators = format!("initiators_at: \"{id}.example:7843\"");
    format!("{{ etcd: {:?}, id: {id}, lease: {lease}, {initiators}, hop: {hop} }}", etcd.url())
}

async fn two(etcd: &Etcd, folder: &Folder, lease: &str) -> (Responder, Responder) {
    let file = |id: &str| Cloud::new().process("fleet", &section(etcd, folder, id, lease));
    let (a, b) = (start(folder, "a", &file("a")).await, start(folder, "b", &file("b")).await);
    for responder in [&a, &b] {
        sees(responder, "both", |report| names(report) == ["a", "b"]).await;
    }
    (a, b)
}

/// Where the directory says that this one takes its siblings.
fn place(report: &FleetReport, id: &str) -> SocketAddr {
    of(report, id).unwrap().siblings_at[0].parse().unwrap()
}

/// spec: FL-9, FL-25, FL-32, FL-50
async fn a_node_of_the_other_responder_is_reached_until_that_dies(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    // It ends before who is dead is suspect.
    let (a, b) = two(&etcd, &folder, "3s").await;
    let edge = Edge::new(transport).target(&format!("http://{}", target.address()));
    let _edge = edge.start(&folder, b.tunnel_address()).await;
    let report = sees(&a, "the tunnel of b", |report| has(report, "b", 1)).await;
    assert_ne!(place(&report, "b").port(), 0, "the real port is told");
    answers(&a, TO_NODE).await;
    let through = async || a.0.metric("adit_fleet_hops_total{result=\"through\"}").await;
    let before = through().await;
    let response = get(a.egress(), "/", &[TO_NODE]).await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (200, "hello\n"));
    let sent = "sent through a sibling";
    let mut client = RawHttp::connect(a.egress()).await.unwrap();
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ncontent-length: {}\r\n\r\n", sent.len());
    client.send(format!("{head}{sent}").as_bytes()).await.unwrap();
    let response = client.response().await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (200, sent));
    assert_eq!(through().await, before + 2);
    assert_eq!(a.0.tunnels().await.accepted.len(), 0, "the node has no tunnel there");
    is_recorded(&a).await;
    b.0.kill();
    sees(&a, "nothing of b", |report| names(report) == ["a"]).await;
    // Regression: it went to the dead one, and was 502 after half a minute.
    let response = get(a.egress(), "/", &[TO_NODE]).await.unwrap();
    assert_eq!(response.status(), 503, "{}", response.text());
}

/// Regression: it was on nobody's account; what went to the node was.
async fn what_a_node_answers_through_a_sibling_is_charged_to_it(transport: Transport) {
    const LENGTH: u64 = 200 << 10;
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let file = |id: &str| {
        let cloud = Cloud::new().process("fleet", &section(&etcd, &folder, id, LONG)).egress("connect", "true");
        cloud.responder("shares", "{ per_node: { bytes: 128KiB } }")
    };
    let (a, b) = (start(&folder, "a", &file("a")).await, start(&folder, "b", &file("b")).await);
    let http = format!("http://{}", target.address());
    let bytes = format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address());
    let edge =
        Edge::new(transport).target(&http).service("{ name: web, match: {}, target: \"{target}\" }").service(&bytes);
    let _edge = edge.start(&folder, b.tunnel_address()).await;
    sees(&a, "the tunnel of b", |report| has(report, "b", 1)).await;
    let waited = async || b.0.metric("adit_shares_waited_total{of=\"node\",cause=\"bytes\"}").await;
    answers(&a, TO_NODE).await;
    let path = format!("/bytes/{LENGTH}");
    let response = get(a.egress(), &path, &[TO_NODE]).await.unwrap();
    assert!(response.body == pattern(0, LENGTH), "whole");
    let of_answers = waited().await;
    assert!(of_answers > 0, "an answer");
    let mut client = RawHttp::connect(a.egress()).await.unwrap();
    let connect = format!("CONNECT bytes:1 HTTP/1.1\r\nhost: bytes:1\r\n{TO_NODE}\r\n\r\n");
    client.send(connect.as_bytes()).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let response = client.response().await.unwrap();
    assert!(response.body == pattern(0, LENGTH), "whole");
    assert!(waited().await > of_answers, "bytes of a raw stream");
}

/// Regression: the record said that the cluster of a node at a sibling is called as the node.
async fn is_recorded(a: &Responder) {
    let record = async |path: &str| {
        let of_it = |line: &&Value| line["path"] == path && line["sibling"] == "b";
        let find = async || a.0.lines_of("exchange").iter().find(of_it).cloned();
        eventually(&format!("the record of {path}"), find).await
    };
    let by_node = record("/").await;
    assert_eq!((&by_node["node"], &by_node["cluster"]), (&Value::from("edge-1"), &Value::from("stores")));
    assert_eq!(get(a.egress(), "/by-cluster", &["x-cluster-id: stores"]).await.unwrap().status(), 200);
    let by_cluster = record("/by-cluster").await;
    assert_eq!((&by_cluster["host_id"], by_cluster.get("node")), (&Value::from("stores"), None), "{by_cluster}");
}

#[tokio::test]
async fn a_hop_begins_and_ends_with_a_reload_of_the_fleet_and_only_its_certificates_change() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (a, b) = two(&etcd, &folder, LONG).await;
    let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
    let _edge = edge.start(&folder, b.tunnel_address()).await;
    let reaches = async |status: u16| {
        eventually(&format!("a answers {status}"), async || {
            let answer = get(a.egress(), "/", &[TO_NODE]).await.unwrap();
            (answer.status() == status).then_some(())
        })
        .await;
    };
    reaches(200).await;
    let reload = async |fleet: &str| {
        folder.write("a.yaml", &Cloud::new().process("fleet", fleet).text());
        a.0.ask(Method::POST, "/reload").await
    };
    let whole = section(&etcd, &folder, "a", LONG);
    let (status, why) = reload(&whole.replace("127.0.0.1:0", "127.0.0.2:0")).await;
    assert_eq!(status, 422);
    assert!(why.contains("fleet.hop"), "{why}");
    let before = place(&sees(&b, "a", |report| names(report) == ["a", "b"]).await, "a");
    let (status, changes) = reload(&whole.replace("id: a,", "id: a, weight: 7,")).await;
    assert_eq!(status, 200, "{changes}");
    assert!(changes.contains("fleet.hop.tls.cert: another certificate"), "{changes}");
    let other = |report: &FleetReport| of(report, "a").is_some_and(|a| a.weight == 7);
    let report = sees(&b, "the other weight", other).await;
    assert_eq!(place(&report, "a"), before, "it is where it was");
    reaches(200).await;
    folder.write("a.yaml", &Cloud::new().text());
    assert_eq!(a.0.ask(Method::POST, "/reload").await.0, 200);
    reaches(503).await;
    assert_eq!(reload(&section(&etcd, &folder, "a", LONG)).await.0, 200);
    reaches(200).await;
}

/// The file is wrong where siblings would refuse the responder.
#[tokio::test]
async fn a_certificate_with_another_name_is_said_before_siblings_say_it() {
    let folder = Folder::new();
    certificate_of(&folder.authority, "spiffe://example.org/responder/other").write(folder.path(), "hop");
    let hop = "{ listen: \"127.0.0.1:0\", identity: \"spiffe://example.org/responder/{responder}\", \
               tls: { cert: hop.pem, key: hop.key, ca: ca.pem } }";
    let fleet = format!("{{ etcd: \"http://127.0.0.1:2379\", id: a, hop: {hop} }}");
    let file = folder.write("a.yaml", &Cloud::new().process("fleet", &fleet).text());
    let run = move || Command::new(env!("CARGO_BIN_EXE_adit")).arg("check").arg(file).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_ne!(output.status.code(), Some(0), "{text}");
    let said = "fleet.hop.tls: has a certificate without the name \"spiffe://example.org/responder/a\"";
    assert!(text.contains(said), "{text}");
}

/// They ended without a word.
#[tokio::test]
async fn the_ends_of_the_certificates_of_a_fleet_are_told() {
    let folder = Folder::new();
    let lifetime = Duration::from_secs(20 * 24 * 3600);
    certificate_lasting(&folder.authority, "spiffe://example.org/responder/a", lifetime).write(folder.path(), "hop");
    folder.authority.expired_node(NODE).write(folder.path(), "etcd");
    let hop = "{ listen: \"127.0.0.1:0\", identity: \"spiffe://example.org/responder/{responder}\", \
               tls: { cert: hop.pem, key: hop.key, ca: ca.pem } }";
    let etcd = format!("https://{}", free_address());
    let tls = "{ ca: ca.pem, cert: etcd.pem, key: etcd.key }";
    let fleet = format!("{{ etcd: {etcd:?}, id: a, hop: {hop}, tls: {tls} }}");
    let cloud = Cloud::new().process("fleet", &fleet);
    let a = start(&folder, "a", &cloud).await;
    a.0.line_with("it ends in 19 days").await;
    let metrics = a.0.ask(Method::GET, "/metrics").await.1;
    assert!(metrics.contains("adit_certificate_seconds_left{certificate=\"fleet\"} -"), "that of etcd has ended");
    let file = folder.path().join("a.yaml");
    let run = move || Command::new(env!("CARGO_BIN_EXE_adit")).arg("check").arg(file).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("warning  fleet.hop.tls.cert: it ends in 19 days"), "{text}");
    assert!(text.lines().any(|line| line.contains("problem  fleet.tls.cert") && line.contains("expired")), "{text}");
    assert!(text.contains("fleet.hop.tls.ca: ") && text.contains("fleet.tls.ca: "), "{text}");
}

/// Regression: the name of any node, or host, would have proven a responder.
// spec: FL-32
#[tokio::test]
async fn an_identity_that_fixes_nothing_is_refused() {
    let folder = Folder::new();
    certificate_of(&folder.authority, "spiffe://a").write(folder.path(), "hop");
    let hop = "{ listen: \"127.0.0.1:0\", identity: \"spiffe://{responder}\", tls: { cert: hop.pem, key: hop.key, ca: ca.pem } }";
    let fleet = format!("{{ etcd: \"http://127.0.0.1:2379\", id: a, hop: {hop} }}");
    let file = folder.write("a.yaml", &Cloud::new().process("fleet", &fleet).text());
    let run = move || Command::new(env!("CARGO_BIN_EXE_adit")).arg("check").arg(file).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("fleet.hop.identity: \"spiffe://{responder}\" fixes too little beside {responder}"),
        "{text}"
    );
}
