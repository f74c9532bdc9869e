use super::*;

const HEAD: Rules = Rules { is_head: true, max_list: 16_384, ends_excess: false };
const TRAILERS: Rules = Rules { is_head: false, max_list: 16_384, ends_excess: false };

fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![first];
    for text in [name, value] {
        put_integer(text.len(), &mut block);
        block.extend_from_slice(text);
    }
    block
}

fn judge(block: &[u8]) -> Judged {
    Decoder::default().judge(block, HEAD).unwrap()
}

fn is_sound(block: &[u8]) -> bool {
    judge(block).instead.is_none()
}

// spec: ST-34, TB-7
#[test]
fn a_field_that_is_none_makes_its_block_malformed_and_no_other() {
    assert!(is_sound(&literal(0x00, b"x", b"a\tb \xff")));
    assert!(is_sound(&literal(0x00, b"x", b"#")) && is_sound(&literal(0x00, b":path", b"/%23?q")));
    for (name, value) in [
        (&b"x"[..], &b"a\x7f"[..]),
        (b"x", b"a\n"),
        (b"x", b"\r"),
        (b"x", b"\0"),
        (b"X-A", b"1"),
        (b"x a", b"1"),
        (b"", b"1"),
        (b":odd", b"1"),
        (b":status", b"1000"),
        (b":status", b"99"),
        (b":status", b"0200"),
        (b":status", b"20"),
        (b":status", b"abc"),
        (b":method", b"G T"),
        (b":method", b""),
        (b":authority", b"\xff"),
        (b":path", b"/\xe9"),
        (b":path", b"/raw/a?q#x"),
    ] {
        for first in [0x00, 0x10, 0x40] {
            let mut decoder = Decoder::default();
            let malformed = decoder.judge(&literal(first, name, value), HEAD).unwrap();
            assert!(malformed.instead.is_some_and(|instead| instead.ends_with(MARK)), "{name:?} {value:?}");
            assert_eq!(decoder.judge(&literal(first, b"x", b"1"), HEAD).unwrap().instead, None);
        }
    }
}

#[test]
fn what_stands_in_the_table_keeps_its_size_and_its_place() {
    let mut decoder = Decoder::default();
    let block = [literal(0x40, b"x", b"a\nb"), literal(0x40, b"y", b"1"), literal(0x00, b"z", b"\n")].concat();
    let expected = [literal(0x40, b"x", b"xxx"), literal(0x40, b"y", b"1"), MARK.to_vec()].concat();
    assert_eq!(decoder.judge(&block, HEAD).unwrap().instead, Some(expected));
    // The newest entry is 62; the one before it is none, by itself and as a name.
    assert_eq!(decoder.judge(&[0x80 | 62], HEAD).unwrap().instead, None);
    assert_eq!(decoder.judge(&[0x80 | 63], HEAD).unwrap().instead, Some(MARK.to_vec()));
    assert_eq!(decoder.judge(&[0x80 | 64], HEAD), Err(Broken));
}

#[test]
fn a_value_is_judged_by_the_name_that_an_index_means() {
    let status = |value: &[u8]| [&[0x08, value.len() as u8][..], value].concat();
    assert!(is_sound(&status(b"299")) && !is_sound(&status(b"20")));
    assert_eq!(judge(&status(b"103")).status, Some(true));
    assert_eq!(judge(&[0x80 | 8]).status, Some(false));
    assert_eq!(judge(&[0x80 | 2]).status, None);
}

#[test]
fn pseudo_fields_in_trailers_are_malformed() {
    for block in [&[0x80 | 8][..], &literal(0x00, b":path", b"/"), &literal(0x40, b":authority", b"a")] {
        let judged = Decoder::default().judge(block, TRAILERS).unwrap();
        assert_eq!(judged.instead, Some([block, MARK].concat()));
    }
    assert_eq!(Decoder::default().judge(&literal(0x00, b"grpc-status", b"0"), TRAILERS).unwrap().instead, None);
}

#[test]
fn a_list_that_is_too_long_ends_soon_behind_its_limit() {
    let mut decoder = Decoder::default();
    let value = vec![b'a'; 4000];
    let kept = literal(0x40, b"x", &value);
    let block = [kept.clone(), vec![0x80 | 62; 1000], literal(0x40, b"y", b"1")].concat();
    let instead = decoder.judge(&block, HEAD).unwrap().instead.unwrap();
    assert_eq!(instead, [kept, vec![0x80 | 62; 4], literal(0x40, b"x", b"x")].concat());
}

#[test]
fn integers_are_read_as_they_are_written() {
    for value in [0, 1, 126, 127, 128, 254, 255, 16_384, 1 << 20] {
        let mut written = Vec::new();
        put_integer(value, &mut written);
        let mut at = 0;
        assert_eq!(integer(&written, &mut at, 7), Ok(value));
        assert_eq!(at, written.len());
    }
    assert_eq!(integer(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x00], &mut 0, 7), Err(Broken));
    assert_eq!(integer(&[], &mut 0, 7), Err(Broken));
}

#[test]
fn what_breaks_hpack_is_left_to_the_reader() {
    // A field of no bytes at all has no other of its size.
    for block in
        [&b"\x40\0\0"[..], &[0x80], &[0xff], &[0x40, 0x01], &[0x00, 0x85, 0x1f, 0xff], &[0x00, 0x01, b'x', 0x81, 0x00]]
    {
        assert_eq!(Decoder::default().judge(block, HEAD), Err(Broken), "{block:?}");
    }
}

#[test]
fn no_bytes_panic() {
    let mut state = 7u32;
    for _ in 0..20_000 {
        let block: Vec<u8> = (0..24)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let _ = Decoder::default().judge(&block, TRAILERS);
    }
}

#[test]
fn what_stands_in_place_of_a_block_is_not_much_longer_than_the_block() {
    // Each pair of bytes is a field with a name of 4,000 bytes: beyond the limit of the list it would be written out.
    let name = literal(0x40, &[b'a'; 4000], b"");
    let block = [name, [0x7e, 0x00].repeat(45_000)].concat();
    assert_eq!(Decoder::default().judge(&block, HEAD), Err(Broken));
    for length in [10, 30, 100] {
        let block = [literal(0x40, &[b'A'; 4000], b""), [0x7e, 0x00].repeat(length)].concat();
        if let Ok(judged) = Decoder::default().judge(&block, HEAD) {
            let instead = judged.instead.unwrap();
            assert!(instead.len() <= most_instead(block.len()) + MARK.len(), "{} for {}", instead.len(), block.len());
        }
    }
}

#[test]
fn an_entry_that_is_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::default();
    let small = literal(0x40, b"y", b"1");
    for (name, value) in [(65_535, 0), (1, 4064), (2000, 2065)] {
        assert_eq!(decoder.judge(&small, HEAD).unwrap().instead, None);
        assert_eq!(decoder.judge(&[0x80 | 62], HEAD).unwrap().instead, None);
        let large = literal(0x40, &vec![b'a'; name], &vec![b'b'; value]);
        assert_eq!(
            decoder.judge(&large, Rules { is_head: true, max_list: 1 << 20, ends_excess: false }).unwrap().instead,
            None
        );
        assert_eq!(decoder.judge(&[0x7e, 0x00], HEAD), Err(Broken), "{name} {value}");
    }
    let malformed = decoder.judge(&literal(0x40, &[b'A'; 60_000], b""), HEAD).unwrap().instead.unwrap();
    let (mut at, mut reader) = (0, Decoder::default());
    let filler = reader.next(&malformed, &mut at).unwrap().unwrap();
    assert_eq!((filler.is_kept, filler.entry.bytes()), (true, TABLE_BYTES + 1), "one byte too many is enough");
}

#[test]
fn the_oldest_entries_give_way_to_the_newest_and_to_a_smaller_table() {
    let mut decoder = Decoder::default();
    let half = |name| literal(0x40, name, &[b'1'; 2015]);
    let block = [half(b"x"), half(b"y"), vec![0x80 | 63, 0x80 | 62]].concat();
    assert_eq!(decoder.judge(&block, HEAD).unwrap().instead, None);
    assert_eq!(decoder.judge(&half(b"z"), HEAD).unwrap().instead, None);
    assert_eq!((decoder.entries.len(), decoder.bytes), (2, TABLE_BYTES));
    assert_eq!(decoder.judge(&[0x3f, 0xe0, 0x1f], HEAD).unwrap().instead, None, "4,095 bytes");
    assert_eq!((decoder.entries.len(), decoder.bytes), (1, TABLE_BYTES / 2));
    assert_eq!(decoder.judge(&[0x20, 0x80 | 62], HEAD), Err(Broken), "no table at all");
    assert_eq!(decoder.judge(&[0x3f, 0xe2, 0x1f], HEAD), Err(Broken), "4,097 bytes");
}
