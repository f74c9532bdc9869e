//! Real programs through listeners: each runs against a real server at a site, over each of the transports, and what came of it
//! stands in one table.
//!
//! `cargo bench --bench programs` runs all of them; `-- --help` lists the options. What is not installed is named in the table
//! and does not count. Exit code 1 says that something ran and failed: what it and both ends of the tunnel printed is then on
//! standard error.
//!
//! Of Debian it wants openssh-server, postgresql, redis-server, iperf3, bind9-dnsutils, curl, openssl, iproute2, ethtool,
//! iputils-ping and python3; `tests/run` installs aioquic. VXLAN needs root, as does a server of ssh that root logs in to.
#![allow(clippy::unwrap_used)]

#[path = "programs/connect_udp.rs"]
mod connect_udp;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod content;
#[path = "programs/dns.rs"]
mod dns;
#[allow(dead_code, reason = "other benchmarks use other parts of it")]
mod game;
#[path = "programs/iperf3.rs"]
mod iperf3;
#[path = "programs/play.rs"]
mod play;
#[path = "programs/postgres.rs"]
mod postgres;
#[path = "programs/redis.rs"]
mod redis;
#[path = "programs/run.rs"]
mod run;
#[path = "programs/ssh.rs"]
mod ssh;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test binary and benchmark uses its own part of it")]
mod support;
mod table;
#[path = "programs/tls.rs"]
mod tls;
#[path = "programs/vxlan.rs"]
mod vxlan;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use run::{Run, Size};
use support::process::Adit;
use support::site::Transport;
use table::Table;

/// Runs programs through listeners of adit.
#[derive(Debug, Parser)]
struct Options {
    /// Bytes of a file that is copied.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Seconds of each load that goes by time.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Which programs; all of them where none is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
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

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Ssh,
    Postgres,
    Redis,
    Tls,
    Iperf3,
    Dig,
    Game,
    Vxlan,
    ConnectUdp,
}

impl Kind {
    /// The programs, and the kind of listener that they go through.
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Ssh => ["ssh, scp", "tcp"],
            Self::Postgres => ["psql", "tcp"],
            Self::Redis => ["redis-cli, redis-benchmark", "tcp"],
            Self::Tls => ["curl, openssl s_client", "tcp with routes by server_name"],
            Self::Iperf3 => ["iperf3", "tcp and udp on one port"],
            Self::Dig => ["dig", "udp"],
            Self::Game => ["load like a game's", "udp"],
            Self::Vxlan => ["VXLAN of Linux", "udp"],
            Self::ConnectUdp => ["aioquic", "http with connect_udp, HTTP/3"],
        }
    }

    /// What it needs and is not here.
    fn missing(self) -> Vec<&'static str> {
        match self {
            Self::Ssh => ssh::missing(),
            Self::Postgres => postgres::missing(),
            Self::Redis => redis::missing(),
            Self::Tls => tls::missing(),
            Self::Iperf3 => iperf3::missing(),
            Self::Dig => dns::missing(),
            Self::Game => Vec::new(),
            Self::Vxlan => vxlan::missing(),
            Self::ConnectUdp => connect_udp::missing(),
        }
    }

    async fn run(self, run: Run) {
        match self {
            Self::Ssh => ssh::run(run).await,
            Self::Postgres => postgres::run(run).await,
            Self::Redis => redis::run(run).await,
            Self::Tls => tls::run(run).await,
            Self::Iperf3 => iperf3::run(run).await,
            Self::Dig => dns::run(run).await,
            Self::Game => play::run(run).await,
            Self::Vxlan => vxlan::run(run).await,
            Self::ConnectUdp => connect_udp::run(run).await,
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(program) = &options.program {
        if !program.is_file() {
            eprintln!("--program takes the path of a build of adit; {} is no file", program.display());
            return ExitCode::from(2);
        }
        Adit::take(program.clone());
    }
    let size = Size { bytes: options.bytes, seconds: options.seconds };
    let chosen = |kind: &&Kind| options.only.is_empty() || options.only.contains(kind);
    let mut table = Table::new(&["program", "listener", "transport", "what ran", "result"]);
    let mut failed = 0;
    for kind in Kind::value_variants().iter().filter(chosen) {
        let [program, listener] = kind.names().map(ToOwned::to_owned);
        let missing = kind.missing();
        if !missing.is_empty() {
            let result = format!("not here: {}", missing.join(", "));
            table.row([program, listener, "-".into(), "-".into(), result]);
            continue;
        }
        for transport in [Transport::Quic, Transport::Tcp] {
            if !options.lines.iter().any(|line| line == transport.label()) {
                continue;
            }
            eprintln!("{program} over {}", transport.label());
            let outcome = run::supervise(transport, size, |run| kind.run(run)).await;
            failed += usize::from(outcome.failed);
            for (what, result) in outcome.steps {
                table.row([program.clone(), listener.clone(), transport.label().to_owned(), what, result]);
            }
        }
    }
    println!("{table}");
    if failed > 0 {
        println!("{failed} failed");
    }
    ExitCode::from(u8::from(failed > 0))
}
