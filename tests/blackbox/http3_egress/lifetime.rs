//! Connections that move, requests that are given up, and drains.

use serde_json::json;

use super::{cloud, site};
use crate::support::eventually::eventually;
use crate::support::http3::{Http3, request, request_with, wait};
use crate::support::raw_target::RawTarget;
use crate::support::site::{Edge, Folder, Site, Transport, over_each_transport};

over_each_transport!(
    a_client_that_gives_up_cancels_at_the_target_and_nothing_else,
    a_client_that_comes_from_another_port_goes_on,
    a_drain_says_so_and_lets_what_runs_finish,
    a_cut_response_resets_its_stream_and_no_other,
    what_a_target_wrote_before_a_cut_arrives_before_the_cut,
);

async fn a_client_that_gives_up_cancels_at_the_target_and_nothing_else(transport: Transport) {
    let site = site(transport).await;
    let steps = vec![
        request("beside", "GET", "/chunks/4/500"),
        request("hang", "GET", "/hang"),
        request_with("upload", "POST", "/echo", json!({ "size": 100, "open": true })),
        json!({ "do": "head", "name": "upload" }),
        // The target has both by then.
        json!({ "do": "head", "name": "beside" }),
        request("slow", "GET", "/slow/1000"),
        wait("slow"),
        json!({ "do": "cancel", "name": "hang" }),
        json!({ "do": "cancel", "name": "upload" }),
        wait("beside"),
        request("after", "GET", "/"),
        wait("after"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    client.did("cancel", "upload").await;
    site.cancelled(2).await;
    assert!(client.answer("beside").await.is_whole());
    assert_eq!(client.answer("after").await.text(), "hello\n");
}

async fn a_client_that_comes_from_another_port_goes_on(transport: Transport) {
    let site = site(transport).await;
    let steps = vec![
        request_with("echo", "POST", "/echo", json!({ "size": 50_000, "open": true })),
        json!({ "do": "head", "name": "echo" }),
        json!({ "do": "rebind" }),
        json!({ "do": "body", "name": "echo", "size": 50_000, "end": true }),
        request("after", "GET", "/bytes/100000"),
        wait("echo"),
        wait("after"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for name in ["echo", "after"] {
        let answer = client.answer(name).await;
        assert_eq!((answer.bytes(), answer.is_whole(), &answer.0["is_pattern"]), (100_000, true, &true.into()));
    }
}

async fn a_drain_says_so_and_lets_what_runs_finish(transport: Transport) {
    let mut site = Site::with(cloud().process("lame_duck", "500ms"), Edge::new(transport)).await;
    let steps = vec![
        request_with("echo", "POST", "/echo", json!({ "size": 1000, "open": true })),
        json!({ "do": "head", "name": "echo" }),
        json!({ "do": "goaway" }),
        json!({ "do": "body", "name": "echo", "size": 1000, "end": true }),
        wait("echo"),
        json!({ "do": "closed" }),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    client.did("head", "echo").await;
    site.responder.0.terminate();
    client.did_once("goaway").await;
    let answer = client.answer("echo").await;
    assert_eq!((answer.bytes(), answer.is_whole()), (2000, true), "{answer:?}");
    assert_eq!(client.did_once("closed").await["code"], 0x100);
    assert!(site.responder.0.exit().await.success());
}

async fn a_cut_response_resets_its_stream_and_no_other(transport: Transport) {
    let site = site(transport).await;
    let steps =
        vec![request("slow", "GET", "/slow/300"), request("cut", "GET", "/cut/1000"), wait("cut"), wait("slow")];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let cut = client.answer("cut").await;
    // This target breaks off before it has written all that it said, or its head.
    assert!(!cut.0["reset"].is_null() || cut.status() == 502, "{cut:?}");
    assert_eq!(client.answer("slow").await.text(), "slow\n");
}

// spec: ST-38, ST-82
async fn what_a_target_wrote_before_a_cut_arrives_before_the_cut(transport: Transport) {
    const BYTES: usize = 300_000;
    let target = RawTarget::new().await;
    let service = format!("{{ name: raw, match: {{ prefix: / }}, target: \"http://{}\" }}", target.address());
    let site = Site::with(cloud(), Edge::new(transport).service(&service)).await;
    let steps = vec![
        request("events", "GET", "/"),
        json!({ "do": "read", "name": "events", "bytes": 10 }),
        wait("events"),
        request("bulk", "GET", "/"),
        wait("bulk"),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let (mut peer, _) = target.accept().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    peer.send(format!("{head}a\r\ndata: 1\n\n\n\r\n")).await.unwrap();
    client.did("read", "events").await;
    peer.send("d\r\ndata: last\n\n\n\r\n").await.unwrap();
    drop(peer);
    let events = client.answer("events").await;
    assert_eq!((events.text(), events.0["reset"].is_null()), ("data: 1\n\n\ndata: last\n\n\n", false), "{events:?}");

    let (mut peer, _) = target.accept().await;
    peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BYTES + 1)).await.unwrap();
    peer.send(vec![b'x'; BYTES]).await.unwrap();
    drop(peer);
    let bulk = client.answer("bulk").await;
    assert_eq!((bulk.bytes(), bulk.0["reset"].is_null()), (BYTES as u64, false), "{bulk:?}");
}

#[tokio::test]
async fn a_udp_port_that_is_taken_is_said_at_the_start() {
    let folder = Folder::new();
    // A pair that is free over TCP and not over UDP. Above the ports that the system gives to those who ask for none: another
    // test would have one of these over TCP in the next moment.
    let (taken, address) = eventually("a port that is free over TCP", async || {
        let port = rand::random_range(61_000..65_535);
        let taken = std::net::UdpSocket::bind(("127.0.0.1", port)).ok()?;
        let address = taken.local_addr().unwrap();
        std::net::TcpListener::bind(address).ok().map(|_| (taken, address))
    })
    .await;
    let file = |http3: &str| cloud().egress("http", &format!("\"{address}\"")).egress("http3", http3).text();
    let path = folder.write("cloud.yaml", &file("true"));
    let mut refused = crate::support::process::Adit::start(&["run", path.to_str().unwrap()]);
    assert!(!refused.exit().await.success());
    let said = refused.log();
    assert!(said.contains(&format!("cannot bind udp {address}")) && said.contains("http3"), "{said}");
    let path = folder.write("cloud.yaml", &file("false"));
    let running = crate::support::process::Adit::start(&["run", path.to_str().unwrap()]);
    eventually("it to start without", async || running.log().contains("taking requests").then_some(())).await;
    drop(taken);
}
