//! Frames of the control stream: type, length, payload. spec: `4-control.md`
//!
//! The reader takes its input in any split, holds at most one frame, and decides about a frame's type and length
//! before it buffers a byte of the payload.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::handshake::{Hello, HelloError, PeerLimits, Refusal, Service, Welcome};
use crate::protocol::handshake::{put_services, read_services};
use crate::protocol::health::Health;
use crate::protocol::limits;
use crate::protocol::reauth::{Reauth, Reauthed};
use crate::protocol::roster::{Roster, put_roster, read_roster};
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, millis_of, printable, put_field, text, unknown_field, whole};

/// One frame of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Initiator, first and once: the claim. spec: HS-1
    Hello(Box<Hello>),
    /// Responder, once: the tunnel is open. spec: HS-2
    Welcome(Box<Welcome>),
    /// Responder, once: there is no tunnel. spec: HS-3
    Refuse(Refusal),
    /// Either end: no new streams, finish what runs. spec: CT-20
    Drain(Drain),
    /// Responder, after a DRAIN of either end: nothing runs, nothing will. spec: CT-22
    Drained,
    /// Initiator: another credential. spec: CT-32
    Reauth(Box<Reauth>),
    /// Responder: whether that counts. spec: CT-56
    Reauthed(Reauthed),
    /// Responder: which responders of its fleet there are now; `None`: it is in no fleet any more. spec: CT-62
    Roster(Option<Roster>),
    /// Either end: say something. spec: CT-10
    Ping([u8; 8]),
    /// The answer to PING, with its bytes. spec: CT-11
    Pong([u8; 8]),
    /// Initiator: what it exports from now on. spec: CT-30
    Services(Vec<Service>),
    /// Either end: what it takes from now on. spec: CT-31
    Limits(PeerLimits),
    /// Initiator: which of its services are down now. spec: CT-58
    Health(Health),
    /// Either end, last, where the transport itself cannot say why a tunnel ends. spec: CT-34
    Close(Close),
}

/// What CLOSE says. spec: CT-34
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// A close code, or a number that is none here. spec: ER-5
    pub code: u64,
    /// For people; at most 512 bytes.
    pub reason: String,
}

/// Why a tunnel ends that held somebody up. spec: CT-28
pub(crate) const NOT_HEARD: &str = "it drains, and the peer does not answer";

/// What DRAIN says. spec: CT-20
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long running exchanges may take; then the tunnel closes. Whole milliseconds on the wire, at most a day.
    pub deadline: Duration,
    /// How long to wait before dialling the sender again. Whole milliseconds on the wire, at most a day.
    pub reconnect_after: Duration,
    /// For how long at most a responder still opens streams, while the replacement is made elsewhere. Whole milliseconds on the
    /// wire, at most a day; zero: none from now on. spec: CT-35
    pub serves: Duration,
}

impl Default for Drain {
    /// 30 s to finish; dial again at once.
    fn default() -> Self {
        Self { deadline: limits::DEFAULT_DRAIN_DEADLINE, reconnect_after: Duration::ZERO, serves: Duration::ZERO }
    }
}

/// The type of a control frame. spec: CT-1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// 0x01
    Hello,
    /// 0x02
    Ping,
    /// 0x03
    Welcome,
    /// 0x04
    Pong,
    /// 0x05
    Refuse,
    /// 0x06
    Services,
    /// 0x07
    Drain,
    /// 0x08
    Limits,
    /// 0x09
    Drained,
    /// 0x0b
    Reauth,
    /// 0x0c
    Health,
    /// 0x0d
    Close,
    /// 0x0e
    Roster,
    /// 0x11
    Reauthed,
}

/// Why the bytes of a control stream are not frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame's type or length is not an integer in its shortest form. spec: OV-11
    #[error("a frame header {0}")]
    Header(Malformed),
    /// A frame of an odd type that is not known. spec: CT-4
    #[error("frame type {0:#x} is unknown and must be understood")]
    UnknownType(u64),
    /// A frame of an unknown type in the handshake, which waits for one frame and no other. spec: CT-4
    #[error("a frame of type {0:#x} is in the place of HELLO or its answer")]
    Early(u64),
    /// A frame longer than 64 KiB. spec: CT-2
    #[error("a frame of type {frame_type:#x} has {length} bytes; expected at most 65536")]
    TooLong {
        /// Its type.
        frame_type: u64,
        /// Its stated length.
        length: u64,
    },
    /// A HELLO that cannot be used. spec: HS-7, HS-8
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// Any other frame whose payload breaks a rule.
    #[error("{0} {1}")]
    Payload(&'static str, Malformed),
}

impl FrameType {
    /// Every type, in wire order.
    pub const ALL: [Self; 14] = [
        Self::Hello,
        Self::Ping,
        Self::Welcome,
        Self::Pong,
        Self::Refuse,
        Self::Services,
        Self::Drain,
        Self::Limits,
        Self::Drained,
        Self::Reauth,
        Self::Health,
        Self::Close,
        Self::Roster,
        Self::Reauthed,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u64 {
        match self {
            Self::Hello => 0x01,
            Self::Ping => 0x02,
            Self::Welcome => 0x03,
            Self::Pong => 0x04,
            Self::Refuse => 0x05,
            Self::Services => 0x06,
            Self::Drain => 0x07,
            Self::Limits => 0x08,
            Self::Drained => 0x09,
            Self::Reauth => 0x0b,
            Self::Health => 0x0c,
            Self::Close => 0x0d,
            Self::Roster => 0x0e,
            Self::Reauthed => 0x11,
        }
    }

    /// The type with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }

    /// The name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Ping => "PING",
            Self::Welcome => "WELCOME",
            Self::Pong => "PONG",
            Self::Refuse => "REFUSE",
            Self::Services => "SERVICES",
            Self::Drain => "DRAIN",
            Self::Limits => "LIMITS",
            Self::Drained => "DRAINED",
            Self::Roster => "ROSTER",
            Self::Reauth => "REAUTH",
            Self::Health => "HEALTH",
            Self::Close => "CLOSE",
            Self::Reauthed => "REAUTHED",
        }
    }
}

impl Frame {
    /// Its type.
    pub const fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::Welcome(_) => FrameType::Welcome,
            Self::Refuse(_) => FrameType::Refuse,
            Self::Drain(_) => FrameType::Drain,
            Self::Drained => FrameType::Drained,
            Self::Roster(_) => FrameType::Roster,
            Self::Reauth(_) => FrameType::Reauth,
            Self::Reauthed(_) => FrameType::Reauthed,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::Services(_) => FrameType::Services,
            Self::Limits(_) => FrameType::Limits,
            Self::Health(_) => FrameType::Health,
            Self::Close(_) => FrameType::Close,
        }
    }

    /// Appends the whole frame. spec: CT-1
    pub fn encode(&self, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        match self {
            Self::Hello(hello) => hello.encode(&mut payload),
            Self::Welcome(welcome) => welcome.encode(&mut payload),
            Self::Refuse(refusal) => refusal.encode(&mut payload),
            Self::Drain(drain) => drain.encode(&mut payload),
            Self::Drained => {}
            Self::Roster(roster) => put_roster(&mut payload, roster.as_ref()),
            Self::Reauth(reauth) => reauth.encode(&mut payload),
            Self::Reauthed(reauthed) => reauthed.encode(&mut payload),
            Self::Ping(echo) | Self::Pong(echo) => payload.put_slice(echo),
            Self::Services(services) => put_services(&mut payload, services),
            Self::Limits(limits) => limits.encode(&mut payload),
            Self::Health(health) => health.encode(&mut payload),
            Self::Close(close) => close.encode(&mut payload),
        }
        varint::encode(out, self.frame_type().number());
        varint::encode(out, payload.len() as u64);
        out.put_slice(&payload);
    }

    /// Reads the payload of a frame of this type.
    pub fn decode(frame_type: FrameType, payload: &[u8]) -> Result<Self, FrameError> {
        let frame = match frame_type {
            FrameType::Hello => return Ok(Self::Hello(Box::new(Hello::decode(payload)?))),
            FrameType::Welcome => Welcome::decode(payload).map(|welcome| Self::Welcome(Box::new(welcome))),
            FrameType::Refuse => Refusal::decode(payload).map(Self::Refuse),
            FrameType::Drain => Drain::decode(payload).map(Self::Drain),
            FrameType::Drained if payload.is_empty() => Ok(Self::Drained),
            FrameType::Drained => Err(Malformed::Excess),
            FrameType::Roster => read_roster(payload).map(Self::Roster),
            FrameType::Reauth => Reauth::decode(payload).map(|reauth| Self::Reauth(Box::new(reauth))),
            FrameType::Reauthed => Reauthed::decode(payload).map(Self::Reauthed),
            FrameType::Ping => echo(payload).map(Self::Ping),
            FrameType::Pong => echo(payload).map(Self::Pong),
            FrameType::Services if payload.is_empty() => Ok(Self::Services(Vec::new())),
            FrameType::Services => read_services(payload).map(Self::Services),
            FrameType::Limits => PeerLimits::decode(payload).map(Self::Limits),
            FrameType::Health => Health::decode(payload).map(Self::Health),
            FrameType::Close => Close::decode(payload).map(Self::Close),
        };
        frame.map_err(|cause| FrameError::Payload(frame_type.name(), cause))
    }
}

fn echo(payload: &[u8]) -> Result<[u8; 8], Malformed> {
    payload.try_into().map_err(|_| Malformed::Invalid("length"))
}

/// The ids of DRAIN's fields.
mod drain {
    pub(super) const DEADLINE: u64 = 1;
    pub(super) const RECONNECT_AFTER: u64 = 3;
    pub(super) const SERVES: u64 = 4;
}

/// The ids of CLOSE's fields.
mod close {
    pub(super) const CODE: u64 = 1;
    pub(super) const REASON: u64 = 3;
}

impl Drain {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 3] =
        [("deadline", drain::DEADLINE), ("reconnect_after", drain::RECONNECT_AFTER), ("serves", drain::SERVES)];

    /// Appends the payload of a DRAIN frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, drain::DEADLINE, |out| varint::encode(out, millis_of(self.deadline)));
        put_field(out, drain::RECONNECT_AFTER, |out| varint::encode(out, millis_of(self.reconnect_after)));
        let serves = millis_of(self.serves);
        if serves > 0 {
            put_field(out, drain::SERVES, |out| varint::encode(out, serves));
        }
    }

    /// Reads the payload of a DRAIN frame. spec: CT-20
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut deadline, mut reconnect_after, mut serves) = (None, None, Duration::ZERO);
        while let Some((id, value)) = fields.next()? {
            match id {
                drain::DEADLINE => deadline = Some(whole(value, |cursor| cursor.millis("deadline"))?),
                drain::RECONNECT_AFTER => {
                    reconnect_after = Some(whole(value, |cursor| cursor.millis("reconnect-after"))?)
                }
                drain::SERVES => {
                    serves = whole(value, |cursor| cursor.millis("serves"))?;
                    if serves.is_zero() {
                        return Err(Malformed::Invalid("serves"));
                    }
                }
                other => unknown_field(other)?,
            }
        }
        Ok(Self {
            deadline: deadline.ok_or(Malformed::Missing("deadline"))?,
            reconnect_after: reconnect_after.ok_or(Malformed::Missing("reconnect-after"))?,
            serves,
        })
    }
}

impl Close {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 2] = [("code", close::CODE), ("reason", close::REASON)];

    /// Appends the payload of a CLOSE frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, close::CODE, |out| varint::encode(out, self.code));
        put_field(out, close::REASON, |out| {
            out.put_slice(printable(&self.reason, limits::MAX_REASON_BYTES).as_bytes())
        });
    }

    /// Reads the payload of a CLOSE frame. spec: CT-34
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut code, mut reason) = (None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                close::CODE => code = Some(whole(value, Cursor::varint)?),
                close::REASON => reason = Some(text(value, limits::MAX_REASON_BYTES, "reason")?),
                other => unknown_field(other)?,
            }
        }
        Ok(Self { code: code.ok_or(Malformed::Missing("code"))?, reason: reason.ok_or(Malformed::Missing("reason"))? })
    }
}

/// The length of the frame that a handshake's `input` begins with, header and all; `None` while that cannot be told yet.
/// A frame that nobody may send there ends with its header, so that it is judged at once and no memory is spent on it.
/// spec: TB-3
pub fn frame_length(input: &[u8]) -> Option<usize> {
    let mut rest = input;
    match type_and_length(&mut rest) {
        Ok(None) => None,
        Ok(Some((number, length)))
            if length <= limits::MAX_CONTROL_PAYLOAD as u64 && FrameType::from_number(number).is_some() =>
        {
            Some(input.len() - rest.len() + length as usize)
        }
        Ok(Some(_)) | Err(_) => Some(input.len() - rest.len()),
    }
}

/// Cuts a control stream into frames; holds at most one, 64 KiB. spec: CT-1, CT-2, CT-3, CT-4
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The header or payload that has not arrived whole.
    held: BytesMut,
    step: Step,
    /// Whether a frame that may be skipped still is an error: the handshake waits for one frame and no other.
    strict: bool,
    /// Frames that were skipped and not told of yet.
    skipped: u32,
}

/// What is known of a frame that has begun and is not whole. spec: CT-8
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The stream stands between two frames, or in one that is skipped.
    Nothing,
    /// The first byte, of a header that is not whole.
    Byte(u8),
    /// A header: the type of the frame.
    Frame(FrameType),
}

#[derive(Debug, Default, Clone, Copy)]
enum Step {
    #[default]
    Header,
    Payload(FrameType, usize),
    Skip(usize),
}

/// Two integers of at most eight bytes.
const MAX_HEADER: usize = 16;

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader of a handshake: until [`FrameReader::opened`] it takes no frame of an unknown type, even or odd.
    /// spec: CT-4
    pub fn of_handshake() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// The handshake is over.
    pub const fn opened(&mut self) {
        self.strict = false;
    }

    /// How many frames were skipped since the last call.
    pub const fn take_skipped(&mut self) -> u32 {
        std::mem::replace(&mut self.skipped, 0)
    }

    /// Whether the stream stands between two frames: the only place where it may end.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.step, Step::Header) && self.held.is_empty()
    }

    /// What is known of a frame that has begun and is not whole.
    pub fn begun(&self) -> Begun {
        match self.step {
            Step::Payload(frame_type, _) => Begun::Frame(frame_type),
            Step::Header => self.held.first().map_or(Begun::Nothing, |first| Begun::Byte(*first)),
            Step::Skip(_) => Begun::Nothing,
        }
    }

    /// Takes the next frame from `input`, or all of it and `None` when the frame is not whole yet.
    ///
    /// After an error the stream cannot be read any further.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.step {
                Step::Header => match self.header(input)? {
                    Some(step) => self.step = step,
                    None => return Ok(None),
                },
                Step::Payload(frame_type, length) => {
                    let Some(payload) = self.payload(length, input) else {
                        return Ok(None);
                    };
                    self.step = Step::Header;
                    return Frame::decode(frame_type, &payload).map(Some);
                }
                Step::Skip(left) => {
                    let taken = left.min(input.len());
                    *input = &input[taken..];
                    if taken < left {
                        self.step = Step::Skip(left - taken);
                        return Ok(None);
                    }
                    self.step = Step::Header;
                }
            }
        }
    }

    /// Reads type and length, and decides what to do with the payload before any of it is kept.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Step>, FrameError> {
        let before = self.held.len();
        self.held.put_slice(&input[..input.len().min(MAX_HEADER - before)]);
        let mut rest = &self.held[..];
        let Some((number, length)) = type_and_length(&mut rest)? else {
            *input = &[];
            return Ok(None);
        };
        let used = self.held.len() - rest.len();
        *input = &input[used - before..];
        self.held.clear();
        // The type is judged before the length. spec: ER-4
        let known = FrameType::from_number(number);
        match known {
            None if self.strict => return Err(FrameError::Early(number)),
            None if !number.is_multiple_of(2) => return Err(FrameError::UnknownType(number)),
            _ if length > limits::MAX_CONTROL_PAYLOAD as u64 => {
                return Err(FrameError::TooLong { frame_type: number, length });
            }
            _ => {}
        }
        let length = length as usize;
        self.skipped = self.skipped.saturating_add(u32::from(known.is_none()));
        Ok(Some(known.map_or(Step::Skip(length), |known| Step::Payload(known, length))))
    }

    fn payload(&mut self, length: usize, input: &mut &[u8]) -> Option<Bytes> {
        let (taken, rest) = input.split_at(input.len().min(length - self.held.len()));
        self.held.put_slice(taken);
        *input = rest;
        (self.held.len() == length).then(|| self.held.split().freeze())
    }
}

fn type_and_length(input: &mut &[u8]) -> Result<Option<(u64, u64)>, FrameError> {
    let mut read = || varint::decode(input).map_err(|error| FrameError::Header(error.into()));
    match read()? {
        Some(number) => Ok(read()?.map(|length| (number, length))),
        None => Ok(None),
    }
}
