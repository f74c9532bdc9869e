//! From nothing to a tunnel, and the next one after a loss.

use super::*;

// spec: TB-20
#[test]
fn tcp_starts_300_after_quic_and_the_first_connected_gets_the_only_hello() {
    let mut bench = Bench::new(TransportChoice::Auto);
    assert_eq!(bench.did(), [Did::Connect(Quic)]);
    assert_eq!(bench.pass(299), []);
    assert_eq!(bench.wake(1), [Did::Connect(Tcp)]);
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Supersede)]);
    assert_eq!(bench.connected(Quic), []);
    assert_eq!(bench.admitted(Tcp), [Did::Abandon(Quic)]);
    assert_eq!(bench.switches(), 0);
}

#[test]
fn an_answer_of_quic_within_300_keeps_tcp_out() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    assert_eq!(bench.pass(299), []);
    assert_eq!(bench.connected(Quic), [Did::Claim(Quic, Supersede)]);
    assert_eq!(bench.pass(2999), []);
    assert_eq!(bench.admitted(Quic), []);
    assert_eq!(bench.due(), None);
}

// spec: TB-21
#[test]
fn tcp_starts_at_once_when_quic_fails_sooner() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    assert_eq!(bench.pass(20), []);
    assert_eq!(bench.failed(Quic), [Did::Connect(Tcp)]);
}

// spec: TB-21
#[test]
fn a_claim_that_fails_as_a_transport_goes_to_the_other_one() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Quic);
    assert_eq!(bench.connected(Tcp), []);
    assert_eq!(bench.failed(Quic), [Did::Claim(Tcp, Supersede)]);

    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.connected(Quic);
    assert_eq!(bench.failed(Quic), [Did::Connect(Tcp)]);
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Supersede)]);
    assert_eq!(bench.failed(Tcp), [Did::Wait(499)], "both had their turn");
}

#[test]
fn a_claim_over_quic_without_an_answer_is_moved_to_tcp_after_3000() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.connected(Quic);
    assert_eq!(bench.wake(3000), [Did::Connect(Tcp)]);
    assert_eq!(bench.pass(50), []);
    assert_eq!(bench.connected(Tcp), [Did::Abandon(Quic), Did::Claim(Tcp, Supersede)]);
    assert_eq!(bench.due(), None, "TCP has the time of the handshake timeout");
    assert_eq!(bench.failed(Tcp), [Did::Wait(499)]);

    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.connected(Quic);
    bench.connected(Tcp);
    assert_eq!(bench.wake(3000), [Did::Abandon(Quic), Did::Claim(Tcp, Supersede)]);
}

#[test]
fn when_both_fail_the_slot_backs_off_and_races_again() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    for bound in [499, 999, 1999, 3999, 7999, 15_999, 29_999, 29_999] {
        assert_eq!(bench.failed(Quic), [Did::Connect(Tcp)]);
        assert_eq!(bench.failed(Tcp), [Did::Wait(bound)]);
        bench.now = bench.auto.deadline().unwrap();
        bench.auto.timeout(bench.now);
        assert_eq!(bench.did(), [Did::Connect(Quic)]);
        assert_eq!(bench.due(), Some(300));
    }
}

/// What broke: UDP that nobody answers, and a TCP port that was refused once because the responder was just starting, cost the ten
/// seconds that the connect over QUIC may take.
// spec: TB-21
#[test]
fn what_failed_is_tried_again_while_the_other_one_is_silent() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.entropy = u64::MAX;
    assert_eq!(bench.wake(300), [Did::Connect(Tcp)]);
    for pause in [500, 1000, 2000] {
        assert_eq!(bench.failed(Tcp), []);
        assert_eq!(bench.due(), Some(pause));
        assert_eq!(bench.wake(pause), [Did::Connect(Tcp)]);
    }
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Supersede)]);
    assert_eq!(bench.admitted(Tcp), [Did::Abandon(Quic)]);

    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.entropy = u64::MAX;
    assert_eq!(bench.failed(Quic), [Did::Connect(Tcp)]);
    assert_eq!(bench.wake(500), [Did::Connect(Quic)], "TCP may be what is silent");
    assert_eq!(bench.connected(Quic), [Did::Claim(Quic, Supersede)]);

    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.entropy = u64::MAX;
    bench.wake(300);
    bench.failed(Tcp);
    assert_eq!(bench.pass(100), []);
    assert_eq!(bench.failed(Quic), [Did::Wait(499)], "both have had their turn");
    assert_eq!(bench.wake(499), [Did::Connect(Quic)]);
}

#[test]
fn a_settled_tunnel_that_is_lost_is_replaced_at_once_by_a_race() {
    let mut bench = Bench::on_quic();
    assert_eq!(bench.lost(), [Did::Connect(Quic)]);
    assert_eq!(bench.wake(300), [Did::Connect(Tcp)]);
}

// spec: TB-22
#[test]
fn after_a_loss_on_tcp_the_dial_begins_with_tcp() {
    let mut bench = Bench::on_tcp();
    bench.pass(6000);
    assert_eq!(bench.lost(), [Did::Connect(Tcp)]);
    assert_eq!(bench.pass(60), []);
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Supersede)]);
    assert_eq!(bench.admitted(Tcp), []);
    assert_eq!(bench.due(), Some(10_000), "QUIC is left to the probes");
}

// spec: TB-22
#[test]
fn tcp_that_fails_where_it_was_first_makes_it_a_race_again() {
    let mut bench = Bench::on_tcp();
    bench.pass(6000);
    bench.entropy = u64::MAX;
    bench.lost();
    assert_eq!(bench.failed(Tcp), [Did::Connect(Quic)]);
    assert_eq!(bench.failed(Quic), [Did::Wait(499)]);
    assert_eq!(bench.wake(499), [Did::Connect(Quic)]);
    assert_eq!(bench.wake(300), [Did::Connect(Tcp)]);
}

#[test]
fn tcp_that_is_silent_where_it_was_first_has_1000_alone() {
    let mut bench = Bench::on_tcp();
    bench.pass(6000);
    bench.lost();
    assert_eq!(bench.wake(1000), [Did::Connect(Quic)]);
    assert_eq!(bench.connected(Quic), [Did::Claim(Quic, Supersede)]);
    assert_eq!(bench.admitted(Quic), [Did::Abandon(Tcp), Did::Switched(Quic)]);
}

// spec: TB-22
#[test]
fn a_failure_of_quic_is_remembered_for_60_s() {
    for (later, expected) in [(59_999, Tcp), (60_000, Quic)] {
        let mut bench = Bench::new(TransportChoice::Auto);
        bench.entropy = 0;
        bench.did();
        bench.failed(Quic);
        bench.refused(Tcp, Some(later));
        assert_eq!(bench.wake(u128::from(later)), [Did::Connect(expected)]);
    }
}

#[test]
fn a_tunnel_that_ends_before_5000_counts_as_a_failed_attempt() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.connected(Quic);
    bench.admitted(Quic);
    assert_eq!(bench.pass(4999), []);
    assert_eq!(bench.lost(), [Did::Connect(Tcp)], "the first is at once, and QUIC just failed");
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.lost(), [Did::Wait(499)]);
    assert_eq!(bench.wake(499), [Did::Connect(Tcp)]);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.pass(5000), []);
    assert_eq!(bench.lost(), [Did::Connect(Tcp)], "settled: at once again");
}

// spec: CT-26
#[test]
fn a_drain_is_followed_by_a_dial_after_the_time_that_the_responder_asked_for() {
    let mut bench = Bench::on_quic();
    assert_eq!(bench.draining(2500), [Did::Wait(2500)]);
    assert_eq!(bench.auto.tunnel(), None);
    assert_eq!(bench.wake(2500), [Did::Connect(Quic)]);

    let mut bench = Bench::on_tcp();
    bench.pass(6000);
    assert_eq!(bench.draining(0), [Did::Wait(0), Did::Connect(Tcp)]);
}

// spec: CT-26
#[test]
fn a_responder_that_is_gone_is_not_waited_for() {
    for agreed in [true, false] {
        let mut bench = Bench::on_quic();
        let tunnel = bench.tunnel();
        bench.draining(1700);
        assert_eq!(bench.pass(100), []);
        let did = bench.event(Event::Gone { attempt: tunnel, agreed });
        if agreed {
            assert_eq!((did, bench.due()), (vec![], Some(1600)), "it said when it will be back");
        } else {
            assert_eq!(did, [Did::Wait(0), Did::Connect(Quic)]);
        }
    }
}

// spec: CT-26, HS-31
#[test]
fn a_refusal_because_it_drains_holds_no_longer_than_the_tunnel_that_drains() {
    for agreed in [true, false] {
        let mut bench = Bench::on_quic();
        let tunnel = bench.tunnel();
        assert_eq!(bench.draining(0), [Did::Wait(0), Did::Connect(Quic)]);
        bench.connected(Quic);
        assert_eq!(bench.refused(Quic, Some(500)), [Did::Wait(999)]);
        assert_eq!(bench.pass(300), []);
        assert_eq!(bench.event(Event::Gone { attempt: tunnel, agreed }), [Did::Wait(0), Did::Connect(Quic)]);
    }
}

// spec: CT-26
#[test]
fn who_is_expected_back_is_dialled_at_a_steady_pace_and_then_less_and_less() {
    let mut bench = Bench::new(TransportChoice::Tcp);
    bench.did();
    bench.connected(Tcp);
    bench.admitted(Tcp);
    bench.pass(60_000);
    assert_eq!(bench.draining(0), [Did::Wait(0), Did::Connect(Tcp)]);
    let mut waits = Vec::new();
    for _ in 0..53 {
        let did = bench.failed(Tcp);
        let [Did::Wait(wait)] = did[..] else { panic!("{did:?}") };
        waits.push(wait);
        assert_eq!(bench.wake(wait), [Did::Connect(Tcp)]);
    }
    assert_eq!(waits[..50], [100; 50], "for 5 s");
    assert_eq!(waits[50..], [499, 999, 1999]);

    bench.connected(Tcp);
    bench.admitted(Tcp);
    bench.pass(60_000);
    assert_eq!(bench.draining(3000), [Did::Wait(3000)]);
    assert_eq!(bench.wake(3000), [Did::Connect(Tcp)]);
    assert_eq!(bench.failed(Tcp), [Did::Wait(3000)], "where many return nobody is faster");
}

#[test]
fn a_responder_that_drains_for_long_lengthens_no_backoff() {
    let mut bench = Bench::on_quic();
    bench.draining(0);
    for _ in 0..40 {
        bench.connected(Quic);
        let did = bench.refused(Quic, Some(500));
        assert_eq!(did, [Did::Wait(999)]);
        assert_eq!(bench.wake(999), [Did::Connect(Quic)]);
    }
}

// spec: CT-26, HS-31
#[test]
fn who_is_there_and_says_no_is_dialled_less_and_less() {
    let mut bench = Bench::on_quic();
    bench.draining(0);
    for wait in [499, 999, 1999, 3999] {
        bench.connected(Quic);
        assert_eq!(bench.refused(Quic, None), [Did::Wait(wait)]);
        assert_eq!(bench.wake(wait), [Did::Connect(Quic)]);
    }
}

// spec: CT-45
#[test]
fn with_one_transport_a_suspect_tunnel_gets_another_one_beside_it() {
    for (choice, only) in [(TransportChoice::Quic, Quic), (TransportChoice::Tcp, Tcp)] {
        let mut bench = Bench::new(choice);
        bench.did();
        bench.connected(only);
        bench.admitted(only);
        bench.pass(60_000);
        let old = bench.tunnel();
        assert_eq!(bench.suspect(), [Did::Connect(only)], "at once");
        assert_eq!(bench.connected(only), [Did::Claim(only, Beside)]);
        assert_eq!(bench.admitted(only), [Did::Drain(only)], "what runs in the old one may go on");
        assert_ne!(bench.tunnel(), old);

        let now = bench.tunnel();
        bench.pass(60_000);
        assert_eq!(bench.suspect(), [Did::Connect(only)]);
        assert_eq!(bench.alive(), [Did::Abandon(only)], "it revived");
        assert_eq!(bench.tunnel(), now);

        assert_eq!(bench.suspect(), [Did::Connect(only)]);
        assert_eq!(bench.pass(1500), []);
        assert_eq!(bench.connected(only), [], "the path was down as a whole");
        assert_eq!(bench.wake(3000), [Did::Claim(only, Beside)]);
        assert_eq!(bench.refused(only, Some(5000)), [Did::Wait(5499)]);
        assert_eq!(bench.tunnel(), now);
    }
}

#[test]
fn a_responder_that_admits_and_drains_is_not_dialled_in_a_tight_loop() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    let mut waits = Vec::new();
    for _ in 0..4 {
        bench.connected(Quic);
        bench.admitted(Quic);
        let did = bench.draining(0);
        let [Did::Wait(wait), ..] = did[..] else { panic!("{did:?}") };
        waits.push(wait);
        if wait > 0 {
            bench.wake(wait);
        }
    }
    assert_eq!(waits, [0, 499, 999, 1999]);
}

#[test]
fn nobody_is_silenced_for_longer_than_ten_minutes() {
    let mut bench = Bench::on_quic();
    bench.event(Event::Draining(bench.tunnel(), Duration::MAX));
    assert_eq!(bench.due(), Some(600_000));
}

#[test]
fn a_fixed_transport_is_the_same_machine_without_the_other() {
    let envoy = TransportChoice::Envoy(Box::default());
    for choice in [TransportChoice::Quic, TransportChoice::Tcp, envoy] {
        let only = choice.kinds()[0];
        let mut bench = Bench::new(choice);
        assert_eq!(bench.did(), [Did::Connect(only)]);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.failed(only), [Did::Wait(499)]);
        assert_eq!(bench.wake(499), [Did::Connect(only)]);
        assert_eq!(bench.connected(only), [Did::Claim(only, Supersede)]);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.admitted(only), []);
        assert_eq!(bench.pass(60_000), []);
        // An Envoy has no place for a second tunnel beside the first.
        let (dial, give_up) = match only {
            TransportKind::Envoy => (None, None),
            _ => (Some(Did::Connect(only)), Some(Did::Abandon(only))),
        };
        assert_eq!(bench.suspect(), Vec::from_iter(dial));
        assert_eq!(bench.alive(), Vec::from_iter(give_up));
        bench.suspect();
        assert_eq!(bench.due(), None);
        let dials_already = if dial.is_some() { vec![] } else { vec![Did::Connect(only)] };
        assert_eq!(bench.lost(), dials_already);
        assert_eq!(bench.auto.status(bench.now).paths.len(), 1);
    }
}

#[test]
fn a_slow_claim_does_not_connect_tcp_again_that_just_failed() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.wake(300);
    bench.failed(Tcp);
    bench.connected(Quic);
    assert_eq!(bench.due(), None);
}

#[test]
fn a_tunnel_on_quic_ends_the_memory_of_its_failure() {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    bench.failed(Quic);
    bench.failed(Tcp);
    bench.wake(499);
    bench.connected(Quic);
    bench.admitted(Quic);
    bench.pass(6000);
    assert_eq!(bench.lost(), [Did::Connect(Quic)]);
}

/// A slot whose first two rounds failed.
fn tired() -> Bench {
    let mut bench = Bench::new(TransportChoice::Auto);
    bench.did();
    for wait in [499, 999] {
        bench.failed(Quic);
        bench.failed(Tcp);
        bench.wake(wait);
    }
    bench
}

#[test]
fn a_settled_tunnel_makes_up_for_the_failures_before_it_however_it_ends() {
    let both_fail = |bench: &mut Bench| {
        bench.failed(Tcp);
        bench.failed(Quic)
    };
    for suspect in [true, false] {
        let mut bench = tired();
        bench.connected(Quic);
        bench.admitted(Quic);
        bench.pass(6000);
        if suspect {
            bench.suspect();
        } else {
            bench.lost();
            bench.wake(300);
        }
        assert_eq!(both_fail(&mut bench), [Did::Wait(499)]);
    }
    // Replaced by a probe that then breaks.
    let mut bench = tired();
    bench.failed(Quic);
    bench.connected(Tcp);
    bench.admitted(Tcp);
    bench.wake(7500);
    bench.connected(Quic);
    bench.wake(2000);
    bench.admitted(Quic);
    assert_eq!(bench.lost(), [Did::Connect(Tcp)]);
}
