//! What changes at a responder.

use std::net::SocketAddr;
use std::time::Duration;

use adit::protocol::code::RefusalCode;
use adit::transport::DialError;
use tokio::net::TcpStream;

use super::trigger::{Trigger, by_each_trigger, rewrite};
use super::world::{Outcome, descriptors, result_of_reload, tunnels};
use crate::handles::played;
use crate::support::certificates::Node;
use crate::support::eventually::{PATIENCE, eventually, standstill, within};
use crate::support::http1::{RawHttp, get};
use crate::support::load::Load;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, NODE, Site, TO_NODE, Transport, over_each_transport};

by_each_trigger!(each_change_of_the_egress_and_the_process_loses_nothing_and_keeps_every_tunnel);

over_each_transport!(
    a_listener_that_is_gone_finishes_what_it_carries,
    tunnels_stay_when_their_responder_listens_elsewhere,
    live_tunnels_are_judged_by_new_rules,
    a_handshake_that_a_reload_finds_half_done_is_decided_by_the_new_file,
    shares_are_followed_while_requests_run,
    a_process_that_drains_takes_no_other_settings,
);

async fn each_change_of_the_egress_and_the_process_loses_nothing_and_keeps_every_tunnel(
    transport: Transport,
    trigger: Trigger,
) {
    let cloud = trigger.cloud();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let (before, mut load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let at = |address: SocketAddr| cloud.clone().and_egress().egress("http", &format!("\"{address}\""));
    if trigger != Trigger::Watch {
        assert_eq!(trigger.change(&site.responder.0, || ()).await, Outcome::Unchanged);
    }
    let steps = [
        ("egress[127.0.0.1:0].hold: 2s -> 1s", cloud.clone().egress("hold", "1s")),
        ("egress[127.0.0.1:0].hold: 1s -> 2s", cloud.clone()),
        ("egress[127.0.0.1:0].limits.head_bytes", cloud.clone().egress("limits", "{ head_bytes: 8 KiB }")),
        ("egress[127.0.0.1:0].trust", cloud.clone().egress("trust", "[127.0.0.1]")),
        ("egress[127.0.0.1:0].access_log: true -> false", cloud.clone().egress("access_log", "false")),
        ("egress[127.0.0.1:0].routes", cloud.clone().egress("routes", "[ { prefix: /x, service: web } ]")),
        ("egress[127.0.0.1:0#2]", cloud.clone().and_egress()),
        ("egress[127.0.0.1:0#2]", cloud.clone()),
        ("egress[127.0.0.1:", at(free_address())),
        ("egress[127.0.0.1:", at(free_address())),
        ("responder.shares", cloud.clone().responder("shares", "{ per_tenant: { in_flight: 4096 } }")),
        ("log.level: info -> debug", cloud.clone().process("log", "{ level: debug }")),
        ("log.level: debug -> info", cloud.clone()),
        ("responder.name", cloud.clone().responder("name", "another")),
        ("responder.congestion: bbr -> cubic", cloud.clone().responder("congestion", "cubic")),
        ("responder.keepalive", cloud.clone().responder("keepalive", "2s")),
        ("responder.limits.head_fields", cloud.clone().responder("limits", "{ head_fields: 64 }")),
        ("responder.quotas", cloud.clone().responder("quotas", "{ tunnels_per_node: 8 }")),
        ("drain_timeout: 30s -> 9s", cloud.clone().process("drain_timeout", "9s")),
        ("lame_duck", cloud.clone().process("lame_duck", "1s")),
        ("metrics.names: false -> true", cloud.clone().process("metrics", "{ names: true }")),
        ("metrics.listen", cloud.clone().process("metrics", "{ listen: \"127.0.0.1:0\" }")),
    ];
    for (key, changed) in steps {
        let changes = trigger.rewrite(&site.responder.0, &changed.text()).await.changes();
        assert!(changes.iter().any(|change| change[2..].starts_with(key)), "{key} is not in {changes:?}");
        load.goes_on().await;
    }
    let changes = trigger.rewrite(&site.responder.0, &cloud.text()).await.changes();
    assert_eq!(changes, ["- metrics.listen: 127.0.0.1:0"]);
    load.finish().await;
    assert_eq!(tunnels(&site.responder).await, before);
}

async fn a_listener_that_is_gone_finishes_what_it_carries(transport: Transport) {
    let (first, second) = (free_address(), free_address());
    let at = |address| format!("\"{address}\"");
    let cloud = Cloud::new();
    let both = cloud.clone().and_egress().egress("http", &at(first));
    let site = Site::with(both.clone(), Edge::new(transport)).await;
    let load = Load::paced(site.egress(), TO_NODE).await;
    let mut client = RawHttp::connect(first).await.unwrap();
    client.send(format!("GET /chunks/30/50 HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n").as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();

    let moved = cloud.clone().and_egress().egress("http", &at(second));
    let changes = rewrite(&site.responder.0, &moved.text()).await.changes();
    assert_eq!(changes, [format!("- egress[{first}]"), format!("+ egress[{second}]")].sorted(), "{changes:?}");
    assert_eq!(get(second, "/", &[TO_NODE]).await.unwrap().status(), 200);
    eventually("the former address to be closed", async || TcpStream::connect(first).await.is_err().then_some(()))
        .await;
    let (body, _) = client.body(&head).await.unwrap();
    assert!(body.ends_with(b"chunk 29\n"));
    // There again, as if it had never been away.
    rewrite(&site.responder.0, &both.text()).await.changes();
    assert_eq!(get(first, "/", &[TO_NODE]).await.unwrap().status(), 200);
    load.finish().await;
}

/// In the order in which a difference has them.
trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for [String; 2] {
    fn sorted(mut self) -> Self {
        self.sort_by(|one, other| one[2..].cmp(&other[2..]));
        self
    }
}

async fn tunnels_stay_when_their_responder_listens_elsewhere(transport: Transport) {
    let address = free_address();
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let (before, load) = (tunnels(&site.responder).await, Load::paced(site.egress(), TO_NODE).await);
    let elsewhere = cloud.responder("listen", &format!("{{ quic: \"{address}\", tcp: \"{address}\" }}"));
    let changes = rewrite(&site.responder.0, &elsewhere.text()).await.changes();
    let expected = ["quic", "tcp"].map(|key| format!("~ responder.listen.{key}: 127.0.0.1:0 -> {address}"));
    assert_eq!(changes, expected);
    let node = Node { node: "edge-2", ..NODE };
    let edge = Edge::new(transport).named("second").claim(node).target(&format!("http://{}", site.target.address()));
    let _second = edge.start(&site.folder, address).await;
    site.responder.registered(2).await;
    assert_eq!(get(site.egress(), "/", &["x-node-id: edge-2"]).await.unwrap().status(), 200);
    load.finish().await;
    let now = tunnels(&site.responder).await;
    assert!(before.iter().all(|tunnel| now.contains(tunnel)), "{before:?} {now:?}");
}

async fn live_tunnels_are_judged_by_new_rules(transport: Transport) {
    let site = Site::start(transport).await;
    let node = Node { cluster: "depots", node: "edge-2", ..NODE };
    let (second, _target) = site.join(Edge::new(transport).named("second").claim(node)).await;
    let load = Load::paced(site.egress(), TO_NODE).await;
    let only = Cloud::new().responder("cluster", "stores");
    assert_eq!(rewrite(&site.responder.0, &only.text()).await.changes(), ["+ responder.cluster: stores"]);
    site.responder.registered(1).await;
    second.line_with("cannot open a tunnel").await;
    rewrite(&site.responder.0, &Cloud::new().text()).await.changes();
    site.responder.registered(2).await;
    load.finish().await;
}

async fn a_handshake_that_a_reload_finds_half_done_is_decided_by_the_new_file(transport: Transport) {
    let site = Site::start(transport).await;
    let load = Load::paced(site.egress(), TO_NODE).await;
    let depot = Node { cluster: "depots", node: "edge-2", ..NODE };
    let initiator = played::Initiator::new(transport, &site.folder.authority, depot);
    let connect = async || initiator.connect(site.responder.tunnel_address()).await.unwrap();
    let (only, all) = (Cloud::new().responder("cluster", "stores").text(), Cloud::new().text());

    let connected = connect().await;
    rewrite(&site.responder.0, &only).await.changes();
    let Err(DialError::Refused(refusal)) = connected.claim(&played::hello(depot, 0)).await else { panic!("admitted") };
    assert_eq!(refusal.code, RefusalCode::Forbidden);

    let connected = connect().await;
    rewrite(&site.responder.0, &all).await.changes();
    let _tunnel = connected.claim(&played::hello(depot, 1)).await.unwrap();
    site.responder.registered(2).await;
    load.finish().await;
}

/// What is under way goes on; what comes next, and bytes that wait, have the new numbers.
async fn shares_are_followed_while_requests_run(transport: Transport) {
    let with = |share: &str| Cloud::new().responder("shares", &format!("{{ per_tenant: {{ {share} }} }}"));
    let site = Site::with(with("in_flight: 1"), Edge::new(transport)).await;
    let change = async |share: &str| rewrite(&site.responder.0, &with(share).text()).await.changes();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\n\r\n");
    let mut long = site.connect().await;
    long.send(request("/chunks/2/1000000").as_bytes()).await.unwrap();
    long.head().await.unwrap();
    assert_eq!(site.get("/").await.status(), 429);
    assert_eq!(change("in_flight: 2").await, ["~ responder.shares.per_tenant.in_flight: 1 -> 2"]);
    assert_eq!(site.get("/").await.status(), 200);
    change("in_flight: 1").await;
    assert_eq!(site.get("/").await.status(), 429, "the long one has what there is, and is not cut");
    drop(long);

    // It would take minutes at the first rate.
    change("bytes: 16KiB").await;
    let mut slow = site.connect().await;
    slow.send(request("/bytes/8000000").as_bytes()).await.unwrap();
    let head = slow.head().await.unwrap();
    eventually("bytes that wait", async || {
        let waited = site.responder.0.metric("adit_shares_waited_total{of=\"tenant\",cause=\"bytes\"}").await;
        (waited > 0).then_some(())
    })
    .await;
    change("bytes: 1GiB").await;
    assert_eq!(within(PATIENCE, "the rest", async || Some(slow.body(&head).await.unwrap().0.len())).await, 8_000_000);
}

async fn a_process_that_drains_takes_no_other_settings(transport: Transport) {
    let cloud = Cloud::new().process("lame_duck", "0");
    let mut site = Site::with(cloud.clone(), Edge::new(transport)).await;
    let mut client = site.connect().await;
    // It runs until the test ends it, and the process as long.
    let head =
        format!("POST /echo HTTP/1.1\r\nhost: x\r\n{TO_NODE}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    client.send(head.as_bytes()).await.unwrap();
    let head = client.head().await.unwrap();
    site.responder.0.terminate();
    site.responder.0.line_with("draining").await;
    std::fs::write(site.responder.0.file(), cloud.and_egress().text()).unwrap();
    site.responder.0.signal("HUP");
    site.responder.0.line_with("the process drains: the file is not read again").await;
    client.send(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(client.body(&head).await.unwrap().0, b"firstlast");
    assert!(site.responder.0.exit().await.success());
}

/// Whoever asks the former one is told so by the system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_moves() {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(Transport::Quic)).await;
    let (before, address) = (site.responder.0.admin(), free_address());
    let moved = cloud.process("admin", &address.to_string());
    site.folder.write("cloud.yaml", &moved.text());
    site.responder.0.signal("HUP");
    let line = site.responder.0.line_with("other settings are in force").await;
    assert_eq!(line["changes"], format!("~ admin: 127.0.0.1:0 -> {address}"));
    eventually("the other address", async || (site.responder.0.admin() == address).then_some(())).await;
    site.responder.registered(1).await;
    eventually("the former address to be closed", async || TcpStream::connect(before).await.is_err().then_some(()))
        .await;
}

/// Until another one is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_of_the_log_is_followed() {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(Transport::Quic)).await;
    let levels = || site.responder.0.log().lines().filter(|line| line.contains("\"level\":\"DEBUG\"")).count();
    assert_eq!(levels(), 0);
    let debug = cloud.clone().process("log", "{ level: debug }");
    assert_eq!(rewrite(&site.responder.0, &debug.text()).await.changes(), ["~ log.level: info -> debug"]);
    let reject = async || {
        let mut client = site.connect().await;
        client.send(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(client.read_to_end().await.unwrap().starts_with(b"HTTP/1.1 400"));
    };
    reject().await;
    eventually("a line of the level", async || (levels() > 0).then_some(())).await;
    site.folder.write("cloud.yaml", &cloud.clone().process("log", "{ level: error }").text());
    assert_eq!(result_of_reload(&site.responder.0).await, "applied");
    // What was written before may still be on its way.
    let lines = standstill("lines of the former level", Duration::from_secs(1), async || levels()).await;
    reject().await;
    // The line about this stands behind whatever was written before.
    rewrite(&site.responder.0, &cloud.text()).await.changes();
    assert_eq!(levels(), lines);
}

/// Listeners that come and go leave nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_are_what_they_were_after_listeners_came_and_went() {
    let cloud = Cloud::new();
    let site = Site::with(cloud.clone(), Edge::new(Transport::Quic)).await;
    assert_eq!(site.get("/").await.status(), 200);
    let more = cloud.clone().and_egress().process("metrics", "{ listen: \"127.0.0.1:0\" }");
    let come_and_go = async || {
        for text in [more.text(), cloud.text()] {
            site.folder.write("cloud.yaml", &text);
            assert_eq!(result_of_reload(&site.responder.0).await, "applied");
        }
    };
    come_and_go().await;
    let before = descriptors(&site.responder.0);
    for _ in 0..10 {
        come_and_go().await;
    }
    eventually("as few descriptors as before", async || (descriptors(&site.responder.0) <= before).then_some(())).await;
}
