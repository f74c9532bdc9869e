use super::*;

fn named(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn claim(node: &str) -> Claim {
    Claim { tenant: named("acme"), cluster: "stores".parse().unwrap(), node: node.parse().unwrap() }
}

fn shares(per_tenant: Share) -> Shares {
    let shares = Shares::new();
    shares.update(ShareSettings { per_tenant, ..ShareSettings::default() });
    shares
}

fn begin(shares: &Shares, tenant: &str, what: What) -> Result<Stake, Exceeded> {
    Stake::of_tenant(shares.tenant(&named(tenant)), what)
}

#[tokio::test(start_paused = true)]
async fn so_many_are_under_way_at_once_and_the_place_of_one_that_is_over_is_free() {
    let shares = shares(Share { in_flight: Some(2), streams: Some(1), flows: Some(1), ..Share::default() });
    let (first, second) = (begin(&shares, "acme", What::Exchange), begin(&shares, "acme", What::Stream));
    let refused = begin(&shares, "acme", What::Exchange).unwrap_err();
    assert_eq!(refused.to_string(), "tenant acme has its 2 requests under way already");
    assert!(begin(&shares, "other", What::Exchange).is_ok(), "another tenant has places of its own");
    drop(first);
    let refused = begin(&shares, "acme", What::Stream).unwrap_err();
    assert_eq!(refused.to_string(), "tenant acme has its 1 raw streams under way already");
    let _third = begin(&shares, "acme", What::Exchange).unwrap();
    drop(second);
    let _fourth = begin(&shares, "acme", What::Stream).unwrap();
    let _flow = begin(&shares, "acme", What::Flow).unwrap();
    assert_eq!(begin(&shares, "acme", What::Flow).unwrap_err().to_string(), "tenant acme has its 1 flows open already");
}

#[tokio::test(start_paused = true)]
async fn the_time_that_is_said_is_when_the_next_request_may_come() {
    let shares = shares(Share { requests: Some(Rate { per_second: 4, burst: 2 }), ..Share::default() });
    for _ in 0..2 {
        drop(begin(&shares, "acme", What::Exchange).unwrap());
    }
    let refused = begin(&shares, "acme", What::Exchange).unwrap_err();
    assert_eq!(refused.retry_after.as_millis(), 250);
    tokio::time::sleep(refused.retry_after).await;
    drop(begin(&shares, "acme", What::Exchange).unwrap());
    assert!(begin(&shares, "acme", What::Exchange).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_takes_nothing() {
    let share = Share { in_flight: Some(1), requests: Some(Rate { per_second: 1, burst: 3 }), ..Share::default() };
    let shares = shares(share);
    let first = begin(&shares, "acme", What::Exchange).unwrap();
    for _ in 0..10 {
        assert!(begin(&shares, "acme", What::Exchange).unwrap_err().to_string().contains("under way"));
    }
    drop(first);
    assert!((0..2).all(|_| begin(&shares, "acme", What::Exchange).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn other_limits_hold_at_once_and_what_is_under_way_still_counts() {
    let shares = shares(Share::default());
    let held: Vec<_> = (0..3).map(|_| begin(&shares, "acme", What::Exchange).unwrap()).collect();
    let per_tenant = Share { in_flight: Some(2), ..Share::default() };
    shares.update(ShareSettings { per_tenant, ..ShareSettings::default() });
    assert!(begin(&shares, "acme", What::Exchange).is_err());
    drop(held);
    assert!(begin(&shares, "acme", What::Exchange).is_ok());
    shares.update(ShareSettings::default());
    let many: Vec<_> = (0..9).map(|_| begin(&shares, "acme", What::Exchange).unwrap()).collect();
    assert_eq!(many.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_node_has_a_share_of_its_own_and_an_exchange_that_goes_elsewhere_leaves_it() {
    let shares = Shares::new();
    assert!(shares.node(&claim("edge-1")).is_none(), "without limits a node has no account");
    let per_node = Share { in_flight: Some(1), ..Share::default() };
    shares.update(ShareSettings { per_node, ..ShareSettings::default() });
    let mut first = begin(&shares, "acme", What::Exchange).unwrap();
    let mut second = begin(&shares, "acme", What::Exchange).unwrap();
    first.go_to(shares.node(&claim("edge-1"))).unwrap();
    let refused = second.go_to(shares.node(&claim("edge-1"))).unwrap_err();
    assert_eq!(refused.to_string(), "node edge-1 has its 1 requests under way already");
    second.go_to(shares.node(&claim("edge-2"))).unwrap();
    first.go_to(shares.node(&claim("edge-3"))).unwrap();
    second.go_to(shares.node(&claim("edge-1"))).unwrap();
    drop(second);
    first.go_to(shares.node(&claim("edge-1"))).unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_keep_their_rate_and_wait_for_the_slower_of_tenant_and_node() {
    let shares = shares(Share { bytes: Some(Rate::new(1_000)), ..Share::default() });
    let mut stake = begin(&shares, "acme", What::Exchange).unwrap();
    let began = tokio::time::Instant::now();
    for _ in 0..11 {
        if let Some(wait) = stake.meter().charge(1_000) {
            wait.await;
        }
    }
    assert_eq!(began.elapsed().as_secs(), 9, "a second's worth was there, and the last one is owed");
    let per_tenant = Share { bytes: Some(Rate::new(1_000)), ..Share::default() };
    let per_node = Share { bytes: Some(Rate::new(100)), ..Share::default() };
    shares.update(ShareSettings { per_tenant, per_node, ..ShareSettings::default() });
    let meter = stake.meter();
    stake.go_to(shares.node(&claim("edge-1"))).unwrap();
    stake.tell(&meter);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        if let Some(wait) = meter.charge(500) {
            wait.await;
        }
    }
    assert_eq!(began.elapsed().as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_go_on_when_their_rate_is_raised() {
    let shares = shares(Share { bytes: Some(Rate::new(10)), ..Share::default() });
    let stake = begin(&shares, "acme", What::Exchange).unwrap();
    assert!(stake.meter().charge(1_000_000).is_none());
    let wait = stake.meter().charge(1).unwrap();
    let began = tokio::time::Instant::now();
    let waits = tokio::spawn(wait);
    tokio::task::yield_now().await;
    let per_tenant = Share { bytes: Some(Rate::new(10_000_000)), ..Share::default() };
    shares.update(ShareSettings { per_tenant, ..ShareSettings::default() });
    waits.await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(1_001), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_tenant_alone_takes_no_turns_and_one_beside_others_does() {
    let shares = Shares::new();
    let only = begin(&shares, "acme", What::Exchange).unwrap();
    assert!((0..1_000).all(|_| only.begin().is_none() && only.meter().charge(1 << 20).is_none()));
    let other = begin(&shares, "other", What::Exchange).unwrap();
    let waiting = (0..1_000).filter_map(|_| only.begin()).count();
    assert!(waiting >= 990, "{waiting}");
    assert!(other.begin().is_none(), "who wants little does not wait");
    drop(other);
    // A while after the last of the others.
    tokio::time::sleep(CALM).await;
    let only = begin(&shares, "acme", What::Exchange).unwrap();
    assert!((0..1_000).all(|_| only.begin().is_none()));
}

/// Nothing else would bound how many tasks one tenant wakes up at once.
#[tokio::test(start_paused = true)]
async fn what_has_few_bytes_costs_a_turn_too() {
    let shares = Shares::new();
    let only = begin(&shares, "acme", What::Exchange).unwrap();
    let _other = begin(&shares, "other", What::Exchange).unwrap();
    let meter = only.meter();
    let at_once = (0..1_000).take_while(|_| meter.charge(1).is_none()).count();
    assert!((8..=32).contains(&at_once), "{at_once}");
}

#[tokio::test(start_paused = true)]
async fn what_others_have_under_way_counts_however_long_ago_it_began() {
    let shares = Shares::new();
    let _download = begin(&shares, "acme", What::Exchange).unwrap();
    for _ in 0..5 {
        tokio::time::sleep(CALM).await;
        let other = begin(&shares, "other", What::Exchange).unwrap();
        assert!((0..1_000).any(|_| other.begin().is_some()));
    }
}

#[tokio::test]
async fn all_that_waits_for_a_turn_gets_it_whoever_gives_up() {
    let shares = Shares::new();
    let (one, other) =
        (begin(&shares, "acme", What::Exchange).unwrap(), begin(&shares, "other", What::Exchange).unwrap());
    let mut waiting = Vec::new();
    for index in 0..5_000 {
        let stake = if index % 3 == 0 { &one } else { &other };
        if let Some(wait) = stake.begin()
            && index % 7 != 0
        {
            waiting.push(tokio::spawn(wait));
        }
    }
    assert!(waiting.len() > 4_000);
    for wait in waiting {
        wait.await.unwrap();
    }
}

#[test]
fn who_waits_when_its_runtime_ends_is_let_go() {
    let (shares, runtime) = (Shares::new(), || tokio::runtime::Builder::new_current_thread().build().unwrap());
    let turns = async |shares: &Shares| {
        let one = begin(shares, "acme", What::Exchange).unwrap();
        let _other = begin(shares, "other", What::Exchange).unwrap();
        (0..100).filter_map(|_| one.begin()).collect::<Vec<_>>()
    };
    let left = runtime().block_on(turns(&shares));
    assert!(!left.is_empty());
    runtime().block_on(async {
        for wait in left {
            wait.await;
        }
        for wait in turns(&shares).await {
            wait.await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn names_that_come_once_are_forgotten() {
    let shares = shares(Share { requests: Some(Rate::new(10)), ..Share::default() });
    let held = begin(&shares, "held", What::Exchange).unwrap();
    for index in 0..100_000 {
        drop(begin(&shares, &format!("t{index}"), What::Exchange).unwrap());
        tokio::time::advance(Duration::from_micros(100)).await;
    }
    let count = shares.lock().tenants.len();
    assert!(count < 4 * FIRST_SWEEP, "{count} of 100,000 names are known");
    assert!(!shares.tenant(&named("held")).is_idle(), "who has something under way is not forgotten");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn tenants_share_a_busy_thread_by_weight() {
    let shares = Arc::new(Shares::new());
    let heavy = TenantShare { tenant: named("heavy"), weight: 3, share: Share::default() };
    shares.update(ShareSettings { tenants: vec![heavy], ..ShareSettings::default() });
    let counts: [Arc<std::sync::atomic::AtomicU64>; 2] = Default::default();
    for (tenant, count) in ["heavy", "light"].into_iter().zip(&counts) {
        for _ in 0..200 {
            let (shares, count) = (Arc::clone(&shares), Arc::clone(count));
            tokio::spawn(async move {
                loop {
                    let stake = begin(&shares, tenant, What::Exchange).unwrap();
                    if let Some(turn) = stake.begin() {
                        turn.await;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
    let [heavy, light] = counts.map(|count| count.load(Ordering::Relaxed));
    let ratio = heavy as f64 / light as f64;
    assert!((2.8..3.2).contains(&ratio), "{heavy} and {light}");
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_while_it_waits_for_its_rate_is_not_owed() {
    let per_tenant = Share { bytes: Some(Rate::new(1_000)), ..Share::default() };
    let shares = Shares::new();
    shares.update(ShareSettings { per_tenant, per_node: per_tenant, ..ShareSettings::default() });
    let mut stake = begin(&shares, "acme", What::Exchange).unwrap();
    stake.go_to(shares.node(&claim("edge-1"))).unwrap();
    let meter = stake.meter();
    assert!(meter.charge(1_000).is_none());
    for _ in 0..1_000 {
        drop(meter.charge(1_000_000).unwrap());
    }
    let began = tokio::time::Instant::now();
    meter.charge(1).unwrap().await;
    assert!(began.elapsed() <= Duration::from_millis(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_waited_for_to_the_end_or_until_it_is_another() {
    let shares = shares(Share { bytes: Some(Rate::new(1_000)), ..Share::default() });
    let stake = begin(&shares, "acme", What::Exchange).unwrap();
    assert!(stake.meter().charge(3_500).is_none());
    let began = tokio::time::Instant::now();
    stake.meter().charge(1).unwrap().await;
    assert!((2_500..=2_502).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

// Requests for one node that was full were counted for its tenant, whose other nodes fell silent.
#[tokio::test(start_paused = true)]
async fn what_a_full_node_refuses_is_none_of_the_requests_of_its_tenant() {
    let shares = Shares::new();
    let per_tenant = Share { requests: Some(Rate { per_second: 1, burst: 4 }), ..Share::default() };
    let per_node = Share { in_flight: Some(1), ..Share::default() };
    shares.update(ShareSettings { per_tenant, per_node, ..ShareSettings::default() });
    let mut held = begin(&shares, "acme", What::Exchange).unwrap();
    held.go_to(shares.node(&claim("edge-1"))).unwrap();
    for what in [What::Exchange, What::Stream].repeat(20) {
        let mut refused = begin(&shares, "acme", what).unwrap();
        assert!(refused.go_to(shares.node(&claim("edge-1"))).unwrap_err().is_of_node());
    }
    // One that went on to another node, and one that no node was asked for, count.
    let mut moved = begin(&shares, "acme", What::Exchange).unwrap();
    assert!(moved.go_to(shares.node(&claim("edge-1"))).is_err());
    moved.go_to(shares.node(&claim("edge-2"))).unwrap();
    drop(moved);
    let mut back = begin(&shares, "acme", What::Exchange).unwrap();
    back.go_to(shares.node(&claim("edge-2"))).unwrap();
    assert!(back.go_to(shares.node(&claim("edge-1"))).is_err());
    drop(back);
    drop(begin(&shares, "acme", What::Exchange).unwrap());
    assert!(begin(&shares, "acme", What::Exchange).is_err(), "as many as its rate allows, and none more");
}

#[tokio::test(start_paused = true)]
async fn another_tunnel_of_the_same_node_takes_no_other_place_of_it() {
    let shares = Shares::new();
    let per_node = Share { requests: Some(Rate::new(1)), in_flight: Some(1), ..Share::default() };
    shares.update(ShareSettings { per_node, ..ShareSettings::default() });
    let mut stake = begin(&shares, "acme", What::Exchange).unwrap();
    for _ in 0..4 {
        stake.go_to(shares.node(&claim("edge-1"))).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_charged_to_the_node_that_they_go_to_and_to_none_before() {
    let shares = Shares::new();
    let per_node = Share { bytes: Some(Rate::new(1_000)), ..Share::default() };
    shares.update(ShareSettings { per_node, ..ShareSettings::default() });
    let mut stake = begin(&shares, "acme", What::Exchange).unwrap();
    let meter = stake.meter();
    for node in ["edge-1", "edge-2"] {
        stake.go_to(shares.node(&claim(node))).unwrap();
        stake.tell(&meter);
    }
    assert!(meter.charge(5_000).is_none());
    assert!(meter.charge(1).is_some(), "the second one has a debt");
    let mut other = begin(&shares, "acme", What::Exchange).unwrap();
    other.go_to(shares.node(&claim("edge-1"))).unwrap();
    assert!((0..2).all(|_| other.meter().charge(500).is_none()), "and the first one has none");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_wait_moves_as_the_rates_of_tenant_and_node_allow_and_costs_nothing_else() {
    let shares = Shares::new();
    let per_tenant = Share { bytes: Some(Rate::new(2_000)), ..Share::default() };
    let per_node = Share { bytes: Some(Rate::new(1_000)), ..Share::default() };
    shares.update(ShareSettings { per_tenant, per_node, ..ShareSettings::default() });
    let [one, other] = ["edge-1", "edge-2"].map(|node| {
        let mut stake = begin(&shares, "acme", What::Flow).unwrap();
        stake.go_to(shares.node(&claim(node))).unwrap();
        (stake.meter(), stake)
    });
    let passed = |meter: &Meter| (0..100).filter(|_| meter.admits(250)).count();
    assert_eq!((passed(&one.0), passed(&other.0)), (4, 4), "what a node may not have, the other one may");
    assert_eq!((passed(&one.0), passed(&other.0)), (0, 0));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((passed(&one.0), passed(&other.0)), (4, 4));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(one.0.admits(5_000) && !other.0.admits(1), "one that is larger than what is there goes on credit");
    shares.update(ShareSettings::default());
    assert_eq!(passed(&one.0), 100);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_a_rate_takes_its_turn_like_others() {
    let shares = shares(Share { bytes: Some(Rate::new(1_000_000)), ..Share::default() });
    let one = begin(&shares, "acme", What::Exchange).unwrap();
    let _other = begin(&shares, "other", What::Exchange).unwrap();
    let _one_of_several = begin(&shares, "acme", What::Exchange).unwrap();
    assert!(one.meter().charge(1_000_001).is_none(), "the burst, and all of a slice and more");
    let mut wait = one.meter().charge(1).unwrap();
    tokio::time::advance(Duration::from_millis(2)).await;
    let before = (0..1_000).filter_map(|_| one.begin()).count();
    assert!(before > 0);
    let polled = tokio::time::timeout(Duration::ZERO, &mut wait).await;
    assert!(polled.is_err(), "its time has come, and its turn has not");
    wait.await;
}

fn way(shares: &Shares, sibling: &str, node: u32) -> Arc<Account> {
    shares.way(&sibling.parse().unwrap(), (&named("acme"), &format!("edge-{node}").parse().unwrap()))
}

// spec: FL-53
#[tokio::test(start_paused = true)]
async fn however_much_some_want_behind_a_sibling_there_is_room_for_others() {
    use crate::protocol::budgets::{PART_OF_SIBLING, SIBLING_FLOWS, SIBLING_STREAMS};
    for (what, most) in [(What::Exchange, SIBLING_STREAMS), (What::Flow, SIBLING_FLOWS)] {
        for hanging in [1, 2, 8, 100] {
            let (shares, mut all) = (Shares::new(), Vec::new());
            loop {
                let before = all.len();
                for node in 0..hanging {
                    all.extend(Stake::of_tenant(way(&shares, "b", node), what));
                }
                if all.len() == before {
                    break;
                }
            }
            let (taken, expected) = (u32::try_from(all.len()).unwrap(), most * hanging / (hanging + PART_OF_SIBLING));
            assert!(taken.abs_diff(expected) <= 2 * hanging, "{hanging} have {taken}");
            let another = Stake::of_tenant(way(&shares, "b", hanging), what);
            assert!(another.is_ok(), "one that has nothing");
            assert!(Stake::of_tenant(way(&shares, "c", 0), what).is_ok(), "through another sibling");
            drop((all, another));
            assert!(way(&shares, "b", 0).is_as_new(now()), "nothing is kept of what is over");
            assert!(Stake::of_tenant(way(&shares, "b", 0), what).is_ok());
        }
    }
}

// spec: FL-53
#[tokio::test(start_paused = true)]
async fn who_has_its_part_of_a_sibling_is_told_as_of_a_tunnel_without_room() {
    let (shares, mut held) = (Shares::new(), Vec::new());
    let refused = loop {
        let mut stake = begin(&shares, "acme", What::Exchange).unwrap();
        match stake.go_to(Some(way(&shares, "b", 1))) {
            Ok(()) => held.push(stake),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.to_string(), "edge-1 at the sibling b has its part of what goes through there: 7281");
    assert!(refused.is_of_way() && !refused.is_of_node());
    let failure = crate::message::failure::Failure::from(refused);
    assert_eq!(failure.cause(), crate::message::failure::Cause::TunnelFull);
    let mut other = begin(&shares, "acme", What::Exchange).unwrap();
    other.go_to(Some(way(&shares, "c", 1))).unwrap();
    held.pop().unwrap().go_to(Some(way(&shares, "c", 1))).unwrap();
    other.go_to(Some(way(&shares, "b", 1))).expect("the place of one that went elsewhere");
}

// spec: FL-53
#[tokio::test(start_paused = true)]
async fn accounts_of_ways_that_are_not_used_are_forgotten() {
    let shares = Shares::new();
    let _used = Stake::of_tenant(way(&shares, "b", 0), What::Exchange).unwrap();
    for sibling in 0..4 {
        (0..2 * FIRST_SWEEP as u32).for_each(|node| drop(way(&shares, &format!("s{sibling}"), node)));
    }
    let books = shares.lock();
    assert!(books.ways.len() <= 2 * FIRST_SWEEP, "{}", books.ways.len());
    assert!(books.passages.len() <= 3, "{:?}", books.passages.keys());
    assert!(books.ways.values().any(|account| !account.is_idle()));
}
