//! The vectors of Envoy's handshake, and of what an idle initiator reads.

use std::time::Instant;

use adit::protocol::envoy;
use adit::protocol::envoy::{
    EchoOutput, EchoSettings, Echoer, HandshakeError, HandshakeRules, Rejection, Request, RequestHead, RequestReader,
    ResponseReader,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use toml::{Table, Value};

use super::{Failure, Outcome, failure, hex, insert_some, table};

/// The answer to the whole bytes, and the same to single ones.
fn in_any_split<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&mut dyn Iterator<Item = &[u8]>) -> T,
) -> T {
    let whole = read(&mut std::iter::once(bytes));
    assert_eq!(read(&mut bytes.chunks(1)), whole, "the split changes the answer");
    whole
}

pub(super) fn decode_request(bytes: &[u8], upgrade: bool) -> Outcome {
    let rules = HandshakeRules { upgrade, ..HandshakeRules::default() };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| -> Result<Option<Request>, Rejection> {
        let mut reader = RequestReader::new(rules.clone());
        while let Some(piece) = pieces.next() {
            if let Some(mut request) = reader.push(piece)? {
                request.leftover = with_rest(&request.leftover, pieces);
                return Ok(Some(request));
            }
        }
        Ok(None)
    };
    let request = in_any_split(bytes, read).map_err(|rejection| failure(rejection.status(), &rejection))?;
    let request = request.expect("the vector is not a whole request");
    Ok((Value::Table(describe_request(&request)), envoy::encode_request(&head_of(&request, upgrade)).to_vec()))
}

fn describe_request(request: &Request) -> Table {
    let claim = &request.claim;
    let mut described = table([
        ("node", claim.node.as_str().into()),
        ("cluster", claim.cluster.as_str().into()),
        ("tenant", claim.tenant.as_str().into()),
    ]);
    insert_some(&mut described, "token", request.token.as_ref().map(|token| hex(token)));
    insert_some(&mut described, "upstream_cluster", request.upstream_cluster.as_deref());
    insert_some(&mut described, "worker", request.worker.as_deref());
    insert_some(&mut described, "connection", request.connection.as_deref());
    insert_some(&mut described, "initiated_at_ms", request.initiated_at_ms.map(|time| time as i64));
    insert_leftover(&mut described, &request.leftover);
    described
}

/// What an initiator would send to say the same; what the request left out gets its smallest value.
fn head_of(request: &Request, upgrade: bool) -> RequestHead {
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    let number = |text: Option<&str>| text.map_or(0, |text| text.parse().unwrap());
    let token = request.token.as_ref().map(|token| value(&format!("Bearer {}", std::str::from_utf8(token).unwrap())));
    RequestHead {
        path: envoy::RequestPath::default(),
        upgrade,
        host: HeaderValue::from_static("127.0.0.1:10001"),
        claim: request.claim.clone(),
        upstream_cluster: request.upstream_cluster.as_deref().map(value),
        initiated_at_ms: request.initiated_at_ms.unwrap_or_default(),
        worker: number(request.worker.as_deref().map(|worker| worker.strip_prefix("worker_").unwrap())) as u32,
        connection: number(request.connection.as_deref()),
        additional: token.map(|token| (HeaderName::from_static("authorization"), token)).into_iter().collect(),
    }
}

pub(super) fn decode_response(bytes: &[u8], upgrade: bool) -> Outcome {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| -> Result<Bytes, HandshakeError> {
        let mut reader = ResponseReader::new(upgrade);
        while let Some(piece) = pieces.next() {
            if let Some(accepted) = reader.push(piece)? {
                return Ok(with_rest(&accepted.leftover, pieces));
            }
        }
        Err(reader.closed())
    };
    let leftover = in_any_split(bytes, read).map_err(|error| describe_error(&error))?;
    let mut described = table([("status", if upgrade { 101 } else { 200 }.into())]);
    insert_leftover(&mut described, &leftover);
    let accept = HandshakeRules { upgrade, ..HandshakeRules::default() }.accept_bytes();
    Ok((Value::Table(described), accept.to_vec()))
}

fn describe_error(error: &HandshakeError) -> Failure {
    let code = match error {
        HandshakeError::Refused(refused) => refused.status.to_string(),
        HandshakeError::NotHttp => "not_http".to_owned(),
        HandshakeError::Body => "body".to_owned(),
        HandshakeError::ClosedEarly => "closed_early".to_owned(),
        other => format!("{other:?}"),
    };
    let wait = error.retry_after().map(|wait| format!(", retry after {} s", wait.as_secs()));
    failure(code, format!("{error}{}", wait.unwrap_or_default()))
}

pub(super) fn decode_idle(bytes: &[u8]) -> Outcome {
    let now = Instant::now();
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut echoer = Echoer::new(now, EchoSettings::default());
        let (mut echoes, mut rest) = (0, Vec::new());
        for piece in pieces {
            echoer.receive(now, Bytes::copy_from_slice(piece));
            while let Some(output) = echoer.poll() {
                match output {
                    EchoOutput::Echo => echoes += 1,
                    EchoOutput::Rest(more) => rest.extend_from_slice(&more),
                    EchoOutput::Dead => panic!("no time has passed"),
                }
            }
        }
        (echoes, rest)
    };
    let (echoes, rest) = in_any_split(bytes, read);
    let mut described = vec![Value::Table(table([("echo", true.into())])); echoes];
    if !rest.is_empty() {
        described.push(Value::Table(table([("rest", hex(&rest))])));
    }
    Ok((Value::Array(described), [envoy::PING.repeat(echoes), rest].concat()))
}

fn with_rest(first: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) -> Bytes {
    pieces.fold(first.to_vec(), |all, piece| [&all[..], piece].concat()).into()
}

fn insert_leftover(described: &mut Table, leftover: &[u8]) {
    insert_some(described, "leftover", (!leftover.is_empty()).then(|| hex(leftover)));
}
