//! The initiator's half of the handshake: from the responder's bytes to a tunnel, or to why there is none.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::protocol::code::RefusalCode;
use crate::protocol::envoy::chunked::{BadChunk, Chunked, Piece};
use crate::protocol::envoy::fields::{Fields, Framing, number};
use crate::protocol::envoy::head::{HeadError, HeadScanner};
use crate::protocol::envoy::rejection::code_of;
use crate::protocol::envoy::{MAX_HEAD_FIELDS, MAX_INTERIM_RESPONSES, names};
use crate::protocol::limits::{MAX_DURATION, MAX_REASON_BYTES};
use crate::protocol::wire::printable;

/// How every answer begins.
const VERSION: &[u8] = b"HTTP/1.";

/// The responder took the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What followed the head; the first bytes for the [`Echoer`](super::Echoer).
    pub leftover: Bytes,
}

/// Why there is no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// What answered does not speak HTTP/1.
    #[error("the answer is not HTTP/1.1: this is not the port of an Envoy responder, or it expects TLS")]
    NotHttp,
    /// The answer has a head of more than 60 KiB or 100 fields.
    #[error("the answer has a head of more than 60 KiB or 100 fields")]
    TooLarge,
    /// It accepts, but with a body, which would be taken for what the tunnel carries. spec: EV-5
    #[error("the responder accepts with a body: something between it and this end changes what it sends")]
    Body,
    /// It said no. spec: EV-6
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The connection ended before there was an answer.
    #[error("the connection was closed without an answer: a responder does that when its handshake timeout ends")]
    ClosedEarly,
    /// The connection ended right after the responder accepted. spec: EV-7
    #[error(
        "the responder accepted and then closed at once: Envoy does that when it cannot register the node or cluster id"
    )]
    ClosedAfterAccept,
}

/// The responder's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the responder answers {status}: {reason}")]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// Its reason as far as it gave one, bounded and printable.
    pub reason: String,
    /// Not before this much time, at most a day; from whole seconds only.
    pub retry_after: Option<Duration>,
}

impl HandshakeError {
    /// The same in the numbers that all transports share, where there is one.
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused(refused) => code_of(refused.status),
            _ => None,
        }
    }

    /// How long the responder asks to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after,
            _ => None,
        }
    }
}

impl From<HeadError> for HandshakeError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Syntax => Self::NotHttp,
            HeadError::TooLarge => Self::TooLarge,
        }
    }
}

impl From<BadChunk> for HandshakeError {
    fn from(_: BadChunk) -> Self {
        Self::NotHttp
    }
}

/// Reads one answer in whatever split it arrives; holds at most its head, or 512 bytes of its reason.
#[derive(Debug)]
pub struct ResponseReader {
    upgrade: bool,
    interim: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadScanner),
    /// Accepted, if the chunks turn out to be empty.
    Chunks(Chunked),
    Reason(Reason),
    Accepted,
    Failed(HandshakeError),
}

/// A refusal whose reason is still on its way.
#[derive(Debug)]
struct Reason {
    refused: Refused,
    body: Body,
    text: Vec<u8>,
}

#[derive(Debug)]
enum Body {
    Left(u64),
    Chunks(Chunked),
}

impl ResponseReader {
    /// A reader of one answer; `upgrade` as in the request.
    pub fn new(upgrade: bool) -> Self {
        Self { upgrade, interim: 0, state: State::Head(HeadScanner::default()) }
    }

    /// Takes the next bytes; `Accepted` once it is certain. After that, or an error, do not call it again: it gives the
    /// same error, or nothing. spec: EV-4
    pub fn push(&mut self, mut input: &[u8]) -> Result<Option<Accepted>, HandshakeError> {
        match self.advance(&mut input) {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.state = State::Accepted;
                Ok(Some(Accepted { leftover: Bytes::copy_from_slice(input) }))
            }
            Err(error) => {
                self.state = State::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// The connection ended, or the time for an answer is up: what that means, as far as it is known. Call it too when
    /// the connection ends after it was accepted and before the first ping. spec: EV-6, EV-7
    pub fn closed(&self) -> HandshakeError {
        match &self.state {
            State::Head(_) | State::Chunks(_) => HandshakeError::ClosedEarly,
            State::Reason(reason) => reason.complete().into(),
            State::Accepted => HandshakeError::ClosedAfterAccept,
            State::Failed(error) => error.clone(),
        }
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<bool, HandshakeError> {
        loop {
            match &mut self.state {
                State::Head(scanner) => {
                    // Told apart at once: another protocol's greeting may never become a head.
                    let mut begun = scanner.bytes().iter().chain(&**input).zip(VERSION);
                    if begun.any(|(is, wanted)| is != wanted) {
                        return Err(HandshakeError::NotHttp);
                    }
                    if !scanner.push(input)? {
                        return Ok(false);
                    }
                    match self.on_head()? {
                        Some(state) => self.state = state,
                        None => return Ok(true),
                    }
                }
                State::Chunks(chunked) => {
                    return match chunked.next(input)? {
                        Some(Piece::Data(_)) => Err(HandshakeError::Body),
                        Some(Piece::End(_)) => Ok(true),
                        None => Ok(false),
                    };
                }
                State::Reason(reason) => return reason.push(input).map(|()| false),
                State::Accepted => return Ok(false),
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }

    /// What comes after the head; nothing, if it accepts.
    fn on_head(&mut self) -> Result<Option<State>, HandshakeError> {
        let State::Head(scanner) = &self.state else { return Ok(None) };
        let mut room = [httparse::EMPTY_HEADER; MAX_HEAD_FIELDS];
        let mut parsed = httparse::Response::new(&mut room);
        let bytes = scanner.bytes();
        let is_whole = parsed.parse(bytes).is_ok_and(|status| status == httparse::Status::Complete(bytes.len()));
        let (true, Some(status)) = (is_whole, parsed.code) else { return Err(HandshakeError::NotHttp) };
        let fields = Fields(parsed.headers);
        match status {
            101 if self.upgrade => Ok(None),
            200 if !self.upgrade => accepted(fields),
            100..=199 if status != 101 => {
                self.interim += 1;
                let few = self.interim <= MAX_INTERIM_RESPONSES;
                if few { Ok(Some(State::Head(HeadScanner::default()))) } else { Err(HandshakeError::TooLarge) }
            }
            _ => Ok(Some(State::Reason(refused(status, fields)?))),
        }
    }
}

fn accepted(fields: Fields<'_>) -> Result<Option<State>, HandshakeError> {
    match fields.framing().ok_or(HandshakeError::NotHttp)? {
        Framing::Unstated | Framing::Length(0) => Ok(None),
        Framing::Length(_) => Err(HandshakeError::Body),
        Framing::Chunked => Ok(Some(State::Chunks(Chunked::new()))),
    }
}

fn refused(status: u16, fields: Fields<'_>) -> Result<Reason, HandshakeError> {
    let retry_after = fields.first("retry-after").and_then(number);
    let mut refused = Refused {
        status,
        reason: fields.first(names::REASON).map(clean).unwrap_or_default(),
        retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_DURATION)),
    };
    let body = match status {
        // The mode is wrong at one of the ends, which no body says.
        101 => {
            refused.reason = "it upgrades, which was not asked for".to_owned();
            Body::Left(0)
        }
        200 => {
            refused.reason = "it does not upgrade, which was asked for".to_owned();
            Body::Left(0)
        }
        204 | 304 => Body::Left(0),
        _ => match fields.framing().ok_or(HandshakeError::NotHttp)? {
            Framing::Chunked => Body::Chunks(Chunked::new()),
            Framing::Length(length) => Body::Left(length),
            Framing::Unstated => Body::Left(u64::MAX),
        },
    };
    Ok(Reason { refused, body, text: Vec::new() })
}

impl Reason {
    /// Fails with the refusal once it is complete enough.
    fn push(&mut self, input: &mut &[u8]) -> Result<(), HandshakeError> {
        while self.refused.reason.is_empty() && self.text.len() < MAX_REASON_BYTES {
            let data = match &mut self.body {
                Body::Left(0) => return Err(self.complete().into()),
                Body::Left(left) => {
                    let (data, rest) = input.split_at(input.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
                    *input = rest;
                    *left -= data.len() as u64;
                    Bytes::copy_from_slice(data)
                }
                Body::Chunks(chunked) => match chunked.next(input) {
                    Ok(Some(Piece::Data(data))) => data,
                    Ok(None) => Bytes::new(),
                    Ok(Some(Piece::End(_))) | Err(BadChunk) => return Err(self.complete().into()),
                },
            };
            if data.is_empty() {
                return Ok(());
            }
            self.text.extend_from_slice(&data[..data.len().min(MAX_REASON_BYTES - self.text.len())]);
        }
        Err(self.complete().into())
    }

    /// The refusal with the best reason there is.
    fn complete(&self) -> Refused {
        let mut refused = self.refused.clone();
        if refused.reason.is_empty() {
            refused.reason = clean(&self.text);
        }
        if refused.reason.is_empty() {
            let phrase = StatusCode::from_u16(refused.status).ok().and_then(|status| status.canonical_reason());
            refused.reason = phrase.unwrap_or("without a reason").to_owned();
        }
        refused
    }
}

/// What a peer said, as it may stand in a log.
fn clean(text: &[u8]) -> String {
    printable(&String::from_utf8_lossy(text), MAX_REASON_BYTES).trim().to_owned()
}
