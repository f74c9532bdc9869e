use std::task::Poll;

use super::*;
use crate::protocol::budgets::{FAIR_RATE, HELD_GRACE, HTTP_PATIENCE, LEAST_RATE, SLOW_GRACE, STEADY_GRACE};
use crate::telemetry::{Metrics, Role};

/// A receiving half that has so many bytes waiting.
#[derive(Debug)]
struct Half(usize);

impl Revoke for Half {
    fn revoke(self) {}
}

/// One of which it is known how little waits.
#[derive(Debug)]
struct Known(Unread);

impl Revoke for Known {
    fn unread(&mut self) -> Unread {
        self.0
    }

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

const TERMS: Terms = Terms { patience: HTTP_PATIENCE, length: None, begins_held: true };

fn stalled(ledger: &Ledger, streams: usize) -> Vec<Place<Half>> {
    (0..streams).map(|_| Place::watched(Half(PLENTY), ledger, TERMS)).collect()
}

fn is_ended(place: &mut Place<Half>) -> bool {
    place.with(|_| ()).is_none()
}

// spec: SE-9
#[test]
fn a_stream_is_held_back_from_when_it_was_given_something_until_its_consumer_asks_in_vain() {
    let (ledger, now) = (alone(), Instant::now());
    let mut place = Place::watched(Half(10), &ledger, TERMS);
    let look = ledger.look(now);
    assert_eq!((look.watched, look.held), (1, 1), "nobody has asked yet");
    assert_eq!(take(&mut place, 10), Ok(Poll::Ready(10)));
    assert_eq!(ledger.look(now).held, 1, "its consumer has not come back");
    assert_eq!(take(&mut place, 10), Ok(Poll::Pending));
    assert_eq!(ledger.look(now).held, 0);
    drop(place);
    assert_eq!(ledger.look(now), Look::default());
    let mut flow = Place::watched(Half(PLENTY), &ledger, Terms::FLOW);
    assert_eq!(ledger.look(now).held, 0, "nothing may have come on its stream");
    assert_eq!(take(&mut flow, 10), Ok(Poll::Ready(10)));
    assert_eq!(ledger.look(now).held, 1);
}

// spec: SE-11
#[test]
fn what_waits_for_a_rate_of_this_end_is_not_ended_for_it_up_to_a_bound() {
    const TWO_MINUTES: u64 = 120_000;
    let (ledger, begin) = (alone(), Instant::now());
    let mut places = stalled(&ledger, 100);
    let look_on = |places: &mut Vec<Place<Half>>, from: u64| {
        let looks = (from..from + TWO_MINUTES).step_by(50);
        let last = looks.map(|ms| ledger.look(begin + Duration::from_millis(ms))).last().unwrap();
        places.retain_mut(|place| !is_ended(place));
        last
    };
    places.iter().for_each(|place| place.defer(begin + Duration::from_millis(TWO_MINUTES)));
    let look = look_on(&mut places, 0);
    assert_eq!((places.len(), look.lent()), (64, 64 * u64::from(STREAM_WINDOW)), "and they are missing to nobody");
    look_on(&mut places, TWO_MINUTES);
    assert!(places.is_empty(), "whoever does not read then is like others");
}

// spec: SE-11
#[test]
fn what_all_tunnels_hold_for_rates_is_bounded_too() {
    let (total, now) = (Box::leak(Box::default()), Instant::now());
    let ledgers = [0; 4].map(|_| Ledger::among(total));
    let places = ledgers.each_ref().map(|ledger| stalled(ledger, 100));
    places.iter().flatten().for_each(|place| place.defer(now + Duration::from_secs(60)));
    let deferred = ledgers.each_ref().map(|ledger| ledger.look(now).deferred);
    assert_eq!(deferred.iter().sum::<u64>(), DEFERRED_BYTES_OF_PROCESS);
    drop(ledgers);
    assert_eq!(total.deferred.load(Ordering::Relaxed), 0);
}

/// A ledger whose process has no other tunnels.
fn alone() -> Ledger {
    Ledger::among(Box::leak(Box::default()))
}

/// Looks every so often for as long, from `begin` on; the time after it.
fn look_for(ledger: &Ledger, begin: Instant, length: Duration) -> Instant {
    let looks = length.as_millis().div_ceil(SHORT_LOOK.as_millis()) as u32;
    for look in 0..=looks {
        ledger.look(begin + SHORT_LOOK * look);
    }
    begin + SHORT_LOOK * looks
}

/// As many streams of unknown length as may be held back by readers who are not steady.
const BOUND: usize = (HELD_BYTES / STREAM_WINDOW as u64) as usize;

// spec: SE-10, SE-11
#[test]
fn beyond_the_bound_those_go_that_have_stood_still_for_the_longest_and_soon() {
    let (ledger, begin) = (alone(), Instant::now());
    let mut early = stalled(&ledger, 3);
    ledger.look(begin);
    let mut late = stalled(&ledger, BOUND);
    let now = look_for(&ledger, begin + SHORT_LOOK, HELD_GRACE - 2 * SHORT_LOOK);
    assert!(!early.iter_mut().any(is_ended), "they stood still for too short a time");
    look_for(&ledger, now, HELD_GRACE);
    assert!(early.iter_mut().all(is_ended), "within a second");
    look_for(&ledger, now, 4 * SLOW_GRACE);
    assert!(!late.iter_mut().any(is_ended), "those that were ended count no longer, whoever still has them");
    assert_eq!(take(&mut early[0], 1), Err(Revoked));
}

// spec: SE-11
#[test]
fn who_takes_a_byte_now_and_then_is_as_slow_as_who_takes_none() {
    let (ledger, begin) = (alone(), Instant::now());
    let mut places = stalled(&ledger, BOUND + 3);
    for look in 0..60 {
        for place in &mut places {
            let _ = take(place, 1);
        }
        ledger.look(begin + SHORT_LOOK * look);
    }
    assert_eq!(places.iter_mut().filter_map(|place| is_ended(place).then_some(())).count(), 3);
}

// spec: SE-11
#[test]
fn a_process_that_was_stopped_has_not_waited_for_anybody() {
    let (ledger, begin) = (alone(), Instant::now());
    let mut places = stalled(&ledger, 2 * BOUND);
    ledger.look(begin);
    ledger.look(begin + Duration::from_secs(40));
    ledger.look(begin + Duration::from_secs(41));
    assert!(!places.iter_mut().any(is_ended));
}

// spec: SE-9
#[test]
fn what_is_short_holds_no_more_than_its_length() {
    let (ledger, begin) = (alone(), Instant::now());
    let terms = Terms { length: Some(10_000), ..TERMS };
    let mut places: Vec<_> = (0..1_000).map(|_| Place::watched(Half(PLENTY), &ledger, terms)).collect();
    look_for(&ledger, begin, 2 * SLOW_GRACE);
    assert!(!places.iter_mut().any(is_ended));
    assert_eq!(ledger.look(begin + 2 * SLOW_GRACE).idle, 10_000_000);
    let _ = take(&mut places[0], 4_000);
    assert_eq!(ledger.look(begin + 2 * SLOW_GRACE).idle, 9_996_000);
}

// spec: SE-9, SE-11
#[test]
fn a_reader_at_a_fair_rate_is_never_ended_for_the_sake_of_others_and_has_credit_of_its_own() {
    let (ledger, begin) = (alone(), Instant::now());
    let mut fair = stalled(&ledger, 2 * BOUND);
    for tick in 0..1_000 {
        for place in &mut fair {
            assert!(take(place, FAIR_RATE as usize / 8).unwrap().is_ready());
        }
        ledger.look(begin + Duration::from_millis(100) * tick);
    }
    let look = ledger.look(begin + Duration::from_secs(100));
    assert_eq!((look.idle, look.lent()), (0, 2 * HELD_BYTES));
    assert!(!fair.iter_mut().any(is_ended));
    // What a socket takes at once lasts a slow client for a while.
    look_for(&ledger, begin + Duration::from_secs(100), STEADY_GRACE / 2);
    assert!(!fair.iter_mut().any(is_ended));
    look_for(&ledger, begin + Duration::from_secs(105), STEADY_GRACE);
    assert!(fair.iter_mut().any(is_ended), "but not for ever");
}

// spec: SE-12
#[test]
fn a_reader_below_the_least_rate_is_ended_after_its_patience_and_one_above_it_is_not() {
    let (ledger, begin) = (alone(), Instant::now());
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
    const LITTLE: u64 = 1 << 20;
    assert_eq!(excess(HELD_BYTES, 0), 0);
    assert_eq!(excess(HELD_BYTES + LITTLE, 0), LITTLE);
    assert_eq!(excess(10 * LITTLE, HELD_BYTES_OF_PROCESS - 6 * LITTLE), 4 * LITTLE);
    assert_eq!(excess(2 * LITTLE, HELD_BYTES_OF_PROCESS + 100 * LITTLE), 2 * LITTLE, "no more than its own");
}

#[test]
fn what_is_held_back_and_what_was_ended_is_counted() {
    let metrics = Metrics::new();
    let (ledger, begin) = (alone(), Instant::now());
    ledger.count_with(metrics.tunnels(Role::Responder).streams());
    let places = stalled(&ledger, BOUND + 2);
    look_for(&ledger, begin, 2 * HELD_GRACE);
    let shows = |series: &str| assert!(metrics.render().contains(series), "{series} in {}", metrics.render());
    shows(&format!("adit_streams_held_back{{role=\"responder\"}} {BOUND}\n"));
    shows("adit_streams_not_read_total{role=\"responder\",reason=\"bound\"} 2\n");
    drop(places);
    ledger.look(begin + HELD_GRACE);
    shows("adit_streams_held_back{role=\"responder\"} 0\n");
}

// spec: SE-9
#[tokio::test(start_paused = true)]
async fn credit_grows_with_what_is_held_back_and_shrinks_when_it_is_read() {
    let ledger = alone();
    let (told, mut lent) = tokio::sync::mpsc::unbounded_channel();
    const WINDOW: u64 = STREAM_WINDOW as u64;
    let lend: Lend = Box::new(move |bytes| told.send(bytes).unwrap());
    let script = async {
        let mut places = stalled(&ledger, 5);
        assert_eq!(lent.recv().await, Some(5 * WINDOW));
        for place in &mut places {
            place.with(|half| half.0 = 0);
            assert_eq!(take(place, 1), Ok(Poll::Pending));
        }
        while lent.recv().await != Some(0) {}
        let _more = stalled(&ledger, BOUND + 1);
        while lent.recv().await != Some(HELD_BYTES) {}
    };
    tokio::select! {
        never = balance(&ledger, lend) => match never {},
        () = script => {}
    }
}

// spec: SE-12
#[test]
fn a_consumer_that_asks_for_more_while_it_is_judged_keeps_its_stream() {
    let (ledger, begin) = (alone(), Instant::now());
    let mut places = stalled(&ledger, 1);
    let judged = |look: u32| ledger.judge(begin + SHORT_LOOK * look).1;
    let ended = (0..10_000).map(judged).find(|ended| !ended.is_empty()).unwrap();
    places[0].with(|half| half.0 = 0);
    assert_eq!(take(&mut places[0], 1), Ok(Poll::Pending));
    assert!(!ended[0].0.revoke(), "nobody would wake it");
    assert!(!is_ended(&mut places[0]));
    assert_eq!(ledger.look(begin).watched, 1);
    places[0].with(|half| half.0 = PLENTY);
    assert_eq!(take(&mut places[0], 1), Ok(Poll::Ready(1)));
    assert!(ended[0].0.revoke() && !ended[0].0.revoke(), "once");
    assert_eq!(ledger.look(begin), Look::default());
}

#[test]
fn a_stream_at_its_end_holds_nothing_up() {
    let ledger = alone();
    let places = stalled(&ledger, 2);
    places[0].rests();
    assert_eq!(ledger.look(Instant::now()).held, 1);
}

// spec: SE-11
#[tokio::test(start_paused = true)]
async fn what_a_tunnel_that_is_gone_holds_back_is_not_counted() {
    let ledger = alone();
    let _places = stalled(&ledger, 5);
    let (told, mut lent) = tokio::sync::mpsc::unbounded_channel();
    let lend: Lend = Box::new(move |bytes| told.send(bytes).unwrap());
    tokio::select! {
        never = balance(&ledger, lend) => match never {},
        bytes = lent.recv() => assert!(bytes > Some(0)),
    }
    assert_eq!(ledger.held.load(Ordering::Relaxed), 0);
    assert_eq!(ledger.in_process.idle.load(Ordering::Relaxed), 0);
}

// spec: SE-9, SE-11
#[test]
fn of_what_little_waits_nobody_is_ended_and_what_it_holds_is_missing_to_nobody() {
    let (ledger, begin) = (alone(), Instant::now());
    let watched = |unread| Place::watched(Known(unread), &ledger, TERMS);
    let mut places: Vec<_> = (0..10 * BOUND).map(|_| watched(Unread::Little(1000))).collect();
    places.extend((0..10 * BOUND).map(|_| watched(Unread::Nothing)));
    look_for(&ledger, begin, 4 * SLOW_GRACE);
    assert!(!places.iter_mut().any(|place| place.with(|_| ()).is_none()));
    let look = ledger.look(begin + 5 * SLOW_GRACE);
    assert_eq!((look.held, look.idle, look.steady), (10 * BOUND, 0, 10_000 * BOUND as u64));
    assert!(look.lent() >= look.steady);
}
