//! What the view of a fleet costs: memory for each tunnel, and the time of a lookup, from few tunnels to a million; and, where
//! there is an etcd, how long it takes until 10,000 tunnels that come at once are in the directory.
//!
//!     cargo bench --bench directory

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod thread;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use adit::fleet::view::{Change, Prefix, ResponderRecord, Stored, TunnelKey, TunnelRecord, View};
use adit::fleet::{Siblings as _, Tunnels};
use adit::id::{Claim, HostId, InstanceId, Place, ResponderId, SpkiPin, TenantId, TunnelId};
use adit::{Drain, Metrics};
use tokio_util::sync::CancellationToken;

use support::etcd::Etcd;
use support::eventually::eventually;

const RESPONDERS: u64 = 8;
const LOOKUPS: u64 = 200_000;
const EVENTS: u64 = 10_000;
/// Tunnels that come at once.
const CROWD: u64 = 10_000;

fn main() {
    // What `cargo test --benches` asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("{:>9} {:>12} {:>12} {:>12} {:>12}", "tunnels", "read, ms", "bytes each", "lookup, ns", "event, µs");
    for tunnels in [1_000, 10_000, 100_000, 1_000_000] {
        measure(tunnels);
    }
    thread::block_on(register());
}

/// Writes many tunnels at once, and has another responder read them.
async fn register() {
    let Some(etcd) = Etcd::start().await else {
        return println!("there is no etcd here (Debian: apt-get install etcd-server)");
    };
    let (drain, metrics) = (Drain::new(), Metrics::new());
    let run = |id: &str, tunnels: u64| {
        let member = etcd.member(id);
        let leave = CancellationToken::new();
        drop(tokio::spawn(member.clone().run(Arc::new(Crowd(tunnels)), metrics.fleet(), drain.watch(), leave)));
        member
    };
    let began = Instant::now();
    let follows = run("follows", 0);
    eventually("that it follows", async || follows.state().is_written.then_some(())).await;
    let begins = Instant::now();
    let has_them = run("has-them", CROWD);
    eventually("all written", async || has_them.state().is_written.then_some(())).await;
    let written = begins.elapsed();
    let knows = async || (follows.view().snapshot().tunnels() as u64 == CROWD).then_some(());
    eventually("that the other one knows them", knows).await;
    let (known, text) = (begins.elapsed(), metrics.render());
    let writes = text.lines().find_map(|line| line.strip_prefix("adit_fleet_writes_total{result=\"ok\"} ")).unwrap();
    println!(
        "{CROWD} tunnels at once: in etcd after {:.2} s and at a sibling after {:.2} s, {writes} writes in all, {:.2} s before",
        written.as_secs_f64(),
        known.as_secs_f64(),
        (begins - began).as_secs_f64()
    );
}

/// So many tunnels.
struct Crowd(u64);

impl Tunnels for Crowd {
    fn changes(&self) -> u64 {
        1
    }

    fn all(&self) -> Vec<(TunnelId, TunnelRecord)> {
        (0..self.0).map(|number| (TunnelId(number), record(number))).collect()
    }

    fn overruled(&self, _: TunnelId) {
        panic!("nobody else has them");
    }
}

fn measure(tunnels: u64) {
    let view = View::new(Prefix::default(), "own".parse().unwrap());
    let all = all(tunnels);
    let began = Instant::now();
    view.read_whole(1, 1, all.clone());
    let read = began.elapsed();
    drop(all);
    let hosts: Vec<HostId> = (0..LOOKUPS).map(|number| node(number.wrapping_mul(7_919) % tunnels)).collect();
    let tenant = TenantId::default();
    let began = Instant::now();
    for host in &hosts {
        assert_eq!(black_box(view.having(&tenant, host)).len(), 1);
    }
    let lookup = began.elapsed() / u32::try_from(LOOKUPS).unwrap();
    let began = Instant::now();
    for number in 0..EVENTS {
        let modified = i64::try_from(number).unwrap() + 2;
        view.apply(modified, vec![Change::Put(Stored { modified, ..tunnel(number % tunnels) })]);
    }
    let event = began.elapsed().as_secs_f64() * 1e6 / EVENTS as f64;
    drop(view);
    let bytes = bytes(tunnels) / i64::try_from(tunnels).unwrap();
    println!("{tunnels:>9} {:>12} {bytes:>12} {:>12} {event:>12.1}", read.as_millis(), lookup.as_nanos());
}

fn all(tunnels: u64) -> Vec<Stored> {
    let record = ResponderRecord {
        epoch: 1,
        version: "adit".into(),
        siblings: vec!["cloud:1".parse().unwrap()],
        initiators: Vec::new(),
        region: None,
        weight: 100,
        draining: false,
    };
    let responder = |number: u64| {
        let key = Prefix::default().responder(&responder(number)).into_bytes();
        Stored { key, value: record.encode(), created: 1, modified: 1 }
    };
    (0..RESPONDERS).map(responder).chain((0..tunnels).map(tunnel)).collect()
}

fn record(number: u64) -> TunnelRecord {
    let claim = Claim {
        tenant: TenantId::default(),
        node: node(number).as_str().parse().unwrap(),
        cluster: format!("stores-{}", number / 100).parse().unwrap(),
    };
    let place = Place { claim, instance: InstanceId([7; 16]), slot: 0, generation: 1 };
    TunnelRecord {
        place,
        key: Some(SpkiPin([7; 32])),
        issued: None,
        suspect: false,
        down: Vec::new(),
        http_down: false,
    }
}

fn tunnel(number: u64) -> Stored {
    let record = record(number);
    let key = TunnelKey { responder: responder(number % RESPONDERS), epoch: 1, tunnel: TunnelId(number) };
    Stored { key: Prefix::default().tunnel(&key).into_bytes(), value: record.encode(), created: 1, modified: 1 }
}

fn responder(number: u64) -> ResponderId {
    format!("cloud-{number}").parse().unwrap()
}

fn node(number: u64) -> HostId {
    format!("edge-{number}").parse().unwrap()
}

/// What a view of so many keeps.
fn bytes(tunnels: u64) -> i64 {
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        let view = View::new(Prefix::default(), "own".parse().unwrap());
        view.read_whole(1, 1, all(tunnels));
        kept = Some(view);
    });
    drop(kept);
    counted.bytes_current
}
