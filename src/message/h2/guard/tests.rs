use std::collections::BTreeMap;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const OK: &[u8] = &[0x88];
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'h'];
const ENDS: u8 = END_HEADERS | END_STREAM;

fn client() -> Guard {
    Guard::new(Role::Client, 16_384)
}

/// A server's guard that has seen the preface.
fn server() -> Guard {
    let mut guard = Guard::new(Role::Server, 16_384);
    assert_eq!(guard.pass(&[b'x'; PREFACE_BYTES]), Passed::Bytes(PREFACE_BYTES));
    guard
}

/// What comes out when the bytes come in pieces of this size.
fn run(guard: &mut Guard, bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut held, mut out) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        held.extend_from_slice(piece);
        out.extend(pass_all(guard, &mut held));
    }
    assert!(held.is_empty() || guard.malformed() == 0);
    out
}

/// What comes out of what is held now.
fn pass_all(guard: &mut Guard, held: &mut Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        match guard.pass(held) {
            Passed::Bytes(bytes) => {
                out.extend(held.drain(..bytes));
                return out;
            }
            Passed::Instead { front, bytes, instead, .. } | Passed::Joined { front, bytes, instead } => {
                out.extend(held.drain(..front));
                held.drain(..bytes);
                out.extend(instead);
            }
        }
    }
}

#[test]
fn what_is_sound_passes_as_it_came_however_it_is_split() {
    let bytes = [
        frame(4, 0, 0, &[0; 6]),
        frame(HEADERS, 0, 1, OK),
        frame(CONTINUATION, END_HEADERS, 1, &[0x00, 0x01, b'x', 0x01, b'1']),
        frame(DATA, 0, 1, &[7; 1000]),
        frame(HEADERS, ENDS | PADDED | PRIORITY, 1, &[2, 0, 0, 0, 0, 9, 0x00, 0x01, b'x', 0x01, b'1', 0, 0]),
    ]
    .concat();
    for piece in [1, 2, 3, 7, 10, 100, bytes.len()] {
        let mut guard = client();
        assert_eq!(run(&mut guard, &bytes, piece), bytes, "{piece}");
        assert_eq!(guard.malformed(), 0);
    }
}

// spec: CT-31, TB-32
#[test]
fn a_head_beyond_what_is_taken_by_then_is_malformed_though_its_reader_would_take_it() {
    let max_list = Arc::new(AtomicUsize::new(16_384));
    let mut guard = Guard::following(Role::Client, &max_list);
    // A field of 1,000 bytes.
    let value = [&[0x00, 0x01, b'x', 0x7f, 0xe9, 0x06][..], &[b'v'; 1_000]].concat();
    let head = |stream| frame(HEADERS, ENDS, stream, &[OK, &value].concat());
    assert_eq!(run(&mut guard, &head(1), 100), head(1));
    max_list.store(1_000, Ordering::Release);
    let instead = run(&mut guard, &head(3), 100);
    assert_eq!(guard.malformed(), 1);
    assert!(instead.ends_with(hpack::MARK), "the reader resets it");
    max_list.store(2_000, Ordering::Release);
    assert_eq!(run(&mut guard, &head(5), 100), head(5));
}

// spec: SE-18
#[test]
fn data_that_carries_nothing_and_ends_nothing_is_left_out_however_it_is_split() {
    let empty = frame(DATA, 0, 1, &[]);
    let looks = frame(DATA, 0, 1, &empty);
    let kept = [
        frame(HEADERS, END_HEADERS, 1, OK),
        looks,
        frame(DATA, PADDED, 1, &[0]),
        frame(DATA, 0, 0, &[]),
        frame(DATA, END_STREAM, 1, &[]),
    ];
    let bytes = kept.iter().flat_map(|kept| [&empty.repeat(3)[..], kept, &empty[..]].concat()).collect::<Vec<_>>();
    for piece in [1, 2, 9, 10, 31, bytes.len()] {
        let mut guard = client();
        assert_eq!(run(&mut guard, &bytes, piece), kept.concat(), "{piece}");
        assert_eq!(guard.malformed(), 0);
    }
}

/// A guard that joins small frames, with readers of streams 1 and 3 who have read nothing.
fn joining() -> (Guard, Arc<SmallFrames>) {
    let frames = Arc::<SmallFrames>::default();
    frames.begin(1);
    frames.begin(3);
    (client().joining(&frames), frames)
}

fn released(guard: &mut Guard) -> Vec<u8> {
    guard.released(&Context::from_waker(std::task::Waker::noop()))
}

fn small(stream: u32) -> Vec<u8> {
    frame(DATA, 0, stream, &[7; 16])
}

// spec: SE-19
#[test]
fn small_data_that_nobody_reads_is_joined_however_it_is_split() {
    let (one, end) = (small(1), frame(DATA, END_STREAM, 1, b"end"));
    let first = [one.repeat(8), small(3)].concat();
    let bytes = [first.clone(), one.repeat(100), small(3), end.clone()].concat();
    let all = [first, frame(DATA, 0, 1, &[7; 1024]), small(3), frame(DATA, 0, 1, &[7; 36 * 16]), end];
    for piece in [1, 9, 24, 26, 100, bytes.len()] {
        let (mut guard, _frames) = joining();
        assert_eq!(run(&mut guard, &bytes, piece), all.concat(), "{piece}");
        assert!(guard.rest().is_empty());
    }
}

// spec: SE-19
#[test]
fn what_was_joined_goes_on_when_its_reader_wants_it_and_between_frames_alone() {
    let (mut guard, frames) = joining();
    assert_eq!(run(&mut guard, &small(1).repeat(20), 1000), small(1).repeat(8));
    assert!(released(&mut guard).is_empty());
    frames.has_read(|| 1);
    let large = frame(DATA, 0, 3, &[9; 1000]);
    run(&mut guard, &large[..500], 1000);
    assert!(released(&mut guard).is_empty(), "in the middle of a frame");
    run(&mut guard, &large[500..], 1000);
    assert_eq!(released(&mut guard), frame(DATA, 0, 1, &[7; 12 * 16]));
    assert_eq!(run(&mut guard, &small(1).repeat(9), 1000), small(1).repeat(8), "it begins anew");
    frames.end(1);
    assert_eq!(released(&mut guard), small(1));
    run(&mut guard, &small(3).repeat(9), 1000);
    assert_eq!(guard.rest(), small(3), "at the end of the connection");
}

// spec: SE-19
#[test]
fn what_was_joined_goes_before_whatever_else_its_reader_sees() {
    let large = frame(DATA, 0, 1, &[9; 300]);
    let padded = frame(DATA, PADDED, 1, &[1, 9, 0]);
    let broken = frame(HEADERS, END_HEADERS, 5, &[0xff]);
    for behind in [large, padded, frame(HEADERS, ENDS, 1, OK), frame(RST_STREAM, 0, 1, &[0; 4])] {
        for before in [&[][..], &broken] {
            let (mut guard, _frames) = joining();
            let bytes = [before, &small(1).repeat(20), &behind].concat();
            let expected = [before, &small(1).repeat(8), &frame(DATA, 0, 1, &[7; 12 * 16]), &behind].concat();
            assert_eq!(run(&mut guard, &bytes, bytes.len()), expected);
        }
    }
}

// spec: SE-19
#[test]
fn small_data_without_a_reader_waits_for_no_other_and_is_joined_with_what_came_with_it() {
    let (mut guard, _frames) = joining();
    assert_eq!(run(&mut guard, &small(5), 1000), small(5));
    let mixed = [small(5), small(7)].concat().repeat(10);
    let joined = [frame(DATA, 0, 5, &[7; 160]), frame(DATA, 0, 7, &[7; 160])].concat();
    assert_eq!(run(&mut guard, &mixed, mixed.len()), joined);
    let large = frame(DATA, 0, 3, &[9; 1000]);
    let bytes = [small(5), large.clone()].concat();
    let before_its_end = bytes.len() - 1;
    assert_eq!(
        run(&mut guard, &bytes[..before_its_end], 2000),
        large[..large.len() - 1],
        "not in the middle of a frame"
    );
    assert_eq!(run(&mut guard, &bytes[before_its_end..], 2000), [&large[large.len() - 1..], &small(5)].concat());
}

const WINDOW_UPDATE: u8 = 8;

/// What readers see of each stream: the bytes, and what stands between them.
fn seen(mut bytes: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let mut seen = BTreeMap::<u32, Vec<u8>>::new();
    while let Some(frame) = Frame::read(bytes) {
        let (whole, rest) = bytes.split_at(FRAME_HEAD + frame.length);
        let of_stream = seen.entry(frame.stream).or_default();
        match frame.kind {
            DATA if frame.flags == 0 => of_stream.extend(&whole[FRAME_HEAD..]),
            WINDOW_UPDATE => {}
            _ => of_stream.extend(whole),
        }
        bytes = rest;
    }
    assert!(bytes.is_empty());
    seen
}

// spec: SE-19
#[test]
fn each_stream_is_the_same_however_its_frames_are_joined_and_whoever_reads() {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..300 {
        let frames = Arc::<SmallFrames>::default();
        let mut guard = client().joining(&frames);
        let (mut sent, mut out) = (Vec::new(), Vec::new());
        for number in 0..200_u32 {
            let stream = 1 + 2 * random(4) as u32;
            let payload = vec![number as u8; [1, 16, 255, 256, 700][random(5) as usize]];
            sent.extend(match random(40) {
                0 => frame(RST_STREAM, 0, stream, &[0; 4]),
                1 => frame(DATA, PADDED, stream, &[1, 9, 0]),
                2 => frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]),
                3 => frame(DATA, 0, stream, &[]),
                _ => frame(DATA, 0, stream, &payload),
            });
        }
        let (mut held, mut at) = (Vec::new(), 0);
        while at < sent.len() {
            let end = sent.len().min(at + 1 + random(900) as usize);
            held.extend_from_slice(&sent[at..end]);
            at = end;
            match random(3) {
                0 => frames.begin(1 + 2 * random(4) as u32),
                1 => frames.has_read(|| 1 + 2 * random(4) as u32),
                _ => frames.end(1 + 2 * random(4) as u32),
            }
            out.extend(released(&mut guard));
            out.extend(pass_all(&mut guard, &mut held));
        }
        out.extend(guard.rest());
        assert!(seen(&out) == seen(&sent), "{round}");
    }
}

#[test]
fn nothing_goes_on_in_the_middle_of_a_block_that_is_not_looked_at() {
    let (mut guard, frames) = joining();
    run(&mut guard, &frame(HEADERS, END_HEADERS, 5, &[0xff]), 1000);
    run(&mut guard, &small(1).repeat(9), 1000);
    frames.has_read(|| 1);
    run(&mut guard, &frame(HEADERS, 0, 7, OK), 1000);
    assert!(released(&mut guard).is_empty());
    run(&mut guard, &frame(CONTINUATION, END_HEADERS, 7, &[]), 1000);
    assert_eq!(released(&mut guard), small(1));
}

// spec: ST-34
#[test]
fn a_malformed_head_is_replaced_and_its_neighbours_pass() {
    let neighbours = [frame(HEADERS, END_HEADERS, 5, OK), frame(DATA, END_STREAM, 5, b"whole")].concat();
    let del = [0x88, 0x40, 0x83, 0xf2, 0xb0, 0xff, 0x85, 0x1f, 0xff, 0xff, 0xfe, 0x7f];
    let bytes = [neighbours.clone(), frame(HEADERS, END_HEADERS, 3, &del), neighbours.clone()].concat();
    for piece in [1, 9, 20, bytes.len()] {
        let mut guard = client();
        let out = run(&mut guard, &bytes, piece);
        assert_eq!(guard.malformed(), 1);
        assert!(out.starts_with(&neighbours) && out.ends_with(&neighbours));
        let between = &out[neighbours.len()..out.len() - neighbours.len()];
        let head = Frame::read(between).unwrap();
        assert_eq!((head.kind, head.flags, head.stream), (HEADERS, END_HEADERS, 3));
        assert!(between.windows(10).any(|text| text == b"connection") && !between.contains(&0x7f));
    }
}

#[test]
fn trailers_are_known_by_what_came_before() {
    let pseudo = frame(HEADERS, ENDS, 1, OK);
    for (mut guard, first) in [(client(), frame(HEADERS, END_HEADERS, 1, OK)), (server(), frame(HEADERS, 4, 1, GET))] {
        let bytes = [first, frame(DATA, 0, 1, b"x"), pseudo.clone()].concat();
        assert_ne!(run(&mut guard, &bytes, bytes.len()), bytes);
        assert_eq!(guard.malformed(), 1);
    }
    let interim = frame(HEADERS, END_HEADERS, 1, &[0x08, 3, b'1', b'0', b'3']);
    let bytes = [interim, frame(HEADERS, END_HEADERS, 1, OK), frame(RST_STREAM, 0, 1, &[0; 4])].concat();
    let mut guard = client();
    assert_eq!(run(&mut guard, &bytes, bytes.len()), bytes);
    assert!(guard.begun.is_empty(), "a reset ends it");
}

/// RFC 9113 section 5.1: what is wrong with a head on such a stream is not what it says.
#[test]
fn a_head_on_a_stream_that_is_over_or_was_passed_by_is_left_to_the_reader() {
    let whole = frame(HEADERS, ENDS, 5, GET);
    let ended = [frame(HEADERS, END_HEADERS, 5, GET), frame(DATA, END_STREAM, 5, b"x")].concat();
    let reset = [frame(HEADERS, END_HEADERS, 5, GET), frame(RST_STREAM, 0, 5, &[0; 4])].concat();
    for (before, stream) in [(&whole, 5), (&ended, 5), (&reset, 5), (&whole, 3)] {
        let bytes = [&before[..], &frame(HEADERS, ENDS, stream, GET)].concat();
        let mut guard = server();
        assert_eq!(run(&mut guard, &bytes, bytes.len()), bytes, "{stream}");
        assert_eq!(guard.malformed(), 0);
    }
}

#[test]
fn a_client_that_ends_no_request_is_not_remembered_without_measure() {
    let mut guard = server();
    for stream in (1..).step_by(2).take(3 * MAX_ASKED) {
        run(&mut guard, &frame(HEADERS, END_HEADERS, stream, GET), 1000);
    }
    assert!(guard.begun.len() <= MAX_ASKED);
}

#[test]
fn what_breaks_http2_itself_is_left_to_the_reader() {
    for broken in [
        frame(HEADERS, END_HEADERS, 1, &[0xff]),
        frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x88]),
        [frame(HEADERS, 0, 1, OK), frame(CONTINUATION, END_HEADERS, 3, OK)].concat(),
        [frame(HEADERS, 0, 1, OK), frame(DATA, 0, 1, OK)].concat(),
        [frame(HEADERS, 0, 1, OK), frame(CONTINUATION, 0, 1, OK).repeat(MAX_FRAMES)].concat(),
    ] {
        let bytes = [broken, frame(HEADERS, END_HEADERS, 3, &[0x00, 0x01, b'X', 0x00])].concat();
        let mut guard = client();
        assert_eq!(run(&mut guard, &bytes, bytes.len()), bytes);
        assert_eq!((guard.state, guard.malformed()), (HEADLESS, 0));
    }
}

#[test]
fn what_was_collected_of_a_block_is_not_looked_at_anew() {
    let mut guard = client();
    let begun = [frame(HEADERS, 0, 1, OK), frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'x', 0x01, b'1'])].concat();
    assert_eq!(guard.pass(&begun), Passed::Bytes(0));
    assert_eq!((guard.scan.at, guard.scan.frames), (begun.len(), 2));
    let seen = [&begun[..FRAME_HEAD], &vec![0xff; begun.len() - FRAME_HEAD]].concat();
    let bytes = [seen, frame(CONTINUATION, END_HEADERS, 1, &[])].concat();
    assert_eq!(guard.pass(&bytes), Passed::Bytes(bytes.len()));
    assert_eq!((guard.state, guard.scan.at, guard.block.len()), (State::Skip(0), 0, 6));
}

#[test]
fn a_block_without_end_is_not_kept() {
    let mut guard = client();
    let endless = [0, 0xff, 0xff, HEADERS, 0, 0, 0, 0, 1];
    let bytes = [&endless[..], &vec![0x88; 0xffff], &[0, 0xff, 0xff, CONTINUATION, 0, 0, 0, 0, 1], &[0x88; 0xffff]];
    assert_eq!(guard.pass(&bytes.concat()), Passed::Bytes(2 * (0xffff + FRAME_HEAD)));
    assert_eq!(guard.state, State::Aside);
}

#[test]
fn a_long_block_goes_on_in_frames_that_every_reader_takes() {
    let found = Found { stream: 1, ends_stream: true, bytes: 0 };
    let bytes = frames(&found, &vec![7; MAX_FRAME + 1]);
    let first = Frame::read(&bytes).unwrap();
    let second = Frame::read(&bytes[FRAME_HEAD + MAX_FRAME..]).unwrap();
    assert_eq!((first.kind, first.flags, first.length), (HEADERS, END_STREAM, MAX_FRAME));
    assert_eq!((second.kind, second.flags, second.length), (CONTINUATION, END_HEADERS, 1));
}

#[test]
fn a_frame_that_no_reader_takes_is_not_waited_for() {
    for kind in [HEADERS, DATA] {
        let mut guard = client();
        let head = frame(kind, END_HEADERS, 1, &vec![0x88; MAX_FRAME + 1]);
        assert_eq!(guard.pass(&head[..FRAME_HEAD]), Passed::Bytes(FRAME_HEAD));
        assert_eq!(guard.state, State::Aside);
    }
    let bytes = [frame(HEADERS, 0, 1, OK), frame(CONTINUATION, END_HEADERS, 1, &vec![0x88; MAX_FRAME + 1])].concat();
    let mut guard = client();
    assert_eq!(guard.pass(&bytes[..100]), Passed::Bytes(100));
    assert_eq!(guard.state, State::Aside);
}

#[test]
fn a_block_that_would_grow_without_measure_is_left_to_the_reader() {
    let name = [&[0x40, 0x7f, 0xa1, 0x1e][..], &[b'A'; 4000], &[0x00]].concat();
    let block = [&[0x88][..], &name, &[0x7e, 0x00].repeat(6000)].concat();
    assert!(block.len() <= MAX_FRAME);
    let bytes = frame(HEADERS, END_HEADERS, 1, &block);
    let mut guard = client();
    assert_eq!(guard.pass(&bytes), Passed::Bytes(bytes.len()));
    assert_eq!((guard.state, guard.malformed()), (HEADLESS, 0));
}
