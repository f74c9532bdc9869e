//! Probes that come earlier than the keepalive: of a tunnel in use that falls silent, and for the round trip.

use super::*;

/// When probes leave between `from` and `until`, in seconds from the start, while nothing comes back.
fn probes(session: &mut Session, start: Instant, until: Instant) -> Vec<u64> {
    let sent = run_timers(session, until).into_iter().filter(|(_, output)| matches!(output, Output::Send(_)));
    sent.map(|(at, _)| (at - start).as_secs()).collect()
}

// spec: CT-42
#[test]
fn a_request_into_silence_is_followed_by_a_probe_within_a_second() {
    let mut pair = Pair::open();
    let (start, used) = (pair.start, pair.at(2 * SECOND));
    pair.responder.used(used, 1);
    assert_eq!(pair.responder.deadline(), Some(pair.at(3 * SECOND)));
    // The first look still hears the end of the handshake, the second one hears nothing.
    let until = pair.at(7 * SECOND);
    assert_eq!(probes(&mut pair.responder, start, until), [4, 7], "and again while it is suspect");
    assert!(pair.responder.is_suspect());
}

// spec: CT-41, CT-42
#[test]
fn a_tunnel_in_use_that_is_heard_is_not_probed_and_one_without_use_waits_for_the_keepalive() {
    let mut pair = Pair::open();
    let start = pair.start;
    for second in 1..30 {
        let now = pair.at(second * SECOND);
        pair.responder.heard(now);
        pair.responder.used(now, u64::from(second));
        pair.responder.timeout(now);
    }
    assert_eq!(outputs(&mut pair.responder), []);
    let until = pair.at(5 * SECOND);
    assert_eq!(probes(&mut pair.initiator, start, until), [5]);
}

// spec: CT-51
#[test]
fn an_initiator_in_use_that_is_sent_nothing_more_speaks_first() {
    let mut pair = Pair::open();
    let (tick, quiet) = (Duration::from_millis(5), Duration::from_millis(150));
    // Whenever in the interval the network forgets the tunnel.
    for phase in 0..30 {
        let (mut now, mut streams) = (pair.at(phase * 3 * SECOND), u64::from(phase) * 1000);
        let forgotten = now + SECOND + phase * tick;
        while now <= forgotten {
            streams += 1;
            pair.initiator.heard(now);
            pair.initiator.used(now, streams);
            pair.initiator.timeout(now);
            now += tick;
        }
        assert_eq!(outputs(&mut pair.initiator), [], "nothing to ask while it is sent something");
        let mut silent = run_timers(&mut pair.initiator, forgotten + SECOND);
        silent.retain(|(_, output)| matches!(output, Output::Send(_)));
        assert_eq!(silent.len(), 1, "once");
        assert!(silent[0].0 - forgotten <= quiet, "{:?}", silent[0].0 - forgotten);
        pair.initiator.heard(forgotten + SECOND);
    }
}

// spec: CT-42
#[test]
fn a_tunnel_that_answered_and_stays_silent_is_left_to_the_keepalive_again() {
    let mut pair = Pair::open();
    pair.initiator.heard(pair.start);
    pair.initiator.used(pair.start, 1);
    let mut asked = Vec::new();
    for second in 1..=9 {
        let now = pair.at(second * SECOND);
        pair.initiator.used(now, 1);
        pair.initiator.timeout(now);
        for output in outputs(&mut pair.initiator) {
            assert!(matches!(output, Output::Send(_)), "{output:?}");
            asked.push(second);
            pair.initiator.heard(now);
        }
    }
    assert_eq!(asked, [2, 7], "once because of the silence, then by the keepalive");
}

// spec: CT-13
#[test]
fn the_round_trip_is_measured_every_five_seconds_however_busy_the_tunnel_is() {
    let mut pair = Pair::open();
    pair.responder.measure_rtt(pair.start);
    let mut seen = Vec::new();
    for millis in (0..=12_000).step_by(500) {
        let now = pair.at(Duration::from_millis(millis));
        pair.responder.heard(now);
        pair.responder.timeout(now);
        let (_, responder) = pair.deliver(Duration::from_millis(millis + 20));
        seen.extend(events(&responder).into_iter().map(|event| (millis, event)));
    }
    let rtt = || Event::Rtt(Duration::from_millis(20));
    assert_eq!(seen, [(0, rtt()), (5000, rtt()), (10_000, rtt())]);
}

#[test]
fn before_the_tunnel_is_open_nothing_is_measured_and_no_use_counts() {
    let mut pair = Pair::new();
    let handshake = pair.responder.deadline();
    pair.responder.measure_rtt(pair.start);
    pair.responder.used(pair.start, 5);
    assert_eq!(pair.responder.deadline(), handshake);
}
