use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::protocol::budgets::HANDSHAKE_GRACE;
use crate::telemetry::{HandshakeListener, Metrics};

/// Budgets of 16: silent 64, 32 of a prefix; TLS and claim 16, 8 of a prefix.
const MAX: usize = 16;

fn from(third: u8, last: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, third, last).into()
}

fn counts(handshakes: &Handshakes) -> [usize; 4] {
    handshakes.0.table().counts()
}

async fn moved(handshakes: &Handshakes, address: IpAddr, to: Stage) -> Seat {
    let mut seat = handshakes.enter(Stage::Hello, address);
    seat.advance(to).await.unwrap();
    seat
}

// spec: SE-21
#[tokio::test]
async fn the_oldest_silent_one_of_a_prefix_gives_way_and_other_prefixes_do_not() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let honest = handshakes.enter(Stage::Silent, from(2, 1));
    let strangers: Vec<_> = (0..100).map(|last| handshakes.enter(Stage::Silent, from(1, last))).collect();
    assert_eq!(counts(&handshakes), [33, 0, 0, 0]);
    assert!(honest.check().is_ok());
    let left = strangers.iter().map(|seat| seat.check().is_ok());
    assert!(left.eq((0..100).map(|number| number >= 68)), "the last of its share are there");
    drop(strangers);
    assert_eq!(counts(&handshakes), [1, 0, 0, 0]);
}

#[tokio::test]
async fn with_every_prefix_within_its_share_the_oldest_of_all_gives_way() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let seats: Vec<_> = (0..70).map(|net| handshakes.enter(Stage::Silent, from(net, 1))).collect();
    assert_eq!(counts(&handshakes), [4 * MAX, 0, 0, 0]);
    assert!(seats.iter().map(|seat| seat.check().is_ok()).eq((0..70).map(|number| number >= 6)));
}

#[tokio::test]
async fn who_gets_on_leaves_room_behind() {
    let metrics = Metrics::new();
    let handshakes =
        Handshakes::new(HandshakeBudgets::over_quic(MAX)).counting(&metrics.stages(HandshakeListener::Quic));
    let told = |stage: &str| {
        let (series, text) =
            (format!("adit_handshakes_open{{listener=\"quic\",stage=\"{stage}\"}} "), metrics.render());
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned()
    };
    let all = || ["silent", "hello", "tls", "claim"].map(|stage| told(stage).parse::<usize>().unwrap());
    let mut seat = handshakes.enter(Stage::Silent, from(1, 1));
    assert_eq!(all(), [1, 0, 0, 0]);
    for (stage, expected) in [(Stage::Hello, [0, 1, 0, 0]), (Stage::Tls, [0, 0, 1, 0]), (Stage::Claim, [0, 0, 0, 1])] {
        seat.advance(stage).await.unwrap();
        assert_eq!((counts(&handshakes), all()), (expected, expected));
    }
    let crowd: Vec<_> = (0..40).map(|last| handshakes.enter(Stage::Silent, from(1, last))).collect();
    assert_eq!(all(), [32, 0, 0, 1], "who gave way does not count");
    drop((seat, crowd));
    assert_eq!((counts(&handshakes), all()), ([0; 4], [0; 4]));
}

// Whoever is newest looks after the others: when it leaves, the next has to know.
#[tokio::test(start_paused = true)]
async fn who_waits_gets_its_turn_also_when_all_who_came_later_have_gone() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let mut working = Vec::new();
    for number in 0..8 {
        working.push(moved(&handshakes, from(1, number), Stage::Tls).await);
    }
    let mut first = handshakes.enter(Stage::Hello, from(1, 8));
    let mut later: Vec<_> = (9..20).map(|number| handshakes.enter(Stage::Hello, from(1, number))).collect();
    let started = tokio::time::Instant::now();
    {
        let first = first.advance(Stage::Tls);
        let later = later.iter_mut().map(|seat| timeout(Duration::from_millis(250), seat.advance(Stage::Tls)));
        let later = async {
            for wait in later {
                assert!(wait.await.is_err(), "nobody is old enough to give way");
            }
        };
        tokio::pin!(first, later);
        tokio::select! {
            biased;
            _ = &mut later => {}
            _ = &mut first => panic!("there is no room"),
        }
        first.await.unwrap();
    }
    assert!(started.elapsed() >= HANDSHAKE_GRACE, "the oldest gave way");
    assert!(started.elapsed() < HANDSHAKE_GRACE + Duration::from_secs(1), "{:?}", started.elapsed());
}

// spec: SE-21
#[tokio::test(start_paused = true)]
async fn a_storm_of_honest_ones_who_take_their_time_gets_through_and_is_not_ended_by_its_own_newcomers() {
    let (handshakes, late) = (Handshakes::new(HandshakeBudgets::over_quic(MAX)), HANDSHAKE_GRACE * 2);
    let dial = |last: u8| {
        let handshakes = handshakes.clone();
        async move {
            let mut seat = handshakes.enter(Stage::Hello, from(1, last));
            seat.advance(Stage::Tls).await?;
            seat.hold(tokio::time::sleep(late)).await
        }
    };
    let mut storm = tokio::task::JoinSet::new();
    for last in 0..24 {
        storm.spawn(dial(last));
    }
    let done = storm.join_all().await;
    let through = done.iter().filter(|done| done.is_ok()).count();
    assert!(through >= 8, "{through} of 24, although each takes twice its grace");
    assert!(handshakes.0.table().is_tidy());
    assert_eq!(counts(&handshakes), [0; 4]);
}

/// Strangers that hold each place until they have to give way, and come again soon.
fn crowd_that_stays(handshakes: &Handshakes, third: u8, count: u8) -> tokio::task::JoinSet<()> {
    let mut crowd = tokio::task::JoinSet::new();
    for last in 0..count {
        let handshakes = handshakes.clone();
        crowd.spawn(async move {
            loop {
                let mut seat = handshakes.enter(Stage::Hello, from(third, last));
                if seat.advance(Stage::Tls).await.is_ok() {
                    let _ = seat.hold(std::future::pending::<()>()).await;
                }
                drop(seat);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    crowd
}

// Served by age alone, in either order, somebody would wait for ever here: who came again is newest each time.
// spec: SE-21
#[tokio::test(start_paused = true)]
async fn a_crowd_that_stays_keeps_nobody_out_for_ever() {
    // Long enough for hundreds of draws; the crowd has its places for 3 s each.
    let patience = Duration::from_secs(600);
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let _crowd = crowd_that_stays(&handshakes, 1, 8);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let honest = moved(&handshakes, from(1, 100), Stage::Tls);
    let buried = async {
        tokio::task::yield_now().await;
        // More than have their places at once, so that some of them are always above.
        let _above = crowd_that_stays(&handshakes, 1, 16);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        got_in = timeout(patience, honest) => assert!(got_in.is_ok(), "it waits beneath those who come again"),
        () = buried => {}
    }
}

// spec: SE-21
#[tokio::test(start_paused = true)]
async fn a_crowd_of_other_prefixes_leaves_each_prefix_its_turn() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let _crowds: Vec<_> = (1..=3).map(|third| crowd_that_stays(&handshakes, third, 12)).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let honest = moved(&handshakes, from(9, 1), Stage::Tls);
    let buried = async {
        tokio::task::yield_now().await;
        let _above = crowd_that_stays(&handshakes, 1, 20);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // A quarter of the lots, and one drawn at least every second.
        got_in = timeout(Duration::from_secs(120), honest) => assert!(got_in.is_ok(), "its prefix never had a turn"),
        () = buried => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_place_is_the_newests_and_who_stops_waiting_is_in_nobodys_way() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let mut busy = Vec::new();
    for last in 0..8 {
        busy.push(moved(&handshakes, from(1, last), Stage::Tls).await);
    }
    let mut waiting: Vec<_> = (0..3).map(|last| Box::pin(moved(&handshakes, from(1, 20 + last), Stage::Tls))).collect();
    for wait in &mut waiting {
        assert!(timeout(EVICTION_INTERVAL, wait).await.is_err());
    }
    drop(waiting.pop());
    busy.pop();
    let newest = waiting.pop().unwrap();
    let _newest = timeout(EVICTION_INTERVAL, newest).await.expect("it has the place of the one that left");
    assert!(timeout(EVICTION_INTERVAL, &mut waiting[0]).await.is_err());
    drop(waiting);
    assert!(handshakes.0.table().is_tidy());
}

// spec: SE-21
#[tokio::test(start_paused = true)]
async fn a_handshake_that_costs_work_has_its_grace_and_then_gives_way() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let mut stalled = Vec::new();
    for last in 0..8 {
        stalled.push(moved(&handshakes, from(1, last), Stage::Tls).await);
    }
    let other = tokio::time::Instant::now();
    let _elsewhere = moved(&handshakes, from(2, 1), Stage::Tls).await;
    assert_eq!(other.elapsed(), Duration::ZERO, "another prefix has room");
    let began = tokio::time::Instant::now();
    let _honest = moved(&handshakes, from(1, 9), Stage::Tls).await;
    let waited = began.elapsed();
    assert!(waited >= HANDSHAKE_GRACE && waited <= HANDSHAKE_GRACE + 2 * EVICTION_INTERVAL, "{waited:?}");
    assert_eq!(stalled.iter().filter(|seat| seat.check().is_err()).count(), 1, "one place, one gives way");
    assert_eq!(stalled[0].check(), Err(GaveWay(Stage::Tls)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_as_soon_as_a_place_is_free() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let mut busy = Vec::new();
    for last in 0..8 {
        busy.push(moved(&handshakes, from(1, last), Stage::Tls).await);
    }
    let began = tokio::time::Instant::now();
    let waiting = moved(&handshakes, from(1, 9), Stage::Tls);
    let freed = async {
        tokio::task::yield_now().await;
        busy.pop();
    };
    let (_waiting, ()) = tokio::join!(waiting, freed);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_waits_can_have_to_give_way_too() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let mut busy = Vec::new();
    for last in 0..8 {
        busy.push(moved(&handshakes, from(1, last), Stage::Tls).await);
    }
    let mut seat = handshakes.enter(Stage::Hello, from(1, 9));
    let crowd = async {
        tokio::task::yield_now().await;
        (0..2 * MAX).map(|_| handshakes.enter(Stage::Hello, from(1, 10))).collect::<Vec<_>>()
    };
    let (advanced, _crowd) = tokio::join!(seat.advance(Stage::Tls), crowd);
    assert_eq!(advanced, Err(GaveWay(Stage::Hello)));
}

#[tokio::test]
async fn pressure_is_what_all_stages_hold_together() {
    let handshakes = Handshakes::new(HandshakeBudgets::over_quic(MAX));
    let _hello: Vec<_> = (0..6).map(|net| handshakes.enter(Stage::Hello, from(net, 1))).collect();
    assert!(!handshakes.is_under_pressure());
    let _tls = moved(&handshakes, from(7, 1), Stage::Tls).await;
    assert!(!handshakes.is_under_pressure());
    let _claim = moved(&handshakes, from(8, 1), Stage::Claim).await;
    assert!(handshakes.is_under_pressure());
    handshakes.resize(HandshakeBudgets::over_quic(4 * MAX));
    assert!(!handshakes.is_under_pressure());
}
