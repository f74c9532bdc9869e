use super::*;

fn put(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = (kind as u32 | 0x8000_0000).to_be_bytes().to_vec();
    frame.extend_from_slice(&(payload.len() as u16 | 0x4000).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn passed(bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), Fault>) {
    let mut watcher = Watcher::default();
    let pushed = bytes.chunks(size).try_for_each(|piece| watcher.push(Bytes::copy_from_slice(piece)));
    (std::iter::from_fn(|| watcher.pop()).flatten().collect(), pushed)
}

#[test]
fn known_frames_go_on_whole_and_unknown_ones_do_not() {
    let settings = [0x06, 0x44, 0x00];
    let stream = [&[0][..], &put(4, &settings), &put(0xf_0700, b"u=1"), &put(0x21, b""), &put(0xd, &[7])].concat();
    let expected = [&[0][..], &frame(4, &settings), &frame(0xd, &[7])].concat();
    for size in [1, 2, 5, stream.len()] {
        assert_eq!(passed(&stream, size), (expected.clone(), Ok(())), "{size}");
    }
}

// RFC 9297 section 2.1.1
#[test]
fn settings_say_whether_datagrams_are_taken() {
    let read = |settings: &[u8]| {
        let mut watcher = Watcher::default();
        let stream = [&[0][..], &put(4, settings)].concat();
        let pushed = stream.chunks(3).try_for_each(|piece| watcher.push(Bytes::copy_from_slice(piece)));
        pushed.map(|()| watcher.takes_datagrams())
    };
    for (settings, takes) in [
        (&[][..], Ok(false)),
        (&[0x33, 1], Ok(true)),
        (&[0x06, 0x44, 0x00, 0x40, 0x33, 0x80, 0, 0, 1], Ok(true)),
        (&[0x33, 0], Ok(false)),
        (&[0x33, 2], Err(Fault::Setting)),
        (&[0x33, 1, 0x08, 1], Ok(true)),
        (&[0x33, 1, 0x08, 2], Err(Fault::Setting)),
        (&[0x33, 1, 0x21, 0, 0x21, 0], Err(Fault::Setting)),
        (&[0x33, 1, 0x40, 0x33, 1], Err(Fault::Setting)),
        (&[0x02, 0], Err(Fault::Setting)),
        (&[0x01, 0x33, 0x01], Ok(false)),
        (&[0x33], Ok(false)),
    ] {
        assert_eq!(read(settings), takes, "{settings:?}");
    }
}

#[test]
fn other_streams_go_on_as_they_are() {
    for kind in [&[0x40, 0x54][..], &[0x21]] {
        let stream = [kind, b"\0\0\0anything"].concat();
        assert_eq!(passed(&stream, 3), (stream.clone(), Ok(())));
    }
}

#[test]
fn a_frame_is_as_long_as_what_is_in_it_and_bounded() {
    for (kind, payload) in [(7, &[0, 0][..]), (0xd, &[0x40]), (3, &[]), (7, &[0; 3]), (7, &[0; 9])] {
        let stream = [&[0][..], &put(4, &[]), &put(kind, payload)].concat();
        assert_eq!(passed(&stream, 4).1, Err(Fault::Length), "{kind} {payload:?}");
    }
    assert_eq!(passed(&[0, 4, 0x80, 0, 0x10, 1], 64).1, Err(Fault::TooLong));
}

// RFC 9114 sections 5.2, 6.2, 7.2.3 and 7.2.7
#[test]
fn what_a_client_never_says_ends_its_connection() {
    let control = |frames: &[(u64, &[u8])]| {
        let frames: Vec<u8> = frames.iter().flat_map(|(kind, payload)| put(*kind, payload)).collect();
        [&[0][..], &frames].concat()
    };
    let settings = (4, &[][..]);
    for (stream, expected) in [
        (vec![1], Err(Fault::Push)),
        (vec![0x40, 1], Err(Fault::Push)),
        (control(&[(0x21, b"x"), settings]), Err(Fault::NoSettings)),
        (control(&[(0, b"x")]), Err(Fault::NoSettings)),
        (control(&[settings, (0xd, &[5]), (0xd, &[5]), (0xd, &[6]), (7, &[9]), (7, &[9]), (7, &[0])]), Ok(())),
        (control(&[settings, (0xd, &[5]), (0xd, &[3])]), Err(Fault::Id)),
        (control(&[settings, (0xd, &[5]), (3, &[4])]), Err(Fault::Id)),
        (control(&[settings, (7, &[0]), (7, &[1])]), Err(Fault::Id)),
    ] {
        assert_eq!(passed(&stream, 3).1, expected, "{stream:x?}");
    }
}

#[test]
fn what_must_not_be_there_ends_what_is_read_without_its_payload() {
    for kind in [0x0, 0x1, 0x2, 0x5, 0x6, 0x8, 0x9] {
        let stream = [&[0][..], &put(4, &[]), &put(kind, &[9; 100])].concat();
        let (read, pushed) = passed(&stream, 11);
        assert_eq!((&read[1 + 5..], pushed), (UNEXPECTED, Ok(())), "{kind}");
    }
}

#[test]
fn work_is_counted_by_frames_and_by_what_is_skipped() {
    let mut watcher = Watcher::default();
    watcher.push([&[0][..], &put(4, &[]), &put(0x21, &[0; 4096]), &put(0x40, &[])].concat().into()).unwrap();
    assert_eq!((watcher.take_cost(), watcher.take_cost()), (3 + 4, 0));
}

#[test]
fn what_qpack_says_is_read_here_and_only_its_type_goes_on() {
    let read = |bytes: &[u8]| {
        let mut watcher = Watcher::default();
        let pushed = watcher.push(Bytes::copy_from_slice(bytes));
        (pushed, watcher.kind(), watcher.take_cost(), watcher.pop())
    };
    let kind = |kind: &'static [u8]| Some(Bytes::from_static(kind));
    assert_eq!(read(&[2, 0x20, 0x20]), (Ok(()), Some(Kind::Encoder), 2, kind(&[2])));
    assert_eq!(read(&[3, 0x44]), (Ok(()), Some(Kind::Decoder), 1, kind(&[3])));
    assert_eq!(read(&[2, 0xc1, 0]).0, Err(Fault::Encoder));
    assert_eq!(read(&[3, 0x80]).0, Err(Fault::Decoder));
    assert_eq!(read(&[0x40]).1, None);
    assert_eq!(read(&[0]).1, Some(Kind::Other));
}
