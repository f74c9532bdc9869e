//! Medians over the rounds, as tables that can be pasted into a document.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use crate::line::{Kind, Sample, Shape};
use crate::tunnels::before;

/// All that was measured.
#[derive(Default)]
pub(crate) struct Report {
    /// In the order of their first turn.
    names: Vec<String>,
    small: BTreeMap<(String, Shape, &'static str), Vec<Small>>,
    bulk: BTreeMap<String, Vec<Bulk>>,
    pub(crate) memory: Vec<Memory>,
    /// The number of the Envoy in it, if any.
    pub(crate) envoy: Option<String>,
    /// The number of the rathole in it, if any.
    pub(crate) rathole: Option<String>,
}

/// One measurement of small exchanges.
pub(crate) struct Small {
    per_second: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
    /// Processor time per exchange in microseconds, by process.
    cpu: BTreeMap<&'static str, f64>,
}

/// MiB per second.
pub(crate) struct Bulk {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

/// KiB per idle tunnel.
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) tunnels: usize,
    pub(crate) responder: f64,
    pub(crate) initiator: f64,
}

impl Small {
    pub(crate) fn new(sample: &Sample, cpu: BTreeMap<&'static str, f64>) -> Self {
        let (p50, p99) = (sample.microseconds(0.5), sample.microseconds(0.99));
        Self { per_second: sample.per_second(), p50, p99, cpu }
    }
}

impl Report {
    pub(crate) fn small(&mut self, name: &str, kind: Kind, shape: Shape, small: Small) {
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
        self.small.entry((name.to_owned(), shape, label(kind))).or_default().push(small);
    }

    pub(crate) fn bulk(&mut self, name: &str, bulk: Bulk) {
        self.bulk.entry(name.to_owned()).or_default().push(bulk);
    }

    pub(crate) fn print(&self) {
        let envoy = self.envoy.as_ref().map(|version| format!(" Envoy {version}, one worker at each end."));
        let rathole = self.rathole.as_ref().map(|version| format!(" rathole {version}."));
        println!("{}{}{}\n", surroundings(), envoy.unwrap_or_default(), rathole.unwrap_or_default());
        println!("{}\n{}\n{}", self.small_table(), self.bulk_table(), self.memory_table());
        println!("{}", self.ratio_table());
    }

    fn small_table(&self) -> String {
        let mut table = String::from(
            "| line | exchange | at once | per second | p50 µs | p99 µs | added p50 µs | CPU µs per exchange |\n\
             |---|---|---:|---:|---:|---:|---:|---|\n",
        );
        for name in &self.names {
            for ((_, shape, kind), rounds) in self.small.iter().filter(|((line, ..), _)| line == name) {
                let p50 = median(rounds, |small| small.p50);
                let direct = self.small.get(&("direct".to_owned(), *shape, *kind));
                let added = match direct {
                    Some(direct) if name != "direct" => format!("{:.0}", p50 - median(direct, |small| small.p50)),
                    _ => String::new(),
                };
                let per_second = median(rounds, |small| small.per_second);
                let p99 = median(rounds, |small| small.p99);
                let cpu = cpu_cell(rounds);
                writeln!(
                    table,
                    "| {name} | {kind} | {shape} | {per_second:.0} | {p50:.0} | {p99:.0} | {added} | {cpu} |"
                )
                .unwrap();
            }
        }
        table
    }

    fn bulk_table(&self) -> String {
        let mut table = String::from("| line | up MiB/s | down MiB/s |\n|---|---:|---:|\n");
        for name in &self.names {
            let Some(rounds) = self.bulk.get(name) else { continue };
            let (up, down) = (median(rounds, |bulk| bulk.up), median(rounds, |bulk| bulk.down));
            writeln!(table, "| {name} | {up:.0} | {down:.0} |").unwrap();
        }
        table
    }

    /// This build by the earlier one. More is better in the first two columns, less in the others.
    fn ratio_table(&self) -> String {
        let mut table = String::from(
            "| this build / before | exchange | at once | per second | p50 | CPU per exchange |\n\
             |---|---|---:|---:|---:|---:|\n",
        );
        let rows = self.small.iter().filter_map(|((name, shape, kind), now)| {
            let then = self.small.get(&(before(name), *shape, *kind))?;
            let ratio = |value: fn(&Small) -> f64| median(now, value) / median(then, value);
            let [per_second, p50] = [ratio(|small| small.per_second), ratio(|small| small.p50)];
            let cpu = ratio(|small| small.cpu.values().sum());
            Some(format!("| {name} | {kind} | {shape} | {per_second:.2} | {p50:.2} | {cpu:.2} |\n"))
        });
        let rows: String = rows.collect();
        if rows.is_empty() {
            return rows;
        }
        table.push_str(&rows);
        let bulk = self.bulk.iter().filter_map(|(name, now)| {
            let then = self.bulk.get(&before(name))?;
            let ratio = |value: fn(&Bulk) -> f64| median(now, value) / median(then, value);
            Some(format!("| {name} | {:.2} | {:.2} |\n", ratio(|bulk| bulk.up), ratio(|bulk| bulk.down)))
        });
        table + "\n| this build / before | up | down |\n|---|---:|---:|\n" + &bulk.collect::<String>()
    }

    fn memory_table(&self) -> String {
        let mut table =
            String::from("| resident KiB per idle tunnel | of | responder | initiator |\n|---|---:|---:|---:|\n");
        for Memory { name, tunnels, responder, initiator } in &self.memory {
            writeln!(table, "| {name} | {tunnels} | {responder:.0} | {initiator:.0} |").unwrap();
        }
        if self.memory.is_empty() { String::new() } else { table }
    }
}

fn cpu_cell(rounds: &[Small]) -> String {
    let names = rounds.first().map(|small| small.cpu.keys()).into_iter().flatten();
    let cells: Vec<String> =
        names.map(|name| format!("{name} {:.1}", median(rounds, |small| small.cpu[name]))).collect();
    cells.join(", ")
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Get => "GET, 1 KiB down",
        Kind::Echo => "POST, 1 KiB each way",
        Kind::Connect => "GET, 1 KiB down, each on a new connection",
    }
}

fn median<T>(rounds: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// What one needs to know to compare these figures with others.
fn surroundings() -> String {
    let date = time::OffsetDateTime::now_utc().date();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = first_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let tcp = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    format!(
        "{date}, {cores} cores of {processor}, Linux {}, {}; adit {}, quinn {}.\n\
         QUIC with BBR on both sides, mTLS; TCP on loopback with {}. Everything shares these cores.",
        kernel.trim(),
        compiler(),
        env!("CARGO_PKG_VERSION"),
        locked_version("quinn"),
        tcp.trim(),
    )
}

fn first_value(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(|_| "rustc".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn locked_version(package: &str) -> &'static str {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let rest = include_str!("../../Cargo.lock").split_once(&entry).map_or("?\"", |(_, rest)| rest);
    &rest[..rest.find('"').unwrap_or(rest.len())]
}
