//! An Envoy that keeps its connections and does nothing, at either end: adit notices, goes around it and recovers. Envoy
//! itself answers every request to a frozen initiator in use with 504, and its initiator never notices anything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::envoy_interop::ends::adit_initiator;
use crate::envoy_interop::envoy_alone::{attentive, status};
use crate::envoy_interop::raw::{ACCEPTED, PING, RawResponder};
use crate::envoy_interop::rejections::open_to_all;
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, ResponderOptions, Variant};
use crate::support::eventually::eventually;
use crate::support::site::{Folder, Responder, Running, TO_NODE};
use crate::support::targets::Target;

/// Prints a figure of this run, for whoever looks at one test with `--nocapture`.
fn figure(what: &str, since: Instant) -> Duration {
    let took = since.elapsed();
    eprintln!("{what}: {:.1} s", took.as_secs_f64());
    took
}

/// It is not hasty. That it is quick enough is shown where the clock is moved by hand.
fn not_before(least: u64, took: Duration) {
    assert!(took >= Duration::from_millis(least), "{took:?} is less than {least} ms");
}

async fn healths(responder: &Responder) -> Vec<String> {
    let mut healths: Vec<_> = responder.0.tunnels().await.accepted.into_iter().map(|tunnel| tunnel.health).collect();
    healths.sort();
    healths
}

async fn health(responder: &Responder, wanted: &[&str]) {
    eventually(&format!("{wanted:?}"), async || (healths(responder).await == wanted).then_some(())).await;
}

/// All of them at once: they only wait.
// spec: EV-24, EV-33, EV-44
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_envoy_is_noticed_at_either_end_idle_or_in_use() {
    tokio::join!(
        an_idle_initiator(),
        an_initiator_in_use(),
        an_idle_responder(),
        a_responder_in_use(),
        a_responder_that_stops_pinging(),
    );
}

/// With the default timing: suspect first, dropped 9 to 9.9 s after its last echo.
async fn an_idle_initiator() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, "").await;
    let to = responder.tunnel_address();
    let envoy = EnvoyInitiator::start(Variant::Plaintext, to, target.address(), attentive()).await;
    let Some(envoy) = envoy else { return };
    health(&responder, &["healthy"]).await;
    let frozen = Instant::now();
    envoy.freeze();
    health(&responder, &["suspect"]).await;
    not_before(700, figure("idle initiator suspect", frozen));
    responder.registered(0).await;
    not_before(6500, figure("idle initiator dropped", frozen));
    envoy.thaw();
    let thawed = Instant::now();
    health(&responder, &["healthy"]).await;
    figure("idle initiator back after its thaw", thawed);
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
}

/// Two of one node, of which one freezes in use: the other takes the requests.
async fn an_initiator_in_use() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = open_to_all(&folder, ", ping_interval: 3s").await;
    let to = responder.tunnel_address();
    let victim = EnvoyInitiator::start(Variant::Plaintext, to, target.address(), attentive()).await;
    let Some(victim) = victim else { return };
    let frozen_one = responder.registered(1).await.accepted.remove(0).id;
    let other = EnvoyInitiator::start(Variant::Plaintext, to, target.address(), attentive()).await.unwrap();
    health(&responder, &["healthy", "healthy"]).await;
    // Together they need both tunnels, unless one round trip was measured far too long.
    eventually("both tunnels in use", async || {
        let statuses = ask(&responder, "/slow/100", 16).join_all().await;
        assert!(statuses.iter().all(|(status, _)| *status == 200), "{statuses:?}");
        responder.0.tunnels().await.accepted.iter().all(|tunnel| tunnel.exchanges > 0).then_some(())
    })
    .await;

    let frozen = Instant::now();
    victim.freeze();
    let mut asked = JoinSet::new();
    // What the frozen tunnel has taken by the time it is suspect.
    let mut suspect = None;
    loop {
        asked.spawn(timed(responder.egress(), "/"));
        let accepted = responder.0.tunnels().await.accepted;
        let Some(tunnel) = accepted.into_iter().find(|tunnel| tunnel.id == frozen_one) else { break };
        if suspect.is_none() && tunnel.health == "suspect" {
            figure("initiator in use suspect", frozen);
            suspect = Some(tunnel.exchanges);
        }
        // One may have been on its way into it as it became suspect.
        let most = suspect.map_or(u64::MAX, |taken| taken + 1);
        assert!(tunnel.exchanges <= most, "requests went into a suspect tunnel beside a healthy one");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    not_before(3000, figure("initiator in use dropped", frozen));
    assert!(suspect.is_some(), "it was never suspect");
    let answers = asked.join_all().await;
    let failed = answers.iter().filter(|(status, _)| *status != 200).count();
    let late = answers.iter().filter(|(_, took)| *took > Duration::from_secs(1)).count();
    eprintln!("initiator in use: of {} requests {failed} failed and {late} took more than 1 s", answers.len());
    assert_eq!(failed, 0, "of {}", answers.len());
    drop(other);
}

fn ask(responder: &Responder, path: &'static str, count: usize) -> JoinSet<(u16, Duration)> {
    let egress = responder.egress();
    (0..count).map(|_| timed(egress, path)).collect()
}

async fn timed(egress: SocketAddr, path: &'static str) -> (u16, Duration) {
    let asked = Instant::now();
    let response = crate::support::http1::get(egress, path, &[TO_NODE]).await;
    (response.map_or(0, |response| response.status()), asked.elapsed())
}

async fn dialling(folder: &Folder, responder: &EnvoyResponder, target: &Target) -> Running {
    let edge = adit_initiator(Variant::Plaintext, folder).target(&format!("http://{}", target.address()));
    let to = responder.tunnel_address().to_string();
    Running::start(folder.write("edge.yaml", &edge.text(&to))).await
}

/// Pings are what shows that it lives. It is left after three times their usual distance.
async fn an_idle_responder() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let options = ResponderOptions { ping_interval: Some(Duration::from_secs(2)), ..ResponderOptions::default() };
    let Some(responder) = EnvoyResponder::start(Variant::Plaintext, options).await else { return };
    let edge = dialling(&folder, &responder, &target).await;
    responder.registered(1).await;
    // Two pings and an echo of each show their distance.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let frozen = Instant::now();
    responder.freeze();
    edge.line_with("the responder no longer pings").await;
    not_before(3500, figure("idle responder left", frozen));
    responder.thaw();
    let thawed = Instant::now();
    back(&responder).await;
    figure("idle responder back after its thaw", thawed);
}

/// The same to the byte, with a responder that a test plays: gaps count as 2 s at least, and three are waited for.
async fn a_responder_that_stops_pinging() {
    let (folder, responder) = (Folder::new(), RawResponder::new().await);
    let text = adit_initiator(Variant::Plaintext, &folder).text(&responder.address().to_string());
    let edge = Running::start(folder.write("edge.yaml", &text)).await;
    let mut wire = responder.answer(ACCEPTED).await;
    let mut pinged = Instant::now();
    for _ in 0..2 {
        pinged = Instant::now();
        wire.send(PING).await;
        wire.ping().await;
    }
    let mut again = responder.connection().await;
    not_before(5900, figure("silent responder dialled again", pinged));
    assert!(again.head().await.starts_with("get /reverse_connections/request "));
    edge.line_with("the responder no longer pings").await;
}

/// Pings of HTTP/2 take over.
async fn a_responder_in_use() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = EnvoyResponder::start(Variant::Plaintext, ResponderOptions::default()).await;
    let Some(responder) = responder else { return };
    let edge = dialling(&folder, &responder, &target).await;
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let frozen = Instant::now();
    responder.freeze();
    edge.line_with("the other end no longer answers HTTP/2 pings").await;
    not_before(6500, figure("responder in use left", frozen));
    responder.thaw();
    let thawed = Instant::now();
    back(&responder).await;
    figure("responder in use back after its thaw", thawed);
}

/// Waits until a request gets through. One that meets the old tunnel may hang for as long as Envoy lets it.
async fn back(responder: &EnvoyResponder) {
    eventually("a request to get through", async || {
        let asked = timeout(Duration::from_secs(2), timed(responder.egress(), "/")).await;
        asked.is_ok_and(|(status, _)| status == 200).then_some(())
    })
    .await;
}

// spec: EV-24
#[tokio::test]
async fn a_killed_initiator_is_missed_at_once() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    // Nobody waits here until a ping would miss it.
    let responder = open_to_all(&folder, ", ping_interval: 300s").await;
    for used in [false, true] {
        let to = responder.tunnel_address();
        let envoy = EnvoyInitiator::start(Variant::Plaintext, to, target.address(), attentive()).await;
        let Some(envoy) = envoy else { return };
        health(&responder, &["healthy"]).await;
        if used {
            assert_eq!(status(responder.egress(), TO_NODE).await, 200);
        }
        let killed = Instant::now();
        envoy.kill();
        responder.registered(0).await;
        figure("killed initiator missed", killed);
    }
}

/// Envoy's own initiator takes 7 s or more: it waits for its next round of maintenance.
#[tokio::test]
async fn a_responder_that_was_killed_and_restarted_is_found_again_at_once() {
    let (folder, target) = (Folder::new(), Target::http1().await);
    let responder = EnvoyResponder::start(Variant::Plaintext, ResponderOptions::default()).await;
    let Some(responder) = responder else { return };
    let _edge = dialling(&folder, &responder, &target).await;
    responder.registered(1).await;
    assert_eq!(status(responder.egress(), TO_NODE).await, 200);
    let killed = Instant::now();
    let responder = responder.kill().restart().await;
    let restarted = Instant::now();
    back(&responder).await;
    figure("responder restarted, from its kill to a request", killed);
    figure("responder restarted, from its restart to a request", restarted);
}
