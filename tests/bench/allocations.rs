//! How often each side of a tunnel allocates for one exchange, and how many bytes.
//!
//! `cargo bench --bench allocations`. Both sides run in this process, each on a thread of its own, and the allocator of
//! this benchmark counts by thread. Unlike times these figures are the same on every machine, however busy it is.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the other benchmarks use their own part of it")]
mod adit_pair;
#[allow(dead_code, reason = "the load generator names it")]
mod h2load;
#[allow(dead_code, reason = "only the kind of an exchange; the rest is for the loopback benchmark")]
mod line;
#[allow(dead_code, reason = "only single connections; the rest is for the loopback benchmark")]
mod load;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod target;
mod thread;
#[allow(dead_code, reason = "the load generator names it")]
mod usage;

use std::path::Path;
use std::sync::mpsc;

use adit::app::App;
use adit::config;
use allocation_counter::{AllocationInfo, measure};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use adit_pair::{Files, Settings};
use line::Kind;
use load::{Client, HttpLine};
use support::site::Transport;

/// Counts what one exchange allocates, on both sides of a tunnel.
#[derive(Debug, Parser)]
struct Options {
    /// Exchanges that the figures are averaged over.
    #[arg(long, default_value_t = 20_000)]
    exchanges: usize,
    /// How many of them at once, each on a connection of its own.
    #[arg(long, default_value_t = 64)]
    concurrent: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let target = target::start();
    println!("| tunnel | exchange | responder: allocations | bytes | initiator: allocations | bytes |");
    println!("|---|---|---:|---:|---:|---:|");
    for transport in [Transport::Quic, Transport::Tcp] {
        let files = Files::write(Settings { transport, tunnels: 1, program: None }, target);
        let sides = files.paths.each_ref().map(|path| Side::start(path));
        thread::block_on(files.up());
        for (kind, name) in [(Kind::Get, "GET, 1 KiB down"), (Kind::Echo, "POST, 1 KiB each way")] {
            let [responder, initiator] = per_exchange(&files, &sides, kind, &options);
            println!("| {} | {name} | {responder} | {initiator} |", transport.label());
        }
    }
}

/// Both cells of each side, in the order of `sides`.
fn per_exchange(files: &Files, sides: &[Side; 2], kind: Kind, options: &Options) -> [String; 2] {
    let mut clients = Clients::connect(files, kind, options.concurrent);
    let each = options.exchanges.div_ceil(options.concurrent);
    // Connections, buffers and tables reach the size that they keep.
    clients.exchange(each.div_ceil(10).max(10));
    sides.iter().for_each(Side::begin);
    clients.exchange(each);
    let exchanges = (each * options.concurrent) as f64;
    sides.each_ref().map(|side| {
        let counted = side.end();
        let [count, bytes] = [counted.count_total, counted.bytes_total].map(|total| total as f64 / exchanges);
        format!("{count:.1} | {bytes:.0}")
    })
}

/// One side of the tunnel, on a thread of its own.
struct Side {
    orders: UnboundedSender<()>,
    answers: mpsc::Receiver<AllocationInfo>,
}

impl Side {
    /// Runs what the file says until the benchmark ends.
    fn start(file: &Path) -> Self {
        let checked = config::load(file, &config::Process).unwrap_or_else(|report| panic!("{report}"));
        let (orders, received) = unbounded_channel();
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let app = runtime.block_on(App::build(checked)).unwrap();
            runtime.spawn(app.run(adit::lifecycle::Drain::new()));
            count(&runtime, received, &sender);
        });
        Self { orders, answers }
    }

    /// From here on it counts.
    fn begin(&self) {
        self.orders.send(()).unwrap();
        self.answers.recv().unwrap();
    }

    /// What was counted since.
    fn end(&self) -> AllocationInfo {
        self.orders.send(()).unwrap();
        self.answers.recv().unwrap()
    }
}

/// All tasks of the runtime run while this thread waits for an order: uncounted until one, then counted until the next.
fn count(runtime: &Runtime, mut orders: UnboundedReceiver<()>, answers: &mpsc::Sender<AllocationInfo>) {
    while runtime.block_on(orders.recv()).is_some() {
        answers.send(AllocationInfo::default()).unwrap();
        let counted = measure(|| {
            // Without orders there is no benchmark any more, which the loop sees.
            let _ = runtime.block_on(orders.recv());
        });
        answers.send(counted).unwrap();
    }
}

/// The load: connections that stay open.
struct Clients {
    runtime: Runtime,
    clients: Vec<Client>,
    request: Vec<u8>,
}

impl Clients {
    fn connect(files: &Files, kind: Kind, count: usize) -> Self {
        let (name, address, processes) = (String::new(), files.egress, Vec::new());
        let line = HttpLine { name, address, fields: adit_pair::fields(), takes_http2: true, processes };
        let request = line.small_request(kind);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connect = || runtime.block_on(Client::connect(address)).unwrap();
        let clients = (0..count).map(|_| connect()).collect();
        Self { runtime, clients, request }
    }

    /// So many exchanges on each connection.
    fn exchange(&mut self, each: usize) {
        let mut running = JoinSet::new();
        for mut client in self.clients.drain(..) {
            let request = self.request.clone();
            let exchanges = async move {
                for _ in 0..each {
                    client.exchange(&request, target::PAYLOAD).await.unwrap();
                }
                client
            };
            running.spawn_on(exchanges, self.runtime.handle());
        }
        self.clients = self.runtime.block_on(running.join_all());
    }
}
