//! `adit drain`: a running adit finishes what runs, and ends.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use adit::admin::client::{ClientError, request, request_within};
use adit::admin::{DrainOutcome, DrainReport};
use adit::config::AdminAddress;
use adit::telemetry::log;
use anyhow::{Context as _, bail};
use clap::Args;
use http::{Method, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::say;

/// How often it is looked whether it has gone: to say what is left costs a responder with very many nodes some milliseconds.
const LOOK: Duration = Duration::from_millis(500);
/// How long one look may take: what ends may answer nothing more.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// What a process has, after what it says itself, to say goodbye and end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long one is waited for that never says how long it takes.
const LONGEST: Duration = Duration::from_secs(600);
/// How long the last word is waited for; no process drains as long.
const END_TIMEOUT: Duration = Duration::from_secs(2 * 86_400);
/// Exit code: it was still there after its time.
const STILL_THERE: u8 = 3;
/// Exit code: it has gone, and not everything is known to have finished.
const CANCELLED: u8 = 4;
/// How many names stand in one line.
const NAMED: usize = 5;

#[derive(Debug, Args)]
#[command(
    after_help = "Does what SIGTERM does: it is not ready from then on, finishes what runs, and ends. In a fleet its sites \
                        go to other responders before that.\n\
                        Exit codes: 0 it drains, with --wait: it has gone and everything finished; 1 nobody could be asked, or \
                        it did not take the order; 2 wrong arguments; with --wait also: 3 it was still there after its time, 4 \
                        it has gone, and what still ran was cancelled, or it did not say."
)]
pub(super) struct DrainArgs {
    /// Its admin listener: ip:port, localhost:port, or a path of a Unix socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: AdminAddress,
    /// Wait until it has gone, and print what is left meanwhile
    #[arg(long)]
    wait: bool,
    /// With --wait: for so long at most; else until what still runs is cut by its own settings, and 5 seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    within: Option<u64>,
}

pub(super) fn drain(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    super::small_runtime()?.block_on(async {
        let before = if args.wait { Some(first(&args.admin).await?) } else { None };
        // Asked before the order: what ends takes nobody new.
        let end = before.as_ref().map(|_| tokio::spawn(end(args.admin.clone())));
        order(&args.admin).await?;
        match before.zip(end) {
            Some((before, end)) => wait(args, before.started, end).await,
            None => {
                say("draining\n");
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

async fn order(admin: &AdminAddress) -> anyhow::Result<()> {
    let (status, text) = request(admin, Method::POST, "/drain").await?;
    if status != StatusCode::ACCEPTED {
        bail!("{admin} answered {status} to an order to drain: {}", String::from_utf8_lossy(&text).trim_end());
    }
    Ok(())
}

/// What it says before the order: who it is.
async fn first(admin: &AdminAddress) -> anyhow::Result<DrainReport> {
    let (status, text) = request(admin, Method::GET, "/drain").await?;
    if status != StatusCode::OK {
        bail!("{admin} answered {status} to /drain; is it the admin listener of an adit of this version?");
    }
    serde_json::from_slice(&text).context("/drain is not what it should be")
}

/// How it has ended, as it says itself with its last word; `None`: it did not say, or is of a version that does not.
async fn end(admin: AdminAddress) -> Option<DrainOutcome> {
    let (status, text) = request_within(&admin, Method::GET, "/drain?until=end", END_TIMEOUT).await.ok()?;
    let report: DrainReport = serde_json::from_slice(&text).ok()?;
    report.outcome.filter(|_| status == StatusCode::OK)
}

/// What one look has shown.
enum Seen {
    /// The process is not there any more.
    Gone,
    /// It did not say.
    Nothing,
    Left(DrainReport),
}

async fn look(admin: &AdminAddress, started: u64) -> Seen {
    match request_within(admin, Method::GET, "/drain", LOOK_TIMEOUT).await {
        Ok((StatusCode::OK, text)) => match serde_json::from_slice::<DrainReport>(&text) {
            // Another one listens there by now.
            Ok(report) if report.started != started => Seen::Gone,
            Ok(report) => Seen::Left(report),
            Err(_) => Seen::Nothing,
        },
        Ok(_) => Seen::Nothing,
        Err(error) if ClientError::is_nobody(&error) => Seen::Gone,
        Err(_) => Seen::Nothing,
    }
}

async fn wait(args: &DrainArgs, started: u64, end: JoinHandle<Option<DrainOutcome>>) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut limit = args.within.map(Duration::from_secs);
    let mut last = String::new();
    loop {
        match look(&args.admin, started).await {
            Seen::Gone => {
                let took = begun.elapsed().as_secs_f64();
                // Its last word is here, or its connection has ended with it.
                let outcome = timeout(LOOK_TIMEOUT, end).await.ok().and_then(Result::ok).flatten();
                let (how, code) = ended(outcome);
                say(&format!("gone after {took:.1}s: {how}\n"));
                return Ok(code);
            }
            Seen::Nothing => {}
            Seen::Left(report) => {
                let own = begun.elapsed() + Duration::try_from_secs_f64(report.seconds_left).unwrap_or_default();
                // Before it has begun it does not know yet.
                if report.draining && report.seconds_left > 0.0 {
                    limit.get_or_insert(own + FAREWELL);
                }
                let left = left(&report);
                if left != last {
                    say(&format!("left: {left}\n"));
                    last = left;
                }
            }
        }
        if begun.elapsed() >= limit.unwrap_or(LONGEST) {
            let (admin, took) = (&args.admin, begun.elapsed().as_secs_f64());
            let left = if last.is_empty() { "it does not say what is left" } else { &last };
            log::say(&format!("adit: {admin} is still there after {took:.0}s: {left}\n"));
            return Ok(ExitCode::from(STILL_THERE));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How it has ended, for people and for scripts.
fn ended(outcome: Option<DrainOutcome>) -> (&'static str, ExitCode) {
    match outcome {
        Some(DrainOutcome::Finished) => ("everything finished", ExitCode::SUCCESS),
        Some(DrainOutcome::Cancelled) => ("what still ran was cancelled", ExitCode::from(CANCELLED)),
        None => ("it did not say whether everything finished", ExitCode::from(CANCELLED)),
    }
}

/// What it still has to do, in one line.
fn left(report: &DrainReport) -> String {
    let count = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let mut text = count(report.tunnels as u64, "tunnel", "tunnels");
    text += &format!(", {}", count(report.running, "request runs", "requests run"));
    if report.nowhere_else_count > 0 {
        let nodes = count(report.nowhere_else_count as u64, "node is", "nodes are");
        let named: Vec<&str> = report.nowhere_else.iter().take(NAMED).map(String::as_str).collect();
        let more = if report.nowhere_else_count > named.len() { ", …" } else { "" };
        text += &format!(", {nodes} nowhere else: {}{more}", named.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_one_line_with_the_first_names() {
        let report = DrainReport { tunnels: 1, running: 2, ..DrainReport::default() };
        assert_eq!(left(&report), "1 tunnel, 2 requests run");
        let names: Vec<String> = (0..7).map(|number| format!("acme/edge-{number}")).collect();
        let report = DrainReport { tunnels: 9, nowhere_else: names, nowhere_else_count: 7, ..report };
        let named = "acme/edge-0, acme/edge-1, acme/edge-2, acme/edge-3, acme/edge-4, …";
        assert_eq!(left(&report), format!("9 tunnels, 2 requests run, 7 nodes are nowhere else: {named}"));
        let one = DrainReport { nowhere_else: vec!["acme/a".into()], nowhere_else_count: 1, running: 1, ..report };
        assert_eq!(left(&one), "9 tunnels, 1 request runs, 1 node is nowhere else: acme/a");
    }
}
