//! What a client sends on a stream of one direction: its control stream, those of QPACK, and any other.

use std::collections::{HashSet, VecDeque};
use std::ops::RangeInclusive;

use bytes::{Buf, Bytes, BytesMut};

use crate::message::h3::frame::{
    CANCEL_PUSH, Collector, DATA, GOAWAY, HEADERS, Header, MAX_PUSH_ID, PUSH_PROMISE, RESERVED, SETTINGS, UNEXPECTED,
    frame, varint,
};
use crate::message::h3::instructions::{Broken, Instructions, Stream};

/// The types of streams that mean something. RFC 9114 section 6.2.1, RFC 9204 section 4.2
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;
/// Longest SETTINGS, bytes: room for some hundred of them.
const MAX_SETTINGS: u64 = 4 * 1024;
/// The setting that says that HTTP Datagrams are taken. RFC 9297 section 2.1.1
const H3_DATAGRAM: u64 = 0x33;
/// RFC 9220 section 3, RFC 8441 section 3
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
/// Settings of HTTP/2 that HTTP/3 has no use for. RFC 9114 section 7.2.4.1
const RESERVED_SETTINGS: RangeInclusive<u64> = 0x2..=0x5;
/// So many bytes that are skipped cost as much as a frame.
const BYTES_OF_A_FRAME: usize = 1024;

/// Why nothing more of a stream can be read; the connection ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// H3_EXCESSIVE_LOAD.
    #[error("a frame of the control stream is too long")]
    TooLong,
    /// H3_FRAME_ERROR. RFC 9114 section 7.1
    #[error("a frame of the control stream is longer or shorter than what is in it")]
    Length,
    /// H3_SETTINGS_ERROR. RFC 9114 section 7.2.4, RFC 9297 section 2.1.1, RFC 9220 section 3
    #[error("a setting is there twice, is one of HTTP/2, or is neither 0 nor 1 where it has to be")]
    Setting,
    /// H3_MISSING_SETTINGS. RFC 9114 section 6.2.1
    #[error("the control stream does not begin with SETTINGS")]
    NoSettings,
    /// H3_ID_ERROR. RFC 9114 sections 5.2, 7.2.3 and 7.2.7
    #[error("CANCEL_PUSH of what was never promised, a MAX_PUSH_ID that falls, or a GOAWAY that rises")]
    Id,
    /// H3_STREAM_CREATION_ERROR. RFC 9114 section 6.2.2
    #[error("a client opens a push stream")]
    Push,
    /// QPACK_ENCODER_STREAM_ERROR. RFC 9204 section 6
    #[error("the encoder fills a dynamic table that there is not")]
    Encoder,
    /// QPACK_DECODER_STREAM_ERROR. RFC 9204 section 6
    #[error("the decoder acknowledges what was not sent")]
    Decoder,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The client's encoder: nobody but the watcher has to read it.
    Encoder,
    /// The client's decoder, likewise.
    Decoder,
    /// Anything else, for its reader to judge.
    Other,
}

/// Watches one stream of one direction.
#[derive(Debug, Default)]
pub struct Watcher {
    state: State,
    header: Collector,
    payload: BytesMut,
    passed: VecDeque<Bytes>,
    kind: Option<Kind>,
    cost: u32,
    skipped: usize,
    takes_datagrams: bool,
    has_settings: bool,
    /// What the last MAX_PUSH_ID and the last GOAWAY said.
    max_push: Option<u64>,
    goaway: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The type of the stream is not known.
    #[default]
    Type,
    /// On a control stream: a frame begins, or its header is not whole.
    Header,
    /// So many bytes of a frame of this type are to come.
    Payload(u64, usize),
    /// So many bytes that nobody reads.
    Skip(u64),
    /// Instructions of QPACK.
    Qpack(Instructions),
    /// All goes on: it means nothing.
    Pass,
    /// What comes is thrown away.
    Over,
}

impl Watcher {
    /// Takes the next bytes that were read, never none.
    ///
    /// # Errors
    /// The connection is to be ended.
    pub fn push(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match self.state {
                State::Type => match self.header.integer(&mut bytes) {
                    Some((kind, encoded)) => {
                        if kind == PUSH {
                            return Err(Fault::Push);
                        }
                        self.passed.push_back(encoded);
                        self.begin_stream(kind);
                    }
                    None => return Ok(()),
                },
                State::Header => match self.header.header(&mut bytes) {
                    Some((header, _)) => self.begin(header)?,
                    None => return Ok(()),
                },
                State::Payload(kind, left) => {
                    let piece = bytes.split_to(left.min(bytes.len()));
                    self.payload.extend_from_slice(&piece);
                    self.state = State::Payload(kind, left - piece.len());
                    self.pass_if_whole()?;
                }
                State::Skip(left) => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes.advance(skipped);
                    self.skip(left, skipped);
                }
                State::Qpack(mut instructions) => {
                    let read = instructions.push(&std::mem::take(&mut bytes), &mut self.cost);
                    self.state = State::Qpack(instructions);
                    read.map_err(|Broken| self.broken())?;
                }
                State::Pass => self.passed.push_back(std::mem::take(&mut bytes)),
                State::Over => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next bytes that may be read on; never none.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.passed.pop_front()
    }

    /// What the stream is for, once that is known.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Whether the peer's SETTINGS say that it takes HTTP Datagrams. RFC 9297 section 2.1.1
    pub fn takes_datagrams(&self) -> bool {
        self.takes_datagrams
    }

    /// How much work came since this was asked, in frames.
    pub fn take_cost(&mut self) -> u32 {
        std::mem::take(&mut self.cost)
    }

    fn begin_stream(&mut self, kind: u64) {
        (self.kind, self.state) = match kind {
            CONTROL => (Some(Kind::Other), State::Header),
            ENCODER => (Some(Kind::Encoder), State::Qpack(Instructions::new(Stream::Encoder))),
            DECODER => (Some(Kind::Decoder), State::Qpack(Instructions::new(Stream::Decoder))),
            _ => (Some(Kind::Other), State::Pass),
        };
    }

    fn broken(&self) -> Fault {
        if self.kind == Some(Kind::Encoder) { Fault::Encoder } else { Fault::Decoder }
    }

    fn begin(&mut self, Header { kind, length }: Header) -> Result<(), Fault> {
        self.cost += 1;
        if !std::mem::replace(&mut self.has_settings, true) && kind != SETTINGS {
            return Err(Fault::NoSettings);
        }
        match kind {
            SETTINGS if length > MAX_SETTINGS => return Err(Fault::TooLong),
            GOAWAY | CANCEL_PUSH | MAX_PUSH_ID if !matches!(length, 1 | 2 | 4 | 8) => return Err(Fault::Length),
            SETTINGS | GOAWAY | CANCEL_PUSH | MAX_PUSH_ID => {
                // Bounded just now.
                self.state = State::Payload(kind, usize::try_from(length).unwrap_or(usize::MAX));
                return self.pass_if_whole();
            }
            DATA | HEADERS | PUSH_PROMISE => self.unexpected(),
            kind if RESERVED.contains(&kind) => self.unexpected(),
            _ if length == 0 => self.state = State::Header,
            _ => self.state = State::Skip(length),
        }
        Ok(())
    }

    fn pass_if_whole(&mut self) -> Result<(), Fault> {
        let State::Payload(kind, 0) = self.state else { return Ok(()) };
        self.state = State::Header;
        let payload = self.payload.split();
        if kind == SETTINGS {
            self.takes_datagrams = takes_datagrams(&payload)?;
        } else {
            match varint(&payload) {
                Some((id, used)) if used == payload.len() => self.note_id(kind, id)?,
                _ => return Err(Fault::Length),
            }
        }
        // The types that come here are all below 64.
        self.passed.push_back(frame(kind as u8, &payload));
        Ok(())
    }

    /// Nothing is ever pushed: there is no push to cancel.
    fn note_id(&mut self, kind: u64, id: u64) -> Result<(), Fault> {
        let is_good = match kind {
            MAX_PUSH_ID => self.max_push.replace(id).is_none_or(|before| before <= id),
            GOAWAY => self.goaway.replace(id).is_none_or(|before| before >= id),
            _ => false,
        };
        if is_good { Ok(()) } else { Err(Fault::Id) }
    }

    fn skip(&mut self, left: u64, skipped: usize) {
        self.skipped += skipped;
        self.cost += u32::try_from(self.skipped / BYTES_OF_A_FRAME).unwrap_or(u32::MAX);
        self.skipped %= BYTES_OF_A_FRAME;
        self.state = match left - skipped as u64 {
            0 => State::Header,
            left => State::Skip(left),
        };
    }

    /// Its reader ends the connection.
    fn unexpected(&mut self) {
        self.passed.push_back(Bytes::from_static(UNEXPECTED));
        self.state = State::Over;
    }
}

/// Whether these SETTINGS have HTTP Datagrams. Of what is no list of settings their reader makes an error.
fn takes_datagrams(mut settings: &[u8]) -> Result<bool, Fault> {
    let (mut takes, mut seen) = (false, HashSet::new());
    while let Some((id, first)) = varint(settings)
        && let Some((value, second)) = varint(&settings[first..])
    {
        let is_flag = matches!(id, H3_DATAGRAM | ENABLE_CONNECT_PROTOCOL);
        if !seen.insert(id) || (is_flag && value > 1) || RESERVED_SETTINGS.contains(&id) {
            return Err(Fault::Setting);
        }
        takes |= id == H3_DATAGRAM && value == 1;
        settings = &settings[first + second..];
    }
    Ok(takes)
}

#[cfg(test)]
mod tests;
