use super::*;

const IDLE: Duration = Duration::from_secs(120);

fn table(max_flows: usize) -> Flows<&'static str> {
    Flows::new(FlowLimits { max_flows, idle_timeout: IDLE })
}

fn datagram(flow: u64, payload: &'static [u8]) -> Datagram {
    Datagram { flow, payload: Bytes::from_static(payload) }
}

// spec: ST-70
#[test]
fn a_responder_uses_no_id_twice() {
    let (mut flows, now) = (table(2), Instant::now());
    assert_eq!(flows.open("a", now), Ok(0));
    assert_eq!(flows.end(0), Some("a"));
    assert_eq!(flows.open("b", now), Ok(1));
    assert_eq!(flows.open("c", now), Ok(2));
}

// spec: ST-70
#[test]
fn an_initiator_takes_no_id_of_a_live_flow() {
    let (mut flows, now) = (table(2), Instant::now());
    assert_eq!(flows.accept(7, "a", now), Ok(()));
    assert_eq!(flows.accept(7, "b", now), Err(FlowError::Taken(7)));
    assert_eq!(flows.arrived(datagram(7, b"x"), now), Arrived::To(&"a", Bytes::from_static(b"x")));
}

// spec: ST-71
#[test]
fn one_flow_too_many_is_refused_and_an_ended_one_makes_room() {
    let (mut flows, now) = (table(2), Instant::now());
    assert_eq!(flows.accept(0, "a", now), Ok(()));
    assert_eq!(flows.accept(1, "b", now), Ok(()));
    assert_eq!(flows.accept(2, "c", now), Err(FlowError::Full(2)));
    assert_eq!(flows.open("c", now), Err(FlowError::Full(2)));
    flows.end(0);
    assert_eq!(flows.accept(2, "c", now), Ok(()));
    assert_eq!(flows.len(), 2);
}

// spec: ST-41, ST-75
#[test]
fn a_datagram_of_no_flow_is_dropped() {
    let (mut flows, now) = (table(2), Instant::now());
    assert_eq!(flows.arrived(datagram(0, b"x"), now), Arrived::Dropped);
    flows.accept(0, "a", now).unwrap();
    flows.end(0);
    assert_eq!(flows.arrived(datagram(0, b"x"), now), Arrived::Dropped);
    assert!(flows.is_empty());
}

// spec: ST-74
#[test]
fn a_few_datagrams_wait_for_opened_and_keep_their_order() {
    let (mut flows, now) = (table(2), Instant::now());
    let id = flows.open("a", now).unwrap();
    for at in 0..limits::MAX_EARLY_DATAGRAMS + 2 {
        let expected = if at < limits::MAX_EARLY_DATAGRAMS { Arrived::Kept } else { Arrived::Dropped };
        let payload = Bytes::from(vec![at as u8]);
        assert_eq!(flows.arrived(Datagram { flow: id, payload }, now), expected, "datagram {at}");
    }
    let kept: Vec<u8> = flows.opened(id, now).iter().map(|payload| payload[0]).collect();
    assert_eq!(kept, (0..limits::MAX_EARLY_DATAGRAMS as u8).collect::<Vec<_>>());
    assert_eq!(flows.opened(id, now), Vec::<Bytes>::new(), "they are handed on once");
    assert_eq!(flows.arrived(datagram(id, b"x"), now), Arrived::To(&"a", Bytes::from_static(b"x")));
}

// spec: ST-76
#[test]
fn a_flow_that_carries_nothing_expires_and_one_in_use_does_not() {
    let (mut flows, start) = (table(4), Instant::now());
    assert_eq!(flows.deadline(), None);
    for (id, name) in [(0, "idle"), (1, "sends"), (2, "receives")] {
        flows.accept(id, name, start).unwrap();
    }
    assert_eq!(flows.deadline(), Some(start + IDLE));
    let later = start + IDLE / 2;
    flows.used(1, later);
    flows.arrived(datagram(2, b"x"), later);
    let just_before = start + IDLE - Duration::from_millis(1);
    assert_eq!(flows.expire(just_before), []);
    assert_eq!(flows.expire(start + IDLE), [(0, "idle")]);
    assert_eq!(flows.deadline(), Some(later + IDLE));
    let mut rest = flows.expire(later + IDLE);
    rest.sort_unstable();
    assert_eq!(rest, [(1, "sends"), (2, "receives")]);
    assert_eq!(flows.deadline(), None);
}

// spec: ST-76
#[test]
fn a_clock_that_steps_back_expires_nothing() {
    let (mut flows, start) = (table(1), Instant::now());
    flows.accept(0, "a", start + IDLE).unwrap();
    assert_eq!(flows.expire(start), []);
    assert_eq!(flows.len(), 1);
}

// spec: ST-76
#[test]
fn what_is_early_does_not_keep_a_flow_that_nobody_opens() {
    let (mut flows, start) = (table(1), Instant::now());
    let id = flows.open("a", start).unwrap();
    assert_eq!(flows.arrived(datagram(id, b"x"), start + IDLE / 2), Arrived::Kept);
    assert_eq!(flows.expire(start + IDLE), [(id, "a")]);
}

#[test]
fn what_is_early_does_not_keep_the_packet_it_came_in() {
    let packet = Bytes::from(vec![7; 1200]);
    let (mut flows, now) = (table(2), Instant::now());
    let id = flows.open("a", now).unwrap();
    assert_eq!(flows.arrived(Datagram { flow: id, payload: packet.slice(1199..) }, now), Arrived::Kept);
    assert!(packet.is_unique());
}
