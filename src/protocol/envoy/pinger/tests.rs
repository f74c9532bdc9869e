//! The responder's pings, with a clock moved by hand.

use proptest::prelude::*;

use super::*;

/// No jitter, so that times are exact.
const CALM: u32 = 0;

struct Bench {
    pinger: Pinger,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        Self { pinger: Pinger::new(start, PingSettings::default(), CALM), start, now: start }
    }

    /// One whose first ping came back.
    fn proven() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
        assert_eq!(bench.hear(b"RPING"), [PingOutput::Proven]);
        bench
    }

    fn outputs(&mut self) -> Vec<PingOutput> {
        std::iter::from_fn(|| self.pinger.poll()).collect()
    }

    /// What happens when nothing does until the deadline.
    fn at_deadline(&mut self) -> Vec<PingOutput> {
        self.now = self.pinger.deadline().unwrap();
        self.pinger.timeout(self.now, CALM);
        assert!(self.pinger.deadline().is_none_or(|at| at > self.now));
        self.outputs()
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<PingOutput> {
        assert_eq!(self.pinger.receive(self.now, bytes), b"");
        self.outputs()
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// spec: EV-21
#[test]
fn the_first_ping_comes_after_the_acceptance_and_its_echo_proves_the_tunnel() {
    for (entropy, delay) in [(0, 50), (u32::MAX, 100)] {
        let now = Instant::now();
        let pinger = Pinger::new(now, PingSettings::default(), entropy);
        assert_eq!(pinger.deadline(), Some(now + millis(delay)));
    }
    let mut bench = Bench::new();
    // An echo before the ping may be anything, and proves nothing.
    assert_eq!(bench.hear(b"RPING"), []);
    assert!(!bench.pinger.is_proven());
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.hear(b"RPING"), [PingOutput::Proven]);
    assert!(bench.pinger.is_proven());
}

// spec: EV-22
#[test]
fn a_ping_follows_each_echo_after_the_interval_and_up_to_15_percent() {
    for (entropy, wait) in [(0, 2000), (u32::MAX, 2300)] {
        let mut bench = Bench::proven();
        let at = bench.pinger.deadline().unwrap();
        bench.now = at;
        bench.pinger.timeout(at, entropy);
        assert_eq!(bench.hear(b"RPING"), [PingOutput::SendPing]);
        assert_eq!(bench.pinger.deadline(), Some(at + millis(wait)));
    }
    let settings = |interval| PingSettings { interval, ..PingSettings::default() };
    assert_eq!(settings(millis(1)).reply_timeout(), millis(500));
    assert_eq!(settings(Duration::MAX).reply_timeout(), millis(150_000));
    assert_eq!(settings(millis(3000)).reply_timeout(), millis(1500));
}

// spec: EV-23, EV-24
#[test]
fn a_silent_initiator_is_suspect_at_once_and_dead_at_the_third_miss_with_one_ping_out() {
    let mut bench = Bench::proven();
    let echo = bench.elapsed();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.at_deadline(), [PingOutput::Suspect]);
    assert_eq!(bench.elapsed() - echo, millis(3000));
    assert_eq!(bench.at_deadline(), []);
    assert_eq!(bench.at_deadline(), [PingOutput::Dead(DeadReason::NoEcho)]);
    assert_eq!(bench.elapsed() - echo, millis(9000), "as with Envoy, which takes 9.4 s with its jitter");
    assert_eq!(bench.pinger.deadline(), None);
    assert_eq!(bench.pinger.stop(bench.now), Stop::Dead);
    assert_eq!(bench.pinger.receive(bench.now, b"RPING"), b"RPING");
    assert_eq!(bench.outputs(), []);
}

// spec: EV-24
#[test]
fn a_late_echo_makes_up_for_every_miss() {
    let mut bench = Bench::proven();
    for _ in 0..10 {
        assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
        assert_eq!(bench.at_deadline(), [PingOutput::Suspect]);
        assert!(bench.pinger.is_suspect());
        assert_eq!(bench.at_deadline(), []);
        bench.now += millis(300);
        assert_eq!(bench.hear(b"RPING"), [PingOutput::Alive]);
        assert_eq!(bench.pinger.deadline(), Some(bench.now + millis(2000)));
    }
}

// spec: EV-24
#[test]
fn an_initiator_that_never_echoes_is_never_proven() {
    let mut bench = Bench::new();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.at_deadline(), [PingOutput::Suspect]);
    assert_eq!(bench.at_deadline(), []);
    assert_eq!(bench.at_deadline(), [PingOutput::Dead(DeadReason::NoEcho)]);
    assert_eq!(bench.elapsed(), millis(50 + 1000 + 3000 + 3000));
}

// spec: EV-24
#[test]
fn a_sleep_of_this_end_is_one_miss() {
    let mut bench = Bench::proven();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    bench.now += Duration::from_secs(3600);
    bench.pinger.timeout(bench.now, CALM);
    assert_eq!(bench.outputs(), [PingOutput::Suspect]);
    assert_eq!(bench.hear(b"RPING"), [PingOutput::Alive]);
}

// spec: EV-25
#[test]
fn what_is_no_echo_is_one_miss_per_ping_however_long_it_is() {
    let mut bench = Bench::proven();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.hear(&b"PONG!".repeat(1000)), [PingOutput::Suspect]);
    assert_eq!(bench.hear(b"more"), []);
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.hear(b"RPING"), [PingOutput::Alive]);
    for outputs in [vec![PingOutput::Suspect], vec![], vec![PingOutput::Dead(DeadReason::NotAnEcho)]] {
        assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
        assert_eq!(bench.hear(b"RPINX"), outputs);
    }
}

// spec: EV-25
#[test]
fn an_echo_with_something_else_around_it_is_a_miss() {
    for reply in [&b"RPING\n"[..], b" RPING", b"RPRPING"] {
        let mut bench = Bench::proven();
        let mut all = Vec::new();
        for _ in 0..3 {
            assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
            bench.pinger.receive(bench.now, reply);
            all = bench.outputs();
        }
        assert_eq!(all.last(), Some(&PingOutput::Dead(DeadReason::NotAnEcho)), "{reply:?}");
    }
}

// spec: EV-26
#[test]
fn split_double_and_unsolicited_echoes_do_no_harm() {
    let mut bench = Bench::proven();
    for _ in 0..5 {
        assert_eq!(bench.hear(b"RPINGRPING"), []);
        assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
        assert_eq!(bench.hear(b"RP"), []);
        bench.now += millis(200);
        assert_eq!(bench.hear(b"ING"), []);
        assert_eq!(bench.hear(b"RPINGRPI"), []);
        assert_eq!(bench.hear(b"NG"), []);
    }
    assert!(!bench.pinger.is_suspect());
}

// spec: EV-27
#[test]
fn with_no_echo_outstanding_it_stops_at_once_and_pings_no_more() {
    let mut bench = Bench::proven();
    assert_eq!(bench.pinger.stop(bench.now), Stop::Now);
    assert_eq!(bench.pinger.deadline(), None);
    bench.pinger.timeout(bench.now + millis(60_000), CALM);
    assert_eq!(bench.outputs(), []);
    assert_eq!(bench.pinger.stop(bench.now), Stop::Now);
}

// spec: EV-27
#[test]
fn with_an_echo_outstanding_it_stops_at_that_or_after_the_reply_timeout() {
    let mut bench = Bench::proven();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.pinger.stop(bench.now), Stop::Wait);
    assert_eq!(bench.pinger.receive(bench.now, b"RPING\x00\x00"), b"\x00\x00", "what follows is for what comes next");
    assert_eq!(bench.outputs(), [PingOutput::Stopped { answered: true }]);
    assert_eq!(bench.pinger.deadline(), None);

    let mut bench = Bench::proven();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.at_deadline(), [PingOutput::Suspect]);
    assert_eq!(bench.pinger.stop(bench.now), Stop::Wait);
    assert_eq!(bench.pinger.deadline(), Some(bench.now + millis(1000)), "not the 3 s that the next miss would take");
    assert_eq!(bench.at_deadline(), [PingOutput::Stopped { answered: false }]);
}

// spec: EV-21, EV-27
#[test]
fn an_unproven_tunnel_is_proven_before_it_stops() {
    let mut bench = Bench::new();
    assert_eq!(bench.pinger.stop(bench.now), Stop::Wait);
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.at_deadline(), [PingOutput::Suspect]);
    let outputs = bench.hear(b"RPING");
    assert_eq!(outputs, [PingOutput::Alive, PingOutput::Proven, PingOutput::Stopped { answered: true }]);
}

// spec: EV-28
#[test]
fn late_echoes_are_stripped_from_what_follows() {
    let mut bench = Bench::proven();
    assert_eq!(bench.at_deadline(), [PingOutput::SendPing]);
    assert_eq!(bench.hear(b"RPI"), []);
    assert_eq!(bench.pinger.stop(bench.now), Stop::Wait);
    assert_eq!(bench.at_deadline(), [PingOutput::Stopped { answered: false }]);
    assert_eq!(bench.pinger.strip(Bytes::from_static(b"NGRP")), "");
    assert_eq!(bench.pinger.strip(Bytes::from_static(b"ING\0\0\x12\x04")), Bytes::from_static(b"\0\0\x12\x04"));
    assert_eq!(bench.pinger.strip(Bytes::from_static(b"RPING")), "RPING", "from here on it is the peer's data");
}

proptest! {
    // spec: EV-25, EV-26
    #[test]
    fn no_split_changes_what_bytes_mean(bytes in "(RPING|RP|[RPINGX]){0,12}", step in 1usize..9, stops: bool, pings: bool) {
        let run = |step: usize| {
            let mut bench = Bench::proven();
            if pings {
                bench.at_deadline();
            }
            if stops {
                bench.pinger.stop(bench.now);
            }
            let mut rest = Vec::new();
            for piece in bytes.as_bytes().chunks(step) {
                rest.extend_from_slice(bench.pinger.receive(bench.now, piece));
            }
            (bench.outputs(), rest, bench.pinger.deadline().map(|at| at - bench.start))
        };
        prop_assert_eq!(run(step), run(bytes.len().max(1)));
    }
}
