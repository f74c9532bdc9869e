//! The initiator's echoes, with a clock moved by hand.

use super::*;

struct Bench {
    echoer: Echoer,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        Self { echoer: Echoer::new(now, EchoSettings::default()), now }
    }

    fn hear(&mut self, bytes: &'static [u8]) -> Vec<EchoOutput> {
        self.echoer.receive(self.now, Bytes::from_static(bytes));
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<EchoOutput> {
        std::iter::from_fn(|| self.echoer.poll()).collect()
    }

    /// Lets so much time pass, then a ping comes.
    fn ping_after(&mut self, wait: Duration) {
        self.now += wait;
        self.echoer.timeout(self.now);
        assert_eq!(self.hear(b"RPING"), [EchoOutput::Echo]);
    }

    fn patience(&self) -> Option<Duration> {
        self.echoer.deadline().map(|at| at - self.now)
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn rest(bytes: &'static [u8]) -> EchoOutput {
    EchoOutput::Rest(Bytes::from_static(bytes))
}

// spec: EV-31
#[test]
fn every_ping_gets_an_echo_of_its_own_however_they_arrive() {
    let mut bench = Bench::new();
    assert_eq!(bench.hear(b"RPING"), [EchoOutput::Echo]);
    assert_eq!(bench.hear(b"RPINGRPINGRP"), [EchoOutput::Echo, EchoOutput::Echo]);
    assert_eq!(bench.hear(b"IN"), []);
    assert_eq!(bench.hear(b"G"), [EchoOutput::Echo]);
}

// spec: EV-32
#[test]
fn something_else_ends_the_phase_and_all_of_it_is_handed_on() {
    let mut bench = Bench::new();
    assert_eq!(bench.hear(b"RPINGPRI * HTTP/2.0\r\n"), [EchoOutput::Echo, rest(b"PRI * HTTP/2.0\r\n")]);
    assert!(bench.echoer.is_over());
    assert_eq!(bench.hear(b"RPING"), [rest(b"RPING")], "data, by now");
    let mut bench = Bench::new();
    assert_eq!(bench.hear(b"RPI"), []);
    assert_eq!(bench.hear(b"\x16\x03\x01"), [rest(b"RPI\x16\x03\x01")]);
}

// spec: EV-32
#[test]
fn bytes_that_were_not_asked_for_in_time_are_kept_in_order() {
    let mut bench = Bench::new();
    bench.echoer.receive(bench.now, Bytes::from_static(b"RPI"));
    bench.echoer.receive(bench.now, Bytes::from_static(b"NG\x16"));
    assert_eq!(bench.outputs(), [EchoOutput::Echo, rest(b"\x16")]);
}

// spec: EV-33
#[test]
fn before_the_interval_is_known_the_grace_holds() {
    let mut bench = Bench::new();
    assert_eq!(bench.patience(), Some(secs(350)));
    // The ping that proves the tunnel comes early and tells nothing about the interval.
    bench.ping_after(Duration::from_millis(75));
    assert_eq!(bench.patience(), Some(secs(350)));
    bench.ping_after(secs(300));
    assert_eq!(bench.patience(), Some(secs(900)));
}

// spec: EV-33
#[test]
fn three_intervals_without_a_ping_are_the_end() {
    let mut bench = Bench::new();
    bench.ping_after(Duration::from_millis(75));
    bench.ping_after(secs(1));
    assert_eq!(bench.patience(), Some(secs(6)), "no less than three times Envoy's default");
    bench.ping_after(secs(5));
    assert_eq!(bench.patience(), Some(secs(15)));
    bench.now += secs(14);
    bench.echoer.timeout(bench.now);
    assert_eq!(bench.outputs(), []);
    bench.now += secs(1);
    bench.echoer.timeout(bench.now);
    assert_eq!(bench.echoer.deadline(), None);
    assert_eq!(bench.outputs(), [EchoOutput::Dead]);
    assert_eq!(bench.hear(b"RPING"), [], "it is too late");
}

// spec: EV-33
#[test]
fn part_of_a_ping_is_no_sign_of_life() {
    let mut bench = Bench::new();
    bench.ping_after(secs(1));
    bench.ping_after(secs(2));
    bench.now += secs(5);
    assert_eq!(bench.hear(b"RPIN"), []);
    assert_eq!(bench.patience(), Some(secs(1)));
}

// spec: EV-33
#[test]
fn a_stall_is_forgotten_and_a_burst_after_it_teaches_nothing() {
    let mut bench = Bench::new();
    bench.ping_after(secs(2));
    bench.ping_after(secs(20));
    assert_eq!(bench.hear(b"RPINGRPINGRPING").len(), 3);
    assert_eq!(bench.patience(), Some(secs(60)));
    for _ in 0..8 {
        bench.ping_after(secs(2));
    }
    assert_eq!(bench.patience(), Some(secs(6)));
    bench.ping_after(secs(2));
    assert_eq!(bench.hear(b""), []);
    // A responder that claims the longest interval does not buy more than Envoy could.
    let mut bench = Bench::new();
    bench.ping_after(secs(340));
    bench.echoer.receive(bench.now + secs(100_000), Bytes::from_static(b"RPING"));
    bench.now += secs(100_000);
    assert_eq!(bench.outputs(), [EchoOutput::Echo]);
    assert_eq!(bench.patience(), Some(3 * secs(345)));
}

// spec: EV-33
#[test]
fn after_the_phase_it_says_nothing_more() {
    let mut bench = Bench::new();
    bench.hear(b"PRI");
    assert_eq!(bench.echoer.deadline(), None);
    bench.echoer.timeout(bench.now + secs(100_000));
    assert_eq!(bench.outputs(), []);
}
