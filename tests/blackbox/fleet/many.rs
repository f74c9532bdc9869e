//! Ten thousand tunnels at once.

use std::sync::Arc;
use std::time::Instant;

use adit::fleet::view::TunnelRecord;
use adit::fleet::{Siblings, Tunnels};
use adit::id::{Claim, InstanceId, Place, TenantId, TunnelId};
use adit::{Drain, Metrics};
use tokio_util::sync::CancellationToken;

use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;

const TUNNELS: u64 = 10_000;

struct Many;

impl Tunnels for Many {
    fn changes(&self) -> u64 {
        1
    }

    fn all(&self) -> Vec<(TunnelId, TunnelRecord)> {
        (0..TUNNELS).map(|number| (TunnelId(number), record(number))).collect()
    }

    fn overruled(&self, _: TunnelId) {
        panic!("nobody else is there");
    }
}

fn record(number: u64) -> TunnelRecord {
    let claim = Claim {
        tenant: TenantId::default(),
        node: format!("edge-{number}").parse().unwrap(),
        cluster: "stores".parse().unwrap(),
    };
    let place = Place { claim, instance: InstanceId([7; 16]), slot: 0, generation: 1 };
    TunnelRecord { place, key: None, issued: None, suspect: false, down: Vec::new(), http_down: false }
}

/// spec: FL-11
#[tokio::test]
async fn ten_thousand_tunnels_are_about_a_hundred_writes() {
    let Some(etcd) = Etcd::start().await else { return };
    let (drain, metrics, began) = (Drain::new(), Metrics::new(), Instant::now());
    let has_it = etcd.member("has-it");
    let run = has_it.clone().run(Arc::new(Many), metrics.fleet(), drain.watch(), CancellationToken::new());
    drop(tokio::spawn(run));
    eventually("everything is written", async || has_it.state().is_written.then_some(())).await;
    let written = began.elapsed();
    let text = metrics.render();
    let writes = text.lines().find_map(|line| line.strip_prefix("adit_fleet_writes_total{result=\"ok\"} ")).unwrap();
    eprintln!("{TUNNELS} tunnels: {writes} writes, {written:?}");
    assert_eq!(writes, "101", "100 of 100 tunnels, and the responder's own");

    let asks = etcd.member("asks");
    let began = Instant::now();
    let run = asks.clone().run(Arc::new(Nothing), metrics.fleet(), drain.watch(), CancellationToken::new());
    drop(tokio::spawn(run));
    eventually("the other one knows them", async || (asks.view().snapshot().tunnels() == 10_000).then_some(())).await;
    eprintln!("read by another one after {:?}", began.elapsed());
    let found = asks.view().having(&TenantId::default(), &"edge-9999".parse().unwrap());
    assert_eq!(
        found.iter().map(|sibling| (sibling.id.as_str(), sibling.tunnels)).collect::<Vec<_>>(),
        [("has-it", 10_000)]
    );
}

struct Nothing;

impl Tunnels for Nothing {
    fn changes(&self) -> u64 {
        0
    }

    fn all(&self) -> Vec<(TunnelId, TunnelRecord)> {
        Vec::new()
    }

    fn overruled(&self, _: TunnelId) {}
}
