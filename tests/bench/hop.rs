//! What one hop costs: the same requests to a node on a tunnel of the responder that is asked, and on one of its sibling.
//!
//! `cargo bench --bench hop`. Everything runs in this process on one thread, the clients and the target too: the figures
//! compare the two lines of one run, which take turns.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
#[path = "../blackbox/hop/world.rs"]
#[allow(dead_code, reason = "tests use other parts of it")]
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::certificates::Authority;
use crate::support::http1::RawHttp;
use crate::support::site::Transport;
use crate::support::targets::Target;
use crate::world::{Edge, Member, Table};

const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_secs(3);
const CROWD: usize = 64;
const REQUEST: &[u8] = b"GET /bytes/1024 HTTP/1.1\r\nhost: x\r\nx-node-id: edge-1\r\n\r\n";

fn main() {
    // What `cargo test --benches` asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let (authority, table, target) = (Authority::new("bench CA"), Arc::new(Table::default()), Target::http1().await);
    let (a, b) = (Member::start(&authority, &table, "a"), Member::start(&authority, &table, "b"));
    let nowhere = ["tcp", "udp"].map(|scheme| format!("{scheme}://127.0.0.1:9"));
    let [bytes, echo] = nowhere;
    let targets = [format!("http://{}", target.address()), bytes, echo];
    let _edge = Edge::start((&authority, Transport::Quic), ("edge-1", &b), targets).await;
    table.says("b", "edge-1");
    println!(
        "{:<10} {:>8} {:>10} {:>10} {:>12} {:>14}",
        "line", "at once", "p50 µs", "p99 µs", "requests/s", "CPU µs/request"
    );
    for at_once in [1, CROWD] {
        let mut lines = [("local", b.egress, Vec::new()), ("sibling", a.egress, Vec::new())];
        for _ in 0..ROUNDS {
            for (_, egress, turns) in &mut lines {
                turns.push(turn(*egress, at_once).await);
            }
        }
        for (name, _, turns) in &mut lines {
            turns.sort_by(|one, other| one.rate.total_cmp(&other.rate));
            let Turn { p50, p99, rate, cpu } = turns[ROUNDS / 2];
            println!("{name:<10} {at_once:>8} {p50:>10} {p99:>10} {rate:>12.0} {cpu:>14.1}");
        }
    }
}

/// What was measured in one turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    p50: u128,
    p99: u128,
    rate: f64,
    cpu: f64,
}

async fn turn(egress: SocketAddr, at_once: usize) -> Turn {
    let (began, before) = (Instant::now(), processor_time());
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        clients.spawn(async move {
            let (mut client, mut times) = (RawHttp::connect(egress).await.unwrap(), Vec::new());
            while began.elapsed() < TURN {
                let sent = Instant::now();
                client.send(REQUEST).await.unwrap();
                assert_eq!(client.response().await.unwrap().body.len(), 1024);
                times.push(sent.elapsed());
            }
            times
        });
    }
    let mut times = clients.join_all().await.concat();
    times.sort();
    let (took, count) = (began.elapsed(), times.len());
    let cpu = (processor_time() - before).as_secs_f64() * 1e6 / count as f64;
    let (p50, p99) = (times[count / 2].as_micros(), times[count * 99 / 100].as_micros());
    Turn { p50, p99, rate: count as f64 / took.as_secs_f64(), cpu }
}

/// What this process has used so far, in the kernel too.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // The kernel tells ticks of 10 ms, whatever it counts in.
    Duration::from_millis(ticks * 10)
}
