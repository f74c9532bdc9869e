//! A responder is restarted under load, while another of its sites cannot be reached: what clients lose, and how long until
//! everything comes through again.
//!
//! `cargo bench --bench restart` does it by SIGTERM and by SIGKILL, over QUIC and over TCP, with one responder and with two
//! of which the initiator dials both. Clients stand behind a balancer that asks `/ready`, as they do in production; with one
//! responder it has nowhere else to go.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod balancer;
#[path = "restart/place.rs"]
mod place;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod thread;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::time::sleep;

use balancer::{Asked, Balancer};
use place::Place;
use support::site::{NODE, Transport};
use table::Table;

/// Measures a restart of a responder under load.
#[derive(Debug, Parser)]
struct Options {
    /// Requests per second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How often each of them is done.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load after the restart.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// What carries the tunnels: quic, tcp.
    #[arg(long, value_delimiter = ',', default_value = "quic,tcp")]
    lines: Vec<String>,
    /// Another build of adit.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How the process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Terminated,
    Killed,
}

/// What one restart did.
struct Outcome {
    sent: usize,
    lost: BTreeMap<String, usize>,
    slowest: Duration,
    /// From the signal until the process was gone.
    exit: Duration,
    /// From the signal until requests came through from then on; `None`: they did not.
    recovered: Option<Duration>,
}

/// Load before the restart.
const BEFORE: Duration = Duration::from_secs(3);
/// Good answers in a row that count as recovery.
const ENOUGH: usize = 50;

fn main() {
    let options = Options::parse();
    let heading = ["tunnel", "responders", "restart", "sent", "lost", "slowest ms", "exit ms", "recovered ms"];
    let mut table = Table::new(&heading);
    for transport in [Transport::Quic, Transport::Tcp] {
        if !options.lines.iter().any(|line| line == transport.label()) {
            continue;
        }
        for (responders, end) in [(1, End::Terminated), (1, End::Killed), (2, End::Terminated), (2, End::Killed)] {
            for _ in 0..options.rounds {
                let outcome = thread::block_on(restart(transport, responders, end, &options));
                table.row(row(transport, responders, end, &outcome));
            }
        }
    }
    println!("{table}");
}

async fn restart(transport: Transport, responders: usize, end: End, options: &Options) -> Outcome {
    let mut place = Place::start(transport, responders, options.program.as_deref()).await;
    place.freeze_the_other_site();
    let balancer = Balancer::start(place.responders(), options.rate, vec![NODE.node.to_owned()]).await;
    sleep(BEFORE).await;
    let begin = Instant::now();
    match end {
        End::Terminated => place.terminate_first().await,
        End::Killed => place.kill_first().await,
    }
    let exit = begin.elapsed();
    place.start_first();
    sleep(Duration::from_secs(options.seconds)).await;
    Outcome::new(&balancer.finish().await, begin, exit)
}

impl Outcome {
    /// `asked` stand in the order in which they began.
    fn new(asked: &[Asked], begin: Instant, exit: Duration) -> Self {
        let mut lost = BTreeMap::new();
        for what in asked.iter().filter_map(|asked| asked.outcome.as_ref().err()) {
            *lost.entry(what.what.clone()).or_default() += 1;
        }
        let late = asked.iter().filter(|asked| asked.start >= begin);
        let good: Vec<&Asked> = late.rev().take_while(|asked| asked.outcome.is_ok()).collect();
        let first = good.last().map(|first| first.end.saturating_duration_since(begin));
        Self {
            sent: asked.len(),
            lost,
            slowest: asked.iter().map(|asked| asked.end - asked.start).max().unwrap_or_default(),
            exit,
            recovered: first.filter(|_| good.len() >= ENOUGH),
        }
    }
}

fn row(transport: Transport, responders: usize, end: End, outcome: &Outcome) -> [String; 8] {
    let millis = |time: Duration| time.as_millis().to_string();
    let lost = outcome.lost.iter().map(|(what, count)| format!("{count} {what}"));
    let lost = if outcome.lost.is_empty() { "0".to_owned() } else { lost.collect::<Vec<_>>().join(", ") };
    [
        transport.label().to_owned(),
        responders.to_string(),
        match end {
            End::Terminated => "SIGTERM".to_owned(),
            End::Killed => "SIGKILL".to_owned(),
        },
        outcome.sent.to_string(),
        lost,
        millis(outcome.slowest),
        millis(outcome.exit),
        outcome.recovered.map_or_else(|| "never".to_owned(), millis),
    ]
}
