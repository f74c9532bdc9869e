//! Datagrams through a tunnel on one machine, beside the same without adit: how many a second come back, how long one takes,
//! and what becomes of a load like that of a game.
//!
//! `cargo bench --bench datagrams -- --help` lists the options. Everything shares the processor, so figures compare lines of
//! one run.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod game;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use game::Game;
use support::site::{Cloud, Edge, Site, Transport};

/// Measures datagrams on loopback.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds per measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of each datagram.
    #[arg(long, value_delimiter = ',', default_value = "100,1200,8000")]
    sizes: Vec<usize>,
    /// Datagrams under way at once when the rate is measured.
    #[arg(long, default_value_t = 32)]
    window: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    let target = echo();
    println!("| line | bytes | round trip p50 | p99 | datagrams/s both ways | lost |");
    println!("|---|---|---|---|---|---|");
    measure("direct", target, &options).await;
    for transport in [Transport::Quic, Transport::Tcp] {
        let cloud = Cloud::new().and_udp("echo").egress("access_log", "false");
        let site =
            Site::with(cloud, Edge::new(transport).service(&format!("{{ name: echo, target: \"udp://{target}\" }}")));
        let site = site.await;
        measure(transport.label(), site.responder.udp_at(0), &options).await;
    }
}

/// Sends back what comes, on a thread of its own.
fn echo() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut room = vec![0; 65_536];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut room) {
                let _ = socket.send_to(&room[..length], from);
            }
        }
    });
    address
}

async fn measure(line: &str, address: SocketAddr, options: &Options) {
    let duration = Duration::from_secs(options.seconds);
    for &bytes in &options.sizes {
        let client = connect(address).await;
        let mut times = round_trips(&client, bytes, duration).await;
        times.sort();
        let (rate, lost) = rate(&client, bytes, options.window, duration).await;
        let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
        let (half, most) = (at(0.5), at(0.99));
        println!("| {line} | {bytes} | {half:.0} µs | {most:.0} µs | {rate:.0} | {:.2} % |", lost * 100.0);
    }
    let game = Game::play(&connect(address).await, duration).await;
    println!("| {line} | {} | {game} |", game::LOAD);
}

async fn connect(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    // The flow is opened by the first.
    let mut room = [0; 16];
    while timeout(Duration::from_secs(1), async { (socket.send(b"hello").await, socket.recv(&mut room).await) })
        .await
        .is_err()
    {}
    socket
}

/// One after the other.
async fn round_trips(client: &UdpSocket, bytes: usize, duration: Duration) -> Vec<Duration> {
    let (sent, mut room, mut times) = (vec![7; bytes], vec![0; 65_536], Vec::new());
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let begun = Instant::now();
        client.send(&sent).await.unwrap();
        if timeout(Duration::from_secs(1), client.recv(&mut room)).await.is_ok() {
            times.push(begun.elapsed());
        }
    }
    times
}

/// So many under way: those that come back in a second, and the part that did not.
async fn rate(client: &UdpSocket, bytes: usize, window: usize, duration: Duration) -> (f64, f64) {
    let (datagram, mut room) = (vec![7; bytes], vec![0; 65_536]);
    let (mut sent, mut got, mut lost) = (0_u64, 0_u64, 0_u64);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        while sent - got - lost < window as u64 {
            client.send(&datagram).await.unwrap();
            sent += 1;
        }
        match timeout(Duration::from_millis(100), client.recv(&mut room)).await {
            Ok(_) => got += 1,
            Err(_) => lost = sent - got,
        }
    }
    (got as f64 / duration.as_secs_f64(), lost as f64 / sent as f64)
}
