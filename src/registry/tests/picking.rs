//! Which tunnel of a node, and which node of a cluster.

use std::collections::HashMap;

use super::*;

fn node_of_three() -> (Fakes, [Fake; 3]) {
    let registry = Fakes::default();
    let fakes = [0, 1, 2].map(|slot| join(&registry, u64::from(slot), &Asks { slot, ..asks("a", "c") }));
    (registry, fakes)
}

#[test]
fn of_equal_tunnels_the_freshest_is_taken() {
    let (registry, [_, _, freshest]) = node_of_three();
    assert_eq!(pick(&registry, "a"), Ok(freshest));
}

#[test]
fn the_least_requests_in_flight_times_round_trip_wins() {
    let (registry, [first, second, third]) = node_of_three();
    third.busy(1);
    second.busy(1);
    assert_eq!(pick(&registry, "a"), Ok(first.clone()));
    first.rtt(120_000);
    third.rtt(49_000);
    assert_eq!(pick(&registry, "a"), Ok(third));
}

#[test]
fn a_round_trip_of_nothing_still_lets_requests_in_flight_count() {
    let (registry, fakes) = node_of_three();
    fakes.iter().for_each(|fake| fake.rtt(0));
    fakes[2].busy(3);
    fakes[1].busy(1);
    assert_eq!(pick(&registry, "a"), Ok(fakes[0].clone()));
}

// spec: HS-38
#[test]
fn a_tunnel_that_is_not_open_yet_is_not_used_and_is_told_from_one_that_is_gone() {
    let (registry, fakes) = node_of_three();
    fakes[2].turn(Health::Opening);
    fakes[1].turn(Health::Suspect);
    fakes[0].turn(Health::Draining);
    assert_eq!(pick(&registry, "a"), Ok(fakes[1].clone()));
    fakes[1].turn(Health::Draining);
    for name in ["a", "c"] {
        assert_eq!(pick(&registry, name), Err(NoTunnel::Opening));
    }
    fakes[2].turn(Health::Draining);
    assert_eq!(pick(&registry, "a"), Err(NoTunnel::Reconnecting));
}

#[test]
fn a_suspect_tunnel_is_used_only_when_no_healthy_one_is_left() {
    let (registry, [first, second, third]) = node_of_three();
    third.turn(Health::Suspect);
    second.turn(Health::Suspect);
    first.busy(1000);
    assert_eq!(pick(&registry, "a"), Ok(first.clone()));
    first.turn(Health::Draining);
    assert_eq!(pick(&registry, "a"), Ok(third));
}

#[test]
fn without_a_usable_tunnel_the_reason_says_whether_waiting_helps() {
    let (registry, fakes) = node_of_three();
    let ids = [0, 1, 2].map(TunnelId);
    let pick = |name, avoid: &[TunnelId]| {
        registry.pick(&TenantId::default(), &host(name), two_choices(0), avoid, Instant::now()).map(|_| ())
    };
    for name in ["a", "c"] {
        assert_eq!(pick(name, &ids[..2]), Ok(()));
        assert_eq!(pick(name, &ids), Err(NoTunnel::AllAvoided));
    }
    fakes.iter().for_each(|fake| fake.turn(Health::Draining));
    for name in ["a", "c"] {
        assert_eq!(pick(name, &[]), Err(NoTunnel::Reconnecting));
        assert_eq!(pick(name, &ids), Err(NoTunnel::Reconnecting));
    }
    assert_eq!(pick("b", &[]), Err(NoTunnel::Unknown));
}

#[test]
fn tunnels_that_leave_are_not_picked() {
    let (registry, [first, ..]) = node_of_three();
    registry.leave(TunnelId(1));
    registry.leave(TunnelId(2));
    assert_eq!(pick(&registry, "a"), Ok(first));
    registry.leave(TunnelId(0));
    assert_eq!(pick(&registry, "a"), Err(NoTunnel::Reconnecting));
    assert_eq!(pick(&registry, "c"), Err(NoTunnel::Reconnecting));
}

#[test]
fn a_lost_name_is_reconnecting_for_thirty_seconds_then_unknown() {
    let registry = Fakes::default();
    let lost = Instant::now();
    join(&registry, 1, &asks("a", "c"));
    registry.remove(TunnelId(1), lost);
    let pick =
        |name, after| registry.pick(&TenantId::default(), &host(name), two_choices(0), &[], lost + after).map(|_| ());
    for name in ["a", "c"] {
        assert_eq!(pick(name, RECONNECT_WINDOW - Duration::from_millis(1)), Err(NoTunnel::Reconnecting));
        assert_eq!(pick(name, RECONNECT_WINDOW), Err(NoTunnel::Unknown));
    }
}

fn cluster(nodes: u64) -> (Fakes, Vec<Fake>) {
    let registry = Fakes::new();
    let fakes = (0..nodes).map(|n| join(&registry, n, &asks(&format!("n{n}"), "c"))).collect();
    (registry, fakes)
}

fn pick_by(registry: &Fakes, balance: Balance, entropy: u64) -> Fake {
    registry.pick(&TenantId::default(), &host("c"), Choice { balance, entropy }, &[], Instant::now()).unwrap()
}

/// How often each of the fakes is picked.
fn shares(registry: &Fakes, balance: Balance, fakes: &[Fake], picks: u64) -> Vec<u64> {
    let mut state = 17;
    let mut shares: HashMap<*const State, u64> = HashMap::new();
    for _ in 0..picks {
        let fake = pick_by(registry, balance, random(&mut state));
        *shares.entry(Arc::as_ptr(&fake.0)).or_default() += 1;
    }
    fakes.iter().map(|fake| shares.get(&Arc::as_ptr(&fake.0)).copied().unwrap_or_default()).collect()
}

#[test]
fn equal_nodes_get_equal_shares() {
    // More nodes than one chunk holds.
    let (registry, fakes) = cluster(70);
    for (balance, slack) in [(Balance::TwoChoices, 200), (Balance::RoundRobin, 0), (Balance::Hash, 200)] {
        for (node, share) in shares(&registry, balance, &fakes, 70_000).into_iter().enumerate() {
            assert!(share.abs_diff(1000) <= slack, "{balance:?}: node {node} got {share} of 70,000");
        }
    }
}

#[test]
fn each_pick_has_its_own_balance() {
    let (registry, fakes) = cluster(2);
    fakes[0].busy(3);
    for _ in 0..3 {
        assert_eq!(shares(&registry, Balance::TwoChoices, &fakes, 100), [0, 100]);
        assert_eq!(shares(&registry, Balance::RoundRobin, &fakes, 100), [50, 50]);
        let sticky: Vec<_> = (0..100).map(|_| pick_by(&registry, Balance::Hash, 5)).collect();
        assert!(sticky.iter().all(|fake| *fake == sticky[0]));
    }
}

#[test]
fn of_two_nodes_the_less_loaded_one_is_taken() {
    let (registry, fakes) = cluster(2);
    fakes[0].busy(3);
    assert_eq!(shares(&registry, Balance::TwoChoices, &fakes, 100), [0, 100]);
    fakes[1].rtt(500_000);
    assert_eq!(shares(&registry, Balance::TwoChoices, &fakes, 100), [100, 0]);
}

#[test]
fn the_worst_node_of_a_large_cluster_is_taken_least() {
    let (registry, fakes) = cluster(10);
    fakes[4].busy(50);
    let shares = shares(&registry, Balance::TwoChoices, &fakes, 10_000);
    assert_eq!(shares[4], 0, "{shares:?}");
}

#[test]
fn requests_reach_the_only_healthy_node_however_many_are_not() {
    for balance in [Balance::TwoChoices, Balance::RoundRobin, Balance::Hash] {
        let (registry, fakes) = cluster(100);
        for fake in &fakes {
            fake.turn(Health::Suspect);
        }
        fakes[42].turn(Health::Healthy);
        let healthy = shares(&registry, balance, &fakes, 500);
        assert_eq!(healthy[42], 500, "{balance:?}");
        fakes[42].turn(Health::Draining);
        let suspect = shares(&registry, balance, &fakes, 500);
        assert_eq!((suspect[42], suspect.iter().sum()), (0, 500), "{balance:?}");
    }
}

#[test]
fn nodes_that_come_and_go_leave_every_other_one_reachable() {
    let (registry, fakes) = cluster(200);
    for n in (0..200).filter(|n| n % 3 != 0) {
        registry.remove(TunnelId(n), Instant::now());
    }
    for (n, share) in shares(&registry, Balance::RoundRobin, &fakes, 67).into_iter().enumerate() {
        assert_eq!(share, u64::from(n % 3 == 0), "node {n}");
    }
}

#[test]
fn affinity_holds_and_only_the_keys_of_a_lost_node_move() {
    let (registry, fakes) = cluster(20);
    let choose = |key| pick_by(&registry, Balance::Hash, key);
    let mut state = 5;
    let keys: Vec<_> = std::iter::repeat_with(|| random(&mut state)).take(500).collect();
    let before: Vec<_> = keys.iter().map(|key| choose(*key)).collect();
    registry.remove(TunnelId(7), Instant::now());
    for (key, before) in keys.into_iter().zip(before) {
        let after = choose(key);
        assert_eq!(after == before, before != fakes[7]);
        assert_eq!(choose(key), after);
    }
}

#[test]
fn affinity_is_the_same_in_every_responder() {
    let names: Vec<_> = (0..50).map(|n| format!("n{n}")).collect();
    let [forwards, backwards] = [Fakes::new(), Fakes::new()];
    for (id, name) in names.iter().enumerate() {
        join(&forwards, id as u64, &asks(name, "c"));
    }
    for (id, name) in names.iter().enumerate().rev() {
        join(&backwards, id as u64, &asks(name, "c"));
    }
    let name_of = |registry: &Fakes, key| {
        let fake = pick_by(registry, Balance::Hash, key);
        registry.snapshot().find(|tunnel| tunnel.handle == fake).map(|tunnel| tunnel.place.claim.node)
    };
    let mut state = 3;
    for _ in 0..100 {
        let key = random(&mut state);
        assert_eq!(name_of(&forwards, key), name_of(&backwards, key));
    }
}

/// Who is picked in a cluster for a service that may be down, however it is balanced.
fn picked_for(registry: &Fakes, entropy: u64, avoid: &[TunnelId]) -> Vec<Result<Fake, NoTunnel>> {
    let pick = |balance| {
        let (tenant, host_id) = (TenantId::default(), host("c"));
        let wanted = Wanted { tenant: &tenant, host_id: &host_id, service: None, choice: Choice { balance, entropy } };
        registry.pick_for(wanted, avoid, Instant::now())
    };
    [Balance::TwoChoices, Balance::RoundRobin, Balance::Hash].map(pick).into()
}

// spec: CT-61
#[test]
fn a_node_whose_service_is_down_gets_no_request_of_its_cluster_while_another_one_can_take_it() {
    let (registry, fakes) = cluster(3);
    fakes[0].down(true);
    fakes[1].down(true);
    fakes[2].busy(1000);
    for entropy in (0..200).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        for picked in picked_for(&registry, entropy, &[]) {
            assert_eq!(picked, Ok(fakes[2].clone()));
        }
    }
    fakes[0].down(false);
    let picked: Vec<_> = (0..200).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let picked = picked.iter().flat_map(|entropy| picked_for(&registry, *entropy, &[]));
    assert!(picked.into_iter().any(|picked| picked == Ok(fakes[0].clone())), "it has its share again");
}

// spec: CT-61
#[test]
fn what_was_said_of_a_service_never_keeps_a_request_from_being_sent() {
    let (registry, fakes) = cluster(2);
    fakes.iter().for_each(|fake| fake.down(true));
    assert!(picked_for(&registry, 1, &[]).iter().all(Result::is_ok), "all are down");
    assert_eq!(pick(&registry, "n0"), Ok(fakes[0].clone()));
    fakes[1].turn(Health::Suspect);
    assert!(picked_for(&registry, 1, &[]).iter().all(|picked| *picked == Ok(fakes[0].clone())), "one that answers");
    fakes[1].down(false);
    assert!(picked_for(&registry, 1, &[]).iter().all(|picked| *picked == Ok(fakes[0].clone())), "rather than none");
}
