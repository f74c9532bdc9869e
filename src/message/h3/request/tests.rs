use super::*;

const LIMITS: Limits = Limits { section_bytes: 1024, fields: 4 };
/// GET, https, /, :authority a
const GET: &[u8] = b"\0\0\xd1\xd7\xc1\x50\x01a";
/// grpc-status: 0
const TRAILERS: &[u8] = b"\0\0\x27\x04grpc-status\x010";
const OWN_HEADER: usize = 5;

fn put(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = (kind | 0xc000_0000_0000_0000).to_be_bytes().to_vec();
    frame.extend_from_slice(&(payload.len() as u16 | 0x4000).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn read(watcher: &mut Watcher) -> Vec<u8> {
    std::iter::from_fn(|| watcher.pop()).flatten().collect()
}

/// What goes on of these bytes, shown in pieces of this size.
fn passed(bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), Fault>, Option<Head>) {
    let mut watcher = Watcher::new(LIMITS);
    let pushed = bytes.chunks(size).try_for_each(|piece| watcher.push(Bytes::copy_from_slice(piece)));
    (read(&mut watcher), pushed.and_then(|()| watcher.finish()), watcher.take_head())
}

fn good() -> Option<Head> {
    Some(Head::Good { protocol: None })
}

#[test]
fn a_request_goes_on_without_what_carries_nothing_however_it_is_split() {
    let grease = put(0x21 + 0x1f * 7, b"grease");
    let parts =
        [grease.clone(), put(1, GET), grease.clone(), put(0, b"body"), put(0, b""), put(0, b"!"), put(1, TRAILERS)];
    let stream = [parts.concat(), grease].concat();
    let expected = [&frame(1, GET)[..], &put(0, b"body"), &put(0, b"!"), &frame(1, TRAILERS)].concat();
    for size in [1, 2, 3, 7, 64, stream.len()] {
        assert_eq!(passed(&stream, size), (expected.clone(), Ok(()), good()), "{size}");
    }
}

#[test]
fn a_body_that_comes_in_many_small_pieces_goes_on_in_few() {
    let body: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
    let stream = [&put(1, GET)[..], &[0, 0x80, 0x01, 0x86, 0xa0], &body].concat();
    let (mut watcher, mut pieces) = (Watcher::new(LIMITS), Vec::new());
    for packets in stream.chunks(1_400).collect::<Vec<_>>().chunks(16) {
        packets.iter().for_each(|packet| watcher.push(Bytes::copy_from_slice(packet)).unwrap());
        pieces.extend(std::iter::from_fn(|| watcher.pop()));
    }
    assert!(pieces.len() < 10 && pieces.iter().all(|piece| piece.len() <= GATHERED), "{}", pieces.len());
    assert_eq!(pieces.concat(), [&frame(1, GET)[..], &[0, 0x80, 0x01, 0x86, 0xa0], &body].concat());
}

#[test]
fn a_section_that_is_too_long_is_not_kept_and_can_be_answered() {
    let header = [1, 0xbf, 0xff, 0xff, 0xff];
    let mut watcher = Watcher::new(LIMITS);
    watcher.push(Bytes::copy_from_slice(&header)).unwrap();
    assert_eq!(watcher.take_head(), Some(Head::Refused(Violation::HeadTooLarge)));
    assert_eq!(read(&mut watcher), &frame(1, REFUSED)[..]);
    watcher.push(vec![0; 1 << 20].into()).unwrap();
    assert_eq!((read(&mut watcher).len(), watcher.section.capacity()), (0, 0));
    assert_eq!(watcher.finish(), Ok(()));
}

#[test]
fn a_head_that_breaks_a_rule_is_replaced_by_one_that_breaks_none() {
    let twice = [GET, b"\xd1"].concat();
    let (read, end, head) = passed(&[put(1, &twice), put(0, b"body")].concat(), 9);
    assert_eq!((&read[..], end, head), (&frame(1, REFUSED)[..], Ok(()), Some(Head::Refused(Violation::Syntax))));
    let call = [GET, &b"\xd1\x5f\x1d\x10application/grpc"[..]].concat();
    let (read, _, head) = passed(&put(1, &call), 9);
    assert_eq!((&read[..], head), (&frame(1, REFUSED_CALL)[..], Some(Head::Refused(Violation::Syntax))));
    let rules = Rules { is_head: true, max_fields: 1 };
    for section in [REFUSED, REFUSED_CALL] {
        assert_eq!(section::judge(section, rules), Ok(Ok(Judged::default())));
    }
}

/// Prefixes that announce a dynamic table, and that are longer than any peer needs.
const PREFIXES: [&[u8]; 5] =
    [b"\x01\0", b"\x02\0", b"\x03\0", b"\0\x7f\x80\x80\x80\x80\x80\0", b"\xff\x80\x80\x80\x80\x80\0\0"];

// Regression: what could not be judged went on, to a reader that takes any prefix and the last of two paths.
#[test]
fn a_section_that_cannot_be_judged_does_not_go_on() {
    for broken in [&b""[..], b"\x01\0\x80", b"\0"] {
        assert_eq!(passed(&put(1, broken), 64), (vec![], Err(Fault::Qpack), None), "{broken:?}");
    }
    let before = [put(1, GET), put(0, b"x")].concat();
    let long_name = b"\0\0\x27\x80\x80\x80\x80\x80\0aaaaaaa\x01b".to_vec();
    for prefix in PREFIXES {
        let head = [prefix, &GET[2..]].concat();
        assert_eq!(passed(&put(1, &head), 64), (vec![], Err(Fault::Qpack), None), "{prefix:?}");
        let trailers = [prefix, &TRAILERS[2..]].concat();
        for trailers in [&trailers, &long_name] {
            let (read, end, head) = passed(&[&before[..], &put(1, trailers)].concat(), 64);
            let expected = [&frame(1, GET)[..], &put(0, b"x")].concat();
            assert_eq!((read, end, head), (expected, Err(Fault::Qpack), good()), "{trailers:?}");
        }
    }
}

#[test]
fn a_frame_that_must_not_be_there_ends_what_is_read_without_its_payload() {
    let before = put(1, GET);
    for kind in [0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd] {
        let stream = [&before[..], &put(kind, b"payload"), &put(0, b"x")].concat();
        let (read, end, _) = passed(&stream, 64);
        assert_eq!((&read[GET.len() + OWN_HEADER..], end), (UNEXPECTED, Ok(())), "{kind}");
    }
    assert_eq!(passed(&put(0, b"x"), 64).0, UNEXPECTED, "DATA before HEADERS");
    for late in [put(0, b"x"), put(1, TRAILERS)] {
        let stream = [&before[..], &put(1, TRAILERS), &late].concat();
        assert!(passed(&stream, 64).0.ends_with(UNEXPECTED));
    }
}

#[test]
fn trailers_that_break_a_rule_end_the_stream() {
    let stream = [put(1, GET), put(0, b"x"), put(1, b"\0\0\xc1")].concat();
    assert_eq!(passed(&stream, 5).1, Err(Fault::Trailers(Violation::Trailers)));
    let long = [put(1, GET), vec![1, 0xbf, 0xff, 0xff, 0xff]].concat();
    assert_eq!(passed(&long, 5).1, Err(Fault::Trailers(Violation::HeadTooLarge)));
}

#[test]
fn an_end_inside_of_a_frame_is_no_end() {
    let stream = [put(1, GET), put(0, b"body")].concat();
    let whole = put(1, GET).len();
    for end in 1..stream.len() {
        let expected = if end == whole { Ok(()) } else { Err(Fault::Cut) };
        assert_eq!(passed(&stream[..end], 64).1, expected, "{end}");
    }
}

#[test]
fn frames_that_carry_nothing_are_bounded() {
    for idle in [put(0, b""), put(0x40, b"")] {
        let mut watcher = Watcher::new(LIMITS);
        watcher.push(put(1, GET).into()).unwrap();
        let most = MAX_IDLE_BYTES as usize / idle.len();
        let taken = (0..=most).take_while(|_| watcher.push(idle.clone().into()).is_ok()).count();
        assert_eq!(taken, most);
    }
    let mut watcher = Watcher::new(LIMITS);
    watcher.push(vec![0x40, 0x40, 0xbf, 0xff, 0xff, 0xff].into()).unwrap();
    assert_eq!(watcher.push(vec![0; 1 << 17].into()), Err(Fault::Idle));
}

#[test]
fn a_protocol_is_told_and_cut_out() {
    let mut connect = b"\0\0\xcf\xd7\xc1\x50\x01a".to_vec();
    let plain = connect.clone();
    connect.extend_from_slice(b"\x27\x02:protocol\x09websocket");
    let (read, _, head) = passed(&put(1, &connect), 3);
    assert_eq!(head, Some(Head::Good { protocol: Some(Bytes::from_static(b"websocket")) }));
    assert_eq!(read, &frame(1, &plain)[..]);
}
