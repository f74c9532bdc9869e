//! What an end takes of message heads, and when its peer is told.

use super::*;

const HALF: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(30);

const fn limits(head_bytes: u32, head_fields: u32) -> PeerLimits {
    PeerLimits { head_bytes, head_fields }
}

/// What was told, and what has to be taken, in their order.
#[derive(Debug, PartialEq)]
enum Said {
    Told(PeerLimits),
    Takes(PeerLimits),
}
use Said::{Takes, Told};

fn said(outputs: &[Output]) -> Vec<Said> {
    let mut said = Vec::new();
    for output in outputs {
        if let Output::Event(Event::Takes(limits)) = output {
            said.push(Takes(*limits));
        }
        let told = frames(std::slice::from_ref(output)).into_iter();
        said.extend(told.filter_map(|frame| if let Frame::Limits(limits) = frame { Some(Told(limits)) } else { None }));
    }
    said
}

/// Everything that is said up to a time in a tunnel that is heard all the while.
fn until(session: &mut Session, start: Instant, from: Duration, until: Duration) -> Vec<(Duration, Said)> {
    let mut all = Vec::new();
    let mut at = from;
    while at < until {
        at = (at + Duration::from_millis(1)).min(until);
        session.heard(start + at);
        session.timeout(start + at);
        all.extend(said(&outputs(session)).into_iter().map(|said| (at, said)));
    }
    all
}

fn both(run: impl Fn(&mut Session, Instant)) {
    let mut pair = Pair::open();
    run(&mut pair.initiator, pair.start);
    run(&mut pair.responder, pair.start);
}

// spec: CT-31
#[test]
fn what_is_raised_is_taken_before_the_peer_is_told() {
    both(|session, start| {
        session.limit(start, limits(100_000, 200)).unwrap();
        assert_eq!(said(&outputs(session)), [Takes(limits(100_000, 200)), Told(limits(100_000, 200))]);
        assert_eq!(until(session, start, Duration::ZERO, 2 * IDLE), []);
    });
}

// spec: CT-33
#[test]
fn what_is_lowered_is_taken_for_one_idle_timeout_more() {
    both(|session, start| {
        let low = limits(8_192, 40);
        session.limit(start, low).unwrap();
        assert_eq!(said(&outputs(session)), [Told(low)]);
        assert_eq!(until(session, start, Duration::ZERO, 2 * IDLE), [(IDLE, Takes(low))]);
    });
}

// spec: CT-33
#[test]
fn of_two_limits_the_one_that_is_lowered_is_kept_and_the_one_that_is_raised_holds_at_once() {
    both(|session, start| {
        let other = limits(8_192, 200);
        session.limit(start, other).unwrap();
        assert_eq!(said(&outputs(session)), [Takes(limits(65_536, 200)), Told(other)]);
        assert_eq!(until(session, start, Duration::ZERO, 2 * IDLE), [(IDLE, Takes(other))]);
    });
}

// spec: CT-33
#[test]
fn what_is_lowered_twice_is_kept_until_the_peer_can_go_by_none_of_both() {
    both(|session, start| {
        let (first, second) = (limits(32_768, 100), limits(16_384, 100));
        session.limit(start, first).unwrap();
        assert_eq!(said(&outputs(session)), [Told(first)]);
        assert_eq!(until(session, start, Duration::ZERO, 20 * SECOND), []);
        session.limit(start + 20 * SECOND, second).unwrap();
        assert_eq!(said(&outputs(session)), [Told(second)]);
        let end = 20 * SECOND + IDLE;
        assert_eq!(until(session, start, 20 * SECOND, 3 * IDLE), [(end, Takes(second))]);
    });
}

// spec: CT-33
#[test]
fn what_is_lowered_and_raised_again_is_never_taken_less() {
    both(|session, start| {
        session.limit(start, limits(8_192, 32)).unwrap();
        session.limit(start + SECOND, PeerLimits::default()).unwrap();
        assert_eq!(said(&outputs(session)), [Told(limits(8_192, 32)), Told(PeerLimits::default())]);
        assert_eq!(until(session, start, SECOND, 3 * IDLE), []);
    });
}

// spec: CT-64, SE-14
#[test]
fn of_many_changes_two_a_second_are_told_and_the_latest() {
    let mut pair = Pair::open();
    let last = limits(4_096 + 9_999, 100);
    let mut told = 0;
    for ms in 0..10_000_u32 {
        let after = Duration::from_millis(ms.into());
        let _ = pair.initiator.limit(pair.at(after), limits(4_096 + ms, 100));
        pair.initiator.heard(pair.at(after));
        pair.responder.heard(pair.at(after));
        pair.initiator.timeout(pair.at(after));
        let (_, responder) = pair.deliver(after);
        told += events(&responder).iter().filter(|event| matches!(event, Event::Limits(_))).count();
    }
    assert!((18..=21).contains(&told), "{told} in ten seconds");
    let rest = until(&mut pair.initiator, pair.start, 10 * SECOND, 11 * SECOND);
    assert_eq!(rest, [(10 * SECOND + Duration::from_millis(1), Told(last))]);
    assert_eq!(pair.responder.state(), State::Open);
}

#[test]
fn what_the_peer_knows_already_is_not_told_again() {
    both(|session, start| {
        session.limit(start, PeerLimits::default()).unwrap();
        session.limit(start, limits(9_000, 100)).unwrap();
        assert_eq!(said(&outputs(session)), [Told(limits(9_000, 100))]);
        session.limit(start + HALF / 2, limits(7_000, 100)).unwrap();
        session.limit(start + HALF / 2, limits(9_000, 100)).unwrap();
        assert_eq!(until(session, start, HALF / 2, 2 * SECOND), [], "it went back before it could be told");
    });
}

// spec: HS-15
#[test]
fn less_than_may_be_announced_is_not() {
    both(|session, start| {
        session.limit(start, limits(1, 1)).unwrap();
        assert_eq!(said(&outputs(session)), [Told(limits(4_096, 32))]);
        assert_eq!(until(session, start, Duration::ZERO, 2 * IDLE), [(IDLE, Takes(limits(4_096, 32)))]);
    });
}

// spec: FL-35
#[test]
fn siblings_tell_each_other_as_the_ends_of_a_tunnel_do() {
    let start = Instant::now();
    for asks in [true, false] {
        let mut session = Session::between_siblings(start, asks, limits(67_584, 116), Timing::default());
        session.limit(start, limits(67_584, 116)).unwrap();
        assert_eq!(said(&outputs(&mut session)), []);
        session.limit(start, limits(67_584, 200)).unwrap();
        assert_eq!(said(&outputs(&mut session)), [Takes(limits(67_584, 200)), Told(limits(67_584, 200))]);
    }
}
