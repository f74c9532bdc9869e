//! Names that are taken, and quotas.

use super::*;
use crate::policy::QuotaScope;
use crate::protocol::code::RefusalCode;

#[test]
fn a_claim_whose_node_and_cluster_are_one_name_is_refused() {
    let registry = Fakes::default();
    assert_eq!(conflict(&registry, 1, &asks("x", "x")), Some(Conflict::SameName));
    assert_eq!(pick(&registry, "x"), Err(NoTunnel::Unknown));
}

// spec: HS-34
#[test]
fn a_cluster_named_as_a_live_node_gets_none_of_its_traffic() {
    let registry = Fakes::default();
    let victim = join(&registry, 1, &asks("victim", "stores"));
    assert_eq!(conflict(&registry, 2, &asks("attacker", "victim")), Some(Conflict::ClusterIsNode));
    assert_eq!(pick(&registry, "victim"), Ok(victim));
    assert_eq!(pick(&registry, "attacker"), Err(NoTunnel::Unknown));
}

#[test]
fn a_node_named_as_a_live_cluster_is_refused() {
    let registry = Fakes::default();
    let member = join(&registry, 1, &asks("a", "stores"));
    assert_eq!(conflict(&registry, 2, &asks("stores", "other")), Some(Conflict::NodeIsCluster));
    assert_eq!(pick(&registry, "stores"), Ok(member));
}

#[test]
fn a_name_is_free_again_when_its_last_tunnel_is_gone() {
    let registry = Fakes::default();
    join(&registry, 1, &asks("a", "stores"));
    registry.remove(TunnelId(1), Instant::now());
    let node = join(&registry, 2, &asks("stores", "a"));
    assert_eq!(pick(&registry, "stores"), Ok(node));
}

#[test]
fn another_key_does_not_take_a_live_nodes_name() {
    let registry = Fakes::default();
    let first = join(&registry, 1, &asks("a", "c"));
    for key in [Some(2), None] {
        let other = Asks { key, instance: 2, generation: 9, ..asks("a", "c") };
        assert_eq!(conflict(&registry, 2, &other), Some(Conflict::OtherKey));
    }
    assert_eq!(pick(&registry, "a"), Ok(first));
}

#[test]
fn another_key_may_follow_once_every_tunnel_of_the_first_is_leaving() {
    let registry = Fakes::default();
    join(&registry, 1, &asks("a", "c"));
    join(&registry, 2, &Asks { slot: 1, ..asks("a", "c") });
    let other = Asks { key: Some(2), instance: 2, ..asks("a", "c") };
    registry.leave(TunnelId(1));
    assert_eq!(conflict(&registry, 3, &other), Some(Conflict::OtherKey));
    registry.leave(TunnelId(2));
    let successor = join(&registry, 3, &other);
    assert_eq!(pick(&registry, "a"), Ok(successor));
    assert_eq!(conflict(&registry, 4, &Asks { slot: 2, ..asks("a", "c") }), Some(Conflict::OtherKey));
}

#[test]
fn tenants_are_separate_worlds() {
    let registry = Fakes::default();
    let ours = join(&registry, 1, &Asks { tenant: "ours", ..asks("a", "c") });
    let theirs = join(&registry, 2, &Asks { tenant: "theirs", key: Some(2), ..asks("a", "c") });
    let swapped = join(&registry, 3, &Asks { tenant: "third", ..asks("c", "a") });
    for name in ["a", "c"] {
        assert_eq!(pick_in(&registry, "ours", name), Ok(ours.clone()));
        assert_eq!(pick_in(&registry, "theirs", name), Ok(theirs.clone()));
        assert_eq!(pick_in(&registry, "third", name), Ok(swapped.clone()));
        assert_eq!(pick_in(&registry, "default", name), Err(NoTunnel::Unknown));
    }
    registry.remove(TunnelId(1), Instant::now());
    assert_eq!(pick_in(&registry, "ours", "a"), Err(NoTunnel::Reconnecting));
    assert_eq!(pick_in(&registry, "theirs", "a"), Ok(theirs));
}

#[test]
fn a_refused_tunnel_changes_nothing_and_leaves_no_handle_behind() {
    let registry = Fakes::default();
    let live = join(&registry, 1, &asks("a", "c"));
    let refused = Fake::new();
    let other = Asks { key: Some(2), ..asks("a", "d") };
    assert!(registry.insert(other.admitted(), TunnelId(2), refused.clone()).is_err());
    assert_eq!(refused.handles(), 1);
    assert_eq!(registry.snapshot().map(|tunnel| tunnel.handle).collect::<Vec<_>>(), [live]);
    assert_eq!(pick(&registry, "d"), Err(NoTunnel::Unknown));
}

#[test]
fn a_tunnel_id_is_used_once() {
    let registry = Fakes::default();
    join(&registry, 1, &asks("a", "c"));
    assert_eq!(insert(&registry, 1, &asks("b", "c")).unwrap_err(), InsertError::DuplicateId);
}

fn quota(registry: &Fakes, id: u64, asks: &Asks) -> Option<QuotaScope> {
    match insert(registry, id, asks) {
        Err(InsertError::Quota(exceeded)) => Some(exceeded.scope),
        _ => None,
    }
}

#[test]
fn quotas_count_per_node_per_tenant_and_in_all() {
    let registry = Fakes::default();
    let quotas = Quotas { per_node: 2, per_tenant: 3, total: 4, ..Quotas::default() };
    let slot = |slot, node, tenant| Asks { quotas, slot, tenant, ..asks(node, "c") };
    join(&registry, 1, &slot(0, "a", "t"));
    join(&registry, 2, &slot(1, "a", "t"));
    assert_eq!(quota(&registry, 3, &slot(2, "a", "t")), Some(QuotaScope::Node));
    join(&registry, 3, &slot(0, "b", "t"));
    assert_eq!(quota(&registry, 4, &slot(1, "b", "t")), Some(QuotaScope::Tenant));
    join(&registry, 4, &slot(0, "a", "u"));
    assert_eq!(quota(&registry, 5, &slot(0, "a", "v")), Some(QuotaScope::Total));
    let counts = registry.counts(&slot(0, "a", "t").claim());
    assert_eq!((counts.node, counts.tenant, counts.total), (2, 3, 4));
}

#[test]
fn a_full_node_can_still_replace_its_tunnels() {
    let registry = Fakes::default();
    let full = Asks { quotas: Quotas { per_node: 1, per_tenant: 1, total: 1, ..Quotas::default() }, ..asks("a", "c") };
    join(&registry, 1, &full);
    insert(&registry, 2, &Asks { generation: 2, ..full.clone() }).unwrap();
    insert(&registry, 3, &Asks { instance: 2, ..full }).unwrap();
    assert_eq!(registry.len(), 1);
}

#[test]
fn leaving_tunnels_count_until_they_are_removed() {
    let registry = Fakes::default();
    let quotas = Quotas { per_node: 1, ..Quotas::default() };
    join(&registry, 1, &Asks { quotas, ..asks("a", "c") });
    registry.leave(TunnelId(1));
    let next = Asks { quotas, generation: 2, ..asks("a", "c") };
    assert_eq!(quota(&registry, 2, &next), Some(QuotaScope::Node));
    registry.remove(TunnelId(1), Instant::now());
    assert_eq!(quota(&registry, 2, &next), None);
}

#[test]
fn refusals_have_envoys_numbers() {
    let exceeded = Quotas::default().check(crate::policy::Counts { node: 16, tenant: 16, total: 16 }).unwrap_err();
    for (error, code) in [
        (InsertError::Conflict(Conflict::OtherKey), RefusalCode::Conflict),
        (InsertError::Quota(exceeded), RefusalCode::Quota),
        (InsertError::DuplicateId, RefusalCode::Unavailable),
    ] {
        let refusal = error.refusal();
        assert_eq!(refusal.code, code);
        assert_eq!(refusal.retry_after.is_some(), code == RefusalCode::Quota);
        assert!(!refusal.reason.is_empty());
    }
}
