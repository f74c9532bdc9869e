//! Envoy's handshake, read at both ends, and the pings of an idle tunnel between them.

use std::time::{Duration, Instant};

use adit::protocol::envoy::{
    self, Accepted, EchoOutput, EchoSettings, Echoer, HandshakeError, HandshakeRules, PING, PingOutput, PingSettings,
    Pinger, Rejection, Request, RequestHead, RequestReader, ResponseReader, Stop,
};
use bytes::Bytes;
use http::HeaderValue;

/// The first byte says which end, and in which mode; the second how the bytes are split, except for a joined pair, where
/// the rest are operations.
pub fn envoy_handshake(data: &[u8]) {
    let &[what, step, ref bytes @ ..] = data else { return };
    let upgrade = what & 0x10 != 0;
    let step = usize::from(step).max(1);
    match what & 3 {
        0 => request(HandshakeRules { upgrade, ..rules(what & 0x20 != 0) }, step, bytes),
        1 => response(upgrade, step, bytes),
        2 => echoes(step, bytes),
        _ => Pair::new().run(what, bytes),
    }
}

fn rules(is_named: bool) -> HandshakeRules {
    HandshakeRules { required_cluster: is_named.then(|| "responder".to_owned()), ..HandshakeRules::default() }
}

/// Any split gives the same claim or the same rejection, what follows is not touched, and no head grows for ever. What is
/// accepted can be said by an initiator of ours, and a rejection is read by it as what it is.
fn request(rules: HandshakeRules, step: usize, bytes: &[u8]) {
    let whole = read_request(&rules, bytes, bytes.len().max(1));
    assert_eq!(read_request(&rules, bytes, step), whole, "the split changes the answer");
    match whole {
        Ok(Some(request)) => {
            assert!(bytes.ends_with(&request.leftover));
            let again = envoy::encode_request(&head_of(&request, &rules));
            let again = read_request(&rules, &again, step).expect("ours").expect("whole");
            assert_eq!((again.claim, again.initiated_at_ms), (request.claim, request.initiated_at_ms.or(Some(0))));
        }
        Ok(None) => {}
        Err(rejection) => check_rejection(&rejection, rules.upgrade),
    }
}

fn read_request(rules: &HandshakeRules, bytes: &[u8], step: usize) -> Result<Option<Request>, Rejection> {
    let mut reader = RequestReader::new(rules.clone());
    let mut pieces = bytes.chunks(step);
    while let Some(piece) = pieces.next() {
        if let Some(mut request) = reader.push(piece)? {
            assert_eq!(reader.push(piece), Ok(None), "one request is all there is");
            request.leftover = pieces.fold(request.leftover, |all, piece| [&all[..], piece].concat().into());
            return Ok(Some(request));
        }
    }
    assert!(reader.push(&[b'x'; envoy::MAX_HEAD_BYTES + 1]).is_err(), "it takes more than a head");
    Ok(None)
}

fn head_of(request: &Request, rules: &HandshakeRules) -> RequestHead {
    RequestHead {
        path: rules.path.clone(),
        upgrade: rules.upgrade,
        host: HeaderValue::from_static("127.0.0.1:10001"),
        claim: request.claim.clone(),
        upstream_cluster: rules.required_cluster.as_ref().map(|_| HeaderValue::from_static("responder")),
        initiated_at_ms: request.initiated_at_ms.unwrap_or_default(),
        worker: 0,
        connection: 0,
        additional: Vec::new(),
    }
}

fn check_rejection(rejection: &Rejection, upgrade: bool) {
    match ResponseReader::new(upgrade).push(&rejection.encode()) {
        Err(HandshakeError::Refused(refused)) => assert_eq!(refused.status, rejection.status()),
        other => panic!("{rejection:?} is read as {other:?}"),
    }
}

/// Any split gives the same answer, reasons are bounded and printable, and no answer is read for ever.
fn response(upgrade: bool, step: usize, bytes: &[u8]) {
    let whole = read_response(upgrade, bytes, bytes.len().max(1));
    assert_eq!(read_response(upgrade, bytes, step), whole, "the split changes the answer");
    match whole {
        Ok(accepted) => assert!(bytes.ends_with(&accepted.leftover)),
        Err(HandshakeError::Refused(refused)) => {
            assert!((1..=512).contains(&refused.reason.len()) && !refused.reason.chars().any(char::is_control));
            assert!(refused.retry_after.is_none_or(|wait| wait <= Duration::from_secs(86_400)));
        }
        Err(_) => {}
    }
}

fn read_response(upgrade: bool, bytes: &[u8], step: usize) -> Result<Accepted, HandshakeError> {
    let mut reader = ResponseReader::new(upgrade);
    let mut pieces = bytes.chunks(step);
    while let Some(piece) = pieces.next() {
        if let Some(mut accepted) = reader.push(piece)? {
            assert_eq!(reader.closed(), HandshakeError::ClosedAfterAccept);
            accepted.leftover = pieces.fold(accepted.leftover, |all, piece| [&all[..], piece].concat().into());
            return Ok(accepted);
        }
    }
    let closed = reader.closed();
    assert!(reader.push(&[b'x'; envoy::MAX_HEAD_BYTES + 1]).is_err(), "it takes more than a head");
    Err(closed)
}

/// An initiator echoes each ping in front of something else, and hands on that untouched.
fn echoes(step: usize, bytes: &[u8]) {
    let (mut pings, mut rest) = (0, bytes);
    while let Some(after) = rest.strip_prefix(PING) {
        (pings, rest) = (pings + 1, after);
    }
    if PING.starts_with(rest) {
        rest = b"";
    }
    let now = Instant::now();
    let mut echoer = Echoer::new(now, EchoSettings::default());
    let read = bytes.chunks(step).map(|piece| hear(&mut echoer, now, piece));
    let (echoes, handed_on) =
        read.fold((0, Vec::new()), |(echoes, all), (more, piece)| (echoes + more, [all, piece].concat()));
    assert_eq!((echoes, &handed_on[..]), (pings, rest));
    assert_eq!(echoer.is_over(), !rest.is_empty());
}

/// How many echoes these bytes call for, and what of them is something else.
fn hear(echoer: &mut Echoer, now: Instant, bytes: &[u8]) -> (usize, Vec<u8>) {
    echoer.receive(now, Bytes::copy_from_slice(bytes));
    let (mut echoes, mut rest) = (0, Vec::new());
    while let Some(output) = echoer.poll() {
        match output {
            EchoOutput::Echo => echoes += 1,
            EchoOutput::Rest(more) => rest.extend_from_slice(&more),
            EchoOutput::Dead => panic!("given up within a moment"),
        }
    }
    (echoes, rest)
}

/// What the responder sends when it has stopped pinging, and the initiator after that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// A responder and an initiator on one line. However the bytes travel, and whatever else the initiator says: at most one
/// ping is out, states only advance, and silence ends both. If the initiator is honest, HTTP/2 begins without a byte of
/// a ping in it.
struct Pair {
    pinger: Pinger,
    echoer: Echoer,
    now: Instant,
    to_initiator: Vec<u8>,
    to_responder: Vec<u8>,
    suspect: bool,
    proven: bool,
    end: Option<PingOutput>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            pinger: Pinger::new(now, PingSettings::default(), 0),
            echoer: Echoer::new(now, EchoSettings::default()),
            now,
            to_initiator: Vec::new(),
            to_responder: Vec::new(),
            suspect: false,
            proven: false,
            end: None,
        }
    }

    fn run(mut self, what: u8, operations: &[u8]) {
        let is_honest = what & 0x10 == 0;
        for operation in operations.chunks_exact(2) {
            let much = operation[1];
            match operation[0] % 5 {
                0 => self.pass(Duration::from_millis(u64::from(much) * 20), much),
                1 => self.initiator_reads(usize::from(much)),
                2 => self.responder_reads(usize::from(much)),
                3 if !is_honest => self.to_responder.extend([much, operation[0]]),
                _ => {}
            }
        }
        self.stop(is_honest);
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration, entropy: u8) {
        let until = self.now + time;
        while let Some(at) = self.pinger.deadline().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.pinger.timeout(self.now, u32::from_be_bytes([entropy; 4]));
            assert!(self.pinger.deadline().is_none_or(|at| at > self.now), "a timer that is due stays due");
            self.look();
        }
        self.now = until;
    }

    fn initiator_reads(&mut self, count: usize) {
        let bytes: Vec<u8> = self.to_initiator.drain(..count.min(self.to_initiator.len())).collect();
        let (echoes, rest) = hear(&mut self.echoer, self.now, &bytes);
        assert_eq!(rest, b"", "the responder sends nothing but pings");
        self.to_responder.extend(PING.repeat(echoes));
    }

    fn responder_reads(&mut self, count: usize) {
        let bytes: Vec<u8> = self.to_responder.drain(..count.min(self.to_responder.len())).collect();
        for byte in bytes.chunks(1) {
            let had_ended = self.end.is_some();
            let rest = self.pinger.receive(self.now, byte);
            assert_eq!(rest.is_empty(), !had_ended, "bytes are taken until the end and not after it");
            self.look();
        }
    }

    fn look(&mut self) {
        while let Some(output) = self.pinger.poll() {
            assert_eq!(self.end, None, "{output:?} follows the end");
            match output {
                PingOutput::SendPing => self.to_initiator.extend_from_slice(PING),
                PingOutput::Proven => assert!(!std::mem::replace(&mut self.proven, true)),
                PingOutput::Suspect => assert!(!std::mem::replace(&mut self.suspect, true), "suspect twice"),
                PingOutput::Alive => assert!(std::mem::replace(&mut self.suspect, false), "alive, but never suspect"),
                PingOutput::Stopped { .. } => {
                    assert!(self.proven, "it may be used without a proof");
                    self.end = Some(output);
                }
                PingOutput::Dead(_) => self.end = Some(output),
            }
        }
        assert_eq!(self.pinger.deadline().is_none(), self.end.is_some());
        assert_eq!((self.pinger.is_proven(), self.pinger.is_suspect()), (self.proven, self.suspect));
    }

    /// The responder wants to go on with HTTP/2.
    fn stop(mut self, is_honest: bool) {
        if is_honest {
            assert!(self.to_initiator.len() + self.to_responder.len() <= PING.len(), "more than one ping is out");
        }
        match self.pinger.stop(self.now) {
            Stop::Now => self.end = Some(PingOutput::Stopped { answered: true }),
            Stop::Wait => self.pass(Duration::from_secs(60), 0),
            Stop::Dead => {}
        }
        assert!(self.end.is_some(), "silence does not end it");
        if !is_honest || matches!(self.end, Some(PingOutput::Dead(_))) {
            return;
        }
        self.to_initiator.extend_from_slice(PREFACE);
        let (echoes, rest) = hear(&mut self.echoer, self.now, &self.to_initiator);
        assert_eq!(rest, PREFACE);
        self.to_responder.extend(PING.repeat(echoes));
        self.to_responder.extend_from_slice(SETTINGS);
        let pieces = self.to_responder.chunks(3).map(Bytes::copy_from_slice);
        assert_eq!(pieces.flat_map(|piece| self.pinger.strip(piece)).collect::<Vec<u8>>(), SETTINGS);
        assert_eq!(self.echoer.deadline(), None);
    }
}
