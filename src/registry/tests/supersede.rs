//! Which tunnel takes the place of which.

use super::*;

#[test]
fn a_higher_generation_takes_its_own_slot_only() {
    let registry = Fakes::default();
    let first = join(&registry, 1, &asks("a", "c"));
    let neighbour = join(&registry, 2, &Asks { slot: 1, ..asks("a", "c") });
    let (second, superseded) = insert(&registry, 3, &Asks { generation: 2, ..asks("a", "c") }).unwrap();
    assert_eq!(superseded, [first]);
    let live: Vec<_> = registry.snapshot().map(|tunnel| tunnel.handle).collect();
    assert_eq!(live, [neighbour, second]);
    assert_eq!(registry.remove(TunnelId(1), Instant::now()), None);
}

#[test]
fn a_generation_that_does_not_rise_is_refused() {
    let registry = Fakes::default();
    join(&registry, 1, &Asks { generation: 5, ..asks("a", "c") });
    for generation in [4, 5] {
        let stale = Asks { generation, ..asks("a", "c") };
        assert_eq!(conflict(&registry, 2, &stale), Some(Conflict::StaleGeneration));
    }
    registry.leave(TunnelId(1));
    assert_eq!(conflict(&registry, 2, &asks("a", "c")), Some(Conflict::StaleGeneration));
}

#[test]
fn a_new_instance_takes_the_place_of_the_whole_old_one() {
    let registry = Fakes::default();
    let old = [0, 1, 2].map(|slot| join(&registry, slot, &Asks { slot: slot as u32, generation: 7, ..asks("a", "c") }));
    let (new, superseded) = insert(&registry, 9, &Asks { instance: 2, slot: 1, ..asks("a", "c") }).unwrap();
    assert_eq!(superseded, old);
    assert_eq!(registry.len(), 1);
    assert_eq!(pick(&registry, "a"), Ok(new));
}

#[test]
fn a_replaced_instance_does_not_come_back_while_its_successor_lives() {
    let registry = Fakes::default();
    join(&registry, 1, &asks("a", "c"));
    let (successor, _) = insert(&registry, 2, &Asks { instance: 2, ..asks("a", "c") }).unwrap();
    let back = Asks { generation: 9, ..asks("a", "c") };
    assert_eq!(conflict(&registry, 3, &back), Some(Conflict::RetiredInstance));
    assert_eq!(pick(&registry, "a"), Ok(successor));
    registry.remove(TunnelId(2), Instant::now());
    join(&registry, 3, &back);
}

#[test]
fn few_replaced_instances_are_remembered_the_latest_first() {
    let registry = Fakes::default();
    for instance in 1..=20 {
        insert(&registry, u64::from(instance), &Asks { instance, ..asks("a", "c") }).unwrap();
    }
    let back = |instance| Asks { instance, ..asks("a", "c") };
    for instance in 12..20 {
        assert_eq!(conflict(&registry, 99, &back(instance)), Some(Conflict::RetiredInstance), "{instance}");
    }
    assert_eq!(conflict(&registry, 99, &back(11)), None);
}

#[test]
fn leaving_tunnels_are_not_superseded_they_finish() {
    let registry = Fakes::default();
    let leaving = join(&registry, 1, &asks("a", "c"));
    assert!(registry.leave(TunnelId(1)));
    let replacement = join(&registry, 2, &Asks { generation: 2, ..asks("a", "c") });
    assert_eq!(pick(&registry, "a"), Ok(replacement.clone()));
    let (_, superseded) = insert(&registry, 3, &Asks { instance: 2, ..asks("a", "c") }).unwrap();
    assert_eq!(superseded, [replacement]);
    assert_eq!(registry.remove(TunnelId(1), Instant::now()), Some(leaving));
}

#[test]
fn an_instance_stays_in_its_cluster_and_a_new_one_may_move() {
    let registry = Fakes::default();
    let first = join(&registry, 1, &asks("a", "c"));
    let mate = join(&registry, 2, &asks("b", "c"));
    let moved = Asks { slot: 1, ..asks("a", "d") };
    assert_eq!(conflict(&registry, 3, &moved), Some(Conflict::OtherCluster));

    let (second, superseded) = insert(&registry, 3, &Asks { instance: 2, ..moved }).unwrap();
    assert_eq!(superseded, [first]);
    assert_eq!(pick(&registry, "d"), Ok(second));
    assert_eq!(pick(&registry, "c"), Ok(mate));
}

#[test]
fn a_cluster_whose_only_node_moved_away_is_unknown_and_its_name_free() {
    let registry = Fakes::default();
    join(&registry, 1, &asks("a", "c"));
    insert(&registry, 2, &Asks { instance: 2, ..asks("a", "d") }).unwrap();
    assert_eq!(pick(&registry, "c"), Err(NoTunnel::Unknown));
    let node = join(&registry, 3, &asks("c", "d"));
    assert_eq!(pick(&registry, "c"), Ok(node));
}

#[test]
fn leaving_and_removing_what_is_not_there_does_nothing() {
    let registry = Fakes::default();
    assert!(!registry.leave(TunnelId(1)));
    assert_eq!(registry.remove(TunnelId(1), Instant::now()), None);
    assert!(registry.is_empty());
}

#[test]
fn the_snapshot_has_what_policy_needs_to_be_asked_again() {
    let registry = Fakes::default();
    let handle = join(&registry, 7, &Asks { slot: 3, generation: 4, ..asks("a", "c") });
    registry.leave(TunnelId(7));
    let [tunnel] = registry.snapshot().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((tunnel.id, tunnel.proof.key(), tunnel.leaving), (TunnelId(7), Some(SpkiPin([1; 32])), true));
    assert_eq!(tunnel.place.claim, asks("a", "c").claim());
    assert_eq!((tunnel.place.slot, tunnel.place.generation), (3, 4));
    assert_eq!(tunnel.handle, handle);
}

// spec: HS-14
#[test]
fn a_newer_certificate_with_another_key_takes_the_place_of_one_that_nobody_hears() {
    let registry = Fakes::default();
    let old = Asks { issued: Some((1, 5)), ..asks("a", "c") };
    let tunnels = [0, 1].map(|slot| join(&registry, slot, &Asks { slot: slot as u32, ..old.clone() }));
    let new = Asks { key: Some(2), instance: 2, issued: Some((1, 6)), ..asks("a", "c") };
    let refused = [
        ("an older one", Asks { issued: Some((1, 4)), ..new.clone() }),
        ("one of the same time", Asks { issued: Some((1, 5)), ..new.clone() }),
        ("another authority", Asks { issued: Some((2, 6)), ..new.clone() }),
        ("no proof by name", Asks { issued: None, ..new.clone() }),
        ("another cluster", Asks { cluster: "d".into(), ..new.clone() }),
    ];
    assert_eq!(conflict(&registry, 9, &new), Some(Conflict::OlderKey), "both are heard");
    tunnels[0].turn(Health::Suspect);
    assert_eq!(conflict(&registry, 9, &new), Some(Conflict::OlderKey), "one of them is");
    assert!(InsertError::from(Conflict::OlderKey).refusal().retry_after.is_some());
    tunnels[1].turn(Health::Suspect);
    for (what, other) in refused {
        assert_eq!(conflict(&registry, 9, &other), Some(Conflict::OtherKey), "{what}");
    }
    let (renewed, superseded) = insert(&registry, 9, &new).unwrap();
    assert_eq!(superseded, tunnels);
    assert_eq!(pick(&registry, "a"), Ok(renewed));
    assert_eq!(conflict(&registry, 10, &Asks { slot: 2, ..old }), Some(Conflict::OtherKey), "and not back again");
}
