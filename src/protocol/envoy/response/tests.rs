//! What an initiator makes of an answer, in every split.

use proptest::prelude::*;

use super::*;
use crate::protocol::envoy::{HandshakeRules, MAX_HEAD_BYTES, Rejection};
use crate::protocol::handshake::Refusal;

/// The outcome of these bytes and then the end of the connection; what follows an acceptance, if there is one.
fn read_in_steps(upgrade: bool, bytes: &[u8], step: usize) -> Result<Vec<u8>, HandshakeError> {
    let mut reader = ResponseReader::new(upgrade);
    let mut pieces = bytes.chunks(step.max(1));
    while let Some(piece) = pieces.next() {
        if let Some(accepted) = reader.push(piece)? {
            return Ok([&accepted.leftover[..], &pieces.flatten().copied().collect::<Vec<_>>()].concat());
        }
    }
    Err(reader.closed())
}

fn read_as(upgrade: bool, bytes: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let whole = read_in_steps(upgrade, bytes, bytes.len());
    for step in [1, 2, 3, 17] {
        assert_eq!(read_in_steps(upgrade, bytes, step), whole, "the split changes the answer");
    }
    whole
}

fn read(text: &str) -> Result<Vec<u8>, HandshakeError> {
    read_as(false, text.as_bytes())
}

fn refused(text: &str) -> Refused {
    match read(text) {
        Err(HandshakeError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

// spec: EV-4, EV-15
#[test]
fn exactly_200_or_in_upgrade_mode_exactly_101_accepts() {
    for upgrade in [false, true] {
        let accept = HandshakeRules { upgrade, ..HandshakeRules::default() }.accept_bytes();
        assert_eq!(read_as(upgrade, accept), Ok(Vec::new()));
        assert_eq!(read_as(upgrade, &[accept, b"RPING"].concat()), Ok(b"RPING".to_vec()));
        let error = read_as(!upgrade, accept).unwrap_err();
        assert!(error.to_string().contains("asked for"), "{error}");
    }
    for status in ["201 Created", "204 No Content", "302 Found", "426 Upgrade Required"] {
        let refused = refused(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
        assert_eq!(refused.status.to_string(), status[..3]);
        assert_eq!(refused.reason, status[4..]);
    }
}

// spec: EV-4
#[test]
fn every_acceptance_that_an_envoy_takes_is_taken() {
    for text in [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nRPING",
        "HTTP/1.0 200 OK\r\n\r\nRPING",
        "HTTP/1.1 200 OK\r\n\r\nRPING",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nRPING",
        "HTTP/1.1 200\r\ncontent-length: 0\r\nserver: envoy\r\n\r\nRPING",
    ] {
        assert_eq!(read(text), Ok(b"RPING".to_vec()), "{text}");
    }
}

// spec: EV-4
#[test]
fn interim_answers_are_bounded() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n";
    let accept = "HTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(read(&(interim.repeat(16) + accept)), Ok(Vec::new()));
    assert_eq!(read(&(interim.repeat(17) + accept)), Err(HandshakeError::TooLarge));
}

// spec: EV-5
#[test]
fn an_acceptance_with_a_body_is_a_failure() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        assert_eq!(read(text), Err(HandshakeError::Body), "{text}");
    }
}

// spec: EV-6
#[test]
fn a_refusal_says_why_and_for_how_long() {
    let envoy = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n\
        11\r\nvalidation_failed\r\n0\r\n\r\n";
    let plain = Refused { status: 403, reason: "validation_failed".to_owned(), retry_after: None };
    assert_eq!(refused(envoy), plain);
    assert_eq!(refused("HTTP/1.1 403 No\r\ncontent-length: 17\r\n\r\nvalidation_failedRPING"), plain);
    assert_eq!(refused("HTTP/1.1 403 No\r\n\r\nvalidation_failed"), plain);
    // Cut off: what there is will do.
    assert_eq!(refused(&envoy[..envoy.len() - 7]), plain);
    assert_eq!(
        refused("HTTP/1.1 429 Slow\r\nretry-after: 5\r\n\r\nrejected").retry_after,
        Some(Duration::from_secs(5))
    );
    for (text, seconds) in
        [("Wed, 21 Oct 2015 07:28:00 GMT", None), ("-1", None), ("99999999999999999999", Some(86_400))]
    {
        let refused = refused(&format!("HTTP/1.1 503 Later\r\nretry-after: {text}\r\ncontent-length: 0\r\n\r\n"));
        assert_eq!(refused.retry_after, seconds.map(Duration::from_secs), "{text}");
    }
}

// spec: EV-6
#[test]
fn a_reason_is_bounded_and_printable() {
    let body = format!("a\u{1b}[31m\r\n{}", "ü".repeat(1000));
    let said = refused(&format!("HTTP/1.1 403 No\r\ncontent-length: {}\r\n\r\n{body}", body.len())).reason;
    assert!(said.starts_with("a [31m  ü") && said.len() <= MAX_REASON_BYTES, "{said}");
    let field = refused("HTTP/1.1 403 No\r\nx-adit-reason: for once\r\ncontent-length: 5\r\n\r\nother").reason;
    assert_eq!(field, "for once");
}

// spec: EV-6, EV-14, EV-17
#[test]
fn our_rejections_arrive_as_they_were_meant() {
    for code in RefusalCode::ALL {
        let refusal = Refusal { code, reason: "why not".to_owned(), retry_after: Some(Duration::from_millis(1500)) };
        let rejection = Rejection::from(refusal);
        let error = read_as(false, &rejection.encode()).unwrap_err();
        assert_eq!(error.refusal(), Some(code));
        let waits = matches!(code, RefusalCode::Quota | RefusalCode::Unavailable);
        assert_eq!(error.retry_after(), waits.then_some(Duration::from_secs(2)));
        assert_eq!(error.to_string(), format!("the responder answers {}: why not", code.number()));
    }
    let refusal = |rejection: Rejection| read_as(false, &rejection.encode()).unwrap_err().refusal();
    assert_eq!(refusal(Rejection::OldVersion), Some(RefusalCode::Unsupported));
    assert_eq!(refusal(Rejection::TooLarge), Some(RefusalCode::Malformed));
    assert_eq!(read("HTTP/1.1 500 Oops\r\n\r\n").unwrap_err().refusal(), None);
}

// spec: EV-7
#[test]
fn an_end_says_what_was_missing() {
    assert_eq!(read(""), Err(HandshakeError::ClosedEarly));
    assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"), Err(HandshakeError::ClosedEarly));
    let mut reader = ResponseReader::new(false);
    assert!(reader.push(HandshakeRules::default().accept_bytes()).unwrap().is_some());
    assert_eq!(reader.closed(), HandshakeError::ClosedAfterAccept);
    assert!(reader.closed().to_string().contains("node or cluster id"));
}

// spec: EV-4, EV-10
#[test]
fn what_is_not_an_answer_is_told_apart() {
    for bytes in
        [&b"\x15\x03\x03\x00\x02\x02\x46"[..], b"HTTP/2 200\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"]
    {
        assert_eq!(read_as(false, bytes), Err(HandshakeError::NotHttp), "{bytes:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(MAX_HEAD_BYTES));
    assert_eq!(read(&long), Err(HandshakeError::TooLarge));
}

proptest! {
    // spec: EV-4
    #[test]
    fn no_split_changes_the_answer(
        valid in "(HTTP/1.1 100 C\r\n\r\n)?HTTP/1.[01] (200|101|403|429) O\r\n(content-length: [0-3]\r\n|transfer-encoding: chunked\r\n|x-adit-reason: a\r\n)?(retry-after: [0-9]\r\n)?\r\n(0\r\n\r\n|RPING|2\r\nno\r\n0\r\n\r\n)?",
        at in any::<prop::sample::Index>(),
        byte: Option<u8>,
        step in 1usize..40,
        upgrade: bool,
    ) {
        let mut bytes = valid.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte.unwrap_or(bytes[at]);
        prop_assert_eq!(read_in_steps(upgrade, &bytes, step), read_in_steps(upgrade, &bytes, bytes.len()));
    }
}
