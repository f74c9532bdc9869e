//! A refusal is an answer: it is not taken to the other transport.

use super::*;

// spec: TB-23
#[test]
fn a_refusal_ends_the_race_and_is_followed_by_backoff_alone() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Quic);
    assert_eq!(bench.refused(Quic, None), [Did::Abandon(Tcp), Did::Wait(499)]);
    assert_eq!(bench.wake(499), [Did::Connect(Quic)]);
    assert_eq!(bench.refused(Quic, None), [Did::Wait(999)], "an alert about the certificate, before any HELLO");
}

// spec: TB-23, HS-31
#[test]
fn retry_after_is_kept_to_with_jitter_on_top() {
    for (entropy, wait) in [(0, 7000), (u64::MAX, 7499)] {
        let mut bench = Bench::new(TransportChoice::Auto);
        bench.entropy = entropy;
        bench.did();
        bench.connected(Quic);
        assert_eq!(bench.refused(Quic, Some(7000)), [Did::Wait(wait)]);
    }
}

// spec: TB-23
#[test]
fn a_refusal_over_tcp_stops_quic_too() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Tcp);
    assert_eq!(bench.refused(Tcp, None), [Did::Abandon(Quic), Did::Wait(499)]);
}

#[test]
fn a_refusal_while_a_claim_is_in_the_air_waits_for_its_answer() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Quic);
    assert_eq!(bench.refused(Tcp, Some(2000)), []);
    assert_eq!(bench.failed(Quic), [Did::Wait(2499)]);

    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Quic);
    bench.refused(Tcp, Some(2000));
    assert_eq!(bench.refused(Quic, None), [Did::Wait(2499)], "the longer of the two");

    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Quic);
    bench.refused(Tcp, Some(20_000));
    assert_eq!(bench.admitted(Quic), []);
    assert_eq!(bench.due(), None);
    bench.pass(6000);
    assert_eq!(bench.lost(), [Did::Connect(Quic)], "a WELCOME takes the refusal back");
}

#[test]
fn a_refused_replacement_leaves_the_suspect_tunnel_and_neither_suspicion_nor_loss_asks_sooner() {
    let mut bench = Bench::on_quic();
    bench.entropy = 0;
    bench.suspect();
    bench.connected(Tcp);
    assert_eq!(bench.refused(Tcp, Some(20_000)), [Did::Wait(20_000)]);
    assert_eq!(bench.pass(1000), []);
    assert_eq!(bench.alive(), []);
    assert_eq!(bench.due(), None);
    assert_eq!(bench.suspect(), [Did::Wait(19_000)]);
    assert_eq!(bench.lost(), [Did::Wait(19_000)]);
    assert!(bench.wake(19_000).contains(&Did::Connect(Tcp)));
}

#[test]
fn a_tunnel_that_is_ended_by_policy_is_not_dialled_at_once() {
    let mut bench = Bench::on_quic();
    assert_eq!(bench.refused(Quic, None), [Did::Wait(499)]);
    bench.wake(499);
    bench.connected(Quic);
    bench.admitted(Quic);
    bench.pass(10_000);
    assert_eq!(bench.refused(Quic, None), [Did::Wait(999)], "two that supersede each other slow down");
}

#[test]
fn a_tunnel_that_is_ended_by_policy_during_a_claim_leaves_it_to_that_and_then_backs_off() {
    let mut bench = Bench::on_tcp();
    bench.wake(10_000);
    bench.connected(Quic);
    bench.wake(2000);
    assert_eq!(bench.refused(Tcp, None), []);
    bench.entropy = u64::MAX;
    assert_eq!(bench.failed(Quic), [Did::Wait(499)]);
}

/// A second refusal without a time once forgot the time of the first.
#[test]
fn a_later_refusal_does_not_shorten_an_earlier_one() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.connected(Tcp);
    bench.refused(Tcp, Some(20_000));
    assert_eq!(bench.pass(5000), []);
    let did = bench.refused(Quic, None);
    assert!(matches!(did[..], [Did::Wait(15_000..)]), "{did:?}");
}

/// What follows a claim in the air once began without looking at the silence that a refusal had asked for before it.
#[test]
fn neither_a_slow_claim_nor_a_failed_one_ends_the_silence_early() {
    for fails in [false, true] {
        let mut bench = Bench::on_tcp();
        bench.suspect();
        bench.connected(Quic);
        let fresh = bench.latest(Tcp);
        let tunnel = bench.tunnel();
        assert_ne!(fresh, tunnel);
        assert_eq!(bench.refused(Tcp, Some(20_000)), []);
        bench.alive();
        bench.lost();
        if fails {
            bench.failed(Quic);
        }
        assert_eq!(bench.wake(20_000), [Did::Connect(Tcp)], "{fails}");
    }
}

#[test]
fn the_backoff_after_a_refusal_holds_without_a_retry_after_too() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.connected(Tcp);
    assert_eq!(bench.refused(Tcp, None), [Did::Wait(499)]);
    bench.alive();
    assert_eq!(bench.suspect(), [Did::Wait(499)]);
    bench.alive();
    assert_eq!(bench.draining(0), [Did::Wait(499)]);
}

#[test]
fn a_tunnel_that_is_ended_by_policy_takes_the_connect_that_was_to_replace_it_with_it() {
    let mut bench = Bench::on_tcp();
    bench.suspect();
    bench.connected(Quic);
    let failure = Failure::refused(None, "revoked");
    assert_eq!(bench.event(Event::Ended(bench.tunnel(), failure)), [Did::Abandon(Tcp)]);
}

// spec: TB-22
#[test]
fn the_dial_after_a_refusal_remembers_what_quic_did() {
    let mut silent_in_the_race = Bench::new(TransportChoice::Auto);
    silent_in_the_race.did();
    silent_in_the_race.wake(300);
    silent_in_the_race.connected(Tcp);
    silent_in_the_race.admitted(Tcp);

    let mut slow_claim = Bench::new(TransportChoice::Auto);
    slow_claim.did();
    slow_claim.connected(Quic);
    slow_claim.wake(3000);
    slow_claim.connected(Tcp);

    for mut bench in [silent_in_the_race, slow_claim, Bench::on_tcp()] {
        bench.entropy = 0;
        assert_eq!(bench.refused(Tcp, Some(1000)), [Did::Wait(1000)]);
        assert_eq!(bench.wake(1000), [Did::Connect(Tcp)]);
    }
}
