//! A tunnel in use with a clock moved by hand.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn in_use() -> (Instant, InUse) {
    let now = Instant::now();
    (now, InUse::new(now, PingSettings::default(), 0, 0))
}

fn outputs(tunnel: &mut InUse) -> Vec<InUseOutput> {
    std::iter::from_fn(|| tunnel.poll()).collect()
}

fn end(code: CloseCode, reason: &str, farewell: bool) -> InUseOutput {
    InUseOutput::End { code, reason: reason.to_owned(), farewell }
}

/// Goes to each deadline up to `until` while nothing arrives; what the tunnel does, in milliseconds from `start`.
fn run(tunnel: &mut InUse, start: Instant, until: Instant) -> Vec<(u128, InUseOutput)> {
    let mut done = Vec::new();
    while let Some(at) = tunnel.deadline().filter(|&at| at <= until) {
        tunnel.timeout(at, 0, 0);
        done.extend(outputs(tunnel).into_iter().map(|output| ((at - start).as_millis(), output)));
    }
    done
}

// spec: EV-24, EV-44
#[test]
fn a_peer_that_answers_no_ping_is_suspect_and_then_given_up_without_a_farewell() {
    let (start, mut tunnel) = in_use();
    let done = run(&mut tunnel, start, start + 60 * SECOND);
    assert!(matches!(done[0], (50, InUseOutput::SendPing)), "{done:?}");
    assert!(matches!(done[1], (1050, InUseOutput::Suspect)), "{done:?}");
    let last = &done[done.len() - 1];
    assert_eq!(last.1, end(CloseCode::Idle, "the other end no longer answers HTTP/2 pings", false));
    assert_eq!(done.iter().filter(|(_, output)| *output == InUseOutput::SendPing).count(), 1, "TCP carries it still");
    assert_eq!(tunnel.deadline(), None);
}

// spec: EV-44
#[test]
fn an_answer_tells_the_round_trip_and_ends_suspicion() {
    let (start, mut tunnel) = in_use();
    run(&mut tunnel, start, start + 2 * SECOND);
    tunnel.pong(start + 2 * SECOND);
    let rtt = InUseOutput::Rtt(Duration::from_millis(1950));
    assert_eq!(outputs(&mut tunnel), [rtt, InUseOutput::Alive]);
    tunnel.pong(start + 3 * SECOND);
    assert_eq!(outputs(&mut tunnel), [], "one round trip for one ping");
}

// spec: EV-44
#[test]
fn any_byte_that_arrives_counts_as_an_answer() {
    let (start, mut tunnel) = in_use();
    let mut heard = 0;
    while let Some(at) = tunnel.deadline().filter(|&at| at <= start + 60 * SECOND) {
        heard += 1;
        tunnel.timeout(at, heard, 0);
        for output in outputs(&mut tunnel) {
            assert_eq!(output, InUseOutput::SendPing, "never suspect");
        }
    }
}

// spec: EV-43
#[test]
fn a_drain_waits_for_what_runs_and_no_longer_than_its_deadline() {
    let drain = Drain { deadline: 7 * SECOND, reconnect_after: SECOND, ..Drain::default() };
    let announced = InUseOutput::Drain { reconnect_after: SECOND, announce: true };
    let (start, mut tunnel) = in_use();
    tunnel.idle();
    assert_eq!(outputs(&mut tunnel), [], "idle, and not draining");
    tunnel.drain(start, drain);
    assert_eq!(outputs(&mut tunnel), std::slice::from_ref(&announced));
    tunnel.idle();
    assert_eq!(outputs(&mut tunnel), [end(CloseCode::Done, "drained", true)]);

    let (start, mut tunnel) = in_use();
    tunnel.stop_pings();
    tunnel.drain(start, drain);
    assert_eq!(outputs(&mut tunnel), [announced]);
    let passed = end(CloseCode::Done, "the drain deadline passed", true);
    assert_eq!(run(&mut tunnel, start, start + 60 * SECOND), [(7000, passed)]);
}

// spec: EV-43
#[test]
fn of_two_drains_the_earlier_deadline_counts() {
    for (first, second) in [(7, 20), (20, 7)] {
        let (start, mut tunnel) = in_use();
        tunnel.stop_pings();
        for seconds in [first, second] {
            tunnel.drain(start, Drain { deadline: seconds * SECOND, ..Drain::default() });
        }
        assert_eq!(tunnel.deadline(), Some(start + 7 * SECOND));
    }
}

// spec: EV-46
#[test]
fn the_goaway_of_the_other_end_is_a_drain_that_it_need_not_be_told() {
    let (start, mut tunnel) = in_use();
    tunnel.peer_drains(start);
    tunnel.peer_drains(start + SECOND);
    let drain = InUseOutput::Drain { reconnect_after: Duration::ZERO, announce: false };
    assert_eq!(outputs(&mut tunnel), std::slice::from_ref(&drain));
    tunnel.ended_by_peer(start + SECOND, true);
    assert_eq!(outputs(&mut tunnel), [end(CloseCode::Done, "drained", false)]);

    let (start, mut tunnel) = in_use();
    tunnel.ended_by_peer(start, true);
    assert_eq!(outputs(&mut tunnel), [drain, end(CloseCode::Done, "drained", false)], "both at once");
}

#[test]
fn a_connection_that_ends_without_goaway_is_no_drain() {
    let (start, mut tunnel) = in_use();
    tunnel.ended_by_peer(start, false);
    assert_eq!(outputs(&mut tunnel), [end(CloseCode::Done, "the responder ended the connection", false)]);
}

// spec: CT-28
#[test]
fn an_end_that_owes_an_answer_holds_no_hurried_drain_up() {
    for hurried in [true, false] {
        let (start, mut tunnel) = in_use();
        tunnel.drain(start, Drain { deadline: 20 * SECOND, ..Drain::default() });
        if hurried {
            tunnel.hurry();
        }
        let done = run(&mut tunnel, start, start + 2 * SECOND);
        let ended = done.iter().any(|(at, output)| (*at, output) == (1050, &end(CloseCode::Idle, NOT_HEARD, false)));
        assert_eq!(ended, hurried, "{done:?}");
    }
}

#[test]
fn after_the_end_nothing_is_said_any_more() {
    let (start, mut tunnel) = in_use();
    tunnel.close(CloseCode::Superseded, "newer");
    tunnel.close(CloseCode::Done, "again");
    tunnel.drain(start, Drain::default());
    tunnel.peer_drains(start);
    tunnel.timeout(start + 60 * SECOND, 0, 0);
    tunnel.pong(start + 60 * SECOND);
    assert_eq!(outputs(&mut tunnel), [end(CloseCode::Superseded, "newer", true)]);
    assert_eq!(tunnel.deadline(), None);
}
