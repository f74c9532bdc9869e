//! The responder's half of the handshake: from bytes to a claim, or to the rejection that answers them.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::id::Claim;
use crate::protocol::envoy::checks::{self, HandshakeRules, Head};
use crate::protocol::envoy::chunked::{BadChunk, Chunked, Piece};
use crate::protocol::envoy::claim;
use crate::protocol::envoy::fields::{Fields, Framing, number};
use crate::protocol::envoy::head::HeadScanner;
use crate::protocol::envoy::rejection::Rejection;
use crate::protocol::envoy::{MAX_HEAD_FIELDS, names};
use crate::protocol::handshake::Token;
use crate::protocol::wire::printable;

/// The longest text kept of a field that is for logs only.
const MAX_LABEL_BYTES: usize = 64;

/// A complete handshake, for policy to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who the initiator says it is.
    pub claim: Claim,
    /// A credential beside TLS: the token of `authorization: Bearer`. spec: EV-19
    pub token: Option<Token>,
    /// What the initiator calls this responder; bounded and printable.
    pub upstream_cluster: Option<String>,
    /// The initiator's thread, for logs; bounded and printable.
    pub worker: Option<String>,
    /// The initiator's number of the connection, for logs; bounded and printable.
    pub connection: Option<String>,
    /// When the initiator began to dial, in milliseconds since 1970, if that can be read.
    pub initiated_at_ms: Option<u64>,
    /// Bytes past the request. Normally none: an initiator must not speak before it is accepted. They belong to the
    /// [`Pinger`](super::Pinger).
    pub leftover: Bytes,
}

/// Reads one request in whatever split it arrives; holds at most its head.
#[derive(Debug)]
pub struct RequestReader {
    rules: HandshakeRules,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadScanner),
    /// What the head says is judged already, and said once it is certain that there is no body.
    Body(Chunked, Box<Result<Request, Rejection>>),
    Done,
}

impl RequestReader {
    /// A reader of one handshake.
    pub fn new(rules: HandshakeRules) -> Self {
        Self { rules, state: State::Head(HeadScanner::default()) }
    }

    /// Takes the next bytes; a request once it is complete. An error is for the initiator ([`Rejection::encode`]),
    /// which is then closed. After either, all input is ignored. spec: EV-10, EV-11
    pub fn push(&mut self, mut input: &[u8]) -> Result<Option<Request>, Rejection> {
        let mut outcome = self.advance(&mut input).transpose();
        if outcome.is_some() {
            self.state = State::Done;
        }
        if let Some(Ok(request)) = &mut outcome {
            request.leftover = Bytes::copy_from_slice(input);
        }
        outcome.transpose()
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Request>, Rejection> {
        if let State::Head(scanner) = &mut self.state {
            if !scanner.push(input)? {
                return Ok(None);
            }
            let (framing, judged) = judge(scanner.bytes(), &self.rules)?;
            if framing != Framing::Chunked {
                return judged.map(Some);
            }
            self.state = State::Body(Chunked::new(), Box::new(judged));
        }
        let State::Body(chunked, judged) = &mut self.state else { return Ok(None) };
        match chunked.next(input) {
            Ok(None) => Ok(None),
            Ok(Some(Piece::End(_))) => judged.as_ref().clone().map(Some),
            Ok(Some(Piece::Data(_))) => Err(Rejection::Body),
            Err(BadChunk) => Err(Rejection::NotHttp),
        }
    }
}

/// Judges a whole head: an error if nothing that follows can matter, else how the body is framed and what to say once
/// that turned out to be empty.
fn judge(bytes: &[u8], rules: &HandshakeRules) -> Result<(Framing, Result<Request, Rejection>), Rejection> {
    let mut room = [httparse::EMPTY_HEADER; MAX_HEAD_FIELDS];
    let mut parsed = httparse::Request::new(&mut room);
    let is_whole = parsed.parse(bytes).is_ok_and(|status| status == httparse::Status::Complete(bytes.len()));
    let (true, Some(method), Some(target), Some(minor)) = (is_whole, parsed.method, parsed.path, parsed.version) else {
        return Err(Rejection::NotHttp);
    };
    if minor == 0 {
        return Err(Rejection::OldVersion);
    }
    let fields = Fields(parsed.headers);
    let framing = fields.framing().ok_or(Rejection::NotHttp)?;
    if matches!(framing, Framing::Length(1..)) {
        return Err(Rejection::Body);
    }
    let judged = checks::check(&Head { method, target, fields }, rules).and_then(|()| request(fields));
    Ok((framing, judged))
}

fn request(fields: Fields<'_>) -> Result<Request, Rejection> {
    let (claim, token) = claim::read(fields)?;
    let label = |name| fields.first(name).map(|value| printable(&String::from_utf8_lossy(value), MAX_LABEL_BYTES));
    Ok(Request {
        claim,
        token,
        upstream_cluster: label(names::UPSTREAM_CLUSTER),
        worker: label(names::WORKER),
        connection: label(names::CONNECTION),
        initiated_at_ms: fields.first(names::INITIATION_TIME).and_then(number),
        leftover: Bytes::new(),
    })
}
