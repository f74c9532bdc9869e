//! How fast a request crosses a tunnel on one machine, beside what the machine can do without adit and beside pairs of
//! Envoys and of ratholes, where there are such programs.
//!
//! `cargo bench --bench loopback -- --help` lists the options. Load generator, target and tunnel share the processor,
//! so figures compare lines of one run; they say little about another machine. The lines take turns in every round and
//! the table shows medians, so that a busy moment does not fall on one line alone.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the transfer benchmark uses its own part of it")]
mod adit_pair;
mod envoy_pair;
mod h2load;
mod http3_load;
mod line;
mod load;
mod rathole;
mod raw_quic;
mod report;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod target;
mod thread;
mod tunnels;
mod usage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;

use http3_load::Http3Line;
use line::{Direction, Kind, Line, Shape, Workload};
use load::HttpLine;
use rathole::Rathole;
use raw_quic::RawQuic;
use report::{Bulk, Memory, Report, Small};
use tunnels::Ends;

/// Descriptors for 1,000 connections of the load generator, their ends at the target, and whatever else is open.
const FILES: usize = 8192;

/// Measures the way through a tunnel on loopback.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds per measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each line has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// MiB per bulk transfer; 0 leaves it out.
    #[arg(long, default_value_t = 512)]
    bulk: usize,
    /// Which lines, of direct, raw, quic, tcp, envoy, envoy-tls, rathole; http3: those of tunnels with clients of HTTP/3, too;
    /// bytes: those of tunnels with a listener for bytes, too.
    #[arg(long, value_delimiter = ',', default_value = "direct,raw,quic,tcp,envoy,envoy-tls,http3,bytes,rathole")]
    lines: Vec<String>,
    /// How many exchanges at once over HTTP/1.1, or connections x streams over HTTP/2 (by h2load, where it is installed).
    #[arg(long, value_delimiter = ',', default_value = "1,64,256,1000,4x16")]
    shapes: Vec<Shape>,
    /// Another build of adit: its tunnels take turns with those of this one, and the ratios are printed.
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Tunnels that the memory of one is averaged over; 0 leaves it out.
    #[arg(long, default_value_t = 200)]
    idle_tunnels: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    more_files();
    let target = target::start();
    let kinds = wanted_kinds(&options);
    // Where a program is missing, its line is left out.
    let start = |kind: &tunnels::Kind| kind.start(1, target).map(|pair| (*kind, pair));
    let pairs: Vec<(tunnels::Kind, Box<dyn Ends>)> = kinds.iter().filter_map(start).collect();
    let lines = lines(&options, target, &pairs);
    let mut report = Report::default();
    if lines.iter().any(|line| line.name() == rathole::NAME) {
        report.rathole = rathole::version();
    }
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        measure_small(&lines, &options, &mut report);
        measure_bulk(&lines, &options, &mut report);
    }
    let kinds: Vec<tunnels::Kind> = pairs.iter().map(|(kind, _)| *kind).collect();
    drop(lines);
    drop(pairs);
    if options.idle_tunnels > 0 {
        let memory = |kind: &tunnels::Kind| measure_memory(*kind, options.idle_tunnels, target);
        report.memory = kinds.iter().filter_map(memory).collect();
    }
    if kinds.iter().any(|kind| matches!(kind, tunnels::Kind::Envoy(_))) {
        report.envoy = envoy_pair::version();
    }
    report.print();
}

/// A thousand connections and both their ends need more descriptors than a shell allows at first. Children inherit it.
fn more_files() {
    let limit = format!("--nofile={FILES}:");
    let process = std::process::id().to_string();
    let raised = Command::new("prlimit").args([&limit, "--pid", &process]).status();
    if !raised.is_ok_and(|status| status.success()) {
        eprintln!("the limit of open files stays as it is: {FILES} are needed for 1,000 at once");
    }
}

fn wanted(options: &Options, line: &str) -> bool {
    options.lines.iter().any(|name| name == line)
}

/// An earlier build stands beside this one, so that both have the same moment.
fn wanted_kinds(options: &Options) -> Vec<tunnels::Kind> {
    // It is needed as long as the benchmark runs.
    let program: Option<&'static Path> =
        options.before.as_ref().map(|path| &*Box::leak(path.clone().into_boxed_path()));
    let kinds = tunnels::Kind::ALL.iter().copied().filter(|kind| wanted(options, kind.key()));
    kinds.flat_map(|kind| kind.earlier(program).into_iter().chain([kind])).collect()
}

fn lines(options: &Options, target: SocketAddr, pairs: &[(tunnels::Kind, Box<dyn Ends>)]) -> Vec<Box<dyn Line>> {
    let mut lines: Vec<Box<dyn Line>> = Vec::new();
    if wanted(options, "direct") {
        let (name, fields, processes) = ("direct".into(), String::new(), Vec::new());
        lines.push(Box::new(HttpLine { name, address: target, fields, takes_http2: false, processes }));
    }
    if wanted(options, "raw") {
        lines.push(Box::new(RawQuic::start()));
    }
    for (kind, pair) in pairs {
        let (name, fields, processes) = (kind.name(), pair.fields(), pair.processes().to_vec());
        lines.push(Box::new(HttpLine { name, address: pair.egress(), fields, takes_http2: true, processes }));
    }
    // To the same target, through a listener that knows nothing of requests.
    for (kind, pair) in pairs.iter().filter(|_| wanted(options, "bytes")) {
        let Some(address) = pair.bytes() else { continue };
        let (name, processes) = (format!("{}; listener for bytes", kind.name()), pair.processes().to_vec());
        lines.push(Box::new(HttpLine { name, address, fields: String::new(), takes_http2: false, processes }));
    }
    if let Some(rathole) = wanted(options, "rathole").then(|| Rathole::start(target)).flatten() {
        lines.push(Box::new(rathole));
    }
    // An earlier build may know no HTTP/3.
    let now = pairs.iter().filter(|(kind, _)| !matches!(kind, tunnels::Kind::Before(..)));
    for (kind, pair) in now.filter(|_| wanted(options, "http3")) {
        let (fields, processes) = (pair.fields(), pair.processes().to_vec());
        let name = format!("{}; HTTP/3 clients", kind.name());
        lines.push(Box::new(Http3Line { name, egress: pair.http3(), fields, processes }));
    }
    lines
}

/// The lines take turns in each workload.
fn measure_small(lines: &[Box<dyn Line>], options: &Options, report: &mut Report) {
    let duration = Duration::from_secs_f64(options.seconds);
    for &shape in &options.shapes {
        for kind in [Kind::Get, Kind::Echo, Kind::Connect] {
            for line in lines {
                measure_workload(line.as_ref(), Workload { kind, shape, duration }, report);
            }
        }
    }
}

fn measure_workload(line: &dyn Line, workload: Workload, report: &mut Report) {
    let before: Vec<Duration> = line.processes().iter().map(|process| usage::cpu(process.pid)).collect();
    let Some(sample) = line.requests(workload) else { return };
    // The processes worked through the warm-up, too; the share of it is taken as even.
    let exchanges = sample.per_second() * (sample.elapsed + line::WARM_UP).as_secs_f64();
    let used = line.processes().into_iter().zip(before).map(|(process, before)| {
        let used = usage::cpu(process.pid) - before;
        (process.name, used.as_secs_f64() * 1e6 / exchanges)
    });
    let cpu: BTreeMap<&'static str, f64> = used.collect();
    report.small(line.name(), workload.kind, workload.shape, Small::new(&sample, cpu));
}

fn measure_bulk(lines: &[Box<dyn Line>], options: &Options, report: &mut Report) {
    if options.bulk == 0 {
        return;
    }
    for line in lines {
        let rate = |direction| {
            let taken = line.bulk(direction, options.bulk << 20)?;
            Some(options.bulk as f64 / taken.as_secs_f64())
        };
        if let (Some(up), Some(down)) = (rate(Direction::Up), rate(Direction::Down)) {
            report.bulk(line.name(), Bulk { up, down });
        }
    }
}

/// The difference between a pair with one tunnel and a pair with many, after both are up and idle. Envoy begins HTTP/2
/// and inner TLS with the first request of a tunnel, so its idle ones have neither yet.
fn measure_memory(kind: tunnels::Kind, tunnels: usize, target: SocketAddr) -> Option<Memory> {
    let resident = |tunnels| {
        let pair = kind.start(tunnels, target)?;
        // One more keep-alive round, so that what only the handshake needed has been given back.
        std::thread::sleep(Duration::from_secs(6));
        Some(pair.processes().map(|process| usage::resident(process.pid)))
    };
    let (few, many) = (resident(1)?, resident(1 + tunnels)?);
    let [responder, initiator] = [0, 1].map(|at| many[at].saturating_sub(few[at]) as f64 / tunnels as f64 / 1024.0);
    Some(Memory { name: kind.name(), tunnels, responder, initiator })
}
