use std::task::Poll;

use super::*;
use crate::protocol::budgets::{FAIR_RATE, HELD_GRACE, HTTP_PATIENCE, LEAST_RATE};
use crate::telemetry::{Metrics, Role};

/// A receiving half that has so many bytes waiting.
#[derive(Debug)]
struct Half(usize);

impl Revoke for Half {
    fn revoke(self) {}
}

/// Takes so much of what waits.
fn take(place: &mut Place<Half>, bytes: usize) -> Result<Poll<usize>, Revoked> {
    let ask = |half: &mut Half| match half.0 {
        0 => Poll::Pending,
        waiting => {
            half.0 -= bytes.min(waiting);
            Poll::Ready(bytes.min(waiting))
        }
    };
    place.poll(ask, |taken| *taken)
}

const PLENTY: usize = 1 << 30;

fn stalled(ledger: &Ledger, streams: usize) -> Vec<Place<Half>> {
    (0..streams).map(|_| Place::watched(Half(PLENTY), ledger, HTTP_PATIENCE)).collect()
}

fn is_ended(place: &mut Place<Half>) -> bool {
    place.with(|_| ()).is_none()
}

// spec: SE-9
#[test]
fn a_stream_is_held_back_from_when_it_was_given_something_until_its_consumer_asks_in_vain() {
    let (ledger, now) = (Ledger::default(), Instant::now());
    let mut place = Place::watched(Half(10), &ledger, HTTP_PATIENCE);
    assert_eq!(ledger.look(now), Look { watched: 1, held: 1 }, "nobody has asked yet");
    assert_eq!(take(&mut place, 10), Ok(Poll::Ready(10)));
    assert_eq!(ledger.look(now).held, 1, "its consumer has not come back");
    assert_eq!(take(&mut place, 10), Ok(Poll::Pending));
    assert_eq!(ledger.look(now).held, 0);
    drop(place);
    assert_eq!(ledger.look(now), Look { watched: 0, held: 0 });
}

// spec: SE-11
#[test]
fn beyond_the_bound_those_go_that_have_been_slow_for_the_longest() {
    let (ledger, begin) = (Ledger::default(), Instant::now());
    let mut early = stalled(&ledger, 3);
    ledger.look(begin);
    let mut late = stalled(&ledger, HELD_STREAMS);
    ledger.look(begin + HELD_GRACE / 2);
    assert!(!early.iter_mut().any(is_ended), "slow for too short a time");
    assert_eq!(ledger.look(begin + 2 * HELD_GRACE).held, HELD_STREAMS);
    assert!(early.iter_mut().all(is_ended));
    assert!(!late.iter_mut().any(is_ended));
    assert_eq!(take(&mut early[0], 1), Err(Revoked));
}

// spec: SE-11
#[test]
fn a_reader_at_a_fair_rate_is_never_ended_for_the_sake_of_others() {
    let (ledger, begin) = (Ledger::default(), Instant::now());
    let mut fair = stalled(&ledger, HELD_STREAMS + 10);
    for second in 0..120 {
        for place in &mut fair {
            assert!(take(place, FAIR_RATE as usize).unwrap().is_ready());
        }
        ledger.look(begin + Duration::from_secs(second));
    }
    assert!(!fair.iter_mut().any(is_ended));
}

// spec: SE-12
#[test]
fn a_reader_below_the_least_rate_is_ended_after_its_patience_and_one_above_it_is_not() {
    let (ledger, begin) = (Ledger::default(), Instant::now());
    let mut places = stalled(&ledger, 3);
    for second in 0..HTTP_PATIENCE.as_secs() * 3 {
        let _a_byte_a_second = take(&mut places[0], 1);
        assert!(take(&mut places[1], LEAST_RATE as usize).unwrap().is_ready());
        // Much at first is no merit later.
        let _once = take(&mut places[2], if second == 0 { PLENTY / 2 } else { 0 });
        ledger.look(begin + Duration::from_secs(second));
        let gone = second >= HTTP_PATIENCE.as_secs();
        let ended: Vec<bool> = places.iter_mut().map(is_ended).collect();
        assert_eq!(ended, [gone, false, gone], "after {second} s");
    }
}

#[test]
fn too_many_of_a_process_count_as_too_many_of_the_tunnel_that_looks() {
    assert_eq!(excess(HELD_STREAMS, 0), 0);
    assert_eq!(excess(HELD_STREAMS + 3, 0), 3);
    assert_eq!(excess(10, HELD_STREAMS_OF_PROCESS - 6), 4);
    assert_eq!(excess(2, HELD_STREAMS_OF_PROCESS + 100), 2, "no more than its own");
}

#[test]
fn what_is_held_back_and_what_was_ended_is_counted() {
    let metrics = Metrics::new();
    let (ledger, begin) = (Ledger::default(), Instant::now());
    ledger.count_with(metrics.tunnels(Role::Responder).streams());
    let places = stalled(&ledger, HELD_STREAMS + 2);
    ledger.look(begin);
    ledger.look(begin + HELD_GRACE);
    let shows = |series: &str| assert!(metrics.render().contains(series), "{series} in {}", metrics.render());
    shows(&format!("adit_streams_held_back{{role=\"responder\"}} {HELD_STREAMS}\n"));
    shows("adit_streams_not_read_total{role=\"responder\",reason=\"bound\"} 2\n");
    drop(places);
    ledger.look(begin + HELD_GRACE);
    shows("adit_streams_held_back{role=\"responder\"} 0\n");
}

// spec: SE-9
#[tokio::test(start_paused = true)]
async fn credit_grows_with_what_is_held_back_and_shrinks_when_it_is_read() {
    let ledger = Ledger::default();
    let (told, mut lent) = tokio::sync::mpsc::unbounded_channel();
    let lend: Lend = Box::new(move |streams| told.send(streams).unwrap());
    let script = async {
        let mut places = stalled(&ledger, 5);
        assert_eq!(lent.recv().await, Some(5));
        for place in &mut places {
            place.with(|half| half.0 = 0);
            assert_eq!(take(place, 1), Ok(Poll::Pending));
        }
        while lent.recv().await != Some(0) {}
        let _more = stalled(&ledger, COVERED_STREAMS + 1);
        while lent.recv().await != Some(COVERED_STREAMS) {}
    };
    tokio::select! {
        never = balance(&ledger, lend) => match never {},
        () = script => {}
    }
}
