//! An encoded field section, judged before it is decoded. RFC 9204 section 4.5
//!
//! Only what the static table says and what is spelled out can be in a section here: an end that announces no dynamic table
//! gets no reference to one. So every line stands for itself, and one can be cut out without a word to the others.

use std::ops::Range;

use bytes::Bytes;
use http::uri::{Authority, Scheme};

use crate::message::authority;
use crate::message::fields::is_token_byte;
use crate::message::grpc;
use crate::message::h2::{hpack, huffman};
use crate::message::violation::Violation;

/// Longest value of `:protocol`, bytes: registered names of protocols are shorter.
const MAX_PROTOCOL: usize = 64;
/// How many entries the static table has. RFC 9204 appendix A
const STATIC_ENTRIES: usize = 99;

/// What a section is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// It is the head of a request, and no trailers.
    pub is_head: bool,
    /// Most fields, pseudo-fields aside.
    pub max_fields: usize,
}

/// The section cannot be read: QPACK itself is broken, or a dynamic table is referred to that is not there. That is a fault of
/// the connection, and nobody reads the section in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl From<hpack::Broken> for Broken {
    fn from(_: hpack::Broken) -> Self {
        Self
    }
}

/// What was found in a section that breaks no rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Lines that its reader must not see, in order: a Host that says what `:authority` says, and `:protocol`.
    pub cuts: Vec<Range<usize>>,
    /// The value of `:protocol`. RFC 9220
    pub protocol: Option<Bytes>,
}

/// A section that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The first rule that it breaks.
    pub violation: Violation,
    /// Its Content-Type is that of a call of gRPC.
    pub is_call: bool,
}

impl Judged {
    /// The section without what is cut out of it.
    pub fn cut(&self, section: &[u8]) -> Vec<u8> {
        let (mut left, mut from) = (Vec::with_capacity(section.len()), 0);
        for cut in &self.cuts {
            left.extend_from_slice(&section[from..cut.start]);
            from = cut.end;
        }
        left.extend_from_slice(&section[from..]);
        left
    }
}

/// Judges a section: which pseudo-fields are there, once, in front and complete, whether Host agrees, and how many fields there
/// are. What single values may be is left to who decodes them.
///
/// # Errors
/// [`Broken`]; inside of it the rule that the section breaks.
pub fn judge(section: &[u8], rules: Rules) -> Result<Result<Judged, Refused>, Broken> {
    let mut reader = Reader { section, at: 0, name: Vec::new(), value: Vec::new() };
    reader.prefix()?;
    let mut found = Found { rules, ..Found::default() };
    let (mut verdict, mut is_call) = (Ok(()), false);
    while reader.at < section.len() {
        let line = reader.line()?;
        is_call |= line.kind == Kind::Type && grpc::is_media_type(&reader.value);
        // The rest is read all the same: what is broken counts before what is wrong.
        verdict = verdict.and_then(|()| found.note(line, &reader));
    }
    let judged = verdict.and_then(|()| found.conclude());
    Ok(judged.map_err(|violation| Refused { violation, is_call }))
}

/// What the name of a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Host,
    /// Content-Type.
    Type,
    /// Any other field.
    Field,
    /// A pseudo-field that no request has, or no name at all.
    Bad,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b"host" => Self::Host,
            b"content-type" => Self::Type,
            name if name.is_empty() || !name.iter().all(|byte| is_token_byte(*byte)) => Self::Bad,
            name if name.iter().any(u8::is_ascii_uppercase) => Self::Bad,
            _ => Self::Field,
        }
    }

    /// The name of an entry of the static table.
    const fn fixed(index: usize) -> Self {
        match index {
            0 => Self::Authority,
            1 => Self::Path,
            15..=21 => Self::Method,
            22 | 23 => Self::Scheme,
            24..=28 | 63..=71 => Self::Bad,
            44..=54 => Self::Type,
            _ => Self::Field,
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Scheme => 2,
            Self::Authority => 4,
            Self::Path => 8,
            Self::Protocol => 16,
            Self::Host | Self::Type | Self::Field | Self::Bad => 0,
        }
    }
}

/// The value of an entry of the static table, of those that are looked at.
const fn fixed_value(index: usize) -> &'static [u8] {
    match index {
        1 => b"/",
        15 => b"CONNECT",
        22 => b"http",
        23 => b"https",
        _ => b"",
    }
}

#[derive(Debug, Clone)]
struct Line {
    kind: Kind,
    bytes: Range<usize>,
}

struct Reader<'a> {
    section: &'a [u8],
    at: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Reader<'_> {
    /// RFC 9204 section 4.5.1
    fn prefix(&mut self) -> Result<(), Broken> {
        let required = self.integer(8)?;
        self.integer(7)?;
        if required == 0 { Ok(()) } else { Err(Broken) }
    }

    /// RFC 9204 sections 4.5.2 to 4.5.6. The value is decoded where it is looked at later.
    fn line(&mut self) -> Result<Line, Broken> {
        let (begin, first) = (self.at, self.section[self.at]);
        self.value.clear();
        let kind = match first {
            // Indexed, static.
            0xc0.. => {
                let index = self.fixed(6)?;
                self.value.extend_from_slice(fixed_value(index));
                Kind::fixed(index)
            }
            // Literal with the name of a static entry.
            0x40.. if first & 0xd0 == 0x50 => {
                let kind = Kind::fixed(self.fixed(4)?);
                self.literal(kind)?
            }
            // Literal with a name of its own.
            0x20..=0x3f => {
                self.name.clear();
                let mut name = std::mem::take(&mut self.name);
                let read = self.string(3, Some(&mut name));
                self.name = name;
                read?;
                self.literal(Kind::of(&self.name))?
            }
            _ => return Err(Broken),
        };
        Ok(Line { kind, bytes: begin..self.at })
    }

    fn literal(&mut self, kind: Kind) -> Result<Kind, Broken> {
        let mut value = std::mem::take(&mut self.value);
        let read = self.string(7, (kind.bit() != 0 || matches!(kind, Kind::Host | Kind::Type)).then_some(&mut value));
        self.value = value;
        read.map(|()| kind)
    }

    fn fixed(&mut self, prefix: u32) -> Result<usize, Broken> {
        let index = self.integer(prefix)?;
        if index < STATIC_ENTRIES { Ok(index) } else { Err(Broken) }
    }

    fn integer(&mut self, prefix: u32) -> Result<usize, Broken> {
        Ok(hpack::integer(self.section, &mut self.at, prefix)?)
    }

    /// A string whose length has a prefix of so many bits, decoded if it is wanted. RFC 9204 section 4.1.2
    fn string(&mut self, prefix: u32, into: Option<&mut Vec<u8>>) -> Result<(), Broken> {
        let is_coded = self.section.get(self.at).ok_or(Broken)? >> prefix & 1 != 0;
        let length = self.integer(prefix)?;
        let end = self.at.checked_add(length).ok_or(Broken)?;
        let bytes = self.section.get(self.at..end).ok_or(Broken)?;
        self.at = end;
        match into {
            None => Ok(()),
            Some(into) if is_coded => huffman::decode(bytes, into).ok_or(Broken),
            Some(into) => {
                into.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// What was found so far.
#[derive(Debug)]
struct Found {
    rules: Rules,
    fields: usize,
    /// One bit for each kind of pseudo-field.
    seen: u8,
    is_connect: bool,
    scheme: Scheme,
    authority: Option<Bytes>,
    host: Option<(Bytes, Range<usize>)>,
    protocol: Option<(Bytes, Range<usize>)>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            rules: Rules { is_head: true, max_fields: 0 },
            fields: 0,
            seen: 0,
            is_connect: false,
            scheme: Scheme::HTTPS,
            authority: None,
            host: None,
            protocol: None,
        }
    }
}

impl Found {
    fn note(&mut self, line: Line, reader: &Reader<'_>) -> Result<(), Violation> {
        let Line { kind, bytes } = line;
        if kind == Kind::Bad {
            return Err(if self.rules.is_head { Violation::Syntax } else { Violation::Trailers });
        }
        if kind.bit() != 0 {
            return self.note_pseudo(kind, bytes, reader);
        }
        self.fields += 1;
        if self.fields > self.rules.max_fields {
            return Err(Violation::TooManyFields);
        }
        if kind == Kind::Host && self.rules.is_head {
            let host = (Bytes::copy_from_slice(&reader.value), bytes);
            if self.host.replace(host).is_some() {
                return Err(Violation::DuplicateHost);
            }
        }
        Ok(())
    }

    /// RFC 9114 section 4.3: in front of all fields, once, and in no trailers.
    fn note_pseudo(&mut self, kind: Kind, bytes: Range<usize>, reader: &Reader<'_>) -> Result<(), Violation> {
        if !self.rules.is_head {
            return Err(Violation::Trailers);
        }
        if self.fields > 0 || self.seen & kind.bit() != 0 {
            return Err(Violation::Syntax);
        }
        self.seen |= kind.bit();
        match kind {
            Kind::Method => self.is_connect = reader.value == b"CONNECT",
            Kind::Scheme if reader.value == b"http" => self.scheme = Scheme::HTTP,
            Kind::Authority => self.authority = Some(Bytes::copy_from_slice(&reader.value)),
            // Whoever decodes it would cut it off, and what follows. RFC 9110 section 7.1
            Kind::Path if reader.value.contains(&b'#') => return Err(Violation::Target),
            Kind::Protocol if reader.value.len() > MAX_PROTOCOL => return Err(Violation::Upgrade),
            Kind::Protocol => self.protocol = Some((Bytes::copy_from_slice(&reader.value), bytes)),
            _ => {}
        }
        Ok(())
    }

    fn conclude(self) -> Result<Judged, Violation> {
        if !self.rules.is_head {
            return Ok(Judged::default());
        }
        self.check_complete()?;
        let mut judged = Judged::default();
        if let Some((protocol, line)) = self.protocol {
            judged.protocol = Some(protocol);
            judged.cuts.push(line);
        }
        let named = self.authority.map(authority::authority).transpose()?;
        match (named, self.host) {
            (None, None) => return Err(Violation::MissingHost),
            (Some(named), Some((host, line))) => {
                check_same(&named, host, &self.scheme)?;
                judged.cuts.push(line);
            }
            (None, Some((host, _))) => drop(authority::authority(host)?),
            (Some(_), None) => {}
        }
        Ok(judged)
    }

    /// RFC 9114 section 4.3.1 and 4.4.
    fn check_complete(&self) -> Result<(), Violation> {
        let has = |kinds: &[Kind]| kinds.iter().all(|kind| self.seen & kind.bit() != 0);
        let is_extended = has(&[Kind::Protocol]);
        let is_whole = match (self.is_connect, is_extended) {
            (true, false) => has(&[Kind::Authority]) && self.seen & (Kind::Scheme.bit() | Kind::Path.bit()) == 0,
            (true, true) => has(&[Kind::Scheme, Kind::Path, Kind::Authority]),
            (false, false) => has(&[Kind::Method, Kind::Scheme, Kind::Path]),
            (false, true) => false,
        };
        if is_whole { Ok(()) } else { Err(Violation::Syntax) }
    }
}

/// As over HTTP/2: a missing port is the default one, and letters are as good in either case.
fn check_same(named: &Authority, host: Bytes, scheme: &Scheme) -> Result<(), Violation> {
    let host = authority::authority(host)?;
    if authority::same(named, &host, scheme) { Ok(()) } else { Err(Violation::HostMismatch) }
}

#[cfg(test)]
mod tests;
