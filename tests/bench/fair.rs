//! A tenant that asks for little beside one that asks for all: how long the first one waits.
//!
//! `cargo bench --bench fair` runs it over QUIC and over TCP; `-- --help` lists the options. Tenant B asks ten times a second,
//! first alone, then beside tenant A, which has a thousand requests under way at any time, and downloads; then once more with
//! all of that in one tenant, which takes no turns with itself. Everything is on one machine, A's clients included: what they
//! take of it shows in the row in which A uses another responder, with which B shares nothing but the processor.
#![allow(clippy::unwrap_used)]

#[path = "fair/place.rs"]
mod place;
mod steady;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
#[path = "fair/tenants.rs"]
mod tenants;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod thread;

use std::time::Duration;

use clap::Parser;

use place::Place;
use steady::Seen;
use support::site::Transport;
use table::Table;
use tenants::Greedy;

/// Measures one tenant beside another.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds of each row.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Requests that A has under way.
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// Downloads that A has under way beside them.
    #[arg(long, default_value_t = 8)]
    downloads: usize,
    /// Requests of B per second.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// How long the service of B takes for an answer, milliseconds.
    #[arg(long, default_value_t = 20)]
    service: u64,
    /// What carries the tunnels: quic, tcp.
    #[arg(long, value_delimiter = ',', default_value = "quic,tcp")]
    lines: Vec<String>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let heading = ["tunnel", "tenant B", "sent", "lost", "p50 ms", "p99 ms", "slowest ms", "answers for A a second"];
    let mut table = Table::new(&heading);
    for transport in [Transport::Quic, Transport::Tcp] {
        if options.lines.iter().any(|line| line == transport.label()) {
            thread::block_on(run(transport, &options, &mut table));
        }
    }
    println!("{table}");
}

async fn run(transport: Transport, options: &Options, table: &mut Table) {
    let time = Duration::from_secs(options.seconds);
    let service = Duration::from_millis(options.service);
    let (place, elsewhere) = (Place::start(transport, service).await, Place::start(transport, service).await);
    let alone = tenants::ask(&place.b(), options.rate, time).await;
    add(table, transport, "alone", &alone, 0.0);
    let rows = [
        ("beside tenant A at another responder", elsewhere.a()),
        ("beside tenant A", place.a()),
        ("beside the same in its own tenant", place.a_within_b()),
    ];
    for (when, a) in rows {
        let greedy = Greedy::start(a, options.requests, options.downloads);
        let seen = tenants::ask(&place.b(), options.rate, time).await;
        add(table, transport, when, &seen, greedy.stop() as f64 / time.as_secs_f64());
    }
}

fn add(table: &mut Table, transport: Transport, when: &str, seen: &Seen, rate: f64) {
    let millis = |share: f64| format!("{:.2}", seen.quantile(share).as_secs_f64() * 1e3);
    table.row([
        transport.label().to_owned(),
        when.to_owned(),
        seen.sent.to_string(),
        seen.lost.values().sum::<usize>().to_string(),
        millis(0.5),
        millis(0.99),
        millis(1.0),
        format!("{rate:.0}"),
    ]);
}
