//! What a responder makes of a request, row by row, in every split.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::protocol::code::RefusalCode;
use crate::protocol::envoy::{Counter, MAX_HEAD_BYTES};
use crate::protocol::handshake::Refusal;

const PATH: &str = "/reverse_connections/request";

/// A request with these fields instead of, or beside, the usual ones; an empty value leaves a field out.
fn request_with(changed: &[(&str, &str)]) -> String {
    let usual = [(names::NODE, "node-1"), (names::CLUSTER, "cluster-a"), (names::TENANT, "tenant-x")];
    let kept = usual.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    let fields = kept.chain(changed.iter().filter(|(_, value)| *value != "-"));
    let lines: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {PATH} HTTP/1.1\r\n{lines}\r\n")
}

fn read_in_steps(rules: &HandshakeRules, bytes: &[u8], step: usize) -> Result<Option<Request>, Rejection> {
    let mut reader = RequestReader::new(rules.clone());
    let mut pieces = bytes.chunks(step.max(1));
    while let Some(piece) = pieces.next() {
        if let Some(mut request) = reader.push(piece)? {
            request.leftover = [&request.leftover[..], &pieces.flatten().copied().collect::<Vec<_>>()].concat().into();
            return Ok(Some(request));
        }
    }
    Ok(None)
}

fn read_with(rules: &HandshakeRules, bytes: &[u8]) -> Result<Option<Request>, Rejection> {
    let whole = read_in_steps(rules, bytes, bytes.len());
    for step in [1, 2, 3, 17] {
        assert_eq!(read_in_steps(rules, bytes, step), whole, "the split changes the answer");
    }
    whole
}

fn read(bytes: &[u8]) -> Result<Option<Request>, Rejection> {
    read_with(&HandshakeRules::default(), bytes)
}

fn accepted(bytes: &[u8]) -> Request {
    read(bytes).unwrap().unwrap()
}

fn rejected(bytes: &[u8]) -> Rejection {
    read(bytes).unwrap_err()
}

// spec: EV-1, EV-10
#[test]
fn the_smallest_request_is_a_claim() {
    let request = accepted(request_with(&[]).as_bytes());
    assert_eq!(request.claim.to_string(), "node-1:cluster-a:tenant-x");
    assert_eq!((request.token, request.upstream_cluster, request.worker, request.connection), (None, None, None, None));
    assert_eq!((request.initiated_at_ms, request.leftover), (None, Bytes::new()));
}

// spec: EV-10
#[test]
fn case_order_and_framing_of_the_fields_do_not_matter() {
    let odd = format!(
        "GET {PATH} HTTP/1.1\r\nContent-Length: 0\r\nX-Envoy-Reverse-Tunnel-Tenant-ID:t\r\n\
         X-ENVOY-REVERSE-TUNNEL-CLUSTER-ID:  c \r\nx-envoy-reverse-tunnel-node-id: n\r\nHost: here\r\n\r\n"
    );
    assert_eq!(accepted(odd.as_bytes()).claim.to_string(), "n:c:t");
    let chunked = request_with(&[("transfer-encoding", "chunked")]);
    assert_eq!(read(chunked.as_bytes()), Ok(None), "an announced body has not arrived yet");
    let request = accepted(format!("{chunked}0\r\n\r\nRPING").as_bytes());
    assert_eq!(request.leftover, "RPING");
}

// spec: EV-10
#[test]
fn fields_for_logs_are_bounded_and_an_unreadable_time_is_none() {
    let long = format!("w\u{7}{}", "o".repeat(200)).replace('\u{7}', "\t");
    let request = accepted(
        request_with(&[
            (names::WORKER, &long),
            (names::CONNECTION, "7"),
            (names::INITIATION_TIME, "1795205571796"),
            (names::UPSTREAM_CLUSTER, "responder"),
        ])
        .as_bytes(),
    );
    assert_eq!(request.worker, Some(format!("w {}", "o".repeat(62))));
    assert_eq!(request.connection.as_deref(), Some("7"));
    assert_eq!(request.upstream_cluster.as_deref(), Some("responder"));
    assert_eq!(request.initiated_at_ms, Some(1_795_205_571_796));
    let request = accepted(request_with(&[(names::INITIATION_TIME, "yesterday")]).as_bytes());
    assert_eq!(request.initiated_at_ms, None);
}

// spec: EV-11
#[test]
fn every_row_has_envoys_status_words_and_counter() {
    let upgrade = HandshakeRules { upgrade: true, ..HandshakeRules::default() };
    let required = HandshakeRules { required_cluster: Some("r".to_owned()), ..HandshakeRules::default() };
    let plain = HandshakeRules::default();
    let other = |line: &str| request_with(&[]).replacen(&format!("GET {PATH} HTTP/1.1"), line, 1);
    let missing = "Missing required reverse tunnel headers";
    let body = "Reverse tunnel handshake must not carry a body";
    let colon = "Reverse tunnel identifiers must not contain ':' when tenant isolation is enabled";
    let cases = [
        (&plain, request_with(&[("content-length", "1")]), 400, body, Some(Counter::BodyRejected)),
        (&plain, other(&format!("POST {PATH} HTTP/1.1")), 404, "Not a reverse tunnel request", None),
        (&plain, other(&format!("GET {PATH}?a HTTP/1.1")), 404, "Not a reverse tunnel request", None),
        (&upgrade, request_with(&[]), 426, "Upgrade: reverse-tunnel required", Some(Counter::ParseError)),
        (
            &upgrade,
            request_with(&[("upgrade", "h2c")]),
            426,
            "Upgrade: reverse-tunnel required",
            Some(Counter::ParseError),
        ),
        (&plain, request_with(&[(names::NODE, "-")]), 400, missing, Some(Counter::ParseError)),
        (&plain, request_with(&[(names::CLUSTER, "-")]), 400, missing, Some(Counter::ParseError)),
        (&plain, request_with(&[(names::TENANT, "-")]), 400, missing, Some(Counter::ParseError)),
        (&plain, request_with(&[(names::TENANT, "")]), 400, "Empty tenant-id header value", Some(Counter::ParseError)),
        (&plain, request_with(&[(names::CLUSTER, "a:b")]), 400, colon, Some(Counter::ParseError)),
        (&required, request_with(&[]), 400, "Missing upstream cluster name header", Some(Counter::ParseError)),
        (
            &required,
            request_with(&[(names::UPSTREAM_CLUSTER, "R")]),
            400,
            "Cluster name mismatch",
            Some(Counter::ValidationFailed),
        ),
        (&plain, other(&format!("GET {PATH} HTTP/1.0")), 426, "Upgrade Required", None),
        (&plain, other("PRI * HTTP/2.0"), 400, "Bad Request", None),
        (&plain, "\u{16}\u{3}\u{1}".to_owned(), 400, "Bad Request", None),
    ];
    for (rules, bytes, status, reason, counter) in cases {
        let rejection = read_with(rules, bytes.as_bytes()).unwrap_err();
        assert_eq!((rejection.status(), rejection.to_string().as_str()), (status, reason), "{bytes}");
        assert_eq!(rejection.counter(), counter, "{bytes}");
    }
    let agreed = request_with(&[("upgrade", "Reverse-Tunnel")]);
    assert!(read_with(&upgrade, agreed.as_bytes()).unwrap().is_some());
    let named = request_with(&[(names::UPSTREAM_CLUSTER, "r")]);
    assert!(read_with(&required, named.as_bytes()).unwrap().is_some());
}

// spec: EV-11
#[test]
fn an_earlier_row_wins_over_a_later_one() {
    let rules = HandshakeRules { upgrade: true, required_cluster: Some("r".to_owned()), ..HandshakeRules::default() };
    let mut fields = vec![("content-length", "1"), (names::NODE, "-"), (names::TENANT, ""), (names::CLUSTER, "a:b")];
    let path = PATH;
    let judge = |fields: &[(&str, &str)], path: &str| {
        let text = request_with(fields).replacen(PATH, path, 1);
        read_with(&rules, text.as_bytes()).unwrap_err()
    };
    assert_eq!(judge(&fields, "/other"), Rejection::Body);
    fields.remove(0);
    assert_eq!(judge(&fields, "/other"), Rejection::NotFound);
    assert_eq!(judge(&fields, path), Rejection::UpgradeRequired);
    fields.push(("upgrade", "reverse-tunnel"));
    assert_eq!(judge(&fields, path), Rejection::MissingIds);
    fields.remove(0);
    assert_eq!(judge(&fields, path), Rejection::EmptyTenant);
    fields.remove(0);
    assert_eq!(judge(&fields, path), Rejection::Colon);
    fields.remove(0);
    fields.push((names::NODE, "a/b"));
    assert_eq!(judge(&fields, path), Rejection::MissingUpstreamCluster);
    fields.push((names::UPSTREAM_CLUSTER, "x"));
    assert_eq!(judge(&fields, path), Rejection::UpstreamClusterMismatch);
    fields.pop();
    fields.push((names::UPSTREAM_CLUSTER, "r"));
    assert!(matches!(judge(&fields, path), Rejection::Identifier { what: "node", .. }));
}

// spec: EV-11
#[test]
fn a_body_wins_over_what_the_head_says_in_chunks_too() {
    let text = request_with(&[("transfer-encoding", "chunked")]).replacen(PATH, "/other", 1);
    assert_eq!(rejected(format!("{text}1\r\nx\r\n0\r\n\r\n").as_bytes()), Rejection::Body);
    assert_eq!(rejected(format!("{text}0\r\n\r\n").as_bytes()), Rejection::NotFound);
    assert_eq!(rejected(format!("{text}zero\r\n").as_bytes()), Rejection::NotHttp);
}

// spec: EV-10
#[test]
fn what_two_readers_could_read_differently_is_no_request() {
    for doubtful in [
        request_with(&[("content-length", "0"), ("transfer-encoding", "chunked")]),
        request_with(&[("content-length", "0"), ("content-length", "0")]),
        request_with(&[("content-length", "none")]),
        request_with(&[]).replace(": node-1", " : node-1"),
        request_with(&[]).replace(": node-1", ":\r\n node-1"),
        request_with(&[]).replace("\r\n", "\n"),
        format!("\r\n{}", request_with(&[])),
    ] {
        assert_eq!(rejected(doubtful.as_bytes()), Rejection::NotHttp, "{doubtful}");
    }
}

// spec: EV-10
#[test]
fn a_head_beyond_the_limits_is_431_before_it_is_kept() {
    let long = request_with(&[("x-long", &"x".repeat(MAX_HEAD_BYTES))]);
    assert_eq!(read(long.as_bytes()), Err(Rejection::TooLarge));
    let many = request_with(&[("x-many", "")]).replace("x-many: \r\n", &"x-many: 1\r\n".repeat(98));
    assert_eq!(read(many.as_bytes()), Err(Rejection::TooLarge));
    let full = request_with(&[("x-many", "")]).replace("x-many: \r\n", &"x-many: 1\r\n".repeat(97));
    assert!(read(full.as_bytes()).unwrap().is_some());
    assert_eq!((Rejection::TooLarge.status(), Rejection::TooLarge.refusal()), (431, RefusalCode::Malformed));
}

// spec: EV-12
#[test]
fn an_id_that_cannot_be_registered_is_400_and_never_accepted_and_dropped() {
    for (name, value, says) in [
        (names::NODE, "", "The node id is empty; expected 1 to 128 bytes"),
        (names::CLUSTER, "", "The cluster id is empty; expected 1 to 128 bytes"),
        (names::NODE, "a/b", "The node id has the byte 0x2f at position 1"),
        (names::TENANT, "a@b", "The tenant id has the byte 0x40 at position 1"),
        (names::CLUSTER, &"c".repeat(129), "The cluster id has 129 bytes; expected 1 to 128"),
        (names::NODE, "nö", "The node id has the byte 0xc3 at position 1"),
    ] {
        let rejection = rejected(request_with(&[(name, value)]).as_bytes());
        assert_eq!((rejection.status(), rejection.counter()), (400, Some(Counter::ParseError)));
        assert!(rejection.to_string().starts_with(says), "{rejection}");
    }
    let binary = request_with(&[]).replace("node-1", "\u{1}").into_bytes();
    let binary: Vec<u8> = binary.into_iter().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    assert_eq!(rejected(&binary).to_string(), "The node id is not UTF-8");
}

// spec: EV-13
#[test]
fn decisive_fields_may_repeat_but_not_contradict() {
    for name in [names::NODE, names::CLUSTER, names::TENANT, names::UPSTREAM_CLUSTER, "authorization"] {
        let same = request_with(&[(name, "Bearer-1"), (name, "Bearer-1")]);
        assert!(read(same.as_bytes()).unwrap().is_some(), "{name}");
        let other = request_with(&[(name, "Bearer-1"), (name, "Bearer-2")]);
        assert_eq!(rejected(other.as_bytes()), Rejection::Contradiction(name));
    }
    assert_eq!(Rejection::Contradiction(names::NODE).status(), 400);
}

// spec: EV-19
#[test]
fn a_bearer_token_is_taken_and_never_shown() {
    for (value, token) in
        [("Bearer s3cret", Some("s3cret")), ("bearer  s3cret", Some("s3cret")), ("Basic abc", None), ("Bearer", None)]
    {
        let request = accepted(request_with(&[("authorization", value)]).as_bytes());
        assert_eq!(request.token.as_deref(), token.map(str::as_bytes), "{value}");
        assert!(!format!("{request:?}").contains("s3cret"));
    }
}

// spec: EV-15
#[test]
fn the_acceptance_has_envoys_bytes() {
    let mut rules = HandshakeRules::default();
    assert_eq!(rules.accept_bytes(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(rules.accept_bytes().len(), 38);
    rules.upgrade = true;
    assert_eq!(
        rules.accept_bytes(),
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: reverse-tunnel\r\n\r\n"
    );
}

fn refused(code: RefusalCode, reason: &str, retry_after: Option<Duration>) -> Rejection {
    Refusal { code, reason: reason.to_owned(), retry_after }.into()
}

// spec: EV-14
#[test]
fn a_rejection_has_no_body_and_its_reason_in_one_line() {
    assert_eq!(
        Rejection::NotFound.encode(),
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\
         x-adit-reason: Not a reverse tunnel request\r\n\r\n"
    );
    let wait = Some(Duration::from_millis(1001));
    assert_eq!(
        refused(RefusalCode::Quota, "too many\r\ntunnels für x", wait).encode(),
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\
         x-adit-reason: too many  tunnels f?r x\r\nretry-after: 2\r\n\r\n"
    );
    assert_eq!(
        Rejection::UpgradeRequired.encode(),
        "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close, upgrade\r\n\
         x-adit-reason: Upgrade: reverse-tunnel required\r\nupgrade: reverse-tunnel\r\n\r\n"
    );
}

// spec: EV-17, EV-18
#[test]
fn a_refusal_keeps_its_number_and_raises_envoys_counter() {
    let wait = Some(Duration::from_secs(3));
    for (code, counter, waits) in [
        (RefusalCode::Malformed, Counter::ParseError, false),
        (RefusalCode::Unauthenticated, Counter::JwtDenied, false),
        (RefusalCode::Forbidden, Counter::ValidationFailed, false),
        (RefusalCode::Unsupported, Counter::ParseError, false),
        (RefusalCode::Conflict, Counter::ValidationFailed, false),
        (RefusalCode::Quota, Counter::Rejected, true),
        (RefusalCode::Unavailable, Counter::RegistrationFailed, true),
    ] {
        let rejection = refused(code, "why", wait);
        assert_eq!((rejection.status(), rejection.refusal()), (code.number(), code));
        assert_eq!(rejection.counter(), Some(counter));
        assert_eq!(rejection.retry_after().is_some(), waits);
        assert_eq!(rejection.to_string(), "why");
    }
}

proptest! {
    // spec: EV-10
    #[test]
    fn no_split_changes_the_answer(
        valid in "GET /reverse_connections/request HTTP/1.1\r\n(x-envoy-reverse-tunnel-(node|cluster|tenant)-id: [a-c:]{0,2}\r\n){0,5}(content-length: [0-2]\r\n|transfer-encoding: chunked\r\n)?\r\n(0\r\n\r\n|RPING|1\r\nx)?",
        at in any::<prop::sample::Index>(),
        byte: Option<u8>,
        step in 1usize..40,
    ) {
        let mut bytes = valid.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte.unwrap_or(bytes[at]);
        let rules = HandshakeRules::default();
        prop_assert_eq!(read_in_steps(&rules, &bytes, step), read_in_steps(&rules, &bytes, bytes.len()));
    }
}
