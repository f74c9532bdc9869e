//! What all decoders share: a cursor that checks before it reads, lists of numbered fields, and one error type.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::id::IdError;
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::varint::NotShortest;

/// What is wrong with the bytes of one message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// An integer is longer than it needs to be. spec: OV-11
    #[error(transparent)]
    Varint(#[from] NotShortest),
    /// The message ends inside a value.
    #[error("ends inside a value")]
    Short,
    /// Bytes follow where the message should end.
    #[error("has bytes after its end")]
    Excess,
    /// Field ids do not rise, or one comes twice. spec: HS-5
    #[error("has field {0} out of order or twice")]
    FieldOrder(u64),
    /// A field that must be understood is not. spec: HS-6
    #[error("has the unknown field {0}, which must be understood")]
    UnknownField(u64),
    /// A required part is absent.
    #[error("has no {0}")]
    Missing(&'static str),
    /// A part has a value outside its bounds or alphabet.
    #[error("has an invalid {0}")]
    Invalid(&'static str),
    /// A part is not an identifier. spec: HS-10, HS-11
    #[error("has an invalid {0}: it {1}")]
    Id(&'static str, IdError),
    /// A part that must not occur here.
    #[error("has a {0}, which must not be here")]
    Forbidden(&'static str),
}

/// Reads a message from front to back; every read checks what is left. Allocates nothing.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        varint::decode(&mut self.0)?.ok_or(Malformed::Short)
    }

    /// An integer that must fit 32 bits; `what` names it in the error.
    pub(crate) fn varint_u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed::Invalid(what))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A length and that many bytes.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Short)?;
        self.bytes(length)
    }

    /// A length of time in whole milliseconds. spec: OV-13
    pub(crate) fn millis(&mut self, what: &'static str) -> Result<Duration, Malformed> {
        let time = Duration::from_millis(self.varint()?);
        if time > limits::MAX_DURATION { Err(Malformed::Invalid(what)) } else { Ok(time) }
    }

    /// Says that the message must end here.
    pub(crate) const fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Excess) }
    }
}

/// The numbered fields of a control message. spec: HS-4, HS-5, HS-6
pub(crate) struct Fields<'a> {
    cursor: Cursor<'a>,
    last: Option<u64>,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(payload: &'a [u8]) -> Self {
        Self::behind(Cursor::new(payload))
    }

    /// The fields from where `cursor` stands to the end.
    pub(crate) const fn behind(cursor: Cursor<'a>) -> Self {
        Self { cursor, last: None }
    }

    /// The next field's id and value; ids must rise, which makes a field that comes twice an error too. spec: HS-5
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &'a [u8])>, Malformed> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let id = self.cursor.varint()?;
        if self.last.is_some_and(|last| id <= last) {
            return Err(Malformed::FieldOrder(id));
        }
        self.last = Some(id);
        Ok(Some((id, self.cursor.sized()?)))
    }
}

/// What to do with a field whose id means nothing here: even ones are skipped. spec: HS-6
pub(crate) const fn unknown_field(id: u64) -> Result<(), Malformed> {
    if id.is_multiple_of(2) { Ok(()) } else { Err(Malformed::UnknownField(id)) }
}

/// Reads a whole field value with `read`, which must leave nothing.
pub(crate) fn whole<'a, T>(
    value: &'a [u8],
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut cursor = Cursor::new(value);
    let read = read(&mut cursor)?;
    cursor.end()?;
    Ok(read)
}

/// UTF-8 of at most `max` bytes without control characters, which could forge log lines. spec: OV-12
pub(crate) fn text(value: &[u8], max: usize, what: &'static str) -> Result<String, Malformed> {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= max && !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(Malformed::Invalid(what)),
    }
}

/// The longest front part of `text` that fits `max` bytes, control characters as spaces, so that [`text`] accepts it.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let mut clean = String::with_capacity(end);
    // A C1 control takes two bytes and a space one, so this never grows past `max`.
    clean.extend(text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }));
    clean
}

/// Whole milliseconds, at most what the wire allows. spec: OV-13
pub(crate) fn millis_of(time: Duration) -> u64 {
    time.min(limits::MAX_DURATION).as_millis() as u64
}

pub(crate) fn put_sized(out: &mut BytesMut, bytes: &[u8]) {
    varint::encode(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Appends field `id` with the value that `write` appends. spec: HS-4
pub(crate) fn put_field(out: &mut BytesMut, id: u64, write: impl FnOnce(&mut BytesMut)) {
    let mut value = BytesMut::new();
    write(&mut value);
    varint::encode(out, id);
    put_sized(out, &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: OV-12
    #[test]
    fn printable_text_is_always_accepted_text() {
        for (input, max, expected) in
            [("a\nb", 9, "a b"), ("häh", 2, "h"), ("häh", 3, "hä"), ("", 0, ""), ("x\u{85}y", 4, "x y")]
        {
            let clean = printable(input, max);
            assert_eq!(clean, expected);
            assert_eq!(text(clean.as_bytes(), max, "text"), Ok(clean));
        }
        assert_eq!(text(b"a\nb", 9, "text"), Err(Malformed::Invalid("text")));
        assert_eq!(text(&[0xff], 9, "text"), Err(Malformed::Invalid("text")));
        assert_eq!(text(b"abc", 2, "text"), Err(Malformed::Invalid("text")));
    }

    // spec: OV-13
    #[test]
    fn a_day_is_the_longest_time_on_the_wire() {
        let mut out = BytesMut::new();
        varint::encode(&mut out, millis_of(Duration::MAX));
        assert_eq!(whole(&out, |cursor| cursor.millis("time")), Ok(limits::MAX_DURATION));
        out.clear();
        varint::encode(&mut out, 86_400_001);
        assert_eq!(whole(&out, |cursor| cursor.millis("time")), Err(Malformed::Invalid("time")));
    }

    // spec: HS-5
    #[test]
    fn fields_rise_strictly() {
        let mut fields = Fields::new(&[2, 1, 7, 2, 0]);
        assert_eq!(fields.next(), Ok(Some((2, &[7][..]))));
        assert_eq!(fields.next(), Err(Malformed::FieldOrder(2)));
        let mut fields = Fields::new(&[3, 2, 7]);
        assert_eq!(fields.next(), Err(Malformed::Short));
    }
}
