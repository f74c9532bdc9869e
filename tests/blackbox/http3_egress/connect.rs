//! CONNECT to services of bytes, over HTTP/3. RFC 9114 section 4.4

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::cloud;
use crate::support::http3::{CUTS, Http3, cuts, request_with, wait};
use crate::support::site::{Edge, NODE, Site, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    every_byte_passes_and_each_direction_ends_by_itself,
    a_cut_of_either_side_ends_both_over_http_3,
    what_is_refused_has_the_status_that_it_has_over_http_2,
);

/// The code of a stream that is cut. RFC 9114 section 8.1
const CONNECT_ERROR: u64 = 0x10f;

fn connect(name: &str, to: &str, more: Value) -> Value {
    let head = json!([[":method", "CONNECT"], [":authority", to], ["x-node-id", NODE.node]]);
    let mut step = request_with(name, "CONNECT", "/", json!({ "head": head, "open": true }));
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

async fn bytes(transport: Transport) -> (TcpListener, Site) {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = Edge::new(transport)
        .service("{ name: web, match: {}, target: \"{target}\" }")
        .service(&format!("{{ name: bytes, target: \"tcp://{}\" }}", target.local_addr().unwrap()));
    (target, Site::with(cloud().egress("connect", "true"), edge).await)
}

// spec: ST-57, ST-60, ST-65
async fn every_byte_passes_and_each_direction_ends_by_itself(transport: Transport) {
    const LENGTH: u64 = 4 << 20;
    let (target, site) = bytes(transport).await;
    let steps = vec![
        connect("a", "bytes:1", json!({ "size": LENGTH })),
        json!({ "do": "head", "name": "a" }),
        json!({ "do": "read", "name": "a", "bytes": LENGTH }),
        json!({ "do": "body", "name": "a", "size": 5, "end": true }),
        wait("a"),
        connect("b", "bytes:1", json!({})),
        json!({ "do": "head", "name": "b" }),
        wait("b"),
        json!({ "do": "body", "name": "b", "size": 5, "end": true }),
    ];
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    let (mut peer, _) = target.accept().await.unwrap();
    let mut sent = vec![0; LENGTH as usize];
    peer.read_exact(&mut sent).await.unwrap();
    assert!(sent == pattern(0, LENGTH));
    assert_eq!(client.did("head", "a").await["status"], 200);
    peer.write_all(&sent).await.unwrap();
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, pattern(LENGTH, 5), "the client has ended its direction");
    peer.write_all(&pattern(LENGTH, 7)).await.unwrap();
    drop(peer);
    let answer = client.answer("a").await;
    assert!(answer.is_whole() && answer.bytes() == LENGTH + 7 && answer.0["is_pattern"] == true, "{answer:?}");

    let (mut peer, _) = target.accept().await.unwrap();
    peer.shutdown().await.unwrap();
    assert!(client.answer("b").await.is_whole());
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, pattern(0, 5), "behind the end of the target's direction");
}

/// The next connection to the target, which has got five bytes and sent them back.
async fn echoing_five(target: &TcpListener) -> TcpStream {
    let (mut peer, _) = target.accept().await.unwrap();
    let mut bytes = [0; 5];
    peer.read_exact(&mut bytes).await.unwrap();
    peer.write_all(&bytes).await.unwrap();
    peer
}

// spec: ST-61, ST-63
async fn a_cut_of_either_side_ends_both_over_http_3(transport: Transport) {
    let (target, site) = bytes(transport).await;
    // What has come back shows that all that was sent before has arrived.
    let read = |name| json!({ "do": "read", "name": name, "bytes": 5 });
    let open = |name| [connect(name, "bytes:1", json!({ "size": 5 })), read(name)];
    let Some(client) = Http3::start(site.egress(), &site.folder, cuts(open)) else { return };
    for how in CUTS {
        let mut peer = echoing_five(&target).await;
        client.did(how, how).await;
        assert!(peer.read(&mut [0]).await.is_err(), "{how}");
    }
    let peer = echoing_five(&target).await;
    client.did("read", "target").await;
    peer.set_zero_linger().unwrap();
    drop(peer);
    let answer = client.answer("target").await;
    assert_eq!((&answer.0["reset"], &answer.0["closed"]), (&CONNECT_ERROR.into(), &Value::Null), "{answer:?}");
}

async fn what_is_refused_has_the_status_that_it_has_over_http_2(transport: Transport) {
    let (_target, site) = bytes(transport).await;
    let tried = [("nobody:1", 404), ("web:80", 404), ("bytes", 400), ("bytes:0", 400), ("u@bytes:1", 400)];
    let mut steps: Vec<Value> = tried.iter().map(|(to, _)| connect(to, to, json!({}))).collect();
    let head =
        json!([[":method", "CONNECT"], [":authority", "bytes:1"], ["content-length", "5"], ["x-node-id", NODE.node]]);
    steps.push(request_with("length", "CONNECT", "/", json!({ "head": head, "open": true })));
    steps.extend(tried.iter().map(|(to, _)| wait(to)));
    steps.push(wait("length"));
    let Some(client) = Http3::start(site.egress(), &site.folder, steps) else { return };
    for (to, status) in tried {
        assert_eq!(client.answer(to).await.status(), status, "{to}");
    }
    assert_eq!(client.answer("length").await.status(), 400);
}
