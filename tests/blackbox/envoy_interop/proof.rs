//! What our responder puts on the wire between the acceptance and HTTP/2, seen by an initiator that records every read.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::envoy_interop::raw::{ACCEPTED, PING, PREFACE, Wire, request};
use crate::envoy_interop::rejections::{open_cloud, open_to_all};
use crate::support::eventually::eventually;
use crate::support::http1::{Response, get};
use crate::support::site::{Folder, NODE, Responder, TO_NODE};

/// The types of HTTP/2 frames.
const PING_FRAME: u8 = 6;
const GOAWAY_FRAME: u8 = 7;

/// An accepted initiator that has sent nothing since.
async fn accepted(responder: &Responder) -> Wire {
    let mut wire = Wire::connect(responder.tunnel_address()).await;
    wire.send(request(NODE)).await;
    assert_eq!(wire.exactly(ACCEPTED.len()).await, ACCEPTED);
    wire
}

/// One GET that runs meanwhile.
fn asking(responder: &Responder) -> JoinHandle<Response> {
    let egress = responder.egress();
    tokio::spawn(async move { get(egress, "/", &[TO_NODE]).await.unwrap() })
}

/// Until something asks for the tunnel.
async fn asked(responder: &Responder) {
    eventually("a request in flight", async || {
        let accepted = responder.0.tunnels().await.accepted;
        accepted.iter().any(|tunnel| tunnel.in_flight > 0).then_some(())
    })
    .await;
}

// spec: EV-15, EV-20, EV-21
#[tokio::test]
async fn the_acceptance_is_alone_and_so_is_the_first_ping_after_it() {
    let folder = Folder::new();
    // The first ping does not wait for the interval, which is longer than anybody waits here.
    let responder = open_to_all(&folder, ", ping_interval: 300s").await;
    // Whoever reads late reads both at once, which is no fault of theirs: one reader that is in time shows it.
    eventually("38 bytes, and nothing that shares their segment", async || {
        let mut wire = Wire::connect(responder.tunnel_address()).await;
        wire.send(request(NODE)).await;
        (wire.read().await == ACCEPTED).then_some(())
    })
    .await;
    let began = Instant::now();
    let mut wire = accepted(&responder).await;
    wire.ping().await;
    // Never early. How late it is depends on this machine too.
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
    responder.0.line_with("tunnel up").await;
    assert!(!responder.0.log().contains("alive again"), "a proof is not worth a line: {}", responder.0.log());
}

// spec: EV-21, EV-27, EV-40
#[tokio::test]
async fn http2_begins_only_after_the_first_echo() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", ping_interval: 1s").await;
    let mut wire = accepted(&responder).await;
    // An echo of nothing proves nothing.
    wire.send(PING).await;
    let asking = asking(&responder);
    asked(&responder).await;
    wire.ping().await;
    assert_eq!(wire.during(Duration::from_millis(300)).await, b"", "not before the echo");
    assert!(!asking.is_finished());
    wire.send(PING).await;
    let first = wire.read().await;
    assert!(first.starts_with(PREFACE), "the preface is in one piece: {first:?}");
    let mut wire = wire;
    wire.put_back(first);
    let served = wire.serve();
    assert_eq!(asking.await.unwrap().text(), "raw\n");
    assert!(served.seen().windows(5).all(|five| five != PING));
}

// spec: EV-27, EV-44
#[tokio::test]
async fn once_http2_has_begun_its_own_pings_take_over() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", ping_interval: 1s").await;
    let mut wire = accepted(&responder).await;
    // It waits for the first echo: no other ping comes before HTTP/2.
    let asking = asking(&responder);
    asked(&responder).await;
    wire.echo(1).await;
    let served = wire.serve();
    assert_eq!(asking.await.unwrap().status(), 200);
    eventually("two pings of HTTP/2", async || {
        let pings = served.frames().iter().filter(|kind| **kind == PING_FRAME).count();
        (pings >= 2).then_some(())
    })
    .await;
    let seen = served.seen();
    assert!(seen.windows(5).all(|five| five != PING), "not one RPING more: {seen:?}");
}

/// All of them at once: they only wait.
// spec: EV-22, EV-23, EV-24, EV-25, EV-26
#[tokio::test]
async fn a_tunnel_lives_by_its_echoes_alone() {
    tokio::join!(
        only_one_ping_is_out_and_a_silent_initiator_is_dropped(),
        a_late_echo_ends_the_suspicion(),
        a_split_echo_is_one_and_something_else_is_a_miss(),
    );
}

async fn only_one_ping_is_out_and_a_silent_initiator_is_dropped() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", ping_interval: 1s, ping_threshold: 2").await;
    let mut wire = accepted(&responder).await;
    let before = Instant::now();
    wire.echo(1).await;
    wire.ping().await;
    // Misses after 0.5 s and 1.5 s to 1.65 s later.
    assert_eq!(wire.rest().await, b"", "no second ping");
    assert!(before.elapsed() >= Duration::from_millis(1900), "{:?}", before.elapsed());
    let down = responder.0.line_with("tunnel down").await;
    assert_eq!(
        (down["code"].as_str(), down["reason"].as_str()),
        (Some("idle"), Some("the initiator no longer echoes pings"))
    );
    responder.0.line_with("tunnel suspect").await;
}

async fn a_late_echo_ends_the_suspicion() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", ping_interval: 1s").await;
    let mut wire = accepted(&responder).await;
    wire.echo(1).await;
    wire.ping().await;
    let health = async |wanted: &str| {
        eventually(wanted, async || (responder.registered(1).await.accepted[0].health == wanted).then_some(())).await;
    };
    health("suspect").await;
    wire.send(PING).await;
    health("healthy").await;
    wire.echo(1).await;
    responder.0.line_with("tunnel alive again").await;
}

async fn a_split_echo_is_one_and_something_else_is_a_miss() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", ping_interval: 1s, ping_threshold: 2").await;
    let mut split = accepted(&responder).await;
    let mut wrong = accepted(&responder).await;
    let splits = async {
        for _ in 0..3 {
            split.ping().await;
            split.send(&PING[..2]).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            split.send(&PING[2..]).await;
        }
    };
    let lies = async {
        for _ in 0..2 {
            wrong.ping().await;
            wrong.send(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
        }
        wrong.gone().await;
    };
    tokio::join!(splits, lies);
    // It goes on to echo while it is looked at.
    tokio::select! {
        () = async { loop { split.echo(1).await } } => unreachable!(),
        () = eventually("the one that splits is healthy, and alone", async || {
            (responder.registered(1).await.accepted[0].health == "healthy").then_some(())
        }) => {}
    }
    assert_eq!(responder.0.line_with("tunnel down").await["reason"], "the initiator answers pings with something else");
}

// spec: EV-28
#[tokio::test]
async fn an_echo_in_front_of_http2_is_left_out() {
    let folder = Folder::new();
    let responder = open_to_all(&folder, ", ping_interval: 4s").await;
    let mut wire = accepted(&responder).await;
    wire.echo(1).await;
    wire.ping().await;
    // A request comes while the echo is out; it is not waited for longer than half an interval.
    let asking = asking(&responder);
    let first = wire.read().await;
    assert!(first.starts_with(PREFACE), "{first:?}");
    wire.send(PING).await;
    wire.put_back(first);
    let _served = wire.serve();
    assert_eq!(asking.await.unwrap().text(), "raw\n");
}

// spec: EV-43
#[tokio::test]
async fn a_drain_says_goaway_and_then_closes_the_socket() {
    let folder = Folder::new();
    let mut responder = open_cloud(", ping_interval: 300s").start(&folder).await;
    let (mut used, mut idle) = (accepted(&responder).await, accepted(&responder).await);
    tokio::join!(used.echo(1), idle.echo(1));
    let asking = asking(&responder);
    // Whichever is taken speaks HTTP/2 now.
    let (used, idle) = (used.serve(), idle.serve());
    assert_eq!(asking.await.unwrap().status(), 200);
    responder.0.terminate();
    for served in [&used, &idle] {
        eventually("GOAWAY", async || served.frames().contains(&GOAWAY_FRAME).then_some(())).await;
        served.ended().await;
    }
    assert_eq!(responder.0.exit().await.code(), Some(0));
}
