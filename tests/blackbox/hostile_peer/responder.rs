//! A hostile responder towards our initiator.

use std::time::{Duration, Instant};

use adit::protocol::code::StreamCode;
use adit::protocol::control::Frame;
use adit::protocol::limits::Limits;
use adit::protocol::stream::{Event, MessageReader, RequestHead, Role, encode_request};
use adit::protocol::varint;
use bytes::{Bytes, BytesMut};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::time::timeout;

use super::raw::{closed, frame, listen, welcome_bytes, welcome_with};
use crate::support::eventually::{PATIENCE, eventually};
use crate::support::site::{Edge, Folder, Running, Transport};
use crate::support::targets::Target;

/// What a process may grow by, whatever a single stream does.
const MOST_GROWTH: u64 = 48 << 20;
/// What a process may grow by for each exchange, its connection to the target included.
const MOST_PER_EXCHANGE: u64 = 64 << 10;
/// Whatever takes longer than this is held back.
const STALLED: Duration = Duration::from_millis(500);

/// Our initiator, connected to a responder that the test speaks for.
struct Victim {
    initiator: Running,
    target: Target,
    connection: Connection,
    control: (SendStream, RecvStream),
    memory: u64,
    _endpoint: Endpoint,
    _folder: Folder,
}

impl Victim {
    async fn start() -> Self {
        let (folder, target) = (Folder::new(), Target::http1().await);
        let endpoint = listen(&folder);
        let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
        let initiator = edge.start(&folder, endpoint.local_addr().unwrap()).await;
        let (connection, mut control) = accept(&endpoint).await;
        control.0.write_all(&welcome_bytes()).await.unwrap();
        initiator.line_with("tunnel up").await;
        let memory = initiator.memory();
        Self { initiator, target, connection, control, memory, _endpoint: endpoint, _folder: folder }
    }

    /// Opens a stream with these bytes, and returns the code that it is reset with.
    async fn reset_of(&self, bytes: &[u8]) -> u64 {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        match recv.read_to_end(1 << 20).await {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => code.into_inner(),
            other => panic!("{bytes:?} was not reset: {other:?}"),
        }
    }

    /// A whole exchange through the same tunnel.
    async fn answers(&self) {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        send.write_all(&request("/")).await.unwrap();
        send.finish().unwrap();
        let bytes = recv.read_to_end(1 << 20).await.unwrap();
        let mut reader = MessageReader::new(Role::Response, Limits::default());
        reader.push(Bytes::from(bytes));
        let Some(Event::Response(head, _)) = reader.next().unwrap() else { panic!("expected a response") };
        assert_eq!(head.status, 200);
    }

    async fn unharmed(&self) {
        self.answers().await;
        assert_eq!(self.connection.close_reason(), None);
        let growth = self.initiator.memory().saturating_sub(self.memory);
        assert!(growth < MOST_GROWTH, "the initiator grew by {} MiB", growth >> 20);
    }
}

async fn accept(endpoint: &Endpoint) -> (Connection, (SendStream, RecvStream)) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (send, mut recv) = connection.accept_bi().await.unwrap();
    assert!(matches!(frame(&mut recv).await, Frame::Hello(_)));
    (connection, (send, recv))
}

fn request(path: &str) -> BytesMut {
    let head = RequestHead {
        method: http::Method::GET,
        scheme: http::uri::Scheme::HTTP,
        authority: "x".into(),
        path: path.into(),
        service: None,
        protocol: None,
        fields: http::HeaderMap::new(),
    };
    let mut bytes = BytesMut::new();
    encode_request(&head, true, &mut bytes);
    bytes
}

fn number(code: StreamCode) -> u64 {
    code.number().into()
}

#[tokio::test]
async fn a_stream_of_an_unknown_type_is_reset_and_no_other() {
    let victim = Victim::start().await;
    for unknown in [0x02, 0x07, 0x3f] {
        assert_eq!(victim.reset_of(&[unknown, 0, 0, 0]).await, number(StreamCode::UnknownType));
    }
    victim.unharmed().await;
}

#[tokio::test]
async fn a_request_that_breaks_the_protocol_is_reset_and_reaches_no_target() {
    let victim = Victim::start().await;
    for bytes in [&[0x01, 0x09, 0x00][..], &[0x01, 0x03, 0x01, 0x00], &[0x01, 0x01, 0x02, 0xff, 0xff], &[0x01, 0x21, 0]]
    {
        assert_eq!(victim.reset_of(bytes).await, number(StreamCode::Protocol), "{bytes:?}");
    }
    let whole = request("/whole");
    assert_ne!(victim.reset_of(&whole[..whole.len() - 3]).await, number(StreamCode::NoError));
    assert_eq!(victim.target.requests().len(), 0);
    victim.unharmed().await;
}

#[tokio::test]
async fn a_refused_stream_leaves_a_record_and_a_count() {
    let victim = Victim::start().await;
    victim.reset_of(&[0x01, 0x09, 0x00]).await;
    let line = victim.initiator.line_with("\"outcome\":\"refused\"").await;
    for (name, expected) in [("side", "target"), ("cause", "bad_request"), ("transport", "quic")] {
        assert_eq!(line[name], expected, "{name} in {line}");
    }
    assert!(line["details"].is_string() && line["tunnel"].is_string() && line["node"].is_string(), "{line}");
    let mut bytes = BytesMut::from(&[0x01, 0x01][..]);
    varint::encode(&mut bytes, 1 << 30);
    assert_eq!(victim.reset_of(&bytes).await, number(StreamCode::Limit));
    for cause in ["bad_request", "head_too_large"] {
        let series = format!("adit_exchanges_failed_total{{side=\"target\",cause=\"{cause}\"}}");
        eventually("it is counted", async || (victim.initiator.metric(&series).await == 1).then_some(())).await;
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_reset_before_it_is_sent() {
    let victim = Victim::start().await;
    let mut bytes = BytesMut::from(&[0x01, 0x01][..]);
    varint::encode(&mut bytes, 1 << 30);
    let (mut send, mut recv) = victim.connection.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    let reset = recv.read_to_end(1024).await.unwrap_err();
    let expected = quinn::VarInt::from_u32(StreamCode::Limit.number());
    assert_eq!(reset, quinn::ReadToEndError::Read(quinn::ReadError::Reset(expected)));
    victim.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_streams_is_bounded_and_the_tunnel_works_on() {
    let victim = Victim::start().await;
    let hanging = request("/hang");
    let mut open = Vec::new();
    while let Ok(stream) = timeout(STALLED, victim.connection.open_bi()).await {
        let (mut send, recv) = stream.unwrap();
        send.write_all(&hanging).await.unwrap();
        open.push((send, recv));
        assert!(open.len() < 10_000, "nothing bounds the streams of a peer");
    }
    let all = open.len();
    eventually("all requests at the target", async || (victim.target.requests().len() == all).then_some(())).await;
    let growth = victim.initiator.memory().saturating_sub(victim.memory);
    assert!(growth < all as u64 * MOST_PER_EXCHANGE, "{} KiB for each of {all}", growth / all as u64 / 1024);
    drop(open);
    eventually("all are cancelled", async || (victim.target.cancelled() == all).then_some(())).await;
    victim.answers().await;
}

// spec: SE-15
#[tokio::test]
async fn heads_that_never_come_to_their_end_are_bounded() {
    let victim = Victim::start().await;
    let mut begun = BytesMut::from(&[0x01, 0x01][..]);
    varint::encode(&mut begun, 65_000);
    begun.resize(60_000, b'x');
    let refused = async || {
        let mut open = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                Some(code) = open.join_next() => if code.unwrap() == number(StreamCode::Rejected) { return },
                stream = victim.connection.open_bi() => {
                    let (begun, (mut send, mut recv)) = (begun.clone(), stream.unwrap());
                    open.spawn(async move {
                        let _ = send.write_all(&begun).await;
                        match recv.read_to_end(1024).await {
                            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => code.into_inner(),
                            other => panic!("{other:?}"),
                        }
                    });
                }
            }
        }
    };
    timeout(PATIENCE, refused()).await.expect("some are refused");
    let growth = victim.initiator.memory().saturating_sub(victim.memory);
    assert!(growth < MOST_GROWTH, "the initiator grew by {} MiB", growth >> 20);
    victim.unharmed().await;
}

/// What a target is asked for nothing does not follow the streams that its responder can open.
// spec: SE-16
#[tokio::test]
async fn streams_that_are_reset_at_once_do_not_all_reach_the_target() {
    const STREAMS: usize = 5_000;
    let victim = Victim::start().await;
    let (hanging, begun) = (request("/hang"), Instant::now());
    for _ in 0..STREAMS {
        let (mut send, mut recv) = timeout(PATIENCE, victim.connection.open_bi()).await.expect("a stream").unwrap();
        send.write_all(&hanging).await.unwrap();
        send.reset(quinn::VarInt::from_u32(StreamCode::Cancelled.number())).unwrap();
        recv.stop(quinn::VarInt::from_u32(StreamCode::Cancelled.number())).unwrap();
    }
    let (asked, most) = (victim.target.requests().len(), 256 + begun.elapsed().as_millis() as usize / 2);
    assert!(asked <= most, "{asked} of {most}");
    victim.unharmed().await;
}

#[tokio::test]
async fn a_request_body_without_end_is_held_back_by_its_target() {
    let victim = Victim::start().await;
    let head = RequestHead {
        method: http::Method::POST,
        scheme: http::uri::Scheme::HTTP,
        authority: "x".into(),
        path: "/hang".into(),
        service: None,
        protocol: None,
        fields: http::HeaderMap::new(),
    };
    let mut bytes = BytesMut::new();
    encode_request(&head, false, &mut bytes);
    bytes.extend_from_slice(&[0x03]);
    varint::encode(&mut bytes, 1 << 40);
    let (mut send, _recv) = victim.connection.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    let piece = vec![0; 65_536];
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(STALLED, send.write_all(&piece)).await {
        sent += piece.len();
        assert!(sent < 256 << 20, "nothing holds the peer back");
    }
    victim.unharmed().await;
}

#[tokio::test]
async fn a_control_stream_of_garbage_ends_the_tunnel_and_it_is_dialled_again() {
    let mut victim = Victim::start().await;
    victim.control.0.write_all(&[0x21, 0x00]).await.unwrap();
    let (code, reason) = closed(&victim.connection).await;
    assert_eq!(code, u64::from(adit::protocol::code::CloseCode::Protocol.number()), "{reason}");
    victim.initiator.line_with("tunnel lost").await;
    let (_connection, mut control) = accept(&victim._endpoint).await;
    control.0.write_all(&welcome_bytes()).await.unwrap();
    eventually("the tunnel is up again", async || {
        let tunnels = victim.initiator.tunnels().await.dialled;
        (tunnels[0].state == "recovered").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_welcome_for_another_version_is_not_taken() {
    let folder = Folder::new();
    let endpoint = listen(&folder);
    let edge = Edge::new(Transport::Quic);
    let initiator = edge.start(&folder, endpoint.local_addr().unwrap()).await;
    let (connection, mut control) = accept(&endpoint).await;
    let mut welcome = welcome_bytes();
    let version = welcome.windows(3).position(|bytes| bytes == [1, 1, 1]).unwrap() + 2;
    welcome[version] = 2;
    control.0.write_all(&welcome).await.unwrap();
    closed(&connection).await;
    let line = initiator.line_with("cannot open a tunnel").await;
    assert!(line["error"].as_str().unwrap().contains("version 2"), "{line}");
}

// spec: CT-52
#[tokio::test]
async fn tunnels_that_came_up_together_do_not_all_wait_for_the_whole_keepalive() {
    let (folder, keepalive, tunnels) = (Folder::new(), Duration::from_secs(20), 16);
    let endpoint = listen(&folder);
    let edge = Edge::new(Transport::Quic).count(tunnels);
    let _initiator = edge.start(&folder, endpoint.local_addr().unwrap()).await;
    let mut pings = tokio::task::JoinSet::new();
    for _ in 0..tunnels {
        let (connection, (mut send, mut recv)) = accept(&endpoint).await;
        send.write_all(&welcome_with(keepalive)).await.unwrap();
        pings.spawn(async move {
            let welcomed = Instant::now();
            while !matches!(frame(&mut recv).await, Frame::Ping(_)) {}
            drop((connection, send));
            welcomed.elapsed()
        });
    }
    // Of sixteen at random, all are in the last fifth once in 150 billion runs.
    let first = timeout(PATIENCE, pings.join_next()).await.expect("one of them asks").unwrap().unwrap();
    assert!(first < keepalive.mul_f64(0.8), "{first:?}");
}
