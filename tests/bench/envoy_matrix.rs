//! adit and the real Envoy at either end of Envoy's reverse tunnels: what comes through, what is refused, and what
//! happens when an end is killed or frozen, beside adit's own tunnels.
//!
//! `cargo bench --bench envoy_matrix -- --help` lists the options. Ends with 1 when something with adit at an end did not
//! come out as it has to; what Envoys do among themselves is there to compare with. Without an Envoy
//! (`target/envoy-venv`, which `tests/run` fills, or `$ADIT_ENVOY`) only adit's pairs have a turn.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "as crowd")]
mod bulk;
mod cell;
mod content;
#[allow(dead_code, reason = "the target of the transfer benchmark, which has more to do there")]
mod crowd;
mod faults;
#[path = "../blackbox/envoy_interop/ends.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "tests use other parts of it")]
mod interop;
#[allow(dead_code, reason = "only what a direction is; the rest is for the loopback benchmark")]
mod line;
mod mixed_pair;
mod observer;
#[allow(dead_code, reason = "as crowd")]
mod origin;
mod probes;
mod promises;
mod refusals;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
mod thread;
#[allow(dead_code, reason = "as line")]
mod usage;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use cell::{Amount, Bulk, Cell};
use faults::{FAULTS, Fault, Outcome};
use interop::End;
use mixed_pair::{Kind, Protocol, name, variant_name};
use origin::Origin;
use promises::Promises;
use refusals::{MISFITS, Refusal};
use support::envoy::Variant;
use support::site::Transport;
use table::Table;
use thread::block_on;

/// Puts adit and Envoy at the ends of tunnels.
#[derive(Debug, Parser)]
struct Options {
    /// Which parts, of matrix, refusals, faults.
    #[arg(long, value_delimiter = ',', default_value = "matrix,refusals,faults")]
    only: Vec<String>,
    /// Seconds for which an end stays frozen at most: what was not noticed by then counts as never noticed.
    #[arg(long, default_value_t = 40.0)]
    seconds: f64,
    /// Exchanges in each cell of the matrix, 64 at once.
    #[arg(long, default_value_t = 1000)]
    requests: u64,
    /// MiB of the large body in each cell.
    #[arg(long, default_value_t = 100)]
    mib: u64,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

const AT_ONCE: u64 = 64;

/// Every combination of ends, the responder first.
const ENDS: [(End, End); 4] =
    [(End::Envoy, End::Envoy), (End::Adit, End::Envoy), (End::Envoy, End::Adit), (End::Adit, End::Adit)];

const VARIANTS: [Variant; 4] = [Variant::Plaintext, Variant::Mtls, Variant::InnerMtls, Variant::DrainAware];

fn main() -> ExitCode {
    let options = Options::parse();
    let origin = Origin::start();
    let mut bench = Bench { options, origin, promises: Promises::default() };
    for (part, run) in
        [("matrix", Bench::matrix as fn(&mut Bench)), ("refusals", Bench::refusals), ("faults", Bench::faults)]
    {
        if bench.options.only.iter().any(|only| only == part) {
            run(&mut bench);
        }
    }
    bench.promises.exit_code()
}

struct Bench {
    options: Options,
    origin: Origin,
    promises: Promises,
}

impl Bench {
    fn matrix(&mut self) {
        let amount = Amount { requests: self.options.requests, at_once: AT_ONCE, bytes: self.options.mib << 20 };
        let mut table = Table::new(&[
            "variant",
            "responder",
            "initiator",
            "statuses",
            "equal",
            "seconds",
            "up",
            "down",
            "SHA-256 equal",
            "trailers",
        ]);
        for variant in VARIANTS {
            for (responder, initiator) in ENDS {
                let kind = Kind { responder, initiator, protocol: Protocol::Envoy(variant) };
                let Some(cell) = block_on(Cell::run(kind, amount, &self.origin)) else { continue };
                let what = format!("{}, {} to {}", variant_name(variant), name(initiator), name(responder));
                eprintln!("{what}: {} of {} equal", cell.equal, amount.requests);
                if kind.is_ours() && !cell.is_whole(amount) {
                    self.promises.expect(false, &format!("{what}: {cell:?}"));
                }
                table.row([
                    variant_name(variant).to_owned(),
                    name(responder).to_owned(),
                    name(initiator).to_owned(),
                    counts(&cell.statuses),
                    cell.equal.to_string(),
                    format!("{:.2}", cell.taken.as_secs_f64()),
                    self.speed(&cell.up),
                    self.speed(&cell.down),
                    yes_or_no(cell.up.sum.is_ok() && cell.down.sum.is_ok()),
                    yes_or_no(cell.trailers),
                ]);
            }
        }
        let Options { requests, mib, .. } = self.options;
        println!(
            "\n{requests} exchanges, {AT_ONCE} at once, each body another; then {mib} MiB up, and down.\n\n{table}"
        );
    }

    fn speed(&self, bulk: &Bulk) -> String {
        let seconds = bulk.taken.as_secs_f64();
        match &bulk.sum {
            Ok(_) => format!("{seconds:.2} s, {:.0} MiB/s", self.options.mib as f64 / seconds),
            Err(reason) => reason.clone(),
        }
    }

    fn refusals(&mut self) {
        let mut table = Table::new(&[
            "misfit",
            "responder",
            "initiator",
            "tunnels, before and after a request",
            "request",
            "the responder says",
            "the initiator says",
        ]);
        for misfit in MISFITS {
            let target = self.origin.address();
            let provoke = |(responder, initiator)| block_on(Refusal::provoke(responder, initiator, misfit, target));
            for ((responder, initiator), refusal) in at_once(&ENDS, provoke) {
                let Some(refusal) = refusal else { continue };
                let kind = Kind { responder, initiator, protocol: Protocol::Envoy(Variant::Mtls) };
                let [responder, initiator] = refusals::ends(responder, initiator);
                if kind.is_ours() && refusal.status == Some(200) {
                    let promise = format!("{}: {initiator} to {responder} is refused", misfit.what);
                    self.promises.expect(false, &promise);
                }
                let [before, after] = refusal.tunnels;
                let status = refusal.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
                table.row([
                    misfit.what.to_owned(),
                    responder,
                    initiator,
                    format!("{before}, {after}"),
                    format!("{status} {}", refusal.answer).trim_end().to_owned(),
                    refusal.responder,
                    refusal.initiator,
                ]);
            }
        }
        println!("\n{table}");
    }

    fn faults(&mut self) {
        let mut table =
            Table::new(&["fault", "tunnel", "noticed", "recovered", "lost of sent", "lost as", "slowest answer"]);
        let frozen = Duration::from_secs_f64(self.options.seconds);
        for fault in FAULTS {
            eprintln!("{}", fault.what);
            let target = self.origin.address();
            let run = |(_, kind)| block_on(fault.run(kind, target, frozen));
            for ((tunnel, kind), outcome) in at_once(&tunnels(), run) {
                let Some(outcome) = outcome else { continue };
                self.fault(&mut table, fault, (tunnel, kind), &outcome);
            }
        }
        println!(
            "\n20 requests per second. Noticed: from the fault until the other end gave the tunnel up, at most {} s of a \
             freeze; it ends when it was noticed. Recovered: from the kill, or the end of the freeze, until all requests \
             came through.\n\n{table}",
            self.options.seconds
        );
    }

    fn fault(&mut self, table: &mut Table, fault: Fault, (tunnel, kind): (&str, Kind), outcome: &Outcome) {
        if kind.is_ours() && outcome.recovery.is_none() {
            self.promises.expect(false, &format!("{}, {tunnel}: requests come through again", fault.what));
        }
        let seconds = |time: Option<Duration>| {
            time.map_or_else(|| "no".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        let lost: usize = outcome.lost.values().sum();
        table.row([
            fault.what.to_owned(),
            tunnel.to_owned(),
            seconds(outcome.notice),
            seconds(outcome.recovery),
            format!("{lost} of {}", outcome.sent),
            counts(&outcome.lost),
            seconds(Some(outcome.slowest)),
        ]);
    }
}

/// The tunnels that faults happen to.
fn tunnels() -> [(&'static str, Kind); 7] {
    let kind = |responder, initiator, protocol| Kind { responder, initiator, protocol };
    let (plain, aware) = (Protocol::Envoy(Variant::Plaintext), Protocol::Envoy(Variant::DrainAware));
    [
        ("Envoy to Envoy", kind(End::Envoy, End::Envoy, plain)),
        ("Envoy to Envoy, drain-aware", kind(End::Envoy, End::Envoy, aware)),
        ("Envoy to adit", kind(End::Adit, End::Envoy, plain)),
        ("adit to Envoy", kind(End::Envoy, End::Adit, plain)),
        ("adit to adit, Envoy's protocol", kind(End::Adit, End::Adit, plain)),
        ("adit to adit, TCP", kind(End::Adit, End::Adit, Protocol::Own(Transport::Tcp))),
        ("adit to adit, QUIC", kind(End::Adit, End::Adit, Protocol::Own(Transport::Quic))),
    ]
}

/// One thread for each of them; most of the time is waiting.
fn at_once<T: Copy + Send + Sync, R: Send>(of: &[T], run: impl Fn(T) -> R + Sync) -> Vec<(T, R)> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = of.iter().map(|each| (*each, scope.spawn(|| run(*each)))).collect();
        threads.into_iter().map(|(each, thread)| (each, thread.join().unwrap())).collect()
    })
}

fn counts<N: Display>(of: &BTreeMap<String, N>) -> String {
    let counts: Vec<String> = of.iter().map(|(status, count)| format!("{count} × {status}")).collect();
    counts.join(", ")
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
