//! Shapes that two HTTP parsers read differently. Each is sent on a real connection with a second request hidden behind
//! it; each must be rejected, close the connection, and never let the hidden request reach the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};

use crate::egress::RequestBody;
use crate::egress::testing::{full, serve};

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// Name, bytes before the hidden request, status.
const SHAPES: &[(&str, &str, u16)] = &[
    (
        "length and coding",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "coding and length",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 35\r\n\r\n", 400),
    ("two equal lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ("length list", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n", 400),
    ("signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n", 400),
    ("negative length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    ("hexadecimal length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x0\r\n\r\n", 400),
    ("length with a space inside", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0 0\r\n\r\n", 400),
    ("empty length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", 400),
    ("overflowing length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("space before the colon of a length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 0\r\n\r\n", 400),
    (
        "space before the colon of a coding",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("tab before the colon", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    ("obs-fold in a coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("obs-fold in any field", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("space before the first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    ("coding with vertical tab", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (
        "two codings",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("coding list", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("identity", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("quoted coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
    ("coding with parameter", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 400),
    ("empty coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", 400),
    ("coding on HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("bare LF after the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: h\nX: a\r\n\r\n", 400),
    ("bare LF as last line", "GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    ("bare CR in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 9\r\n\r\n", 400),
    ("CR CR LF", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\n", 400),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: h\r\nX\0: a\r\n\r\n", 400),
    ("field without a colon", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length\r\n\r\n", 400),
    ("empty field name", "GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
    ("Host list", "GET / HTTP/1.1\r\nHost: h, i\r\n\r\n", 400),
    ("Host with path", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", 400),
    ("Host with user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
    ("Host against the target", "GET http://i/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("user in the target", "GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("other scheme", "GET file://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("fragment", "GET /#x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("target without slash", "GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("asterisk for GET", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("tab between", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 505),
    ("space after the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    ("lower-case version", "GET / http/1.1\r\nHost: h\r\n\r\n", 505),
    ("HTTP/0.9", "GET /\r\n\r\n", 400),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
    ("HTTP/2 in a request line", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    ("method that is no token", "G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("TLS on a plaintext port", "\x16\x03\x01\x02\x00", 400),
    ("CONNECT", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", 501),
    ("chunk size with sign", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n", 400),
    ("chunk size with space", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0 \r\n\r\n", 400),
    ("chunk size with bare LF", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n", 400),
    ("extension with bare CR", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0;\rx\r\n\r\n", 400),
    (
        "overflowing chunk size",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        400,
    ),
    (
        "chunk longer than its size",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        400,
    ),
    (
        "framing in trailers",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
        400,
    ),
    (
        "obs-fold in trailers",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n",
        400,
    ),
];

#[tokio::test]
async fn no_smuggling_shape_passes() {
    for (name, shape, status) in SHAPES {
        let hidden = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&hidden);
        let service = move |request: Request<RequestBody>| {
            seen.fetch_add(usize::from(request.uri().path() == "/hidden"), Ordering::Relaxed);
            // Reads the body to its end, as a service that forwards it would, before it answers.
            async move {
                let whole = http_body_util::BodyExt::collect(request.into_body()).await;
                Response::new(full(if whole.is_ok() { "whole" } else { "broken" }))
            }
        };
        let mut wire = serve(service).await.connect().await;
        wire.send(format!("{shape}{HIDDEN}")).await;
        let (head, _) = wire.response().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
        assert!(head.contains("\r\nconnection: close\r\n"), "{name}: {head}");
        assert!(head.contains("\r\nproxy-status: adit; error=http_request_error; "), "{name}: {head}");
        let (rest, end) = wire.rest().await;
        assert!(rest.is_empty() && end.is_ok(), "{name}: {rest:?} {end:?}");
        assert_eq!(hidden.load(Ordering::Relaxed), 0, "{name}: the hidden request came through");
    }
}

#[tokio::test]
async fn oversized_heads_are_answered_with_the_status_that_names_the_limit() {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(17 * 1024));
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(65 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(100));
    let long_method = format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(33));
    let server = serve(async |_: Request<RequestBody>| Response::new(full(""))).await;
    for (request, status) in [(long_target, 414), (large, 431), (many, 431), (long_method, 501)] {
        let mut wire = server.connect().await;
        wire.send(&request).await;
        let (head, _) = wire.response().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    let mut wire = server.connect().await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(99))).await;
    assert!(wire.response().await.0.starts_with("HTTP/1.1 200 "), "100 fields are allowed");
}

#[tokio::test]
async fn a_flood_of_chunk_extensions_is_cut_off() {
    let server = serve(crate::egress::testing::describe).await;
    let mut wire = server.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    wire.send(format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(30)).await;
    let (head, body) = wire.response().await;
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("extensions"), "{head}{body}");
}
