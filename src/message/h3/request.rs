//! What a client sends on the stream of a request.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::message::h3::frame::{
    CANCEL_PUSH, Collector, DATA, GOAWAY, HEADERS, Header, MAX_PUSH_ID, PUSH_PROMISE, RESERVED, SETTINGS, UNEXPECTED,
    frame,
};
use crate::message::h3::section::{self, Judged, Rules};
use crate::message::violation::Violation;

/// Bytes of frames that carry nothing (unknown ones, DATA without bytes) which a request may have, headers included. Clients
/// that test their servers send some; more is work for nothing.
pub const MAX_IDLE_BYTES: u64 = 64 * 1024;

/// Pieces that are smaller are put together, bytes: copying them costs less than handing on each.
const SMALL: usize = 4 * 1024;
/// Into pieces of at most this many bytes.
const GATHERED: usize = 32 * 1024;

/// `GET /` of `https://refused`: what is read in place of a head that breaks a rule. RFC 9204 appendix A
const REFUSED: &[u8] = b"\0\0\xd1\xd7\xc1\x50\x07refused";
/// The same as a POST of `application/grpc`, in place of a call: its client is told in a status of gRPC.
const REFUSED_CALL: &[u8] = b"\0\0\xd4\xd7\xc1\x50\x07refused\x5f\x1d\x10application/grpc";

/// Why nothing more of a stream can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The stream is work and carries nothing: H3_EXCESSIVE_LOAD, of the stream.
    #[error("the stream has too many frames that carry nothing")]
    Idle,
    /// The stream ends inside of a frame: H3_FRAME_ERROR, of the connection. RFC 9114 section 7.1
    #[error("the stream ends inside of a frame")]
    Cut,
    /// A field section cannot be read: QPACK_DECOMPRESSION_FAILED, of the connection. Never left to another reader: one that is
    /// more lenient would see fields that nobody judged. RFC 9204 section 2.2
    #[error("a field section cannot be read, or waits for a dynamic table that there is not")]
    Qpack,
    /// The trailers are refused: H3_MESSAGE_ERROR, of the stream.
    #[error("the trailers are refused: {0}")]
    Trailers(Violation),
}

/// Bounds of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest field section, bytes as it is sent.
    pub section_bytes: usize,
    /// Most fields in one.
    pub fields: usize,
}

/// What was found in the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// It may go on.
    Good {
        /// The value of `:protocol`, which its reader does not see.
        protocol: Option<Bytes>,
    },
    /// It breaks this rule; its reader sees another one.
    Refused(Violation),
}

/// Watches the stream of one request.
#[derive(Debug)]
pub struct Watcher {
    limits: Limits,
    state: State,
    part: Part,
    header: Collector,
    section: BytesMut,
    idle_bytes: u64,
    passed: VecDeque<Bytes>,
    head: Option<Head>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A frame begins, or its header is not whole.
    Header,
    /// So many bytes of DATA are to come.
    Data(u64),
    /// So many bytes of a field section.
    Section(usize),
    /// So many bytes that nobody reads.
    Skip(u64),
    /// What comes is thrown away.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Body,
    /// Trailers were read.
    End,
}

impl Watcher {
    /// Watches a stream from its first byte on.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Header,
            part: Part::Head,
            header: Collector::default(),
            section: BytesMut::new(),
            idle_bytes: 0,
            passed: VecDeque::new(),
            head: None,
        }
    }

    /// Takes the next bytes that were read, never none.
    ///
    /// # Errors
    /// Nothing more of the stream is to be read.
    pub fn push(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match self.state {
                State::Header => match self.header.header(&mut bytes) {
                    Some((header, encoded)) => self.begin(header, encoded)?,
                    None => return Ok(()),
                },
                State::Data(left) => {
                    let data = bytes.split_to(step(left, &bytes));
                    self.state = after(left, data.len(), State::Data);
                    self.passed.push_back(data);
                }
                State::Section(left) => {
                    let piece = bytes.split_to(left.min(bytes.len()));
                    self.section.extend_from_slice(&piece);
                    self.state = State::Section(left - piece.len());
                    self.judge_if_whole()?;
                }
                State::Skip(left) => {
                    let skipped = step(left, &bytes);
                    bytes.advance(skipped);
                    self.state = after(left, skipped, State::Skip);
                    self.spend(skipped as u64)?;
                }
                State::Over => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next bytes that may be read on; never none. What came in many small pieces goes on in one: each costs its readers as
    /// much as a large one.
    pub fn pop(&mut self) -> Option<Bytes> {
        let first = self.passed.pop_front()?;
        let mut whole = first.len();
        let small = |piece: &&Bytes| {
            whole += piece.len();
            piece.len() < SMALL && whole <= GATHERED
        };
        let others = if first.len() < SMALL { self.passed.iter().take_while(small).count() } else { 0 };
        if others == 0 {
            return Some(first);
        }
        let length = first.len() + self.passed.iter().take(others).map(Bytes::len).sum::<usize>();
        let mut gathered = BytesMut::with_capacity(length);
        gathered.extend_from_slice(&first);
        self.passed.drain(..others).for_each(|piece| gathered.extend_from_slice(&piece));
        Some(gathered.freeze())
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`Fault::Cut`]: not at the end of a frame.
    pub fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::Header if self.header.is_empty() => Ok(()),
            State::Over => Ok(()),
            _ => Err(Fault::Cut),
        }
    }

    /// Bytes that are kept of a field section that is not whole.
    pub fn held(&self) -> usize {
        self.section.len()
    }

    /// What was found in the head, once.
    pub fn take_head(&mut self) -> Option<Head> {
        self.head.take()
    }

    fn begin(&mut self, Header { kind, length }: Header, encoded: Bytes) -> Result<(), Fault> {
        match (kind, self.part) {
            (DATA, Part::Body) if length == 0 => self.spend(encoded.len() as u64)?,
            (DATA, Part::Body) => {
                self.passed.push_back(encoded);
                self.state = State::Data(length);
            }
            (HEADERS, Part::Head | Part::Body) => self.begin_section(length)?,
            (DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID, _) => self.unexpected(),
            (kind, _) if RESERVED.contains(&kind) => self.unexpected(),
            _ => {
                self.spend(encoded.len() as u64)?;
                self.state = after(length, 0, State::Skip);
            }
        }
        Ok(())
    }

    fn begin_section(&mut self, length: u64) -> Result<(), Fault> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.limits.section_bytes);
        match (length, self.part) {
            (Some(length), _) => {
                self.state = State::Section(length);
                self.judge_if_whole()
            }
            (None, Part::Head) => {
                self.refuse(Violation::HeadTooLarge, false);
                Ok(())
            }
            (None, _) => Err(Fault::Trailers(Violation::HeadTooLarge)),
        }
    }

    fn judge_if_whole(&mut self) -> Result<(), Fault> {
        if self.state != State::Section(0) {
            return Ok(());
        }
        self.state = State::Header;
        let section = self.section.split().freeze();
        let is_head = self.part == Part::Head;
        self.part = if is_head { Part::Body } else { Part::End };
        match section::judge(&section, Rules { is_head, max_fields: self.limits.fields }) {
            Ok(Ok(judged)) => self.accept(is_head, judged, &section),
            Ok(Err(refused)) if is_head => self.refuse(refused.violation, refused.is_call),
            Ok(Err(refused)) => return Err(Fault::Trailers(refused.violation)),
            Err(section::Broken) => return Err(Fault::Qpack),
        }
        Ok(())
    }

    fn accept(&mut self, is_head: bool, judged: Judged, section: &[u8]) {
        if judged.cuts.is_empty() {
            self.passed.push_back(frame(HEADERS as u8, section));
        } else {
            self.passed.push_back(frame(HEADERS as u8, &judged.cut(section)));
        }
        if is_head {
            self.head = Some(Head::Good { protocol: judged.protocol });
        }
    }

    /// Lets a harmless request go on instead. What follows belongs to neither.
    fn refuse(&mut self, violation: Violation, is_call: bool) {
        self.head = Some(Head::Refused(violation));
        self.passed.push_back(frame(HEADERS as u8, if is_call { REFUSED_CALL } else { REFUSED }));
        self.state = State::Over;
    }

    /// Its reader ends the connection.
    fn unexpected(&mut self) {
        self.passed.push_back(Bytes::from_static(UNEXPECTED));
        self.state = State::Over;
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Fault> {
        self.idle_bytes += bytes;
        if self.idle_bytes > MAX_IDLE_BYTES { Err(Fault::Idle) } else { Ok(()) }
    }
}

fn step(left: u64, bytes: &Bytes) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
}

/// What follows when `used` of the bytes that were `left` have come.
fn after(left: u64, used: usize, more: fn(u64) -> State) -> State {
    match left - used as u64 {
        0 => State::Header,
        left => more(left),
    }
}

#[cfg(test)]
mod tests;
