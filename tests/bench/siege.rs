//! Many bad parties at once, and one honest client beside them: what it loses, and what the two processes hold.
//!
//! `cargo bench --bench siege` runs it over QUIC and over TCP; `-- --help` lists the options. Everything is on one machine,
//! the bad parties included: latencies compare the time before with the time during, and say little about another one.
#![allow(clippy::unwrap_used)]

#[path = "siege/attackers.rs"]
mod attackers;
#[path = "siege/honest.rs"]
mod honest;
mod memory;
#[path = "siege/place.rs"]
mod place;
mod steady;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
#[path = "siege/target.rs"]
mod target;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod thread;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use attackers::Attackers;
use place::Place;
use steady::Seen;
use support::site::Transport;
use table::Table;

/// Measures an honest client beside many bad parties.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds of the attack.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds before it.
    #[arg(long, default_value_t = 10)]
    before: u64,
    /// Requests of the honest client per second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// What carries the tunnel: quic, tcp.
    #[arg(long, value_delimiter = ',', default_value = "quic,tcp")]
    lines: Vec<String>,
    /// Which bad parties; all of them without it.
    #[arg(long, value_delimiter = ',', default_values_t = attackers::NAMES.map(str::to_owned))]
    parties: Vec<String>,
    /// Another build of adit.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The time before the attack, and the time during it.
struct Siege {
    before: Seen,
    during: Seen,
    resident: memory::Resident,
    peak: memory::Resident,
}

fn main() {
    let options = Options::parse();
    let mut table = Table::new(&[
        "tunnel",
        "when",
        "sent",
        "lost",
        "p50 ms",
        "p99 ms",
        "slowest ms",
        "responder MiB",
        "initiator MiB",
    ]);
    for transport in [Transport::Quic, Transport::Tcp] {
        if options.lines.iter().any(|line| line == transport.label()) {
            let siege = thread::block_on(run(transport, &options));
            add(&mut table, transport, "before", &siege.before, siege.resident);
            add(&mut table, transport, "during, peak", &siege.during, siege.peak);
            for (what, count) in &siege.during.lost {
                println!("{}: lost {count}: {what}", transport.label());
            }
        }
    }
    println!("{table}");
}

async fn run(transport: Transport, options: &Options) -> Siege {
    let place = Place::start(transport, options.program.as_deref()).await;
    let watch = memory::Watch::start(place.processes());
    let before = honest::ask(place.egress, options.rate, Duration::from_secs(options.before)).await;
    let resident = watch.now();
    let attackers = Attackers::start(&options.parties, &place);
    watch.peak();
    let during = honest::ask(place.egress, options.rate, Duration::from_secs(options.seconds)).await;
    println!("{}: {}", transport.label(), attackers.said());
    Siege { before, during, resident, peak: watch.peak() }
}

fn add(table: &mut Table, transport: Transport, when: &str, seen: &Seen, resident: memory::Resident) {
    let mib = |bytes: u64| (bytes >> 20).to_string();
    let millis = |share: f64| format!("{:.2}", seen.quantile(share).as_secs_f64() * 1e3);
    let lost: usize = seen.lost.values().sum();
    table.row([
        transport.label().to_owned(),
        when.to_owned(),
        seen.sent.to_string(),
        lost.to_string(),
        millis(0.5),
        millis(0.99),
        millis(1.0),
        mib(resident[0]),
        mib(resident[1]),
    ]);
}
