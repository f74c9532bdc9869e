//! On TCP by fallback: the way back to QUIC.

use super::*;

// spec: TB-25
#[test]
fn probes_come_after_10_20_30_30_s() {
    let mut bench = Bench::on_tcp();
    for interval in [10_000, 20_000, 30_000, 30_000, 30_000] {
        assert_eq!(bench.wake(interval), [Did::Connect(Quic)]);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.pass(10_000), []);
        assert_eq!(bench.failed(Quic), []);
    }
}

// spec: TB-25
#[test]
fn jitter_takes_a_quarter_at_most() {
    let mut bench = Bench::on_tcp();
    bench.entropy = u64::MAX;
    bench.wake(10_000);
    bench.failed(Quic);
    assert_eq!(bench.due(), Some(15_000));
}

// spec: TB-25
#[test]
fn a_probe_is_claimed_beside_the_old_tunnel_after_2000_and_the_old_one_drains() {
    let mut bench = Bench::on_tcp();
    let tcp = bench.tunnel();
    bench.wake(10_000);
    bench.pass(40);
    assert_eq!(bench.connected(Quic), []);
    assert_eq!(bench.pass(1999), []);
    assert_eq!(bench.wake(1), [Did::Claim(Quic, Beside)]);
    assert_eq!(bench.auto.tunnel(), Some(tcp));
    assert_eq!(bench.admitted(Quic), [Did::Drain(Tcp), Did::Switched(Quic)]);
    assert_eq!((bench.due(), bench.switches()), (None, 2));
}

#[test]
fn a_probe_that_breaks_on_trial_or_in_its_claim_costs_nothing_but_the_next_interval() {
    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    bench.connected(Quic);
    bench.pass(1999);
    assert_eq!(bench.failed(Quic), []);
    bench.wake(20_000);
    bench.connected(Quic);
    bench.wake(2000);
    assert_eq!(bench.failed(Quic), []);
    assert_eq!(bench.due(), Some(30_000));
}

#[test]
fn a_refused_probe_leaves_the_tunnel_alone_and_waits_as_long_as_asked() {
    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    bench.connected(Quic);
    bench.wake(2000);
    assert_eq!(bench.refused(Quic, Some(90_000)), []);
    assert_eq!((bench.due(), bench.tunnel()), (Some(90_000), bench.latest(Tcp)));
}

#[test]
fn a_probe_on_trial_takes_over_at_once_when_tcp_is_lost_or_suspect() {
    for suspect in [true, false] {
        let mut bench = Bench::on_tcp();
        bench.wake(10_000);
        bench.connected(Quic);
        assert_eq!(bench.pass(500), []);
        let did = if suspect { bench.suspect() } else { bench.lost() };
        assert_eq!(did, [Did::Claim(Quic, Supersede)]);
    }
}

#[test]
fn a_probe_under_way_when_tcp_is_lost_races_with_tcp() {
    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    assert_eq!(bench.lost(), [Did::Connect(Tcp)]);
    assert_eq!(bench.connected(Quic), [Did::Claim(Quic, Supersede)]);
}

#[test]
fn tcp_that_is_lost_during_the_claim_of_a_probe_leaves_it_to_that() {
    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    bench.connected(Quic);
    bench.wake(2000);
    assert_eq!(bench.lost(), []);
    assert_eq!(bench.admitted(Quic), [Did::Switched(Quic)]);

    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    bench.connected(Quic);
    bench.wake(2000);
    bench.lost();
    assert_eq!(bench.failed(Quic), [Did::Connect(Tcp)]);
}

// spec: TB-26
#[test]
fn quic_that_is_lost_within_60_s_of_its_return_is_probed_half_as_often() {
    let mut bench = Bench::back_on_quic();
    bench.pass(59_999);
    bench.suspect();
    bench.pass(500);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.wake(20_000), [Did::Connect(Quic)]);
    bench.failed(Quic);
    assert_eq!(bench.wake(40_000), [Did::Connect(Quic)]);
    bench.failed(Quic);
    assert_eq!(bench.wake(60_000), [Did::Connect(Quic)]);
    bench.failed(Quic);
    assert_eq!(bench.due(), Some(60_000));
}

// spec: TB-26
#[test]
fn quic_that_holds_for_60_s_is_probed_as_before() {
    let mut bench = Bench::back_on_quic();
    bench.pass(60_000);
    bench.suspect();
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.due(), Some(10_000));
}

// spec: TB-26
#[test]
fn a_path_that_flaps_for_ever_is_probed_every_ten_minutes_and_ten_minutes_of_health_forgive() {
    let mut bench = Bench::back_on_quic();
    let mut firsts = Vec::new();
    for _ in 0..8 {
        bench.pass(30_000);
        bench.suspect();
        bench.connected(Tcp);
        bench.admitted(Tcp);
        firsts.push(bench.due().unwrap() / 1000);
        bench.wake(bench.due().unwrap());
        bench.connected(Quic);
        bench.wake(2000);
        bench.admitted(Quic);
    }
    assert_eq!(firsts, [20, 40, 80, 160, 320, 600, 600, 600]);
    bench.pass(8 * 600_000);
    bench.suspect();
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.due(), Some(10_000));
}

#[test]
fn a_slot_that_began_on_tcp_probes_too() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.entropy = 0;
    bench.did();
    bench.failed(Quic);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.wake(10_000), [Did::Connect(Quic)]);
    bench.connected(Quic);
    assert_eq!(bench.wake(2000), [Did::Claim(Quic, Beside)]);
}

// spec: TB-22
#[test]
fn the_end_of_a_tunnel_on_tcp_is_followed_by_tcp_however_long_ago_quic_failed() {
    for drains in [true, false] {
        let mut bench = Bench::on_tcp();
        bench.wake(10_000);
        bench.refused(Quic, Some(90_000));
        bench.pass(89_000);
        let did = if drains { bench.draining(0) } else { bench.lost() };
        assert_eq!(did.last(), Some(&Did::Connect(Tcp)));
    }
}

// spec: TB-26
#[test]
fn a_drain_soon_after_a_return_is_no_flap() {
    let mut bench = Bench::back_on_quic();
    bench.pass(10_000);
    bench.draining(0);
    bench.failed(Quic);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.due(), Some(10_000));
}

// spec: TB-26
#[test]
fn health_before_and_after_a_short_suspicion_counts() {
    for (before, after) in [(600_000, 1000), (1000, 600_000)] {
        let mut bench = Bench::back_on_quic();
        bench.pass(1000);
        bench.lost();
        bench.failed(Quic);
        bench.connected(Tcp);
        bench.admitted(Tcp);
        bench.wake(20_000);
        bench.connected(Quic);
        bench.wake(2000);
        bench.admitted(Quic);
        bench.pass(before);
        bench.suspect();
        bench.alive();
        bench.pass(after);
        bench.suspect();
        bench.connected(Tcp);
        bench.admitted(Tcp);
        // One doubling is forgiven; a loss a second after the return would be another.
        assert_eq!(bench.due(), Some(10_000), "{before}, {after}");
    }
}

// A slot went by the interval that it had begun with until its tunnel was lost.
// spec: TB-25
#[test]
fn a_shorter_interval_brings_the_next_probe_forward_and_a_longer_one_holds_after_it() {
    let mut bench = Bench::on_tcp();
    bench.probe_every(600_000);
    assert_eq!(bench.wake(10_000), [Did::Connect(Quic)], "what is due earlier stays so");
    bench.failed(Quic);
    bench.pass(45_000);
    assert_eq!(bench.due(), Some(555_000), "which is the longest that there is");
    bench.probe_every(1000);
    assert_eq!(bench.wake(2000), [Did::Connect(Quic)]);
    for _ in 0..3 {
        bench.failed(Quic);
        assert_eq!(bench.wake(3000), [Did::Connect(Quic)], "three times that at most");
    }
    bench.probe_every(20_000);
    bench.failed(Quic);
    assert_eq!(bench.due(), Some(60_000));
}

#[test]
fn no_interval_breaks_a_silence_that_was_asked_for() {
    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    bench.refused(Quic, Some(90_000));
    bench.probe_every(1000);
    assert_eq!(bench.due(), Some(90_000));
}

#[test]
fn an_interval_is_nothing_to_a_slot_that_has_no_probe_before_it() {
    let mut bench = Bench::on_quic();
    bench.probe_every(1000);
    assert_eq!(bench.due(), None);
    bench.suspect();
    bench.connected(Tcp);
    bench.admitted(Tcp);
    bench.entropy = 0;
    bench.wake(bench.due().unwrap());
    bench.probe_every(500);
    assert_eq!(bench.due(), None, "it is under way");
}
