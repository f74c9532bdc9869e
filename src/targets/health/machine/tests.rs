use super::*;

const SECOND: Duration = Duration::from_secs(1);
const REFUSED: DownCause = DownCause::TargetRefused;
const CLOSED: DownCause = DownCause::TargetClosed;

const RULES: CheckRules = CheckRules { interval: Duration::from_secs(10), healthy_after: 2, unhealthy_after: 3 };

fn machine(rules: Option<CheckRules>) -> (Machine, Instant) {
    let now = Instant::now();
    (Machine::new(now, rules, 0.5), now)
}

fn standing(change: Option<Change>) -> Option<Standing> {
    change.map(|change| change.to)
}

/// Waits for the next time to ask, and says how long that was.
fn ask(machine: &mut Machine, now: &mut Instant) -> Duration {
    let next = machine.deadline().expect("it is to be asked");
    assert!(!machine.begin(next - Duration::from_millis(1)));
    assert!(machine.begin(next) && !machine.begin(next + SECOND), "once");
    let waited = next - *now;
    *now = next;
    waited
}

fn fail_thrice(machine: &mut Machine, now: Instant) {
    for _ in 0..3 {
        let _ = machine.failed(now, CLOSED, 1.0);
    }
}

#[test]
fn a_target_is_unknown_until_it_was_asked_and_is_never_asked_while_requests_are_answered() {
    let (mut machine, now) = machine(None);
    assert_eq!((machine.standing().0, machine.deadline()), (Standing::Unknown, None));
    assert_eq!(standing(machine.served(now)), Some(Standing::Up));
    assert_eq!(machine.served(now + SECOND), None);
    assert_eq!((machine.standing(), machine.deadline()), ((Standing::Up, now), None));
}

#[test]
fn one_refused_connection_is_enough_and_of_other_failures_three_in_a_row() {
    for (cause, expected) in [(REFUSED, 1), (CLOSED, 3), (DownCause::TargetTimedOut, 3)] {
        let (mut machine, now) = machine(None);
        let failures = (1..=4).find(|_| machine.failed(now, cause, 0.5).is_some());
        assert_eq!((failures, machine.standing().0), (Some(expected), Standing::Down(cause)));
    }
    let (mut machine, now) = machine(None);
    for _ in 0..100 {
        assert!(machine.failed(now, CLOSED, 0.5).is_none() && machine.failed(now, CLOSED, 0.5).is_none());
        let _ = machine.served(now);
    }
    assert_eq!(machine.standing().0, Standing::Up);
}

#[test]
fn what_is_down_is_asked_less_and_less_often_until_it_takes_a_connection() {
    let (mut machine, mut now) = machine(None);
    assert!(machine.failed(now, REFUSED, 0.5).is_some());
    let mut waits = Vec::new();
    for _ in 0..7 {
        waits.push(ask(&mut machine, &mut now).as_millis());
        assert_eq!(machine.checked(now, Err(REFUSED), 0.5), None);
    }
    assert_eq!(waits, [375, 750, 1500, 3000, 6000, 7500, 7500]);
    let _ = ask(&mut machine, &mut now);
    assert_eq!(standing(machine.checked(now, Ok(()), 0.5)), Some(Standing::Up));
    assert_eq!(machine.deadline(), None);
}

#[test]
fn a_request_that_is_answered_ends_it_sooner_than_any_question() {
    let (mut machine, mut now) = machine(None);
    let _ = machine.failed(now, REFUSED, 0.5);
    let _ = ask(&mut machine, &mut now);
    let change = machine.served(now).unwrap();
    assert_eq!((change.to, change.after), (Standing::Up, Duration::from_millis(375)));
    assert_eq!(machine.checked(now, Err(REFUSED), 0.5), None, "an answer that came too late");
    assert_eq!((machine.standing().0, machine.deadline()), (Standing::Up, None));
}

#[test]
fn what_goes_down_again_and_again_is_left_alone_for_longer_each_time() {
    let (mut machine, mut now) = machine(None);
    let mut waits = Vec::new();
    for _ in 0..6 {
        fail_thrice(&mut machine, now);
        waits.push(ask(&mut machine, &mut now).as_millis());
        let _ = machine.checked(now, Ok(()), 1.0);
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000]);
    now += RELAPSE;
    fail_thrice(&mut machine, now);
    assert_eq!(ask(&mut machine, &mut now).as_millis(), 500, "it was well for long enough");
}

#[test]
fn checks_come_at_their_interval_and_the_first_one_soon() {
    let (mut machine, mut now) = machine(Some(RULES));
    assert_eq!(ask(&mut machine, &mut now), SECOND / 2);
    assert_eq!(standing(machine.checked(now, Ok(()), 0.0)), Some(Standing::Up));
    assert_eq!(ask(&mut machine, &mut now), 9 * SECOND);
    assert_eq!(machine.checked(now, Ok(()), 1.0), None);
    assert_eq!(ask(&mut machine, &mut now), 11 * SECOND);
}

#[test]
fn so_many_checks_in_a_row_decide_and_the_first_one_alone() {
    let failed = DownCause::CheckFailed;
    let (mut machine, mut now) = machine(Some(RULES));
    let mut check = |outcome| {
        let _ = ask(&mut machine, &mut now);
        standing(machine.checked(now, outcome, 0.5))
    };
    assert_eq!(check(Err(failed)), Some(Standing::Down(failed)));
    let outcomes = [Ok(()), Err(failed), Ok(()), Ok(()), Err(failed), Err(failed), Ok(()), Err(failed), Err(failed)];
    let changes: Vec<_> = outcomes.into_iter().map(&mut check).collect();
    let mut expected = [None; 9];
    expected[3] = Some(Standing::Up);
    assert_eq!(changes, expected);
    assert_eq!(check(Err(failed)), Some(Standing::Down(failed)));
}

#[test]
fn requests_take_a_checked_service_down_and_its_checks_alone_bring_it_back() {
    let (mut machine, mut now) = machine(Some(RULES));
    let _ = ask(&mut machine, &mut now);
    let _ = machine.checked(now, Ok(()), 0.5);
    assert_eq!(standing(machine.failed(now, REFUSED, 0.5)), Some(Standing::Down(REFUSED)));
    assert_eq!(machine.served(now), None, "it answers, and is not well");
    for expected in [None, Some(Standing::Up)] {
        assert_eq!(ask(&mut machine, &mut now), 10 * SECOND);
        assert_eq!(standing(machine.checked(now, Ok(()), 0.5)), expected);
    }
}

#[test]
fn another_success_is_worth_telling_only_where_it_changes_something() {
    let (mut passive, now) = machine(None);
    assert!(!passive.is_calm());
    let _ = passive.served(now);
    assert!(passive.is_calm());
    let _ = passive.failed(now, CLOSED, 0.5);
    assert!(!passive.is_calm());
}
