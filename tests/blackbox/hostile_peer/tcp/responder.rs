//! A hostile responder towards our initiator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit::protocol::budgets::STREAM_WINDOW;
use adit::protocol::code::CloseCode;
use adit::protocol::control::{Close, Frame};
use adit::protocol::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::peer::{
    CONTROL, DATA, END_STREAM, GOAWAY, HEADERS, Http2, Listener, PING, PREFACE, Peer, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, beginning, control, data, get, headers, http2, post_control,
};
use crate::hostile_peer::raw::{encoded, welcome_bytes};
use crate::support::eventually::{PATIENCE, eventually, standstill};
use crate::support::site::{Edge, Folder, Running, Transport};
use crate::support::targets::Target;

/// What a process may grow by, whatever its responder does.
const MOST_GROWTH: u64 = 48 << 20;
/// Streams that a tunnel may have.
const MOST_STREAMS: u32 = 4096;
/// What it may grow by for the heads of their requests.
const MOST_FOR_HEADS: u64 = 32 << 20;
/// Whatever takes longer than this is held back.
const STALLED: Duration = Duration::from_millis(500);
/// A status of HPACK's static table, which is how the initiator writes it.
const OK: u8 = 0x88;

/// Our initiator, which dials a responder that the test speaks for.
struct Victim {
    initiator: Running,
    target: Target,
    listener: Listener,
    memory: u64,
    _folder: Folder,
}

impl Victim {
    async fn start() -> Self {
        Self::with(Edge::new(Transport::Tcp)).await
    }

    async fn with(edge: Edge) -> Self {
        let (folder, target) = (Folder::new(), Target::http1().await);
        let listener = Listener::bind(&folder).await;
        let edge = edge.target(&format!("http://{}", target.address()));
        let initiator = edge.start(&folder, listener.address()).await;
        let memory = initiator.memory();
        Self { initiator, target, listener, memory, _folder: folder }
    }

    /// One with a tunnel that is open.
    async fn open() -> (Self, Requester) {
        Self::start().await.opened().await
    }

    async fn opened(self) -> (Self, Requester) {
        let victim = self;
        let peer = victim.listener.open().await;
        victim.initiator.line_with("tunnel up").await;
        (victim, Requester { peer, next: 3 })
    }

    fn bounded(&self) {
        self.bounded_by(MOST_GROWTH);
    }

    fn bounded_by(&self, most: u64) {
        let growth = self.initiator.memory().saturating_sub(self.memory);
        assert!(growth < most, "the initiator grew by {} MiB", growth >> 20);
    }

    /// It is dialled again, and that tunnel works.
    async fn recovers(&self) {
        let mut again = Requester { peer: self.listener.open().await, next: 3 };
        assert_eq!(again.ask(&get("/", &[])).await, Outcome::Status(OK));
        eventually("the tunnel is up again", async || {
            let tunnels = self.initiator.tunnels().await.dialled;
            matches!(tunnels[0].state.as_str(), "recovered" | "connected").then_some(())
        })
        .await;
        self.bounded();
    }

    /// What the initiator logs about the tunnel that it could not open.
    async fn cannot_open(&self) -> String {
        let line = self.initiator.line_with("cannot open a tunnel").await;
        line["error"].as_str().unwrap().to_owned()
    }

    /// What it logs about the end of one that it had.
    async fn lost(&self) -> String {
        let line = self.initiator.line_with("tunnel lost").await;
        line["reason"].as_str().unwrap().to_owned()
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The first byte of the response's HPACK block, which is its status.
    Status(u8),
    /// The code of HTTP/2 that it was reset with.
    Reset(u32),
}

const PROTOCOL_ERROR: Outcome = Outcome::Reset(1);

struct Requester {
    peer: Peer,
    next: u32,
}

impl Requester {
    /// Opens a stream with these fields.
    async fn begin(&mut self, end: bool, fields: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.peer.send(&headers(stream, end, fields)).await.unwrap();
        stream
    }

    async fn ask(&mut self, fields: &[(&str, &str)]) -> Outcome {
        let stream = self.begin(true, fields).await;
        self.outcome(stream).await
    }

    async fn outcome(&mut self, of: u32) -> Outcome {
        loop {
            let Http2 { kind, stream, payload, .. } = self.peer.frame().await.expect("not the end");
            match kind {
                HEADERS if stream == of => return Outcome::Status(status_byte(&payload)),
                RST_STREAM if stream == of => {
                    return Outcome::Reset(u32::from_be_bytes(payload[..].try_into().unwrap()));
                }
                _ => {}
            }
        }
    }

    /// A whole exchange through the same tunnel.
    async fn works(&mut self) {
        assert_eq!(self.ask(&get("/", &[])).await, Outcome::Status(OK));
    }
}

/// Passes over changes of the table's size, which come first.
fn status_byte(block: &[u8]) -> u8 {
    *block.iter().find(|byte| **byte & 0xe0 != 0x20).unwrap()
}

// spec: TB-4
#[tokio::test]
async fn welcome_and_http2_may_come_in_one_record_or_byte_by_byte() {
    let victim = Victim::start().await;
    let whole =
        [&welcome_bytes()[..], &beginning(&[post_control(), headers(3, true, &get("/", &[]))].concat())].concat();
    for size in [whole.len(), 1] {
        let mut peer = victim.listener.accept().await;
        for piece in whole.chunks(size) {
            peer.send(piece).await.unwrap();
        }
        let mut requester = Requester { peer, next: 5 };
        assert_eq!(requester.outcome(3).await, Outcome::Status(OK));
        requester.works().await;
        let close = Frame::Close(Close { code: CloseCode::Done.number().into(), reason: String::new() });
        requester.peer.offend(&data(CONTROL, true, &encoded(&close))).await;
    }
}

// spec: TB-5
#[tokio::test]
async fn the_first_request_is_the_control_stream_whatever_it_looks_like() {
    let victim = Victim::start().await;
    let mut peer = victim.listener.accept().await;
    let first = headers(CONTROL, false, &get("/anything", &[("x", "y"), ("host", "z")]));
    peer.send(&[&welcome_bytes()[..], &beginning(&first)].concat()).await.unwrap();
    peer.frame_of(HEADERS, CONTROL).await;
    peer.send(&control(&Frame::Ping([7; 8]))).await.unwrap();
    assert_eq!(peer.control_frame().await, Some(Frame::Pong([7; 8])));
    Requester { peer, next: 3 }.works().await;
    assert_eq!(victim.target.requests(), ["GET /"]);
}

// spec: TB-5
#[tokio::test]
async fn a_first_request_without_a_body_is_a_control_stream_that_ended() {
    let victim = Victim::start().await;
    let mut peer = victim.listener.accept().await;
    let first = headers(CONTROL, true, &get("/", &[]));
    peer.send(&[&welcome_bytes()[..], &beginning(&first)].concat()).await.unwrap();
    assert_eq!(peer.closed().await.code, u64::from(CloseCode::Protocol.number()));
    peer.gone().await;
    assert!(victim.lost().await.contains("the control stream ended"));
    assert_eq!(victim.target.requests().len(), 0);
    victim.recovers().await;
}

// spec: TB-5
#[tokio::test]
async fn without_a_control_stream_there_is_no_tunnel_for_longer_than_the_handshake_timeout() {
    let victim = Victim::start().await;
    let mut peer = victim.listener.accept().await;
    peer.offend(&[&welcome_bytes()[..], &beginning(&[])].concat()).await;
    assert!(victim.lost().await.contains("no control stream within the handshake timeout"));
    victim.recovers().await;
}

// spec: TB-6, TB-7
#[tokio::test]
async fn requests_that_break_the_protocol_are_reset_and_reach_no_target() {
    let (victim, mut requester) = Victim::open().await;
    let long_name = "x".repeat(65);
    let many: Vec<_> = (0..=Limits::OURS.head_fields).map(|_| ("x", "y")).collect();
    let long = "x".repeat(65_000);
    let malformed: &[&[(&str, &str)]] = &[
        &[("host", "other.example")],
        &[("connection", "close")],
        &[("connection", "x-forwarded-for"), ("x-forwarded-for", "::1")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("x", " y")],
        &[("x", "y\t")],
        &[("content-length", "5"), ("content-length", "5")],
        &[("content-length", "+5")],
        &[("content-length", "5")],
        &[("adit-service", "no name")],
        &[("adit-service", "a:b")],
        &[("adit-service", "")],
        &[("adit-service", &long_name)],
        &[("adit-service", "web"), ("adit-service", "web")],
    ];
    for fields in malformed {
        assert_eq!(requester.ask(&get("/", fields)).await, PROTOCOL_ERROR, "{fields:?}");
    }
    let line = victim.initiator.line_with("the head of the request broke the protocol").await;
    assert_eq!((&line["outcome"], &line["cause"]), (&"refused".into(), &"bad_request".into()), "{line}");
    for [scheme, authority, path] in [
        ["http", "user@shop.example", "/"],
        ["http", "shop%2eexample", "/"],
        ["http", "shop.example:65536", "/"],
        ["http", "shop.example", "/a b"],
        ["http", "shop.example", "/<script>"],
        ["http", "shop.example", "*"],
        ["ftp", "shop.example", "/"],
    ] {
        let head = [(":method", "GET"), (":scheme", scheme), (":authority", authority), (":path", path)];
        assert_eq!(requester.ask(&head).await, PROTOCOL_ERROR, "{head:?}");
    }
    for fields in [&many[..], &[("x", &long), ("y", &long[..3_000])]] {
        assert_eq!(requester.ask(&get("/", fields)).await, Outcome::Reset(11), "ENHANCE_YOUR_CALM");
    }
    // Also what HTTP/2 itself has reset, such as a field of the connection. spec: SE-44
    let failed = |cause: &str| format!("adit_exchanges_failed_total{{side=\"target\",cause=\"{cause}\"}}");
    let counted = [
        victim.initiator.metric(&failed("bad_request")).await,
        victim.initiator.metric(&failed("head_too_large")).await,
    ];
    assert_eq!(counted, [malformed.len() as u64 + 7, 2]);
    victim.initiator.line_with("its stream was reset with PROTOCOL_ERROR").await;
    assert_eq!(victim.target.requests().len(), 0);
    requester.works().await;
    victim.bounded();
}

// spec: TB-6
#[tokio::test]
async fn a_service_that_is_not_exported_is_404_and_one_that_is_does_not_see_the_field() {
    let (victim, mut requester) = Victim::open().await;
    assert_ne!(requester.ask(&get("/", &[("adit-service", "other")])).await, Outcome::Status(OK));
    assert_eq!(victim.target.requests().len(), 0);
    let stream = requester.begin(true, &get("/request", &[("adit-service", "web")])).await;
    let body = requester.peer.frame_of(DATA, stream).await.payload;
    let seen = String::from_utf8(body.to_vec()).unwrap();
    assert!(seen.contains("/request") && !seen.contains("adit-service"), "{seen}");
}

// spec: ST-25, TB-7
#[tokio::test]
async fn connect_is_501_and_reaches_no_target() {
    let mut extended = get("/", &[]);
    extended[0] = (":method", "CONNECT");
    extended.push((":protocol", "adit-other"));
    let plain = vec![(":method", "CONNECT"), (":authority", "10.0.0.1:22")];
    let mut blocks = Vec::new();
    for request in [plain, extended] {
        // A connection each: the second answer on one would only refer to the first.
        let (victim, mut requester) = Victim::open().await;
        let stream = requester.begin(false, &request).await;
        blocks.push(requester.peer.frame_of(HEADERS, stream).await.payload);
        let line = victim.initiator.line_with("\"outcome\":\"refused\"").await;
        assert_eq!(
            (&line["status"], &line["cause"], &line["side"]),
            (&501.into(), &"bad_request".into(), &"target".into())
        );
        assert_eq!(line["transport"], "tcp", "{line}");
        assert_eq!(victim.target.requests().len(), 0);
        requester.works().await;
    }
    assert!(blocks[0].windows(3).any(|bytes| bytes == b"501") || blocks[0].len() > 1, "{:?}", blocks[0]);
    assert_eq!(blocks[0], blocks[1], "a protocol of our own that there is not is answered as a plain CONNECT is");
}

// spec: ST-24, TB-7
#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_reset() {
    let (_victim, mut requester) = Victim::open().await;
    for (length, body) in [("5", &b"1234"[..]), ("5", b"123456"), ("0", b"1")] {
        let stream = requester.begin(false, &get("/sink", &[("content-length", length)])).await;
        requester.peer.send(&data(stream, true, body)).await.unwrap();
        assert_eq!(requester.outcome(stream).await, PROTOCOL_ERROR, "{length} {body:?}");
    }
    requester.works().await;
}

#[tokio::test]
async fn a_head_of_a_mebibyte_ends_at_most_its_tunnel() {
    let (victim, mut requester) = Victim::open().await;
    let huge = "x".repeat(1 << 20);
    let _ = requester.peer.send(&headers(3, true, &get("/", &[("x", &huge)]))).await;
    requester.peer.gone().await;
    let reason = victim.lost().await;
    assert!(!reason.is_empty());
    assert_eq!(victim.target.requests().len(), 0);
    victim.recovers().await;
}

#[tokio::test]
async fn ten_thousand_streams_at_once_are_bounded() {
    let (victim, mut requester) = Victim::open().await;
    let hanging = get("/hang", &[]);
    let many: Vec<u8> = (0..10_000).flat_map(|number| headers(3 + 2 * number, true, &hanging)).collect();
    let _ = timeout(STALLED, requester.peer.send(&many)).await;
    eventually("some are at the target", async || (victim.target.requests().len() > 100).then_some(())).await;
    // Each that is served has a connection to the target of its own.
    let growth = victim.initiator.memory().saturating_sub(victim.memory);
    assert!(growth < 4096 * (64 << 10), "{} MiB", growth >> 20);
    assert!(victim.target.requests().len() <= 4096, "{}", victim.target.requests().len());
    drop(requester);
    let mut again = Requester { peer: victim.listener.open().await, next: 3 };
    again.works().await;
    eventually("all are cancelled", async || {
        (victim.target.cancelled() + 1 == victim.target.requests().len()).then_some(())
    })
    .await;
}

/// How many exchanges without an answer begin at the target of a tunnel since then; the constants of the code.
fn asked_at_most(begun: Instant) -> usize {
    256 + begun.elapsed().as_millis() as usize / 2
}

/// Blocks that are long for what they say take memory too.
// spec: SE-15
#[tokio::test]
async fn heads_of_thousands_of_requests_are_bounded() {
    let (value, names) = ("v".repeat(1000), (0..95).map(|number| format!("x{number}")).collect::<Vec<_>>());
    let long: Vec<_> = names[..20].iter().map(|name| (name.as_str(), value.as_str())).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    for fields in [long, many] {
        let (victim, mut requester) = Victim::open().await;
        for _ in 1..MOST_STREAMS {
            requester.begin(true, &get("/hang", &fields)).await;
        }
        let last = requester.next - 2;
        assert_eq!(requester.outcome(last).await, Outcome::Reset(7), "REFUSED_STREAM");
        victim.bounded_by(MOST_FOR_HEADS);
        requester.peer.send(&control(&Frame::Ping([7; 8]))).await.unwrap();
        while requester.peer.control_frame().await.expect("the tunnel lives") != Frame::Pong([7; 8]) {}
        let refused = "adit_exchanges_failed_total{side=\"target\",cause=\"quota\"}";
        assert!(victim.initiator.metric(refused).await > 0);
        drop(requester);
        victim.recovers().await;
    }
}

/// One byte of a head keeps the memory of the whole block.
// spec: SE-15
#[tokio::test]
async fn blocks_of_nothing_but_table_sizes_are_bounded() {
    let (victim, mut requester) = Victim::open().await;
    let sizes = [0x20, 0x3f, 0xe1, 0x1f].repeat(4_000);
    let head = headers(3, true, &get("/hang", &[]));
    let block = [&sizes, &head[9..]].concat();
    for _ in 1..MOST_STREAMS {
        requester.peer.send(&http2(HEADERS, 0x5, requester.next, &block)).await.unwrap();
        requester.next += 2;
    }
    eventually("many at the target", async || (victim.target.requests().len() >= 256).then_some(())).await;
    victim.bounded();
    drop(requester);
    victim.recovers().await;
}

/// With windows of nothing, and with the widest there are and nothing that is read.
// spec: SE-16, SE-17
#[tokio::test]
async fn answers_that_nobody_takes_are_bounded() {
    for (window, path) in [(0, "/bytes/250000"), (u32::MAX >> 1, "/bytes/250000"), (u32::MAX >> 1, "/bytes/8000")] {
        let (victim, mut requester) = Victim::open().await;
        let wide = http2(WINDOW_UPDATE, 0, 0, &(u32::MAX >> 2).to_be_bytes());
        let settings = http2(SETTINGS, 0, 0, &[&[0, 4], &window.to_be_bytes()[..]].concat());
        requester.peer.send(&[wide, settings].concat()).await.unwrap();
        for _ in 1..MOST_STREAMS {
            requester.begin(true, &get(path, &[])).await;
        }
        eventually("many at the target", async || (victim.target.requests().len() >= 256).then_some(())).await;
        standstill("the initiator's memory", STALLED, async || victim.initiator.memory()).await;
        victim.bounded();
        drop(requester);
        victim.recovers().await;
    }
}

/// Streams that are opened and reset at once cost their sender nothing (CVE-2023-44487).
#[tokio::test]
async fn streams_that_are_reset_at_once_are_bounded() {
    let (victim, mut requester) = Victim::open().await;
    let (hanging, begun) = (get("/hang", &[]), Instant::now());
    for round in 0..50 {
        let reset = |number: u32| {
            let stream = 3 + 2 * (round * 1000 + number);
            [headers(stream, true, &hanging), http2(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        };
        let many: Vec<u8> = (0..1000).flat_map(reset).collect();
        if !matches!(timeout(STALLED, requester.peer.send(&many)).await, Ok(Ok(()))) {
            break;
        }
    }
    // No target is asked without bound for it, either.
    let most = asked_at_most(begun);
    assert!(victim.target.requests().len() <= most, "{} of {most}", victim.target.requests().len());
    victim.bounded();
    drop(requester);
    victim.recovers().await;
}

/// A service of bytes that says `x` without end, and how often it was connected to.
async fn talking() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connected) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&connected);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move { while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {} });
        }
    });
    (address, connected)
}

/// A raw stream to the service `bytes`.
const RAW: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "adit-raw"),
    (":scheme", "https"),
    (":authority", "control.invalid"),
    (":path", "/"),
    ("adit-service", "bytes"),
];

async fn with_bytes() -> (Victim, Requester, (SocketAddr, Arc<AtomicUsize>)) {
    let (address, connected) = talking().await;
    let edge = Edge::new(Transport::Tcp).service(&format!("{{ name: bytes, target: \"tcp://{address}\" }}"));
    let edge = edge.service("{ name: web, match: {}, target: \"{target}\" }");
    let (victim, requester) = Victim::with(edge).await.opened().await;
    (victim, requester, (address, connected))
}

// Regression: what raw streams had to say was not counted, and each kept half a mebibyte.
#[tokio::test]
async fn raw_streams_that_nobody_reads_are_bounded() {
    let (victim, mut requester, (_, connected)) = with_bytes().await;
    let wide = http2(WINDOW_UPDATE, 0, 0, &(u32::MAX >> 2).to_be_bytes());
    let settings = http2(SETTINGS, 0, 0, &[&[0, 4], &(u32::MAX >> 1).to_be_bytes()[..]].concat());
    requester.peer.send(&[wide, settings].concat()).await.unwrap();
    for _ in 0..200 {
        requester.begin(false, &RAW).await;
    }
    eventually("many at the target", async || (connected.load(Ordering::Relaxed) >= 200).then_some(())).await;
    standstill("the initiator's memory", STALLED, async || victim.initiator.memory()).await;
    victim.bounded();
}

// Regression: each was a connection to the target, however soon its responder had reset it.
#[tokio::test]
async fn raw_streams_that_are_reset_at_once_do_not_all_reach_the_target() {
    let (victim, mut requester, (target, connected)) = with_bytes().await;
    let begun = Instant::now();
    for round in 0..10 {
        let reset = |number: u32| {
            let stream = 3 + 2 * (round * 1000 + number);
            [headers(stream, false, &RAW), http2(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        };
        let many: Vec<u8> = (0..1000).flat_map(reset).collect();
        // All of it: behind half a frame nothing can be asked.
        timeout(PATIENCE, requester.peer.send(&many)).await.expect("it is read").unwrap();
    }
    requester.next = 3 + 2 * 10_000;
    let behind = requester.begin(false, &RAW).await;
    assert_eq!(requester.outcome(behind).await, Outcome::Status(OK));
    // Whoever connected before this one is counted when it hears something.
    TcpStream::connect(target).await.unwrap().read_u8().await.unwrap();
    let (most, asked) = (asked_at_most(begun), connected.load(Ordering::Relaxed));
    assert!(asked <= most, "{asked} of {most}");
    victim.bounded();
}

#[tokio::test]
async fn floods_of_small_frames_are_bounded() {
    let empty = http2(DATA, 0, CONTROL, &[]);
    let ping = http2(PING, 0, 0, &[1; 8]);
    let settings = http2(SETTINGS, 0, 0, &[]);
    let pings = control(&Frame::Ping([1; 8]));
    for frame in [empty, ping, settings, pings] {
        let (victim, mut requester) = Victim::open().await;
        let many = frame.repeat(10_000);
        for _ in 0..100 {
            if !matches!(timeout(STALLED, requester.peer.send(&many)).await, Ok(Ok(()))) {
                break;
            }
        }
        victim.bounded();
        drop(requester);
        victim.recovers().await;
    }
}

// spec: SE-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_that_a_service_does_not_read_cost_others_nothing() {
    let (victim, mut requester) = Victim::open().await;
    let stream = requester.begin(false, &get("/hang", &[])).await;
    requester.peer.trickle(stream, STREAM_WINDOW as usize).await;
    requester.works().await;
    victim.bounded();
    let (victim, mut requester, _) = with_bytes().await;
    let stream = requester.begin(false, &RAW).await;
    requester.peer.trickle(stream, STREAM_WINDOW as usize).await;
    requester.works().await;
    victim.bounded();
}

#[tokio::test]
async fn a_request_body_beyond_its_window_is_reset_and_not_kept() {
    let (victim, mut requester) = Victim::open().await;
    let stream = requester.begin(false, &get("/hang", &[])).await;
    let piece = data(stream, false, &[0; 16_384]).repeat(100);
    let mut sent = 0;
    // What breaks the window has to come, however long the reader takes; what comes behind it may be held back.
    let patience = |sent: usize| if sent <= STREAM_WINDOW as usize { PATIENCE } else { STALLED };
    while sent < 64 << 20 && timeout(patience(sent), requester.peer.send(&piece)).await.is_ok_and(|sent| sent.is_ok()) {
        sent += piece.len();
    }
    assert_eq!(requester.outcome(stream).await, Outcome::Reset(3), "FLOW_CONTROL_ERROR");
    victim.bounded();
    drop(requester);
    victim.recovers().await;
}

// spec: TB-10, CT-34
#[tokio::test]
async fn a_close_in_the_handshake_says_why_there_is_no_tunnel() {
    let victim = Victim::start().await;
    let mut peer = victim.listener.accept().await;
    let close = Frame::Close(Close { code: CloseCode::Internal.number().into(), reason: "out of memory".into() });
    peer.offend(&encoded(&close)).await;
    let error = victim.cannot_open().await;
    assert!(error.contains("out of memory"), "{error}");
    victim.recovers().await;
}

// spec: CT-40
#[tokio::test]
async fn a_responder_that_does_not_answer_is_told_that_it_was_too_slow() {
    let victim = Victim::start().await;
    let mut peer = victim.listener.accept().await;
    let Some(Frame::Close(close)) = peer.bare_frame().await else { panic!("expected CLOSE") };
    assert_eq!(close.code, u64::from(CloseCode::HandshakeTimeout.number()));
    peer.gone().await;
    let error = victim.cannot_open().await;
    assert!(error.contains("no answer within 10s"), "{error}");
    victim.recovers().await;
}

#[tokio::test]
async fn what_is_neither_welcome_nor_refuse_is_no_tunnel() {
    let unasked = encoded(&Frame::Ping([1; 8]));
    let mut long = vec![0x03];
    long.extend([0x80, 0x10, 0, 0]);
    for (bytes, expected) in [
        (PREFACE, "in the place of HELLO or its answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        (&unasked, "PING is out of place"),
        (&long, "expected at most 65536"),
        (&[0x03, 0x00], "has no"),
    ] {
        let victim = Victim::start().await;
        let mut peer = victim.listener.accept().await;
        peer.send(bytes).await.unwrap();
        // It is told why.
        let Some(Frame::Close(close)) = peer.bare_frame().await else { panic!("expected CLOSE") };
        peer.gone().await;
        let error = victim.cannot_open().await;
        assert!(error.contains(expected) && error.contains(&close.reason), "{error}");
        victim.recovers().await;
    }
}

#[tokio::test]
async fn garbage_behind_welcome_ends_the_tunnel() {
    for garbage in [&[0xff; 2000][..], b"HTTP/1.1 200 OK\r\n\r\nsomething that is long enough"] {
        let victim = Victim::start().await;
        let mut peer = victim.listener.accept().await;
        peer.offend(&[&welcome_bytes()[..], garbage].concat()).await;
        victim.lost().await;
        victim.recovers().await;
    }
}

// spec: TB-5
#[tokio::test]
async fn a_control_stream_of_garbage_ends_the_tunnel_and_it_is_dialled_again() {
    let (victim, mut requester) = Victim::open().await;
    requester.peer.send(&data(CONTROL, false, &[0x21, 0x00])).await.unwrap();
    assert_eq!(requester.peer.closed().await.code, u64::from(CloseCode::Protocol.number()));
    requester.peer.gone().await;
    assert!(victim.lost().await.contains("0x21"));
    victim.recovers().await;
}

#[tokio::test]
async fn a_reset_or_a_goaway_is_a_lost_tunnel_and_it_is_dialled_again() {
    let (victim, requester) = Victim::open().await;
    requester.peer.reset();
    victim.lost().await;
    victim.recovers().await;
    let (victim, mut requester) = Victim::open().await;
    requester.peer.send(&http2(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2])).await.unwrap();
    requester.peer.offend(&http2(DATA, END_STREAM, CONTROL, &[])).await;
    victim.lost().await;
    victim.recovers().await;
}
