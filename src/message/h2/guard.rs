//! A guard below an HTTP/2 connection that looks at header blocks before `h2` does.
//!
//! A message whose head is malformed is a fault of its stream (RFC 9113 section 8.1.1), and neighbours on the connection go
//! on. `h2` takes most faults so, but a field that is none (a control character in a value, an upper-case name, an unknown
//! pseudo-field, a status that is no number) it meets while it decodes the block, and ends the connection. So such a block is
//! replaced by one that means the same for the table that both ends share, and that `h2` resets the stream for. Pseudo-fields
//! in trailers, which `h2` drops without a word, are treated alike, and so is what makes a list of fields several times as
//! long as is allowed. spec: ST-34
//!
//! DATA that carries nothing and ends nothing is left out: `h2` takes a hundred such frames in the life of a connection, and
//! then ends it, though gateways send one with each message. How many come in a time bounds whoever counts frames. spec: SE-18
//!
//! Small DATA that nobody reads is joined into larger pieces, and goes on when its reader wants it. spec: SE-19
//!
//! Sans-IO: it is shown what is read from the peer, and says how much of it can go on as it is.
//!
//! What it cannot reach: faults of HPACK itself (an index that nothing has, a string without its end) and of frames are
//! faults of the connection by the RFCs. Then, for a block beyond [`MAX_BLOCK`], and for one in whose place far more would
//! have to stand than it has itself, it looks at no head any more, and `h2` decides.

mod joined;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use super::hpack::{self, Decoder, Judged, Rules};
use super::small::SmallFrames;
use joined::{Data, Joined};

/// Longest header block that is looked at, bytes in frames.
pub const MAX_BLOCK: usize = 128 * 1024;
/// Most frames of a block.
const MAX_FRAMES: usize = 64;
/// Most requests, and most responses, that are remembered as under way. Beyond it all are forgotten, and a pseudo-field in
/// their trailers is dropped instead of refused.
const MAX_ASKED: usize = 1024;
const MAX_ANSWERED: usize = 8192;
/// The first bytes that a client sends.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD: usize = 9;
/// The longest frame that a reader takes who has not announced another limit, as none of ours does. RFC 9113 section 6.5.2
const MAX_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The most bytes that go on in place of frames of so many bytes.
pub const fn most_instead(frames: usize) -> usize {
    let block = hpack::most_instead(frames) + hpack::MARK.len();
    block + block.div_ceil(MAX_FRAME) * FRAME_HEAD
}

/// Who reads behind the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server, who reads requests.
    Server,
    /// A client, who reads responses.
    Client,
}

/// Watches one connection.
#[derive(Debug)]
pub struct Guard {
    role: Role,
    max_list: MaxList,
    state: State,
    decoder: Decoder,
    block: Vec<u8>,
    scan: Scan,
    /// Streams on which the peer has begun its request, or its final response, and not ended it: a head on one of them is
    /// trailers. On any other that is not new it breaks HTTP/2 itself, which is the reader's to say.
    begun: HashSet<u32>,
    malformed: u64,
    /// Small DATA is joined.
    joined: Option<Joined>,
}

/// How long a list of fields may be, as HTTP/2 counts it.
#[derive(Debug)]
enum MaxList {
    /// As long as the reader has announced: it sees by itself what is longer, as long as enough of it goes on.
    Announced(usize),
    /// As long as this says, which changes.
    Followed(Arc<AtomicUsize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes go on unseen, then a frame begins.
    Skip(usize),
    /// The same, but heads go on unseen as well: one was beyond what is looked at, or HPACK is broken. `in_block`: the next
    /// frame goes on with a header block.
    Headless { left: usize, in_block: bool },
    /// Nothing is looked at any more: there will be no other frame.
    Aside,
}

/// No head is looked at, and none is under way.
const HEADLESS: State = State::Headless { left: 0, in_block: false };

/// What may go on of what was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// So many bytes from the front; what is behind them begins a frame that has to be whole first.
    Bytes(usize),
    /// So many bytes from the front, then `instead` for the `bytes` behind them; the rest is to be shown again.
    Instead {
        /// Bytes that go on as they are.
        front: usize,
        /// Bytes behind them that do not.
        bytes: usize,
        /// What goes on in their place.
        instead: Vec<u8>,
        /// The stream of the message, if it is the head of a message that is malformed, and not what follows one.
        head: Option<u32>,
    },
    /// The same, but nothing was wrong: DATA that carries nothing is left out, and small DATA was joined.
    Joined {
        /// Bytes that go on as they are.
        front: usize,
        /// Bytes behind them that do not.
        bytes: usize,
        /// What goes on in their place.
        instead: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// How far the frames of a block were collected that is not whole yet.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    /// Bytes of those that were.
    at: usize,
    frames: usize,
    head: Option<Frame>,
}

/// A header block and the frames it is in.
struct Found {
    stream: u32,
    ends_stream: bool,
    /// Bytes of all its frames.
    bytes: usize,
}

/// A block that is malformed.
struct Malformed {
    /// The frames that go on in place of its own.
    instead: Vec<u8>,
    is_head: bool,
}

impl Guard {
    /// Watches what a peer sends to this role from its first byte on. `max_list` is the SETTINGS_MAX_HEADER_LIST_SIZE that
    /// the reader announces.
    pub fn new(role: Role, max_list: usize) -> Self {
        Self::within(role, MaxList::Announced(max_list))
    }

    /// The same for a reader who takes more than it is to: what may be read at most is what this says at each head, and a head
    /// beyond it is malformed.
    pub fn following(role: Role, max_list: &Arc<AtomicUsize>) -> Self {
        Self::within(role, MaxList::Followed(Arc::clone(max_list)))
    }

    fn within(role: Role, max_list: MaxList) -> Self {
        let first = if role == Role::Server { PREFACE_BYTES } else { 0 };
        Self {
            role,
            max_list,
            state: State::Skip(first),
            decoder: Decoder::default(),
            block: Vec::new(),
            scan: Scan::default(),
            begun: HashSet::new(),
            malformed: 0,
            joined: None,
        }
    }

    /// The same, joining small DATA of which the readers of these streams do not want more. HTTP/2 should charge for none of it:
    /// [`UNCHARGED`](super::small::UNCHARGED).
    pub fn joining(self, frames: &Arc<SmallFrames>) -> Self {
        Self { joined: Some(Joined::new(Arc::clone(frames))), ..self }
    }

    /// What goes on before anything else, because its reader wants it. There is nothing as long as a frame is under way that has
    /// gone on in part. The task is woken when there is more.
    pub fn released(&mut self, cx: &Context<'_>) -> Vec<u8> {
        match &mut self.joined {
            Some(joined) if joined.keeps_waiting() && self.state.is_between_frames() => joined.wanted(cx),
            _ => Vec::new(),
        }
    }

    /// All that is held back of small DATA: nothing will come any more.
    pub fn rest(&mut self) -> Vec<u8> {
        match &mut self.joined {
            Some(joined) if self.state.is_between_frames() => joined.all(),
            _ => Vec::new(),
        }
    }

    /// How many messages were malformed so far.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Looks at what was read and has not gone on yet. What did not go on has to be shown again, with more behind it: what
    /// was collected of a block is not looked at anew.
    pub fn pass(&mut self, bytes: &[u8]) -> Passed {
        let mut at = 0;
        while at < bytes.len() {
            let (State::Skip(left) | State::Headless { left, .. }) = &mut self.state else { break };
            if *left > 0 {
                let step = (*left).min(bytes.len() - at);
                *left -= step;
                at += step;
                continue;
            }
            let Some(frame) = Frame::read(&bytes[at..]) else { return self.up_to(at) };
            if frame.length > MAX_FRAME {
                // The reader ends the connection at its first bytes.
                self.state = State::Aside;
                break;
            }
            if frame.is_empty_data() {
                return Passed::Joined { front: at, bytes: empty_data(&bytes[at..]), instead: Vec::new() };
            }
            match self.joined.as_mut().map_or(Data::Passes, |joined| joined.pass(frame, &bytes[at..])) {
                Data::Passes => {}
                Data::Incomplete => return self.up_to(at),
                Data::Joined { bytes, instead } => return Passed::Joined { front: at, bytes, instead },
            }
            if frame.kind != HEADERS || self.state != State::Skip(0) {
                self.note(frame);
                self.state.skip(frame);
                continue;
            }
            match self.find(&bytes[at..]) {
                Err(Incomplete) if bytes.len() - at <= MAX_BLOCK => return self.up_to(at),
                Err(Incomplete) | Ok(None) => self.state = HEADLESS,
                Ok(Some(found)) => match self.judge(&found) {
                    None => at += found.bytes,
                    Some(Malformed { instead, is_head }) => {
                        let head = is_head.then_some(found.stream);
                        return Passed::Instead { front: at, bytes: found.bytes, instead, head };
                    }
                },
            }
        }
        if self.state == State::Aside { Passed::Bytes(bytes.len()) } else { self.up_to(at) }
    }

    /// So much goes on of what is there, and behind it what nobody reads of what came with it.
    fn up_to(&mut self, front: usize) -> Passed {
        match &mut self.joined {
            Some(joined) if joined.has_unread() && self.state.is_between_frames() => {
                Passed::Joined { front, bytes: 0, instead: joined.unread() }
            }
            _ => Passed::Bytes(front),
        }
    }

    /// Collects the block that begins here. `None`: it breaks HTTP/2 itself, or is beyond what is looked at.
    fn find(&mut self, bytes: &[u8]) -> Result<Option<Found>, Incomplete> {
        if self.scan.head.is_none() {
            self.block.clear();
        }
        let found = self.collect(bytes)?;
        self.scan = Scan::default();
        Ok(found)
    }

    fn collect(&mut self, bytes: &[u8]) -> Result<Option<Found>, Incomplete> {
        while self.scan.frames < MAX_FRAMES {
            let Scan { at, frames, head } = self.scan;
            let frame = bytes.get(at..).and_then(Frame::read).ok_or(Incomplete)?;
            let head = head.unwrap_or(frame);
            let is_next = at == 0 || (frame.kind == CONTINUATION && frame.stream == head.stream);
            if !is_next || frame.length > MAX_FRAME || at + FRAME_HEAD + frame.length > MAX_BLOCK {
                return Ok(None);
            }
            let payload = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + frame.length).ok_or(Incomplete)?;
            let Some(fragment) = frame.fragment(payload) else { return Ok(None) };
            self.block.extend_from_slice(fragment);
            let at = at + FRAME_HEAD + frame.length;
            self.scan = Scan { at, frames: frames + 1, head: Some(head) };
            if frame.flags & END_HEADERS != 0 {
                let ends_stream = head.flags & END_STREAM != 0;
                return Ok(Some(Found { stream: head.stream, ends_stream, bytes: at }));
            }
        }
        Ok(None)
    }

    /// What goes on in place of the frames of this block, if it is malformed.
    fn judge(&mut self, found: &Found) -> Option<Malformed> {
        let is_head = self.is_head(found.stream);
        let (max_list, ends_excess) = match &self.max_list {
            MaxList::Announced(most) => (*most, false),
            MaxList::Followed(most) => (most.load(Ordering::Acquire), true),
        };
        let rules = Rules { is_head, max_list, ends_excess };
        let Ok(Judged { status, instead }) = self.decoder.judge(&self.block, rules) else {
            self.state = HEADLESS;
            return None;
        };
        self.follow(found, status);
        let instead = instead?;
        self.malformed += 1;
        Some(Malformed { instead: frames(found, &instead), is_head })
    }

    /// Whether a block on this stream is a head: a request, or a response that no final one came before.
    fn is_head(&self, stream: u32) -> bool {
        !self.begun.contains(&stream)
    }

    fn follow(&mut self, found: &Found, status: Option<bool>) {
        let (begins, most) = match self.role {
            Role::Server => (true, MAX_ASKED),
            Role::Client => (status == Some(false), MAX_ANSWERED),
        };
        if found.ends_stream {
            self.begun.remove(&found.stream);
        } else if begins {
            if self.begun.len() >= most {
                self.begun.clear();
            }
            self.begun.insert(found.stream);
        }
    }

    /// A frame that is no head, but may end a message.
    fn note(&mut self, frame: Frame) {
        if frame.kind == RST_STREAM || (frame.kind == DATA && frame.flags & END_STREAM != 0) {
            self.begun.remove(&frame.stream);
        }
    }
}

impl State {
    const fn is_between_frames(self) -> bool {
        matches!(self, Self::Skip(0) | HEADLESS)
    }

    /// This frame goes on unseen.
    const fn skip(&mut self, frame: Frame) {
        let bytes = FRAME_HEAD + frame.length;
        *self = match self {
            Self::Skip(_) => Self::Skip(bytes),
            Self::Headless { .. } => Self::Headless { left: bytes, in_block: frame.begins_more() },
            Self::Aside => Self::Aside,
        };
    }
}

/// The end of a frame has not come yet.
struct Incomplete;

impl Frame {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[a, b, c, kind, flags, s, t, u, v], _) = bytes.split_first_chunk::<FRAME_HEAD>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([s & 0x7f, t, u, v]) })
    }

    /// Whether it is DATA without a byte that does not end its message. Padding is bytes, which windows count.
    const fn is_empty_data(self) -> bool {
        self.kind == DATA && self.length == 0 && self.flags & (END_STREAM | PADDED) == 0 && self.stream != 0
    }

    /// Whether a header block goes on behind it.
    const fn begins_more(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION) && self.flags & END_HEADERS == 0
    }

    /// The piece of a header block in a payload; `None` where the padding leaves nothing of it.
    fn fragment<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        if self.kind != HEADERS {
            return Some(payload);
        }
        let (padding, rest) = match self.flags & PADDED {
            0 => (0, payload),
            _ => payload.split_first().map(|(padding, rest)| (usize::from(*padding), rest))?,
        };
        let rest = if self.flags & PRIORITY == 0 { rest } else { rest.get(5..)? };
        rest.get(..rest.len().checked_sub(padding)?)
    }
}

/// The bytes of all empty DATA frames at the front.
fn empty_data(bytes: &[u8]) -> usize {
    bytes.chunks_exact(FRAME_HEAD).take_while(|head| Frame::read(head).is_some_and(Frame::is_empty_data)).count()
        * FRAME_HEAD
}

/// The frames of a block, without padding and priority.
fn frames(found: &Found, block: &[u8]) -> Vec<u8> {
    let count = block.len().div_ceil(MAX_FRAME);
    let mut frames = Vec::with_capacity(block.len() + count * FRAME_HEAD);
    for (index, piece) in block.chunks(MAX_FRAME).enumerate() {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let ends_stream = if index == 0 && found.ends_stream { END_STREAM } else { 0 };
        let ends_headers = if index + 1 == count { END_HEADERS } else { 0 };
        frames.extend_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
        frames.extend_from_slice(&[kind, ends_stream | ends_headers]);
        frames.extend_from_slice(&found.stream.to_be_bytes());
        frames.extend_from_slice(piece);
    }
    frames
}

#[cfg(test)]
mod tests;
