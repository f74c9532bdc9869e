//! A tunnel that goes silent in mid-life.

use super::*;

// spec: TB-24
#[test]
fn a_suspect_quic_tunnel_stays_until_tcp_is_admitted_in_its_place() {
    let mut bench = Bench::on_quic();
    let quic = bench.tunnel();
    assert_eq!(bench.suspect(), [Did::Connect(Tcp)]);
    assert_eq!(bench.auto.tunnel(), Some(quic));
    assert_eq!(bench.pass(100), []);
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Supersede)]);
    assert_eq!(bench.auto.tunnel(), Some(quic));
    assert_eq!(bench.admitted(Tcp), [Did::Abandon(Quic), Did::Switched(Tcp)]);
    assert_eq!(bench.tunnel(), bench.latest(Tcp));
}

// spec: TB-24
#[test]
fn a_quic_tunnel_that_is_alive_before_the_claim_stays() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.pass(100);
    assert_eq!(bench.alive(), [Did::Abandon(Tcp)]);
    assert_eq!(bench.connected(Tcp), [], "too late");
    assert_eq!((bench.due(), bench.switches()), (None, 0));
}

#[test]
fn a_claim_in_the_air_is_waited_for_even_if_the_old_tunnel_is_alive() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.connected(Tcp);
    assert_eq!(bench.alive(), []);
    assert_eq!(bench.admitted(Tcp), [Did::Abandon(Quic), Did::Switched(Tcp)]);

    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.connected(Tcp);
    bench.alive();
    assert_eq!(bench.failed(Tcp), [], "the old tunnel is still there");
    assert_eq!((bench.due(), bench.tunnel()), (None, bench.latest(Quic)));
    bench.entropy = 0;
    bench.suspect();
    bench.connected(Tcp);
    bench.admitted(Tcp);
    assert_eq!(bench.due(), Some(10_000), "and it was no probe");
}

#[test]
fn the_close_of_the_superseded_tunnel_is_no_loss() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.connected(Tcp);
    let old = bench.tunnel();
    let superseded = || Failure::refused(None, "superseded");
    assert_eq!(bench.event(Event::Ended(old, superseded())), [], "before the WELCOME");
    assert_eq!(bench.admitted(Tcp), [Did::Switched(Tcp)]);
    assert_eq!(bench.event(Event::Ended(old, superseded())), [], "after it");
}

/// The path as a whole was down: what runs in the old tunnel may live on, so it is asked first.
#[test]
fn a_replacement_that_took_longer_than_1000_to_connect_leaves_the_tunnel_3000_to_revive() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    assert_eq!(bench.wake(1000), [Did::Connect(Quic)], "afresh: the old connection alone may be what is broken");
    assert_eq!(bench.pass(7000), []);
    assert_eq!(bench.connected(Tcp), []);
    assert_eq!(bench.pass(2999), []);
    assert_eq!(bench.alive(), [Did::Abandon(Quic), Did::Abandon(Tcp)]);

    bench.suspect();
    bench.wake(1000);
    bench.pass(1);
    bench.connected(Tcp);
    assert_eq!(bench.wake(3000), [Did::Claim(Tcp, Supersede)]);

    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.wake(1000);
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Supersede)], "exactly 1000 is prompt");
}

#[test]
fn a_loss_while_a_replacement_is_held_back_lets_it_go() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.wake(1000);
    bench.pass(7000);
    bench.connected(Tcp);
    assert_eq!(bench.lost(), [Did::Claim(Tcp, Supersede)]);
}

#[test]
fn where_tcp_fails_too_a_suspect_tunnel_gets_rounds_with_backoff_until_it_is_lost() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    assert_eq!(bench.failed(Tcp), [Did::Connect(Quic)]);
    assert_eq!(bench.failed(Quic), [Did::Wait(499)]);
    assert_eq!(bench.wake(499), [Did::Connect(Quic)]);
    assert_eq!(bench.wake(300), [Did::Connect(Tcp)]);
    assert_eq!(bench.failed(Quic), []);
    assert_eq!(bench.failed(Tcp), [Did::Wait(999)]);
    assert_eq!(bench.lost(), [Did::Connect(Quic), Did::Connect(Tcp)], "both at once");
}

#[test]
fn alive_ends_the_wait_for_the_next_round() {
    let mut bench = Bench::on_quic();
    bench.suspect();
    bench.failed(Tcp);
    bench.failed(Quic);
    assert_eq!(bench.alive(), []);
    assert_eq!(bench.due(), None);
}

#[test]
fn a_suspect_tcp_tunnel_has_both_tried() {
    let mut bench = Bench::on_tcp();
    bench.pass(6000);
    assert_eq!(bench.suspect(), [Did::Connect(Quic), Did::Connect(Tcp)]);
    assert_eq!(bench.connected(Tcp), [Did::Claim(Tcp, Beside)]);
    assert_eq!(bench.admitted(Tcp), [Did::Abandon(Quic), Did::Drain(Tcp)], "the old tunnel");
    assert_eq!((bench.due(), bench.switches()), (Some(10_000), 1));
}

#[test]
fn a_suspect_tcp_tunnel_that_is_alive_keeps_the_connect_of_quic_as_a_probe() {
    let mut bench = Bench::on_tcp();
    bench.suspect();
    assert_eq!(bench.alive(), [Did::Abandon(Tcp)]);
    assert_eq!(bench.connected(Quic), []);
    assert_eq!(bench.wake(2000), [Did::Claim(Quic, Beside)]);
}

#[test]
fn a_claim_over_quic_that_hangs_while_tcp_is_suspect_gives_way_to_a_fresh_tcp() {
    let mut bench = Bench::on_tcp();
    bench.suspect();
    assert_eq!(bench.connected(Quic), [Did::Claim(Quic, Supersede)]);
    assert_eq!(bench.connected(Tcp), []);
    assert_eq!(bench.wake(3000), [Did::Abandon(Quic), Did::Claim(Tcp, Beside)]);
}
