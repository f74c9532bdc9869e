//! Links do what their table says, and the same in every run.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::{RawHttp, get};
use crate::support::link::tcp::TcpLink;
use crate::support::link::udp::UdpLink;
use crate::support::link::{CLEAN, EDGE_BAD, EDGE_GOOD, HOSTILE, IMPAIRMENTS, Impairment, Lane, MBIT, WIFI_BAD};
use crate::support::targets::{Target, pattern};

/// What becomes of 10,000 packets of 1,000 bytes sent a millisecond apart.
fn fates(impairment: Impairment, seed: u64) -> Vec<Option<Duration>> {
    let start = Instant::now();
    let mut lane = Lane::new(impairment, seed);
    let sent = (0..10_000).map(|n| start + Duration::from_millis(n));
    sent.map(|at| lane.arrival(at, 1000).map(|arrival| arrival - at)).collect()
}

#[test]
fn the_same_seed_gives_the_same_fates() {
    assert_eq!(fates(HOSTILE, 7), fates(HOSTILE, 7));
    assert_ne!(fates(HOSTILE, 7), fates(HOSTILE, 8));
}

#[test]
fn loss_and_delay_are_what_the_table_says() {
    for impairment in IMPAIRMENTS {
        let fates = fates(*impairment, 1);
        let arrived: Vec<Duration> = fates.iter().copied().flatten().collect();
        let loss = 1.0 - arrived.len() as f64 / fates.len() as f64;
        assert!((loss - impairment.loss).abs() < 0.01, "{}: {loss}", impairment.name);
        let mean = arrived.iter().sum::<Duration>() / u32::try_from(arrived.len()).unwrap();
        let slack = impairment.jitter + Duration::from_millis(1);
        assert!(mean >= impairment.delay && mean <= impairment.delay + slack, "{}: {mean:?}", impairment.name);
    }
}

#[test]
fn only_reordering_reorders() {
    let overtaken = |impairment| {
        let start = Instant::now();
        let mut lane = Lane::new(impairment, 3);
        let sent = (0..10_000).map(|n| start + Duration::from_millis(n));
        let arrivals: Vec<Instant> = sent.filter_map(|at| lane.arrival(at, 100)).collect();
        arrivals.is_sorted()
    };
    assert!(overtaken(EDGE_BAD));
    assert!(!overtaken(WIFI_BAD));
}

#[test]
fn a_bottleneck_spreads_packets_and_drops_what_does_not_fit() {
    let now = Instant::now();
    let mut lane = Lane::new(Impairment { rate: MBIT, loss: 0.0, ..CLEAN }, 1);
    let arrivals: Vec<Duration> =
        (0..1000).filter_map(|_| lane.arrival(now, 1250)).map(|arrival| arrival - now).collect();
    assert_eq!(arrivals[0], Duration::from_millis(10));
    assert_eq!(arrivals.len(), 11, "100 ms of queue, and the one being sent");
}

#[test]
fn a_blackout_loses_everything() {
    let mut lane = Lane::new(CLEAN, 1);
    lane.blackout = true;
    assert_eq!(lane.arrival(Instant::now(), 100), None);
}

/// Answers each datagram with the address it came from.
async fn mirror() -> (SocketAddr, JoinSet<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let (_, from) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(from.to_string().as_bytes(), from).await.unwrap();
        }
    });
    (address, tasks)
}

async fn ask_within(client: &UdpSocket, patience: Duration) -> Option<String> {
    client.send(b"?").await.unwrap();
    let mut buffer = [0; 64];
    let answer = tokio::time::timeout(patience, client.recv(&mut buffer)).await.ok()?;
    Some(String::from_utf8_lossy(&buffer[..answer.unwrap()]).into_owned())
}

async fn ask(client: &UdpSocket) -> String {
    ask_within(client, PATIENCE).await.expect("an answer")
}

async fn client(link: &UdpLink) -> UdpSocket {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    client.connect(link.address()).await.unwrap();
    client
}

#[tokio::test]
async fn a_rebind_shows_a_new_port_and_a_blackout_silence() {
    let (target, _mirror) = mirror().await;
    let link = UdpLink::new(target, CLEAN, 1).await.unwrap();
    let client = client(&link).await;
    let before = ask(&client).await;
    assert_eq!(ask(&client).await, before);
    link.rebind();
    assert_ne!(ask(&client).await, before);
    link.blackout(true);
    assert_eq!(ask_within(&client, Duration::from_millis(300)).await, None);
    link.blackout(false);
    ask(&client).await;
}

#[tokio::test]
async fn the_delay_is_paid_in_both_directions() {
    let (target, _mirror) = mirror().await;
    let link = UdpLink::new(target, Impairment { loss: 0.0, ..EDGE_GOOD }, 1).await.unwrap();
    let client = client(&link).await;
    let start = Instant::now();
    ask(&client).await;
    assert!(start.elapsed() >= 2 * (EDGE_GOOD.delay - EDGE_GOOD.jitter));
}

#[tokio::test]
async fn a_tcp_link_delays_holds_and_cuts() {
    let target = Target::http1().await;
    let slow = Impairment { delay: Duration::from_millis(20), ..CLEAN };
    let link = TcpLink::new(target.address(), slow, 1).await.unwrap();
    let start = Instant::now();
    assert_eq!(get(link.address(), "/bytes/100000", &[]).await.unwrap().body, pattern(0, 100_000));
    assert!(start.elapsed() >= 2 * slow.delay);

    link.blackout(true);
    let held = tokio::time::timeout(Duration::from_millis(100), get(link.address(), "/", &[])).await;
    assert!(held.is_err(), "nothing passes during a blackout");
    link.blackout(false);

    let mut client = RawHttp::connect(link.address()).await.unwrap();
    client.send(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    eventually("the request", async || target.requests().last().filter(|r| r.ends_with("/hang")).cloned()).await;
    link.cut();
    assert_eq!(client.head().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
