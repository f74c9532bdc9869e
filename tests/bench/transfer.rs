//! Whether a tunnel keeps what it promises of bodies: they arrive unchanged, in bounded memory, past a reader that is
//! slow, and a client that goes away is noticed at the target.
//!
//! `cargo bench --bench transfer -- --help` lists the options. Prints figures, and ends with 1 when a promise is
//! broken. Both ends of every transfer make and hash the content, on the same processor as the tunnel.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the loopback benchmark uses its own part of it")]
mod adit_pair;
mod bulk;
mod content;
mod crowd;
#[allow(dead_code, reason = "only what a direction is; the rest is for the loopback benchmark")]
mod line;
mod memory;
mod origin;
mod promises;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod thread;
#[allow(dead_code, reason = "the names of processes are for the table of the loopback benchmark")]
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use adit_pair::{Pair, Settings};
use bulk::{SlowReader, Way};
use content::Content;
use crowd::Numbers;
use line::Direction;
use memory::{Resident, Watch};
use origin::Origin;
use promises::Promises;
use support::eventually::eventually;
use support::site::Transport;

/// Moves large bodies and many bodies through a tunnel on loopback.
#[derive(Debug, Parser)]
struct Options {
    /// GiB per transfer.
    #[arg(long, default_value_t = 2.0)]
    gib: f64,
    /// How often a smaller transfer runs without and with a slow reader beside it, to compare their speeds.
    #[arg(long, default_value_t = 8)]
    turns: usize,
    /// MiB of each of these.
    #[arg(long, default_value_t = 256)]
    turn: u64,
    /// Seconds for which the slow reader is alone.
    #[arg(long, default_value_t = 5.0)]
    alone: f64,
    /// Exchanges at once.
    #[arg(long, default_value_t = 1000)]
    exchanges: u64,
    /// How many of them are cancelled.
    #[arg(long, default_value_t = 200)]
    cancelled: u64,
    /// What carries the tunnel: quic or tcp.
    #[arg(long, default_value = "quic", value_parser = transport)]
    transport: Transport,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn transport(word: &str) -> Result<Transport, String> {
    [Transport::Quic, Transport::Tcp]
        .into_iter()
        .find(|transport| transport.label() == word)
        .ok_or_else(|| "expected quic or tcp".to_owned())
}

const MIB: f64 = (1 << 20) as f64;

/// How much resident memory may rise above idle, in MiB.
const RISE: f64 = 64.0;

/// How much it may grow while only a slow reader is there, in MiB: noise.
const GROWTH: f64 = 1.0;

/// How long it takes until everything on the way of a slow reader holds as much as it is allowed to.
const SETTLING: Duration = Duration::from_millis(500);

/// The share of its speed that a transfer must keep beside a slow reader; equal runs differ by about this much.
const KEPT_SPEED: f64 = 0.8;

fn main() -> ExitCode {
    let options = Options::parse();
    let origin = Origin::start();
    let pair = Pair::start(Settings { transport: options.transport, tunnels: 1, program: None }, origin.address());
    // One keep-alive round, so that what only the handshake needed has been given back.
    std::thread::sleep(Duration::from_secs(6));
    let watch = Watch::start(pair.processes());
    let idle = watch.now();
    println!("idle: responder {:.1} MiB, initiator {:.1} MiB", idle[0] as f64 / MIB, idle[1] as f64 / MIB);
    let mut bench = Bench { options, origin, pair, watch, idle, promises: Promises::default(), seed: 1 << 32 };
    thread::block_on(async {
        bench.bodies().await;
        bench.speeds().await;
        bench.crowd().await;
    });
    bench.promises.exit_code()
}

struct Bench {
    options: Options,
    origin: Origin,
    pair: Pair,
    watch: Watch,
    idle: Resident,
    promises: Promises,
    /// The last one used.
    seed: u64,
}

/// A body that arrived as it was sent.
struct Moved {
    /// MiB/s.
    speed: f64,
    sum: String,
}

impl Bench {
    fn way(&self) -> Way {
        Way { egress: self.pair.egress(), fields: self.pair.fields() }
    }

    fn content(&mut self) -> Content {
        self.seed += 1;
        Content { seed: self.seed }
    }

    /// Whole and in little memory, without and with a slow reader on another stream of the tunnel.
    async fn bodies(&mut self) {
        self.both_ways("").await;
        let reader = self.slow_reader();
        self.alone().await;
        self.both_ways(" beside a slow reader").await;
        let share = reader.share();
        self.promises.expect(share > 0.9, &format!("the slow reader got {:.0} % of its rate", share * 100.0));
    }

    fn slow_reader(&mut self) -> SlowReader {
        let content = self.content();
        SlowReader::start(&self.way(), content)
    }

    async fn both_ways(&mut self, beside: &str) {
        for direction in [Direction::Up, Direction::Down] {
            let what = format!("{:.2} GiB {direction:?}{beside}", self.options.gib).to_lowercase();
            let before = self.cpu();
            self.watch.peak();
            let bytes = (self.options.gib * 1024.0) as u64 * (1 << 20);
            let Moved { speed, sum } = self.transfer(direction, bytes, &what).await;
            let [responder, initiator] =
                [0, 1].map(|at| (self.cpu()[at] - before[at]).as_secs_f64() / self.options.gib);
            println!(
                "       {what}: {speed:.0} MiB/s, SHA-256 {sum}, CPU s/GiB: responder {responder:.1}, initiator {initiator:.1}"
            );
            self.expect_little_memory(&what);
        }
    }

    /// Neighbours are compared, since they share whatever else the machine did at that time.
    async fn speeds(&mut self) {
        for direction in [Direction::Up, Direction::Down] {
            let mut pairs = Vec::new();
            for turn in 0..self.options.turns {
                let (mut undisturbed, mut beside) = (0.0, 0.0);
                // The order changes, so that a machine that gets busier or calmer favours neither.
                for is_beside in [turn % 2 == 1, turn % 2 == 0] {
                    match is_beside {
                        false => undisturbed = self.turn(direction).await,
                        true => {
                            let _reader = self.slow_reader();
                            tokio::time::sleep(SETTLING).await;
                            beside = self.turn(direction).await;
                        }
                    }
                }
                pairs.push((beside / undisturbed, beside, undisturbed));
            }
            self.expect_kept_speed(direction, pairs);
        }
    }

    async fn turn(&mut self, direction: Direction) -> f64 {
        self.transfer(direction, self.options.turn << 20, "a turn").await.speed
    }

    fn expect_kept_speed(&mut self, direction: Direction, mut pairs: Vec<(f64, f64, f64)>) {
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let Some(&(share, beside, undisturbed)) = pairs.get(pairs.len() / 2) else { return };
        let promise = format!(
            "{direction:?} keeps {:.0} % of its speed beside a slow reader, {beside:.0} of {undisturbed:.0} MiB/s \
             (median of {} pairs)",
            share * 100.0,
            pairs.len()
        );
        self.promises.expect(share > KEPT_SPEED, &promise.to_lowercase().replace("mib", "MiB"));
    }

    async fn transfer(&mut self, direction: Direction, bytes: u64, what: &str) -> Moved {
        let content = self.content();
        let transfer = self.way().transfer(direction, content, bytes, &self.origin).await.expect("a transfer failed");
        if transfer.sent.is_empty() || transfer.sent != transfer.arrived {
            self.promises.expect(false, &format!("{what}: sent {}, arrived {}", transfer.sent, transfer.arrived));
        }
        Moved { speed: bytes as f64 / MIB / transfer.taken.as_secs_f64(), sum: transfer.arrived }
    }

    fn expect_little_memory(&mut self, what: &str) {
        let [responder, initiator] = self.rise(self.watch.peak());
        let promise = format!("{what}: peak above idle, responder {responder:.1} MiB, initiator {initiator:.1} MiB");
        self.promises.expect(responder < RISE && initiator < RISE, &promise);
    }

    fn cpu(&self) -> [Duration; 2] {
        self.pair.processes().map(|process| usage::cpu(process.pid))
    }

    /// MiB above idle.
    fn rise(&self, resident: Resident) -> [f64; 2] {
        [0, 1].map(|at| (resident[at] as f64 - self.idle[at] as f64) / MIB)
    }

    async fn alone(&mut self) {
        tokio::time::sleep(2 * SETTLING).await;
        self.watch.peak();
        let before = self.rise(self.watch.now());
        tokio::time::sleep(Duration::from_secs_f64(self.options.alone)).await;
        let peak = self.rise(self.watch.peak());
        let [responder, initiator] = [0, 1].map(|at| peak[at] - before[at]);
        let promise = format!(
            "slow reader alone for {} s: growth, responder {responder:.2} MiB, initiator {initiator:.2} MiB",
            self.options.alone
        );
        self.promises.expect(responder < GROWTH && initiator < GROWTH, &promise);
    }

    async fn crowd(&mut self) {
        let numbers = Numbers { exchanges: self.options.exchanges, cancelled: self.options.cancelled };
        self.watch.peak();
        let outcome = crowd::run(self.pair.egress(), &self.pair.fields(), &self.origin, numbers).await;
        let [responder, initiator] = self.rise(self.watch.peak());
        println!(
            "{} exchanges in {:.2} s; peak above idle, responder {responder:.1} MiB, initiator {initiator:.1} MiB",
            numbers.exchanges,
            outcome.taken.as_secs_f64()
        );
        let Numbers { exchanges, cancelled } = numbers;
        let at_once = outcome.at_once;
        self.promises.expect(at_once as u64 == exchanges, &format!("{at_once} of {exchanges} were under way at once"));
        let promise = format!(
            "the target saw {} of {cancelled} cancellations, the last after {} ms",
            outcome.cancellations_seen,
            outcome.cancelling.as_millis()
        );
        self.promises.expect(outcome.cancelled_as_asked, &promise);
        let answered = exchanges - cancelled;
        let promise = format!("{} of {answered} answers equal what was sent", outcome.equal);
        self.promises.expect(outcome.equal == answered, &promise);
        eventually("an idle tunnel", async || (self.pair.in_flight().await == Some(0)).then_some(())).await;
    }
}
