//! The commands: what they take, and how they end. Each does its work in a file of its own.
//!
//! Row 14, with `main.rs`: the only place for `anyhow`, standard output and exit codes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use adit::telemetry::log;
use clap::{Parser, Subcommand};

mod check;
mod demo;
mod drain;
mod fleet;
mod pki;
mod reload;
mod run;
mod status;
mod table;

/// Something failed while running.
const FAILED: u8 = 1;
/// The command line or the file is wrong; clap uses the same number.
const MISUSED: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "adit",
    version,
    about = "Reverse tunnels over QUIC: services in the cloud reach services at sites that accept no inbound connection.",
    after_help = "Exit codes: 0 done, 1 failed (check: the file has mistakes), 2 wrong command line or file.\n\
                  A first look: adit demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the roles of a file until SIGTERM or SIGINT, then drain
    Run {
        /// The file, YAML
        file: PathBuf,
    },
    /// Check a file and print what it would do, or every mistake in it
    Check(check::CheckArgs),
    /// Show one request crossing a tunnel, with certificates, both roles and a service made up for it
    Demo {
        /// Stop after the round trip: exit 0 if it worked
        #[arg(long)]
        once: bool,
    },
    /// Show the tunnels of a running adit, what is not well first
    Status(status::StatusArgs),
    /// Show the responders of a fleet, as one of them sees them
    Fleet(fleet::FleetArgs),
    /// Have a running adit finish what runs and end, and wait for that
    Drain(drain::DrainArgs),
    /// Have a running adit read its file again, and print what changed
    Reload(reload::ReloadArgs),
    /// Make certificates: a CA, and what it signs for nodes and responders
    #[command(subcommand)]
    Pki(pki::Pki),
    /// Print the versions of the program and of the protocol
    Version,
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let code = execute(Cli::parse().command).unwrap_or_else(|error| {
        log::say(&format!("adit: {error:#}\n"));
        ExitCode::from(FAILED)
    });
    log::finish();
    code
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { file } => run::run(&file),
        Command::Check(args) => Ok(check::check(&args)),
        Command::Demo { once } => demo::demo(once),
        Command::Status(args) => status::status(args),
        Command::Fleet(args) => fleet::fleet(&args),
        Command::Drain(args) => drain::drain(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Pki(command) => pki::pki(&command),
        Command::Version => Ok(version()),
    }
}

fn version() -> ExitCode {
    let protocol = String::from_utf8_lossy(adit::protocol::ALPN);
    say(&format!("adit {} (protocol {protocol})\n", env!("CARGO_PKG_VERSION")));
    ExitCode::SUCCESS
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no failure.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A runtime for commands that do one thing.
fn small_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests;
