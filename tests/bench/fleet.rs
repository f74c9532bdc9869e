//! A fleet under load for some minutes, while its responders are restarted one after the other and one is killed, etcd is
//! restarted, and the network is cut: what clients lose at each of these, and how long the slowest of them waits.
//!
//! `cargo bench --bench fleet` takes ten minutes (`--seconds` for others) and needs an etcd. Three responders and an etcd are
//! processes; the sites run in this one. Clients stand behind a balancer that asks `/ready`, as they do in production. Each responder
//! reaches etcd, and is reached by the others, over a line that can be cut.
#![allow(clippy::unwrap_used)]

mod balancer;
#[path = "fleet/place.rs"]
mod place;
#[path = "fleet/sites.rs"]
mod sites;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
#[path = "fleet/tally.rs"]
mod tally;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod thread;
#[path = "../blackbox/hop/world.rs"]
#[allow(dead_code, reason = "tests use other parts of it")]
mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit::transport::CongestionControl;
use clap::Parser;
use tokio::time::{sleep, sleep_until};

use balancer::Balancer;
use place::Place;
use sites::Sites;
use support::site::Transport;
use tally::{Happened, Tally};

/// Measures what a fleet loses while its parts fail.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds in all.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Requests per second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Sites, each with two tunnels, at two of the responders.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// What carries the tunnels: quic or tcp.
    #[arg(long, default_value = "quic")]
    line: String,
    /// How long a network is cut.
    #[arg(long, default_value_t = 15)]
    cut: u64,
    /// Another build of adit.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// A folder for what the responders print; as much as `ADIT_LOG` says.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is done to the fleet; numbers are those of responders.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    /// SIGTERM, and started again when it has gone.
    Terminate(usize),
    /// SIGKILL, and started again two seconds later.
    Kill(usize),
    /// SIGKILL of etcd, and started again three seconds later with what it has stored.
    RestartEtcd,
    /// It does not reach etcd for a while.
    CutFromEtcd(usize),
    /// The others do not reach it for a while.
    CutFromSiblings(usize),
}

/// A rolling restart first, as every deployment is one.
const EVENTS: [Event; 9] = [
    Event::Nothing,
    Event::Terminate(0),
    Event::Terminate(1),
    Event::Terminate(2),
    Event::Kill(0),
    Event::RestartEtcd,
    Event::CutFromEtcd(1),
    Event::CutFromSiblings(2),
    Event::Nothing,
];

fn main() {
    // What `cargo test --benches` asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let transport = if options.line == "tcp" { Transport::Tcp } else { Transport::Quic };
    match thread::block_on(run(transport, &options)) {
        Some(tally) => println!("{tally}"),
        None => println!("there is no etcd here (Debian: apt-get install etcd-server)"),
    }
}

async fn run(transport: Transport, options: &Options) -> Option<Tally> {
    let mut place = Place::start(options.program.as_deref(), options.logs.clone()).await?;
    let mut sites = Sites::start(&place, transport, options.nodes).await;
    place.knows(2 * options.nodes).await;
    println!(
        "{} sites over {}, {} requests/s, {} s, congestion control {}",
        options.nodes,
        transport.label(),
        options.rate,
        options.seconds,
        CongestionControl::default().label()
    );
    let balancer = Balancer::start(place.responders(), options.rate, sites.names()).await;
    let window = Duration::from_secs(options.seconds) / u32::try_from(EVENTS.len()).unwrap();
    let begun = Instant::now();
    let mut happened = Vec::new();
    for (number, event) in (0..).zip(EVENTS) {
        sleep_until((begun + window * number).into()).await;
        let opened = sites.opened().await;
        println!("{:>4} s: {event:?}", begun.elapsed().as_secs());
        let at = Instant::now();
        let (took, gone) = happen(event, &mut place, Duration::from_secs(options.cut)).await;
        happened.push(Happened { what: format!("{event:?}"), at, gone: gone.unwrap_or(at), took, opened });
    }
    sleep_until((begun + Duration::from_secs(options.seconds)).into()).await;
    let asked = balancer.finish().await;
    place.keep_logs();
    Some(Tally::new(&asked, happened, sites.opened().await))
}

/// How long the process needed to end, if one was to; and when it was gone, if it was killed.
async fn happen(event: Event, place: &mut Place, cut: Duration) -> (Option<Duration>, Option<Instant>) {
    match event {
        Event::Nothing => {}
        Event::Terminate(number) => {
            let took = place.terminate(number).await;
            place.begin_again(number);
            return (Some(took), None);
        }
        Event::Kill(number) => {
            place.kill(number).await;
            // Until then the system takes connections for it.
            let gone = Instant::now();
            sleep(Duration::from_secs(2)).await;
            place.begin_again(number);
            return (None, Some(gone));
        }
        Event::RestartEtcd => {
            place.etcd.kill().await;
            sleep(Duration::from_secs(3)).await;
            place.etcd.begin_again().await;
        }
        Event::CutFromEtcd(number) => {
            place.cut_from_etcd(number, true);
            sleep(cut).await;
            place.cut_from_etcd(number, false);
        }
        Event::CutFromSiblings(number) => {
            place.cut_from_siblings(number, true);
            sleep(cut).await;
            place.cut_from_siblings(number, false);
        }
    }
    (None, None)
}
