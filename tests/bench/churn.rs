//! Connections that come and go: so many a second through a listener for bytes, each with content of its own that comes back.
//!
//! `cargo bench --bench churn` runs it over QUIC and over TCP; `-- --help` lists the options. Each connection sends up to
//! `--bytes`, ends that direction, and compares what the service at the site sends back to the end, byte for byte. Then it
//! says what the two processes hold when all is over, beside what they held before. Beside them `--idle` connections stay open
//! and say nothing; at the end each of them has to carry something.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod content;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod steady;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod thread;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod usage;

use std::io::{self, BufRead as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use content::Content;
use support::site::{Cloud, Edge, Folder, NODE, Transport};
use table::Table;

/// Nobody waits longer; what has not come back by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Allocators keep for some seconds what was freed.
const GIVES_BACK: Duration = Duration::from_secs(15);
/// How long descriptors may take to be as many as before.
const CALM: Duration = Duration::from_secs(60);
/// Clients have this many addresses: each has room for some ten thousand connections that are over and remembered.
const SOURCES: u8 = 16;

/// A tunnel has room for 4,096 streams.
const TUNNELS: usize = 4;

/// Measures connections that come and go.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds of each row.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Connections a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// The most that a connection sends.
    #[arg(long, default_value_t = 16 << 10)]
    bytes: u64,
    /// Connections that are open all the time and say nothing.
    #[arg(long, default_value_t = 10_000)]
    idle: u64,
    /// What carries the tunnels: quic, tcp.
    #[arg(long, value_delimiter = ',', default_value = "quic,tcp")]
    lines: Vec<String>,
    /// Is the target of another run.
    #[arg(long, hide = true)]
    echo: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if options.echo {
        return thread::block_on(echo());
    }
    more_files(options.idle);
    let mut table = Table::new(&[
        "tunnel",
        "connections",
        "lost",
        "idle, and lost",
        "p50 ms",
        "p99 ms",
        "slowest ms",
        "descriptors before, after (responder; initiator)",
        "MiB before, with the idle ones, after (responder; initiator)",
    ]);
    for transport in [Transport::Quic, Transport::Tcp] {
        if options.lines.iter().any(|line| line == transport.label()) {
            thread::block_on(run(transport, &options, &mut table));
        }
    }
    println!("{table}");
}

async fn run(transport: Transport, options: &Options, table: &mut Table) {
    let folder = Folder::new();
    // The only listener: each has a part of the descriptors.
    let to = format!("{{ node: {}, service: bytes, tenant: {} }}", NODE.node, NODE.tenant);
    let cloud = ["http", "host_id", "tenant"].iter().fold(Cloud::new(), |cloud, key| cloud.without(key));
    let responder = cloud.egress("tcp", "\"127.0.0.1:0\"").egress("to", &to).start(&folder).await;
    let target = Target::start();
    let service = format!("{{ name: bytes, target: \"tcp://{}\" }}", target.address);
    let edge = Edge::new(transport).count(TUNNELS).service(&service);
    let initiator = edge.start(&folder, responder.tunnel_address()).await;
    responder.registered(TUNNELS).await;
    let pids = [responder.0.pid(), initiator.pid()];
    let listener = responder.tcp_at(0);
    // The first ones have threads and buffers made that stay.
    for number in 0..100 {
        there_and_back(listener, number, options.bytes).await.unwrap();
    }
    let before = settled(pids, None).await;
    let held = pids.map(usage::resident);
    let mut idle = Vec::new();
    for number in 0..options.idle {
        idle.push(connect(listener, number).await.unwrap());
    }
    // Each is through to its service.
    let silent = exchanged(&mut idle).await;
    let full = pids.map(usage::resident);
    let numbers = std::cell::Cell::new(100);
    let once = || {
        let (number, most) = (numbers.replace(numbers.get() + 1), options.bytes);
        there_and_back(listener, number, most)
    };
    let seen = steady::run(options.rate, (Duration::from_secs(options.seconds), PATIENCE), once).await;
    let silent = silent.max(exchanged(&mut idle).await);
    drop(idle);
    let after = settled(pids, Some(before)).await;
    let holds = kept(pids).await;
    let millis = |share: f64| format!("{:.2}", seen.quantile(share).as_secs_f64() * 1e3);
    let mib = |index: usize| {
        [held[index], full[index], holds[index]].map(|bytes| format!("{:.1}", bytes as f64 / 1048576.0)).join(", ")
    };
    for (what, count) in &seen.lost {
        println!("{}: {count} lost: {what}", transport.label());
    }
    table.row([
        transport.label().to_owned(),
        seen.sent.to_string(),
        seen.lost.values().sum::<usize>().to_string(),
        format!("{}, {silent}", options.idle),
        millis(0.5),
        millis(0.99),
        millis(1.0),
        format!("{}, {}; {}, {}", before[0], after[0], before[1], after[1]),
        format!("{}; {}", mib(0), mib(1)),
    ]);
}

/// How many descriptors the processes have, once they are as many as `expected`, or have stopped to change.
async fn settled(pids: [u32; 2], expected: Option<[usize; 2]>) -> [usize; 2] {
    let (start, mut last) = (Instant::now(), pids.map(descriptors));
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = pids.map(descriptors);
        if expected.map_or(now == last, |expected| now == expected) || start.elapsed() > CALM {
            return now;
        }
        last = now;
    }
}

/// What the processes hold once that has not fallen by a hundredth for as long as an allocator may take to give memory back.
async fn kept(pids: [u32; 2]) -> [u64; 2] {
    let (mut least, mut since) = (pids.map(usage::resident), Instant::now());
    while since.elapsed() < GIVES_BACK {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = pids.map(usage::resident);
        if now.iter().zip(&least).any(|(now, least)| now * 100 < least * 99) {
            (least, since) = (now, Instant::now());
        }
    }
    least
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// This process holds the outer end of each connection that is idle. Children inherit it.
fn more_files(idle: u64) {
    let limit = format!("--nofile={}:", idle + 4096);
    let raised = Command::new("prlimit").args([&limit, "--pid", &std::process::id().to_string()]).status();
    if !raised.is_ok_and(|status| status.success()) {
        eprintln!("the limit of open files stays as it is: one is needed for each connection that is idle");
    }
}

/// How many connections do not carry a byte there and back.
async fn exchanged(idle: &mut [TcpStream]) -> usize {
    let mut lost = 0;
    for stream in idle {
        let once = async {
            stream.write_all(b"x").await?;
            stream.read_u8().await
        };
        lost += usize::from(!matches!(tokio::time::timeout(PATIENCE, once).await, Ok(Ok(b'x'))));
    }
    lost
}

async fn connect(listener: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::new(127, 0, 1, (number % u64::from(SOURCES)) as u8 + 1);
    socket.bind((source, 0).into())?;
    let stream = socket.connect(listener).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection: content of its own, which is to come back as it was.
async fn there_and_back(listener: SocketAddr, number: u64, most: u64) -> io::Result<()> {
    let stream = connect(listener, number).await?;
    let sent = Content { seed: number }.bytes((number * 7919 % (most + 1)) as usize);
    let (mut recv, mut send) = stream.into_split();
    let sending = async {
        send.write_all(&sent).await?;
        send.shutdown().await
    };
    let mut received = Vec::with_capacity(sent.len());
    let (sending, read) = tokio::join!(sending, recv.read_to_end(&mut received));
    sending?;
    read?;
    if received == sent { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// A target in a process of its own, which has as many descriptors as this one. Ends with this value.
struct Target {
    process: Child,
    address: SocketAddr,
}

impl Target {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut process = command.arg("--echo").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends everybody back what comes, until whoever started it is gone.
async fn echo() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::thread::spawn(|| {
        let _ = io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    while let Ok((stream, _)) = listener.accept().await {
        // What went wrong shows at the client.
        tokio::spawn(async move { drop(send_back(stream).await) });
    }
}

async fn send_back(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut recv, mut send) = stream.into_split();
    tokio::io::copy(&mut recv, &mut send).await?;
    send.shutdown().await
}
