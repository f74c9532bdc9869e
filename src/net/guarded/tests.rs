use bytes::Bytes;
use h2::{Reason, client};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;
use crate::message::fields::FieldRules;
use crate::message::h2::guard::Role;
use crate::message::h2::recv::StreamBody;
use crate::message::h2::small::{Inflow, SmallFrames};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PATIENCE: Duration = Duration::from_secs(10);

type Sender = client::SendRequest<Bytes>;

/// A client behind a guard, and the server's end of its connection.
async fn client() -> (Sender, DuplexStream) {
    let (near, mut far) = duplex(1 << 16);
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let guarded = Guarded::new(near, Guard::new(Role::Client, 1 << 14), PATIENCE);
    let (sender, connection) = client::handshake(guarded).await.unwrap();
    tokio::spawn(connection);
    (sender, far)
}

/// Reads what the client sends up to the end of a request. Before that no response may come.
async fn asked(far: &mut DuplexStream) {
    let mut last = [0; 9];
    while last[3] != 1 {
        far.read_exact(&mut last).await.unwrap();
        if last == *b"PRI * HTT" {
            far.read_exact(&mut [0; 15]).await.unwrap();
            continue;
        }
        far.read_exact(&mut vec![0; u32::from_be_bytes([0, last[0], last[1], last[2]]) as usize]).await.unwrap();
    }
}

fn ask(sender: &mut Sender) -> client::ResponseFuture {
    sender.send_request(Request::get("http://h/").body(()).unwrap(), true).unwrap().0
}

// spec: ST-34, TB-7
#[tokio::test]
async fn a_malformed_response_costs_one_stream_and_not_the_connection() {
    let heads: [&[u8]; 7] = [
        &[0x88, 0x40, 0x83, 0xf2, 0xb0, 0xff, 0x85, 0x1f, 0xff, 0xff, 0xfe, 0x7f],
        b"\x88\x00\x01x\x02a\n",
        b"\x88\x40\x01x\x02a\0",
        b"\x88\x00\x03X-A\x011",
        b"\x88\x00\x00\x011",
        b"\x08\x041000",
        b"\x48\x03abc",
    ];
    let (mut sender, mut far) = client().await;
    let neighbour = ask(&mut sender);
    for (index, head) in heads.into_iter().enumerate() {
        let response = ask(&mut sender);
        let stream = 3 + 2 * u32::try_from(index).unwrap();
        far.write_all(&frame(1, 4, stream, head)).await.unwrap();
        let error = response.await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{head:?}");
        assert!(!error.is_go_away(), "{head:?}");
    }
    far.write_all(&frame(1, 5, 1, &[0x88])).await.unwrap();
    assert_eq!(neighbour.await.map(|response| response.status().as_u16()).unwrap(), 200);
}

// spec: SE-18
#[tokio::test]
async fn empty_data_ends_no_connection_however_often_it_comes() {
    let (mut sender, mut far) = client().await;
    for stream in (1..).step_by(2).take(300) {
        let response = ask(&mut sender);
        asked(&mut far).await;
        // Alone, so that a read brings nothing else.
        for bytes in [frame(1, 4, stream, &[0x88]), frame(0, 0, stream, &[]), frame(0, 1, stream, b"x")] {
            far.write_all(&bytes).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "x");
    }
}

/// The body of a response whose small frames are joined, and the server's end of its connection. HTTP/2 charges for such
/// frames, and ends the connection soon.
async fn body(first: &[u8]) -> (StreamBody, Sender, DuplexStream) {
    let (near, mut far) = duplex(1 << 20);
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let frames = Arc::<SmallFrames>::default();
    let guard = Guard::new(Role::Client, 1 << 14).joining(&frames);
    let mut builder = client::Builder::new();
    let started = builder.data_frame_budget(1 << 14).handshake(Guarded::new(near, guard, PATIENCE)).await;
    let (mut sender, connection) = started.unwrap();
    tokio::spawn(connection);
    let response = ask(&mut sender);
    asked(&mut far).await;
    far.write_all(&[&frame(1, 4, 1, &[0x88])[..], first].concat()).await.unwrap();
    let rules = FieldRules { max_fields: 10, max_bytes: 1000, forbids: |_, _| false };
    let incoming = Inflow::new(response.await.unwrap().into_body(), &frames);
    (StreamBody::new(incoming, None, rules), sender, far)
}

/// Small frames of stream 1, and what is in them.
fn pieces(count: u32) -> (Vec<u8>, Vec<u8>) {
    let pieces = (0..count).map(|number| [number.to_be_bytes(); 4].concat());
    (pieces.clone().flat_map(|piece| frame(0, 0, 1, &piece)).collect(), pieces.flatten().collect())
}

// spec: SE-19
#[tokio::test]
async fn small_frames_that_nobody_reads_cost_nobody_the_connection() {
    let (first, mut carried) = pieces(1000);
    let (mut body, mut sender, mut far) = body(&first).await;
    let (frames, more) = pieces(3000);
    carried.extend(more);
    for bytes in frames.chunks(25) {
        far.write_all(bytes).await.unwrap();
        tokio::task::yield_now().await;
    }
    let neighbour = ask(&mut sender);
    asked(&mut far).await;
    far.write_all(&frame(1, 5, 3, &[0x88])).await.unwrap();
    assert_eq!(neighbour.await.map(|response| response.status().as_u16()).unwrap(), 200);
    let mut read = Vec::new();
    while read.len() < carried.len() {
        read.extend(timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(read, carried);
    far.write_all(&frame(0, 1, 1, &[])).await.unwrap();
    assert!(timeout(PATIENCE, body.frame()).await.unwrap().is_none());
}

// spec: SE-19
#[tokio::test]
async fn small_frames_that_are_read_come_one_by_one_and_at_once() {
    let (mut body, _sender, mut far) = body(&[]).await;
    for number in 0..100_u8 {
        let reads = timeout(PATIENCE, body.frame());
        let writes = async {
            // Somebody waits for it already.
            tokio::task::yield_now().await;
            far.write_all(&frame(0, 0, 1, &[number; 16])).await.unwrap();
        };
        let (read, ()) = tokio::join!(reads, writes);
        assert_eq!(read.unwrap().unwrap().unwrap().into_data().unwrap()[..], [number; 16]);
    }
}

#[tokio::test]
async fn the_tables_of_both_ends_stay_the_same_behind_a_malformed_head() {
    let (mut sender, mut far) = client().await;
    let (bad, good) = (ask(&mut sender), ask(&mut sender));
    far.write_all(&frame(1, 5, 1, b"\x88\x40\x01a\x01\n\x40\x01b\x011")).await.unwrap();
    bad.await.unwrap_err();
    far.write_all(&frame(1, 5, 3, b"\x88\x40\x01c\x012\xbf\xbe")).await.unwrap();
    let response: Response<_> = good.await.unwrap();
    assert_eq!((&response.headers()["b"], &response.headers()["c"]), (&"1".parse().unwrap(), &"2".parse().unwrap()));
}

#[tokio::test]
async fn bytes_that_stop_in_a_frame_reach_the_reader_all_the_same() {
    let (mut near, far) = duplex(64);
    near.write_all(&[0, 0, 9, 1, 4, 0, 0, 0, 1, 0x88]).await.unwrap();
    drop(near);
    let mut read = Vec::new();
    Guarded::new(far, Guard::new(Role::Client, 1 << 14), PATIENCE).read_to_end(&mut read).await.unwrap();
    assert_eq!(read, [0, 0, 9, 1, 4, 0, 0, 0, 1, 0x88]);
}

#[tokio::test(start_paused = true)]
async fn a_head_whose_end_does_not_come_ends_its_connection_however_its_bytes_trickle() {
    let (mut near, far) = duplex(1 << 16);
    let mut guarded = Guarded::new(far, Guard::new(Role::Client, 1 << 14), PATIENCE);
    let whole = [frame(1, 0, 1, b"\x08\x03103"), frame(9, 4, 1, &[])].concat();
    let mut read = [0; 100];
    for _ in 0..3 {
        // Each within its time, all of them not.
        near.write_all(&whole[..5]).await.unwrap();
        assert!(timeout(PATIENCE * 3 / 4, guarded.read(&mut read)).await.is_err());
        near.write_all(&whole[5..]).await.unwrap();
        assert_eq!(guarded.read(&mut read).await.unwrap(), whole.len());
    }
    let began = tokio::time::Instant::now();
    tokio::spawn(async move {
        near.write_all(&frame(1, 0, 1, &[0x88])).await.unwrap();
        while near.write_all(&frame(9, 0, 1, &[])).await.is_ok() {
            sleep(PATIENCE / 20).await;
        }
    });
    let error = guarded.read(&mut read).await.unwrap_err();
    assert!(Guarded::is_unfinished(&error), "{error}");
    assert!(began.elapsed() <= PATIENCE + PATIENCE / 10, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_frame_of_128_kib_costs_no_more_than_its_bytes() {
    let (mut near, far) = duplex(1 << 20);
    let server = tokio::spawn(async move {
        let guarded = Guarded::new(far, Guard::new(Role::Server, 1 << 16), PATIENCE);
        let mut connection = h2::server::handshake(guarded).await.unwrap();
        connection.accept().await.map(|accepted| accepted.map(drop))
    });
    let name = [&[0x40, 0x7f, 0x80, 0xff, 0x03][..], &[b'a'; 65_535], &[0x00]].concat();
    let block = [name, [0x7e, 0x00].repeat(30_000)].concat();
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    near.write_all(&[frame(4, 0, 0, &[]), frame(1, 5, 1, &block)].concat()).await.unwrap();
    assert!(server.await.unwrap().is_some_and(|accepted| accepted.is_err()), "h2 refuses it");
}
