//! Header blocks, read to judge them: which fields are none, and what to put in their place.
//!
//! HPACK makes the heads of a connection depend on one another, so a block with a field that is none cannot simply be left
//! out. What this leaves of one changes the table of whoever reads it exactly as the block itself would: a field that goes
//! into the table is replaced by one of the same size, every other is dropped. RFC 7541

use std::collections::VecDeque;
use std::ops::Range;

use crate::message::fields::is_token_byte;
use crate::message::h2::huffman;

/// The size of the table, which is what we announce by saying nothing. RFC 9113 section 6.5.2
pub(super) const TABLE_BYTES: usize = 4096;
/// What an entry of the table takes beside its name and value. RFC 7541 section 4.1
const ENTRY_BYTES: usize = 32;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Field,
    Method,
    /// `:scheme`, `:authority`, `:protocol`
    Part,
    /// `:path`
    Path,
    /// `:status`; whether it is a 1xx.
    Status(bool),
    /// No name at all, or with a value that its name cannot have.
    Bad,
}

/// An entry of the table that the peer and its reader share; what of it must be known.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    name_bytes: usize,
    value_bytes: usize,
}

/// The table of a connection's peer, as far as judging needs it.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    /// What they take, and the most that they may: the peer may lower that.
    bytes: usize,
    max_bytes: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What a block is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Pseudo-fields are allowed: it is a head and not trailers.
    pub(super) is_head: bool,
    /// Most bytes of the fields as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    pub(super) max_list: usize,
    /// A block with more than that is malformed, whoever reads it.
    pub(super) ends_excess: bool,
}

/// What was found in a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// `:status` was there, and whether it was a 1xx.
    pub(super) status: Option<bool>,
    /// What to read in place of the block; `None`: it is sound.
    pub(super) instead: Option<Vec<u8>>,
}

/// The block breaks HPACK itself: nothing on the connection can be read any more.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::message) struct Broken;

/// One field of a block.
struct Field {
    entry: Entry,
    /// It goes into the table.
    is_kept: bool,
}

/// `connection: x`, without an index: the reader resets the stream for it, and only the stream.
pub(super) const MARK: &[u8] = b"\x00\x0aconnection\x01x";

impl Default for Decoder {
    fn default() -> Self {
        let (name, value) = Default::default();
        Self { entries: VecDeque::new(), bytes: 0, max_bytes: TABLE_BYTES, name, value }
    }
}

impl Decoder {
    /// Judges the next block of the connection. What stands in its place is at most [`most_instead`] long.
    ///
    /// # Errors
    /// [`Broken`]: also where what would stand in its place is longer, which no peer needs. Two bytes that name an entry of
    /// the table mean a field of four thousand, and each would have to be written out.
    pub(super) fn judge(&mut self, block: &[u8], rules: Rules) -> Result<Judged, Broken> {
        let mut judged = Judged { status: None, instead: None };
        let (mut at, mut list) = (0, 0);
        let mut is_malformed = false;
        while at < block.len() {
            let begin = at;
            let Some(field) = self.next(block, &mut at)? else {
                append(&mut judged.instead, &block[begin..at]);
                continue;
            };
            let Entry { kind, name_bytes, value_bytes } = field.entry;
            if field.is_kept {
                self.keep(field.entry);
            }
            if let Kind::Status(is_interim) = kind {
                judged.status = Some(is_interim);
            }
            let is_too_much = list > rules.max_list;
            list += field.entry.bytes();
            let is_misplaced = !rules.is_head && kind != Kind::Field;
            is_malformed |= kind == Kind::Bad || is_misplaced || (rules.ends_excess && list > rules.max_list);
            if kind == Kind::Bad || is_too_much {
                let instead = judged.instead.get_or_insert_with(|| block[..begin].to_vec());
                if field.is_kept {
                    put_filler(name_bytes + value_bytes, instead)?;
                }
                if instead.len() > most_instead(block.len()) {
                    return Err(Broken);
                }
            } else {
                append(&mut judged.instead, &block[begin..at]);
            }
        }
        if is_malformed {
            judged.instead.get_or_insert_with(|| block.to_vec()).extend_from_slice(MARK);
        }
        Ok(judged)
    }

    /// Reads one representation; `None` is a change of the table's size. RFC 7541 section 6
    fn next(&mut self, block: &[u8], at: &mut usize) -> Result<Option<Field>, Broken> {
        let first = block[*at];
        if first & 0x80 != 0 {
            let index = integer(block, at, 7)?;
            return Ok(Some(Field { entry: self.entry(index)?, is_kept: false }));
        }
        if first & 0xe0 == 0x20 {
            self.resize(integer(block, at, 5)?)?;
            return Ok(None);
        }
        let is_kept = first & 0x40 != 0;
        let index = integer(block, at, if is_kept { 6 } else { 4 })?;
        let (kind, name_bytes) = match index {
            0 => {
                string(block, at, &mut self.name)?;
                (kind_of(&self.name), self.name.len())
            }
            index => {
                let named = self.entry(index)?;
                (named.kind, named.name_bytes)
            }
        };
        string(block, at, &mut self.value)?;
        let kind = with_value(kind, &self.value);
        Ok(Some(Field { entry: Entry { kind, name_bytes, value_bytes: self.value.len() }, is_kept }))
    }

    fn entry(&self, index: usize) -> Result<Entry, Broken> {
        match index.checked_sub(STATIC.len() + 1) {
            Some(dynamic) => self.entries.get(dynamic).copied().ok_or(Broken),
            None => STATIC.get(index.wrapping_sub(1)).map(|(name, value)| fixed(name, value)).ok_or(Broken),
        }
    }

    /// Takes an entry into the table. One that is larger than the table empties it. RFC 7541 section 4.4
    fn keep(&mut self, entry: Entry) {
        let bytes = entry.bytes();
        self.evict(self.max_bytes.saturating_sub(bytes));
        if bytes <= self.max_bytes {
            self.bytes += bytes;
            self.entries.push_front(entry);
        }
    }

    /// RFC 7541 section 4.3
    fn resize(&mut self, max_bytes: usize) -> Result<(), Broken> {
        if max_bytes > TABLE_BYTES {
            return Err(Broken);
        }
        self.max_bytes = max_bytes;
        self.evict(max_bytes);
        Ok(())
    }

    /// Lets the oldest entries go until the others take so many bytes at most.
    fn evict(&mut self, most: usize) {
        while self.bytes > most {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.bytes -= oldest.bytes();
        }
    }
}

impl Entry {
    /// RFC 7541 section 4.1
    const fn bytes(&self) -> usize {
        self.name_bytes + self.value_bytes + ENTRY_BYTES
    }
}

/// The most bytes that may stand in place of a block of so many.
pub(super) const fn most_instead(block: usize) -> usize {
    2 * block + 4 * TABLE_BYTES
}

fn append(instead: &mut Option<Vec<u8>>, bytes: &[u8]) {
    if let Some(instead) = instead {
        instead.extend_from_slice(bytes);
    }
}

/// A field for the table of this size, without the 32 bytes that each has. None stands for an empty name with an empty
/// value: a name has a byte, and the table would no longer be that of the peer. What is larger than a table empties it,
/// however much larger it is.
fn put_filler(bytes: usize, into: &mut Vec<u8>) -> Result<(), Broken> {
    let value = bytes.min(TABLE_BYTES - ENTRY_BYTES + 1).checked_sub(1).ok_or(Broken)?;
    into.extend_from_slice(b"\x40\x01x");
    put_integer(value, into);
    into.resize(into.len() + value, b'x');
    Ok(())
}

/// A length of a string that is no Huffman code. RFC 7541 section 5.1
fn put_integer(value: usize, into: &mut Vec<u8>) {
    const FULL: usize = 0x7f;
    if value < FULL {
        into.push(value as u8);
        return;
    }
    into.push(FULL as u8);
    let mut rest = value - FULL;
    while rest >= 0x80 {
        into.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

/// RFC 7541 section 5.1; more than 28 bits are too many.
pub(in crate::message) fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Result<usize, Broken> {
    let mut next = || {
        let byte = block.get(*at).copied().ok_or(Broken)?;
        *at += 1;
        Ok::<_, Broken>(usize::from(byte))
    };
    let full = (1 << prefix) - 1;
    let mut value = next()? & full;
    if value < full {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken)
}

/// RFC 7541 section 5.2
fn string(block: &[u8], at: &mut usize, into: &mut Vec<u8>) -> Result<(), Broken> {
    into.clear();
    let is_coded = block.get(*at).ok_or(Broken)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let range: Range<usize> = *at..*at + length;
    let bytes = block.get(range).ok_or(Broken)?;
    *at += length;
    match is_coded {
        true => huffman::decode(bytes, into).ok_or(Broken),
        false => {
            into.extend_from_slice(bytes);
            Ok(())
        }
    }
}

fn kind_of(name: &[u8]) -> Kind {
    match name {
        b":method" => Kind::Method,
        b":scheme" | b":authority" | b":protocol" => Kind::Part,
        b":path" => Kind::Path,
        b":status" => Kind::Status(false),
        name => {
            let is_name_byte = |byte: &u8| is_token_byte(*byte) && !byte.is_ascii_uppercase();
            let is_name = (1..=usize::from(u16::MAX)).contains(&name.len()) && name.iter().all(is_name_byte);
            if is_name { Kind::Field } else { Kind::Bad }
        }
    }
}

/// What a name is with this value. RFC 9113 sections 8.2.1 and 8.3, RFC 9110 section 5.5
fn with_value(kind: Kind, value: &[u8]) -> Kind {
    let is_sound = match kind {
        Kind::Bad => false,
        Kind::Field => value.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t'),
        Kind::Method => !value.is_empty() && value.iter().copied().all(is_token_byte),
        Kind::Part => std::str::from_utf8(value).is_ok(),
        // Its reader would cut off a fragment, and what follows. RFC 9110 section 7.1
        Kind::Path => std::str::from_utf8(value).is_ok() && !value.contains(&b'#'),
        Kind::Status(_) => value.len() == 3 && value.iter().all(u8::is_ascii_digit) && value[0] != b'0',
    };
    match kind {
        _ if !is_sound => Kind::Bad,
        Kind::Status(_) => Kind::Status(value[0] == b'1'),
        kind => kind,
    }
}

fn fixed(name: &str, value: &str) -> Entry {
    let kind = match kind_of(name.as_bytes()) {
        Kind::Status(_) => Kind::Status(false),
        kind => kind,
    };
    Entry { kind, name_bytes: name.len(), value_bytes: value.len() }
}

/// RFC 7541 appendix A
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests;
