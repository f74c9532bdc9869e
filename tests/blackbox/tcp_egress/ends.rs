//! How connections end: each direction by itself, or both with a reset.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Bytes, nothing_is_left, opened, site, site_with};
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Running, Site, Transport, over_each_transport};
use crate::support::targets::pattern;

over_each_transport!(
    each_direction_ends_by_itself_in_either_order,
    a_reset_of_either_side_at_any_moment_is_one_of_the_other,
    who_has_ended_his_direction_and_dies_is_noticed,
    a_tunnel_that_is_lost_is_a_reset_at_both_ends,
    what_was_said_before_a_reset_arrives_before_it_however_late_it_is_read,
    what_arrived_before_a_tunnel_is_lost_is_handed_on_before_the_reset,
    what_rests_for_longer_than_it_may_is_reset,
    a_drain_lets_bytes_pass_up_to_its_limit_and_then_resets,
    small_pieces_that_wait_for_a_silent_path_keep_little_and_arrive,
);

/// Waits for the end of what comes; a reset shows.
async fn end(peer: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.map_err(|error| error.kind())?;
    Ok(bytes)
}

const CUT: Result<Vec<u8>, ErrorKind> = Err(ErrorKind::ConnectionReset);

fn reset(peer: TcpStream) {
    peer.set_zero_linger().unwrap();
}

// spec: ST-60
async fn each_direction_ends_by_itself_in_either_order(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    for is_client_first in [true, false] {
        let (client, peer) = opened(&site, &target).await;
        let (mut first, mut second) = if is_client_first { (client, peer) } else { (peer, client) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(end(&mut second).await.unwrap(), b"question");
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        assert_eq!(end(&mut first).await.unwrap(), b"answer");
    }
    // Both at once, and with nothing said.
    let (mut client, mut peer) = opened(&site, &target).await;
    client.shutdown().await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!((end(&mut client).await, end(&mut peer).await), (Ok(Vec::new()), Ok(Vec::new())));
    nothing_is_left(&site).await;
}

// spec: ST-63
async fn who_has_ended_his_direction_and_dies_is_noticed(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    let (mut client, mut peer) = opened(&site, &target).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(end(&mut peer).await.unwrap(), b"question");
    reset(client);
    nothing_is_left(&site).await;
}

// spec: ST-61 to ST-63
async fn a_reset_of_either_side_at_any_moment_is_one_of_the_other(transport: Transport) {
    let target = Bytes::new().await;
    let site = site(transport, target.address()).await;
    for is_client in [true, false] {
        let pair = async || {
            let (client, peer) = opened(&site, &target).await;
            if is_client { (client, peer) } else { (peer, client) }
        };
        let (gone, mut other) = pair().await;
        reset(gone);
        assert_eq!(end(&mut other).await, CUT, "nothing was said");

        let (mut gone, mut other) = pair().await;
        gone.write_all(b"last words").await.unwrap();
        other.read_exact(&mut [0; 10]).await.unwrap();
        reset(gone);
        assert_eq!(end(&mut other).await, CUT, "something was said");

        let (mut gone, mut other) = pair().await;
        other.shutdown().await.unwrap();
        assert_eq!(gone.read(&mut [0]).await.unwrap(), 0);
        reset(gone);
        assert_eq!(end(&mut other).await, CUT, "the other has ended its direction");

        let (mut gone, mut other) = pair().await;
        gone.shutdown().await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        reset(gone);
        let told = eventually("a reset", async || other.write_all(b"x").await.err()).await;
        assert!(matches!(told.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "it had ended its own");

        let (mut gone, mut other) = pair().await;
        let piece = vec![7; 64 << 10];
        while tokio::time::timeout(std::time::Duration::from_secs(1), gone.write_all(&piece)).await.is_ok() {}
        reset(gone);
        assert_eq!(end(&mut other).await, CUT, "it was held back");
    }
    nothing_is_left(&site).await;
}

async fn a_tunnel_that_is_lost_is_a_reset_at_both_ends(transport: Transport) {
    let cloud = || Cloud::new().and_tcp("bytes").responder("keepalive", "500ms").responder("idle_timeout", "5s");
    let target = Bytes::new().await;
    let site = site_with(cloud(), transport, target.address()).await;
    let (mut client, _peer) = opened(&site, &target).await;
    drop(site.initiator.kill());
    assert_eq!(end(&mut client).await, CUT, "the site is gone");

    let site = site_with(cloud(), transport, target.address()).await;
    let (_client, mut peer) = opened(&site, &target).await;
    drop(site.responder.0.kill());
    assert_eq!(end(&mut peer).await, CUT, "the responder is gone");
}

/// A socket with so little room that most of what is sent to it waits at the sender until it is read.
fn narrow() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket
}

/// A client and a target, both of which take nothing but what they read, and the site between them.
async fn narrow_pair(cloud: Cloud, transport: Transport) -> (Site, TcpStream, TcpStream) {
    let listening = narrow();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = Bytes(listening.listen(16).unwrap());
    let site = site_with(cloud, transport, target.address()).await;
    let (client, peer) = tokio::join!(narrow().connect(site.responder.tcp_at(0)), target.accept());
    (site, client.unwrap(), peer)
}

/// Waits until so many bytes of this direction have passed a side.
async fn passed(process: &Running, side: &str, direction: &str, bytes: u64) {
    let series = format!("adit_exchange_body_bytes_total{{side=\"{side}\",direction=\"{direction}\"}}");
    eventually("the bytes pass", async || (process.metric(&series).await == bytes).then_some(())).await;
}

/// Reads all there is up to a reset.
async fn words_before_a_reset(peer: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = peer.read_to_end(&mut bytes).await.map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "after {} bytes", bytes.len());
    bytes
}

// spec: ST-61
async fn what_was_said_before_a_reset_arrives_before_it_however_late_it_is_read(transport: Transport) {
    // More than the system takes at the far end, and no more than what is held back on the way.
    let words = pattern(0, 2 << 20);
    for is_client in [true, false] {
        let (site, client, peer) = narrow_pair(Cloud::new().and_tcp("bytes"), transport).await;
        let (mut gone, mut other) = if is_client { (client, peer) } else { (peer, client) };
        gone.write_all(&words).await.unwrap();
        let (near, side, direction) = match is_client {
            true => (&site.responder.0, "egress", "request"),
            false => (&site.initiator, "target", "response"),
        };
        passed(near, side, direction, words.len() as u64).await;
        reset(gone);
        let heard = words_before_a_reset(&mut other).await;
        assert!(heard == words, "{} of {} bytes, from the client: {is_client}", heard.len(), words.len());
        nothing_is_left(&site).await;
    }
}

// spec: ST-61
async fn what_arrived_before_a_tunnel_is_lost_is_handed_on_before_the_reset(transport: Transport) {
    let cloud = || Cloud::new().and_tcp("bytes").responder("keepalive", "500ms").responder("idle_timeout", "5s");
    // The system takes it at once, and has sent the beginning of it.
    let words = pattern(0, 100_000);
    for is_client in [true, false] {
        let (site, client, peer) = narrow_pair(cloud(), transport).await;
        let (mut says, mut other) = if is_client { (client, peer) } else { (peer, client) };
        says.write_all(&words).await.unwrap();
        let Site { responder, initiator, .. } = site;
        let (near, far) = if is_client { (responder.0, initiator) } else { (initiator, responder.0) };
        let (side, direction) = if is_client { ("target", "request") } else { ("egress", "response") };
        passed(&far, side, direction, words.len() as u64).await;
        drop(near.kill());
        far.line_with("\"CONNECT\"").await;
        let heard = words_before_a_reset(&mut other).await;
        assert!(heard == words, "{} of {} bytes, from the client: {is_client}", heard.len(), words.len());
    }
}

// spec: ST-64
async fn what_rests_for_longer_than_it_may_is_reset(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().and_tcp("bytes").egress("limits", "{ idle: 2s }");
    let site = site_with(cloud, transport, target.address()).await;
    let (mut client, mut peer) = opened(&site, &target).await;
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(4) {
        client.write_all(b"x").await.unwrap();
        assert_eq!(peer.read_u8().await.unwrap(), b'x', "it does not rest");
    }
    assert_eq!((end(&mut client).await, end(&mut peer).await), (CUT, CUT));
    let line = site.responder.0.line_with("\"CONNECT\"").await;
    assert_eq!((&line["outcome"], &line["cause"]), (&"cut".into(), &"idle".into()), "{line}");
}

async fn a_drain_lets_bytes_pass_up_to_its_limit_and_then_resets(transport: Transport) {
    let target = Bytes::new().await;
    let cloud = Cloud::new().and_tcp("bytes").process("drain_timeout", "5s").process("lame_duck", "0");
    let mut site = site_with(cloud, transport, target.address()).await;
    let (mut client, mut peer) = opened(&site, &target).await;
    let to = site.responder.tcp_at(0);
    site.responder.0.terminate();
    eventually("nobody is taken any more", async || TcpStream::connect(to).await.err()).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(peer.read_u8().await.unwrap(), b'x', "it drains");
    assert_eq!((end(&mut client).await, end(&mut peer).await), (CUT, CUT));
    assert!(site.responder.0.exit().await.success());
}

// What broke: each piece kept the buffer of 64 KiB that it was read into, for as long as the other end acknowledged nothing.
async fn small_pieces_that_wait_for_a_silent_path_keep_little_and_arrive(transport: Transport) {
    const CONNECTIONS: usize = 200;
    const ROUNDS: usize = 100;
    let target = Bytes::new().await;
    // The tunnel is silent for as long as all of it takes, and not given up for that.
    let cloud = Cloud::new().and_tcp("bytes").responder("idle_timeout", "600s");
    let site = site_with(cloud, transport, target.address()).await;
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        pairs.push(opened(&site, &target).await);
    }
    let metric = "adit_exchange_body_bytes_total{side=\"egress\",direction=\"request\"}";
    let (passed, before) = (site.responder.0.metric(metric).await, site.responder.0.memory());
    site.initiator.freeze();
    for round in 1..=ROUNDS {
        for (client, _) in &mut pairs {
            client.write_all(&[round as u8; 20]).await.unwrap();
        }
        // Each is read alone: the next one comes once it was.
        let expected = passed + (CONNECTIONS * round * 20) as u64;
        eventually("a piece of each", async || (site.responder.0.metric(metric).await >= expected).then_some(())).await;
    }
    let grown = site.responder.0.memory().saturating_sub(before);
    site.initiator.thaw();
    assert!(grown < 24 << 20, "{grown} bytes");
    let sent: Vec<u8> = (1..=ROUNDS).flat_map(|round| [round as u8; 20]).collect();
    for (mut client, mut peer) in pairs {
        client.shutdown().await.unwrap();
        assert!(end(&mut peer).await.unwrap() == sent, "what came is what was sent");
    }
}
