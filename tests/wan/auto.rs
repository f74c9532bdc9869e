//! How fast an initiator with `transport: auto` finds its way, and what requests notice of it, over an emulated WAN.
//!
//! `cargo bench --bench auto` needs root and a WAN emulator: `$ADIT_WAN` names its program, `../shared/wan/wan` beside
//! the repository is the default. It must know `up NAME --rtt T --seed N --cc NAME`, `down NAME`, `-n NAME a|b COMMAND` (run
//! in the network namespace of the site or of the cloud, 10.77.0.1 and 10.77.0.2) and `-n NAME block udp TIME|on`.
//! Without it nothing is measured, and that is said.
#![allow(clippy::unwrap_used)]

mod link;
mod parts;
mod roles;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;

use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::time::sleep;

use link::Link;
use parts::{Cloud, Edge, Files};
use roles::{Outcome, Seen};

/// Measures the choice of transport over an emulated WAN.
#[derive(Debug, Parser)]
struct Options {
    /// How often each scenario is run, each time with other random numbers.
    #[arg(long, default_value_t = 5)]
    runs: u64,
    /// How often the long one, in mid-life, is run.
    #[arg(long, default_value_t = 3)]
    long_runs: u64,
    /// Round trip of the link, as the emulator takes it.
    #[arg(long, default_value = "40ms")]
    rtt: String,
    /// Loss of the link, as the emulator takes it.
    #[arg(long, default_value = "0")]
    loss: String,
    /// Congestion control of TCP in both namespaces; QUIC uses adit's default, BBR.
    #[arg(long, default_value = "cubic")]
    cc: String,
    /// How long UDP is lost in mid-life, seconds.
    #[arg(long, default_value_t = 60)]
    blocked: u64,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program does inside a namespace.
#[derive(Debug, Subcommand)]
enum Role {
    /// A target that tells what it was asked for.
    #[command(hide = true)]
    Target,
    /// Something else that speaks QUIC, on this address.
    #[command(hide = true)]
    Foreign { address: std::net::SocketAddr },
    /// 20 GETs a second to this egress, for so many seconds.
    #[command(hide = true)]
    Client { egress: std::net::SocketAddr, seconds: u64 },
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match options.role {
        Some(Role::Target) => runtime.block_on(roles::target()),
        Some(Role::Foreign { address }) => runtime.block_on(roles::foreign(address)),
        Some(Role::Client { egress, seconds }) => runtime.block_on(roles::client(egress, seconds)),
        None => runtime.block_on(measure(&options)),
    }
}

async fn measure(options: &Options) {
    let Some(wan) = link::program() else {
        return support::tools::skip("there is no WAN emulator ($ADIT_WAN), or this is not root");
    };
    println!("rtt {}, loss {}; QUIC: bbr, TCP: {}", options.rtt, options.loss, options.cc);
    let mut silent = Vec::new();
    let mut foreign = Vec::new();
    for run in 0..options.runs {
        let link = || Link::up(&wan, options, run);
        silent.push(from_the_start(&link()).await);
        foreign.push(beside_another_protocol(&link()).await);
    }
    report("UDP lost from the start: process start to tunnel up over TCP", silent);
    report("another ALPN on the UDP port: process start to tunnel up over TCP", foreign);
    for run in 0..options.long_runs {
        in_mid_life(&Link::up(&wan, options, run), options.blocked).await;
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return };
    println!("{what}: median {:.3?} ({first:.3?} to {last:.3?}, {} runs)", times[times.len() / 2], times.len());
}

async fn from_the_start(link: &Link) -> Duration {
    let files = Files::new();
    let cloud = Cloud::start(link, &files, "quic: \"10.77.0.2:0\", tcp: \"10.77.0.2:0\"").await;
    link.block_udp("on");
    let edge = Edge::start(link, &files, cloud.tunnels()).await;
    edge.up("tcp").await
}

async fn beside_another_protocol(link: &Link) -> Duration {
    let files = Files::new();
    let cloud = Cloud::start(link, &files, "tcp: \"10.77.0.2:0\"").await;
    let foreign = parts::foreign(link, cloud.tunnels());
    foreign.line_with("listening").await;
    let edge = Edge::start(link, &files, cloud.tunnels()).await;
    edge.up("tcp").await
}

/// What the site needs to settle, and to come back after UDP has.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(50);

async fn in_mid_life(link: &Link, blocked: u64) {
    let files = Files::new();
    let cloud = Cloud::start(link, &files, "quic: \"10.77.0.2:0\", tcp: \"10.77.0.2:0\"").await;
    let edge = Edge::start(link, &files, cloud.tunnels()).await;
    edge.up("quic").await;
    let seconds = (BEFORE + AFTER).as_secs() + blocked;
    let client = parts::client(link, cloud.egress(), seconds);
    sleep(BEFORE).await;
    let lost_at = parts::now();
    link.block_udp(&format!("{blocked}s"));
    let on_tcp = edge.switched("now over TCP", Duration::from_secs(blocked)).await;
    let on_quic = edge.switched("back on QUIC", Duration::from_secs(blocked) + AFTER).await;
    let outcomes: Vec<Outcome> = parts::answer(&client, seconds).await;
    let seen: Seen = edge.seen().await;
    let lost = outcomes.iter().filter(|outcome| outcome.status != Some(200)).count();
    let twice = seen.0.values().filter(|&&times| times > 1).count();
    let slowest = outcomes.iter().map(|outcome| outcome.millis).max().unwrap_or_default();
    println!(
        "UDP lost for {blocked} s in mid-life: on TCP after {:.1?}, back on QUIC {:.1?} after its return; {} requests, \
         {lost} lost, {twice} seen twice by the target, {} seen more often, slowest {slowest} ms; {} switches",
        since(lost_at, on_tcp),
        since(lost_at + Duration::from_secs(blocked), on_quic),
        outcomes.len(),
        seen.0.values().filter(|&&times| times > 2).count(),
        edge.switches().await,
    );
    for outcome in outcomes.iter().filter(|outcome| outcome.status != Some(200)) {
        println!("  lost: {outcome:?}");
    }
}

/// From one time of day to a later one.
fn since(from: Duration, to: Duration) -> Duration {
    let day = Duration::from_secs(24 * 3600);
    if to + day / 2 < from { to + day - from } else { to.saturating_sub(from) }
}
