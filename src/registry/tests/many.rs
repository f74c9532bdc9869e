//! Ten thousand nodes at once.

use super::*;

#[test]
fn ten_thousand_nodes_of_one_cluster_come_go_and_are_found() {
    let registry = Fakes::default();
    let fakes: Vec<_> = (0..10_000).map(|n| join(&registry, n, &asks(&format!("n{n}"), "c"))).collect();
    assert_eq!(registry.len(), 10_000);
    for n in [0, 63, 64, 4_999, 9_999] {
        assert_eq!(pick(&registry, &format!("n{n}")), Ok(fakes[n].clone()));
    }
    for n in 0..10_000 {
        assert_eq!(registry.remove(TunnelId(n), Instant::now()).as_ref(), fakes.get(n as usize));
    }
    assert!(registry.is_empty());
    assert_eq!(pick(&registry, "c"), Err(NoTunnel::Reconnecting));
}

#[test]
fn ten_thousand_tenants_of_one_node_each_are_kept_apart() {
    let registry = Fakes::default();
    let tenant = |n: u64| TenantId::new(&format!("t{n}")).unwrap();
    let mut fakes = Vec::new();
    for n in 0..10_000 {
        let place = Place {
            claim: Claim { tenant: tenant(n), ..asks("a", "c").claim() },
            instance: InstanceId([1; 16]),
            slot: 0,
            generation: 1,
        };
        let rules = RuleSettings { insecure_accept_any: true, ..RuleSettings::default() };
        let admitted = authorize(place, &PeerIdentity::default(), None, &Rules::new(rules).unwrap()).unwrap();
        fakes.push(Fake::new());
        let _ = registry.insert(admitted, TunnelId(n), fakes[n as usize].clone()).unwrap();
    }
    for n in [0, 1, 5_000, 9_999] {
        let picked = registry.pick(&tenant(n), &host("c"), two_choices(n), &[], Instant::now());
        assert_eq!(picked, Ok(fakes[n as usize].clone()));
    }
}
