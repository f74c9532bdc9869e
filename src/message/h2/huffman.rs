//! The Huffman code of HPACK, to read with. RFC 7541 section 5.2 and appendix B
//!
//! The code is canonical: codes of one length follow one another in the order of their symbols. So the lengths are all that
//! need be written down.

/// How many bits the code of each byte has, and that of the end of a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// The last symbol: no string has it.
const END: u16 = 256;
const MAX_BITS: usize = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Row {
    bits: u32,
    /// The first and the last code, moved to the left end of 32 bits, with ones behind the last.
    first: u32,
    last: u32,
    /// Where their symbols begin.
    symbols: usize,
}

struct Table {
    /// By length; as many as there are lengths.
    rows: [Row; 21],
    symbols: [u16; 257],
}

static TABLE: Table = table();

const fn table() -> Table {
    let mut table = Table { rows: [Row { bits: 0, first: 0, last: 0, symbols: 0 }; 21], symbols: [0; 257] };
    let (mut row, mut found, mut code, mut bits) = (0, 0, 0u32, 1);
    while bits <= MAX_BITS {
        code <<= 1;
        let (first, begin) = (code, found);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == bits {
                table.symbols[found] = symbol as u16;
                found += 1;
                code += 1;
            }
            symbol += 1;
        }
        if found > begin {
            let left = 32 - bits as u32;
            let last = ((code - 1) << left) | ((1 << left) - 1);
            table.rows[row] = Row { bits: bits as u32, first: first << left, last, symbols: begin };
            row += 1;
        }
        bits += 1;
    }
    table
}

/// Appends the string that is coded. `None`: it is none, because the end is in the middle, or because what fills the last
/// byte is longer than it need be or not all ones.
pub(in crate::message) fn decode(coded: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let mut rest = coded.iter();
    // The bits that are yet to be read stand at the right end.
    let (mut window, mut held) = (0u64, 0u32);
    loop {
        while held <= 32 {
            let Some(byte) = rest.next() else { break };
            window = window << 8 | u64::from(*byte);
            held += 8;
        }
        if held == 0 {
            return Some(());
        }
        let front = front(window, held);
        let row = TABLE.rows.iter().find(|row| front <= row.last)?;
        if row.bits > held {
            return (held < 8 && front == u32::MAX).then_some(());
        }
        let index = (front - row.first) >> (32 - row.bits);
        let symbol = TABLE.symbols[row.symbols + usize::try_from(index).ok()?];
        into.push(u8::try_from(symbol).ok().filter(|_| symbol != END)?);
        held -= row.bits;
    }
}

/// The next 32 bits, with ones where there are no more.
const fn front(window: u64, held: u32) -> u32 {
    if held >= 32 { (window >> (held - 32)) as u32 } else { ((window << (32 - held)) as u32) | (u32::MAX >> held) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(coded, &mut text)?;
        Some(text)
    }

    /// The code of a text, by the same lengths.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in text {
            let row = TABLE.rows.iter().find(|row| row.bits == u32::from(LENGTHS[*byte as usize])).unwrap();
            let at = TABLE.symbols[row.symbols..].iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            let code = (row.first >> (32 - row.bits)) + u32::try_from(at).unwrap();
            bits.extend((0..row.bits).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (coded, text) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (
                &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3],
                "https://www.example.com",
            ),
            (&[], ""),
        ] {
            assert_eq!(decoded(coded).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn every_byte_has_a_code_that_is_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&all)), Some(all.clone()));
        for byte in all {
            assert_eq!(decoded(&encoded(&[byte; 3])), Some(vec![byte; 3]), "{byte}");
        }
    }

    #[test]
    fn what_is_no_string_is_refused() {
        assert_eq!(decoded(&[0xff]), None, "eight bits of filling");
        assert_eq!(decoded(&[0x64]), None, "filled with zeros");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the end in the middle");
    }
}
