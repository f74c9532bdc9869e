//! Variable-length integers: the encoding of RFC 9000 section 16, in its shortest form only. spec: OV-10, OV-11
//!
//! The two high bits of the first byte give the length (1, 2, 4 or 8 bytes), the rest is the value, big-endian.
//! RFC 9000 lets a sender waste bytes; we do not, so that every message has exactly one encoding and bytes can be
//! compared instead of meanings.

use bytes::BufMut;

/// The largest value that can be written: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// An integer that is not in its shortest form. spec: OV-11
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an integer is not in its shortest form")]
pub struct NotShortest;

/// Appends `value`; one above [`MAX`] is written as [`MAX`]. spec: OV-10
pub fn encode(out: &mut impl BufMut, value: u64) {
    match size(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(0x4000 | value as u16),
        4 => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value.min(MAX)),
    }
}

/// Takes one integer from the front of `input`; `None`, with `input` untouched, when more bytes are needed.
///
/// A longer form than needed is an error. spec: OV-11
pub fn decode(input: &mut &[u8]) -> Result<Option<u64>, NotShortest> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let length = 1 << (first >> 6);
    let Some((bytes, rest)) = input.split_at_checked(length) else {
        return Ok(None);
    };
    let start = u64::from(first & 0x3f);
    let value = bytes[1..].iter().fold(start, |value, &byte| value << 8 | u64::from(byte));
    if size(value) != length {
        return Err(NotShortest);
    }
    *input = rest;
    Ok(Some(value))
}

/// How many bytes [`encode`] writes for `value`.
pub const fn size(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// An integer from the front in any of its forms, which others may write (RFC 9000 section 16), and how many bytes it takes.
pub fn decode_any(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let size = 1 << (first >> 6);
    let rest = bytes.get(1..size)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, value);
        out
    }

    // spec: OV-10
    #[test]
    fn each_length_starts_where_the_shorter_one_ends() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (63, &[0x3f]),
            (64, &[0x40, 0x40]),
            (16383, &[0x7f, 0xff]),
            (16384, &[0x80, 0x00, 0x40, 0x00]),
            ((1 << 30) - 1, &[0xbf, 0xff, 0xff, 0xff]),
            (1 << 30, &[0xc0, 0, 0, 0, 0x40, 0, 0, 0]),
            (MAX, &[0xff; 8]),
        ] {
            assert_eq!(encoded(value), bytes);
            assert_eq!(decode(&mut &bytes[..]), Ok(Some(value)));
        }
    }

    // spec: OV-11
    #[test]
    fn a_longer_form_than_needed_is_an_error() {
        for bytes in [&[0x40, 0x3f][..], &[0x80, 0, 0x3f, 0xff], &[0xc0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff]] {
            assert_eq!(decode(&mut &bytes[..]), Err(NotShortest), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_value_beyond_the_range_is_written_as_the_largest() {
        assert_eq!(encoded(u64::MAX), encoded(MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_after_it(value in 0..=MAX, tail in proptest::collection::vec(any::<u8>(), 0..4)) {
            let bytes = encoded(value);
            prop_assert_eq!(bytes.len(), size(value));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&mut &bytes[..cut]), Ok(None));
            }
            let whole = [bytes, tail.clone()].concat();
            let mut input = &whole[..];
            prop_assert_eq!(decode(&mut input), Ok(Some(value)));
            prop_assert_eq!(input, &tail[..]);
        }
    }
}
