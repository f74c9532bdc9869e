//! A responder leaves its fleet: its sites go to others while it still serves them, and nothing is lost.

use std::net::SocketAddr;
use std::time::Duration;

use adit::admin::DrainReport;
use http::Method;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::cli::{adit, parts};
use crate::fleet::hop::section;
use crate::fleet::world::{answers, has, member, names, of, sees, start};
use crate::support::certificates::Node;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder, Running, TO_NODE, Transport, over_each_transport};
use crate::support::targets::Target;

over_each_transport!(
    a_responder_that_leaves_serves_its_node_until_that_is_elsewhere,
    a_node_that_is_elsewhere_already_is_reached_there_at_once,
    a_responder_that_a_reload_removes_leaves_its_fleet_like_one_that_stops,
    a_responder_that_leaves_says_so_at_once_and_takes_no_tunnel,
);

/// Longer than a test may take: nothing ends by it.
const LONG: &str = "300s";
/// Another node of the same cluster.
const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
const TO_OTHER: &str = "x-node-id: edge-2";

/// The file of a responder with a hop, in which no request waits for a node.
fn file(etcd: &Etcd, folder: &Folder, id: &str) -> Cloud {
    Cloud::new().egress("hold", "0").process("fleet", &section(etcd, folder, id, LONG))
}

/// `a` by this file, and `b` by the usual one, that have seen each other.
async fn two(etcd: &Etcd, folder: &Folder, a: &Cloud) -> (Responder, Responder) {
    let (a, b) = (start(folder, "a", a).await, start(folder, "b", &file(etcd, folder, "b")).await);
    for responder in [&a, &b] {
        sees(responder, "both", |report| names(report) == ["a", "b"]).await;
    }
    (a, b)
}

fn edge(transport: Transport, target: &Target) -> Edge {
    Edge::new(transport).target(&format!("http://{}", target.address()))
}

/// Asks for the node all the time; in the end, how often it was asked and every answer that is no 200.
pub(super) struct Asking {
    stop: CancellationToken,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    pub(super) fn start(at: SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let until = stop.clone();
        let task = tokio::spawn(async move {
            let (mut count, mut wrong, mut pace) = (0, Vec::new(), interval(Duration::from_millis(5)));
            while !until.is_cancelled() {
                count += 1;
                match get(at, "/", &[TO_NODE]).await {
                    Ok(response) if response.status() == 200 => {}
                    Ok(response) => wrong.push(format!("{} {:?}", response.status(), response.head)),
                    Err(error) => wrong.push(error.to_string()),
                }
                pace.tick().await;
            }
            (count, wrong)
        });
        Self { stop, task }
    }

    pub(super) async fn nothing_is_lost(self) {
        self.stop.cancel();
        let (count, wrong) = self.task.await.unwrap();
        assert_eq!((count > 0, wrong), (true, Vec::<String>::new()), "of {count}");
    }
}

/// spec: CT-35, FL-22, FL-23
async fn a_responder_that_leaves_serves_its_node_until_that_is_elsewhere(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (mut a, b) = two(&etcd, &folder, &file(&etcd, &folder, "a")).await;
    let edge = edge(transport, &target);
    let initiator = edge.start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    answers(&b, TO_NODE).await;
    let asking = Asking::start(b.egress());
    a.0.terminate();
    initiator.line_with("the responder drains").await;
    for _ in 0..20 {
        assert_eq!(get(b.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200, "nobody else has it, so a serves it");
    }
    assert!(b.0.tunnels().await.accepted.is_empty());
    folder.write("edge.yaml", &edge.also(b.tunnel_address()).text(&a.tunnel_address().to_string()));
    let (status, changes) = initiator.ask(Method::POST, "/reload").await;
    assert_eq!(status, 200, "{changes}");
    b.registered(1).await;
    assert_eq!(a.0.exit().await.code(), Some(0));
    a.0.line_with("drained: everything finished").await;
    sees(&b, "itself alone", |report| names(report) == ["b"]).await;
    asking.nothing_is_lost().await;
}

/// spec: FL-23
async fn a_node_that_is_elsewhere_already_is_reached_there_at_once(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let a = file(&etcd, &folder, "a").process("lame_duck", LONG);
    let (mut a, b) = two(&etcd, &folder, &a).await;
    let _initiator = edge(transport, &target).also(b.tunnel_address()).start(&folder, a.tunnel_address()).await;
    // The way to the sibling is there already, by a node that has no other.
    let other = edge(transport, &target).claim(OTHER).named("other");
    let _other = other.start(&folder, b.tunnel_address()).await;
    sees(&a, "one of each, and the other one", |report| has(report, "a", 1) && has(report, "b", 2)).await;
    answers(&a, TO_OTHER).await;
    let through = a.0.metric("adit_fleet_hops_total{result=\"through\"}").await;
    let asking = Asking::start(a.egress());
    a.0.terminate();
    // Long before the lame duck is over, and before anything is cut.
    a.registered(0).await;
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200);
    sees(&b, "no tunnel of a", |report| has(report, "a", 0) && has(report, "b", 2)).await;
    asking.nothing_is_lost().await;
    assert!(a.0.metric("adit_fleet_hops_total{result=\"through\"}").await > through);
    a.0.terminate();
    a.0.exit().await;
}

// Regression: what was asked at siblings for its nodes failed as soon as a reload had taken it out of the directory.
/// spec: FL-21, FL-22, FL-23
async fn a_responder_that_a_reload_removes_leaves_its_fleet_like_one_that_stops(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let (a, b) = two(&etcd, &folder, &file(&etcd, &folder, "a")).await;
    let edge = edge(transport, &target);
    let initiator = edge.start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    answers(&b, TO_NODE).await;
    let asking = Asking::start(b.egress());
    folder.authority.node(OTHER).write(folder.path(), "other");
    let other = Edge::new(transport).claim(OTHER).named("other").text(&b.tunnel_address().to_string());
    folder.write("a.yaml", &other);
    let (status, changes) = a.0.ask(Method::POST, "/reload").await;
    assert_eq!(status, 200, "{changes}");
    sees(&b, "a leaving", |report| of(report, "a").is_some_and(|a| a.draining)).await;
    initiator.line_with("the responder drains").await;
    assert_eq!(get(b.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200, "nobody else has it, so a serves it");
    folder.write("edge.yaml", &edge.also(b.tunnel_address()).text(&a.tunnel_address().to_string()));
    let (status, changes) = initiator.ask(Method::POST, "/reload").await;
    assert_eq!(status, 200, "{changes}");
    b.registered(2).await;
    sees(&b, "itself alone", |report| names(report) == ["b"]).await;
    asking.nothing_is_lost().await;
}

/// spec: FL-21, FL-22
async fn a_responder_that_leaves_says_so_at_once_and_takes_no_tunnel(transport: Transport) {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let a = file(&etcd, &folder, "a").process("lame_duck", LONG);
    let (mut a, b) = two(&etcd, &folder, &a).await;
    let mut initiator = edge(transport, &target).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    a.0.terminate();
    sees(&b, "a leaving", |report| of(report, "a").is_some_and(|a| a.draining)).await;
    let (status, missing) = a.0.ask(Method::GET, "/ready").await;
    assert!(status == 503 && missing.contains("draining"), "{status} {missing}");
    let other = Edge::new(transport).claim(OTHER).named("other").start(&folder, a.tunnel_address()).await;
    let refused = a.0.line_with("no tunnel: refused").await;
    assert!(refused["code"] == 503 && refused["reason"] == "the responder is leaving its fleet", "{refused}");
    drop(other);
    let left: DrainReport = serde_json::from_str(&a.0.ask(Method::GET, "/drain").await.1).unwrap();
    assert!(left.draining && left.seconds_left > 0.0 && left.tunnels == 1, "{left:?}");
    assert_eq!((left.nowhere_else_count, left.nowhere_else), (1, vec!["acme/edge-1".to_owned()]));
    assert_eq!(get(a.egress(), "/", &[TO_NODE]).await.unwrap().status(), 200, "it takes requests all the same");
    // A site that stops has this tunnel drained like any other.
    initiator.line_with("the responder drains").await;
    initiator.terminate();
    assert_eq!(initiator.exit().await.code(), Some(0));
    initiator.line_with("drained: everything finished").await;
    a.registered(0).await;
    a.0.terminate();
    a.0.exit().await;
}

#[tokio::test]
async fn a_responder_that_is_alone_in_its_fleet_drains_as_without_one() {
    let Some(etcd) = Etcd::start().await else { return };
    let folder = Folder::new();
    let mut a = start(&folder, "a", &member(&etcd, "a", LONG)).await;
    let _initiator = Edge::new(Transport::Quic).start(&folder, a.tunnel_address()).await;
    sees(&a, "its tunnel", |report| has(report, "a", 1)).await;
    a.0.terminate();
    assert_eq!(a.0.exit().await.code(), Some(0));
    a.0.line_with("no other responder of the fleet could take the nodes").await;
    a.0.line_with("left the fleet").await;
}

/// The site reaches nobody else, and holds up no restart for longer than half of the drain.
///
/// spec: FL-23
#[tokio::test]
async fn drain_with_wait_names_a_node_that_is_nowhere_else_and_returns_when_the_responder_has_gone() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    // Where it comes back to, and where nobody else is meanwhile.
    let tunnels = free_address();
    let listen = format!("{{ quic: \"{tunnels}\", tcp: \"{tunnels}\" }}");
    let a = file(&etcd, &folder, "a").process("drain_timeout", "4s").responder("listen", &listen);
    let (mut a, b) = two(&etcd, &folder, &a).await;
    let initiator = edge(Transport::Quic, &target).start(&folder, a.tunnel_address()).await;
    sees(&b, "the tunnel of a", |report| has(report, "a", 1)).await;
    let (code, out, err) = parts(&adit(&["drain", "--wait", "--admin", &a.0.admin().to_string()]).await);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("left: 1 tunnel, 0 requests run, 1 node is nowhere else: acme/edge-1\n"), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("gone after ") && last.ends_with(": everything finished"), "{out}");
    assert_eq!(a.0.exit().await.code(), Some(0));
    a.0.line_with("the time is over, and these are of nodes that are nowhere else").await;
    a.0.line_with("drained: everything finished").await;
    let a = Running::start(a.0.file().to_owned()).await;
    // It comes back by itself.
    eventually("the node is there", async || {
        (get(b.egress(), "/", &[TO_NODE]).await.unwrap().status() == 200).then_some(())
    })
    .await;
    drop((a, initiator));
}

/// What it had is elsewhere, and it reaches all of that: it need not wait for anybody.
#[tokio::test]
async fn a_responder_that_comes_back_is_ready_when_its_former_nodes_are_elsewhere() {
    let Some(etcd) = Etcd::start().await else { return };
    let (folder, target) = (Folder::new(), Target::http1().await);
    let a = file(&etcd, &folder, "a").responder("state_dir", "state-a").responder("grace", LONG);
    let (mut a, b) = two(&etcd, &folder, &a).await;
    let edge = edge(Transport::Quic, &target);
    let initiator = edge.clone().also(b.tunnel_address()).start(&folder, a.tunnel_address()).await;
    sees(&a, "one of each", |report| has(report, "a", 1) && has(report, "b", 1)).await;
    let nodes = folder.path().join("state-a/nodes");
    let is_written = || std::fs::read_to_string(&nodes).is_ok_and(|text| text == "acme stores edge-1\n");
    eventually("it is written down", async || is_written().then_some(())).await;
    a.0.terminate();
    assert_eq!(a.0.exit().await.code(), Some(0));
    assert!(is_written(), "the next process would wait for it");
    folder.write("edge.yaml", &edge.text(&b.tunnel_address().to_string()));
    let (status, changes) = initiator.ask(Method::POST, "/reload").await;
    assert_eq!(status, 200, "{changes}");
    let a = Responder(Running::start(a.0.file().to_owned()).await);
    eventually("ready", async || (a.0.ask(Method::GET, "/ready").await.0 == 200).then_some(())).await;
    answers(&a, TO_NODE).await;
    assert!(a.0.tunnels().await.accepted.is_empty());
}
