use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn table(flows: usize, flows_per_prefix: usize) -> Table<u16> {
    Table::new(UdpLimits { flows, flows_per_prefix, flow_idle: 120 * SECOND })
}

/// The source with this port in the network of this number.
fn source(network: u8, port: u16) -> Ends {
    Ends { source: ([10, 0, network, 7], port).into(), here: None }
}

fn enter(table: &mut Table<u16>, source: Ends, now: Instant) -> Result<Entered, NoRoom> {
    table.enter(source, now, |key| key.ends.source.port())
}

#[test]
fn a_source_finds_its_flow_again_and_no_other() {
    let (mut table, now) = (table(8, 8), Instant::now());
    assert_eq!(table.arrived(source(1, 1), now), Arrived::Unknown);
    let one = enter(&mut table, source(1, 1), now).unwrap().key;
    assert_eq!(table.arrived(source(1, 1), now), Arrived::To(&1));
    assert_eq!(table.arrived(source(1, 2), now), Arrived::Unknown);
    table.end(one);
    assert_eq!(table.arrived(source(1, 1), now), Arrived::Unknown);
}

#[test]
fn a_source_has_a_flow_for_each_address_that_it_speaks_to_and_all_of_them_count() {
    let (mut table, now) = (table(8, 2), Instant::now());
    let to = |last| Ends { here: Some([192, 0, 2, last].into()), ..source(1, 1) };
    for last in 1..=2 {
        table.enter(to(last), now, |_| u16::from(last)).unwrap();
    }
    assert_eq!(table.arrived(to(1), now), Arrived::To(&1));
    assert_eq!(table.arrived(to(2), now), Arrived::To(&2));
    assert_eq!(table.enter(to(3), now, |_| 3), Err(NoRoom::Prefix));
}

#[test]
fn the_end_of_a_former_flow_does_not_end_the_next_one_of_its_source() {
    let (mut table, now) = (table(8, 8), Instant::now());
    let former = enter(&mut table, source(1, 1), now).unwrap().key;
    table.end(former);
    enter(&mut table, source(1, 1), now).unwrap();
    table.end(former);
    table.bar(former, now + SECOND);
    assert_eq!(table.arrived(source(1, 1), now), Arrived::To(&1));
}

// spec: ST-76
#[test]
fn a_silent_flow_ends_and_one_that_speaks_or_is_spoken_to_does_not() {
    let (mut table, start) = (table(8, 8), Instant::now());
    let keys: Vec<_> = (1..=3).map(|port| enter(&mut table, source(1, port), start).unwrap().key).collect();
    table.arrived(source(1, 2), start + 60 * SECOND);
    table.answered(keys[2], start + 60 * SECOND);
    assert_eq!(table.deadline(), Some(start + 120 * SECOND));
    table.expire(start + 119 * SECOND);
    assert_eq!(table.len(), 3);
    table.expire(start + 120 * SECOND);
    assert_eq!(table.arrived(source(1, 1), start + 120 * SECOND), Arrived::Unknown);
    assert_eq!(table.len(), 2);
    assert_eq!(table.deadline(), Some(start + 180 * SECOND));
    table.expire(start + 180 * SECOND);
    assert!(table.is_empty() && table.of_prefix.is_empty());
    assert_eq!(table.deadline(), None);
}

// spec: ST-78
#[test]
fn one_prefix_has_no_more_than_its_share_however_many_addresses_it_has() {
    let (mut table, now) = (table(100, 2), Instant::now());
    let of = |address: u8| Ends { source: ([10, 0, 1, address], 1).into(), here: None };
    assert!(enter(&mut table, of(1), now).is_ok() && enter(&mut table, of(2), now).is_ok());
    assert_eq!(enter(&mut table, of(3), now), Err(NoRoom::Prefix));
    assert!(enter(&mut table, source(2, 1), now).is_ok(), "another prefix has its own");
}

// spec: ST-78
#[test]
fn who_was_not_answered_gives_way_first_and_who_speaks_never_does() {
    let (mut table, start) = (table(3, 3), Instant::now());
    let keys: Vec<_> = (1..=3).map(|net| enter(&mut table, source(net, 1), start).unwrap().key).collect();
    assert_eq!(enter(&mut table, source(9, 1), start), Err(NoRoom::Listener), "each has its time");
    table.answered(keys[0], start);
    table.answered(keys[1], start);
    let later = start + 2 * SECOND;
    assert!(enter(&mut table, source(9, 1), later).unwrap().gave_way);
    assert_eq!(table.arrived(source(3, 1), later), Arrived::Unknown, "it was never answered");
    assert_eq!(enter(&mut table, source(8, 1), later), Err(NoRoom::Listener));

    let later = start + 11 * SECOND;
    table.arrived(source(1, 1), later - SECOND);
    table.answered(Key { ends: source(9, 1), number: 4 }, later - SECOND);
    assert!(enter(&mut table, source(8, 1), later).unwrap().gave_way);
    assert_eq!(table.arrived(source(2, 1), later), Arrived::Unknown, "it was silent for the longest");
    assert_eq!(table.arrived(source(1, 1), later), Arrived::To(&1));
    assert_eq!(table.len(), 3);
}

// spec: ST-78
#[test]
fn a_flood_of_new_sources_is_looked_at_twenty_times_a_second() {
    let (mut table, start) = (table(NOTED + 2, 10_000), Instant::now());
    (0..=NOTED + 1).for_each(|port| assert!(enter(&mut table, source(1, port as u16), start).is_ok()));
    let later = start + UNANSWERED_GRACE;
    let mut taken = 0;
    for port in 0..1000 {
        taken += usize::from(enter(&mut table, source(2, port), later).is_ok());
    }
    assert_eq!(taken, NOTED, "one look finds so many");
    assert!(enter(&mut table, source(2, 2000), later + LOOK_INTERVAL).is_ok());
}

/// A flood of one prefix kept the flows of all others from giving way.
#[test]
fn what_was_looked_for_in_vain_in_one_prefix_is_looked_for_in_another() {
    let (mut table, start) = (table(16, 2), Instant::now());
    let later = start + SECOND;
    for (network, at) in [(2, start), (1, later)] {
        for port in [1, 2] {
            enter(&mut table, source(network, port), at).unwrap();
        }
    }
    assert_eq!(enter(&mut table, source(1, 3), later), Err(NoRoom::Prefix), "those there are young");
    assert!(enter(&mut table, source(2, 3), later).unwrap().gave_way);
}

#[test]
fn a_source_that_was_refused_is_not_heard_for_a_while() {
    let (mut table, now) = (table(8, 8), Instant::now());
    let key = enter(&mut table, source(1, 1), now).unwrap().key;
    table.bar(key, now + SECOND);
    assert_eq!(table.arrived(source(1, 1), now), Arrived::Barred);
    assert_eq!(table.arrived(source(1, 1), now + SECOND), Arrived::Unknown);
    let key = enter(&mut table, source(1, 1), now).unwrap().key;
    table.bar(key, now + SECOND);
    table.expire(now + SECOND);
    assert!(table.is_empty());
}

#[test]
fn a_table_that_closes_takes_nobody_and_ends_those_who_are_silent() {
    let (mut table, now) = (table(8, 8), Instant::now());
    enter(&mut table, source(1, 1), now).unwrap();
    enter(&mut table, source(1, 2), now).unwrap();
    table.close(2 * SECOND, now);
    assert_eq!(enter(&mut table, source(1, 3), now), Err(NoRoom::Closed));
    table.arrived(source(1, 2), now + SECOND);
    table.expire(now + 2 * SECOND);
    assert_eq!(table.len(), 1);
}

#[test]
fn smaller_bounds_end_nobody_at_once() {
    let (mut table, now) = (table(8, 8), Instant::now());
    (1..=3).for_each(|port| assert!(enter(&mut table, source(1, port), now).is_ok()));
    table.limit(UdpLimits { flows: 1, flows_per_prefix: 1, flow_idle: 5 * SECOND }, now);
    assert_eq!(enter(&mut table, source(2, 1), now), Err(NoRoom::Listener));
    table.expire(now);
    assert_eq!(table.len(), 3);
    table.expire(now + 5 * SECOND);
    assert!(table.is_empty(), "the new time holds for those there are");
}
