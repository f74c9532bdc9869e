//! What stays behind when tunnels are gone.

use super::*;

fn names(registry: &Fakes) -> usize {
    registry.names.shards().map(|shard| shard.held().count()).sum()
}

#[test]
fn no_handle_outlives_its_removal() {
    let registry = Fakes::default();
    let fakes: Vec<_> =
        (0..100).map(|n| join(&registry, n, &asks(&format!("n{}", n / 2), "c").slot((n % 2) as u32))).collect();
    let (_, superseded) = insert(&registry, 100, &Asks { generation: 2, ..asks("n0", "c") }).unwrap();
    drop(superseded);
    for n in (0..=100).rev() {
        registry.remove(TunnelId(n), Instant::now());
    }
    for (n, fake) in fakes.iter().enumerate() {
        assert_eq!(fake.handles(), 1, "tunnel {n}");
    }
    assert_eq!(registry.snapshot().count(), 0);
}

#[test]
fn lost_names_are_forgotten_in_time() {
    let registry = Fakes::default();
    let start = Instant::now();
    for n in 0..50 {
        join(&registry, n, &asks(&format!("n{n}"), &format!("c{n}")));
        registry.remove(TunnelId(n), start);
    }
    assert_eq!(names(&registry), 100);
    join(&registry, 99, &asks("last", "c"));
    registry.remove(TunnelId(99), start + RECONNECT_WINDOW);
    assert_eq!(names(&registry), 2);
    assert_eq!(registry.ledger().departed.len(), 2);
    assert_eq!(registry.ledger().tenants(), 0);
}

#[test]
fn a_name_that_came_back_is_not_forgotten_with_its_loss() {
    let registry = Fakes::default();
    let start = Instant::now();
    join(&registry, 1, &asks("a", "c"));
    registry.remove(TunnelId(1), start);
    let back = join(&registry, 2, &asks("a", "c"));
    join(&registry, 3, &asks("b", "d"));
    registry.remove(TunnelId(3), start + RECONNECT_WINDOW);
    assert_eq!(pick(&registry, "a"), Ok(back.clone()));
    assert_eq!(pick(&registry, "c"), Ok(back));
}

#[test]
fn lost_names_are_bounded_in_number() {
    let registry = Fakes::default();
    let now = Instant::now();
    let losses = MAX_DEPARTED as u64 / 2 + 100;
    for n in 0..losses {
        join(&registry, n, &asks(&format!("n{n}"), &format!("c{n}")));
        registry.remove(TunnelId(n), now);
    }
    assert_eq!(names(&registry), MAX_DEPARTED);
    assert_eq!(registry.ledger().departed.len(), MAX_DEPARTED);
    assert_eq!(pick(&registry, "n0"), Err(NoTunnel::Unknown));
    assert_eq!(pick(&registry, &format!("n{}", losses - 1)), Err(NoTunnel::Reconnecting));
}

#[test]
fn a_name_that_was_known_before_a_restart_counts_as_reconnecting_and_gives_way_to_whoever_comes() {
    let registry = Fakes::default();
    let start = Instant::now();
    let live = join(&registry, 1, &asks("here", "c"));
    for (node, cluster) in [("here", "c"), ("gone", "c"), ("other", "d")] {
        registry.remember(&asks(node, cluster).claim(), start);
    }
    assert_eq!(pick(&registry, "here"), Ok(live));
    for name in ["gone", "other", "d"] {
        assert_eq!(pick(&registry, name), Err(NoTunnel::Reconnecting), "{name}");
    }
    let named_as_a_cluster_was = join(&registry, 2, &asks("d", "e"));
    assert_eq!(pick(&registry, "d"), Ok(named_as_a_cluster_was));
    registry.remove(TunnelId(2), start + RECONNECT_WINDOW);
    assert_eq!(pick(&registry, "gone"), Err(NoTunnel::Unknown), "forgotten in time");
}
