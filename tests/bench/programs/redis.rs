//! Redis at the site and its own clients.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::content::Content;
use crate::run::{Run, not_on_path};
use crate::support::ports;
use crate::support::process::Program;

/// Of a value.
const BYTES: usize = 1 << 20;
/// Requests of each kind.
const REQUESTS: &str = "20000";

pub(crate) fn missing() -> Vec<&'static str> {
    not_on_path(&["redis-server", "redis-cli", "redis-benchmark"])
}

pub(crate) async fn run(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let address = ports::free_address();
    let mut serve = Command::new("redis-server");
    // Without a file of the system's, and nothing is kept.
    serve.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--appendonly", "no"]);
    serve.current_dir(folder.path());
    let server = Program::spawn("redis-server", serve);
    server.line_with("Ready to accept connections").await;
    let site = run.bytes_to(address).await;
    let client = Client { run: &run, at: site.responder.tcp_at(0) };

    run.begin("PING; SET and GET of 1 MiB of any bytes");
    assert_eq!(client.ask(&["PING"]).await, "PONG");
    client.there_and_back(folder.path()).await;
    run.done("PONG; the same bytes");

    run.begin("SUBSCRIBE, and PUBLISH by another client");
    let mut listen = client.command("redis-cli");
    // As on a terminal: it says of what kind each part is.
    listen.args(["--no-raw", "SUBSCRIBE", "news"]);
    let listening = Program::spawn("redis-cli", listen);
    listening.line_with("(integer) 1").await;
    assert_eq!(client.ask(&["PUBLISH", "news", "something happened"]).await, "1");
    listening.line_with("something happened").await;
    drop(listening);
    run.done("the message came");

    run.begin(format!("redis-benchmark, {REQUESTS} requests of each kind on 50 connections"));
    let mut load = client.command("redis-benchmark");
    load.args(["-n", REQUESTS, "-c", "50", "-t", "ping_mbulk,set,get,lpush", "--csv"]);
    let (said, _) = run.command("redis-benchmark", load).await;
    let results: Vec<String> = said.lines().filter_map(result).collect();
    assert!(results.len() == 4, "{said}");
    run.done(results.join("; "));
}

/// Of a line of the table: the kind, and how many a second; the heading is none.
fn result(line: &str) -> Option<String> {
    let mut cells = line.split(',').map(|cell| cell.trim_matches('"'));
    let (kind, rate) = (cells.next()?, cells.next()?.parse::<f64>().ok()?);
    Some(format!("{kind} {rate:.0}/s"))
}

/// The clients of Redis, at the listener of the cloud.
struct Client<'a> {
    run: &'a Run,
    at: SocketAddr,
}

impl Client<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.at.port().to_string()]);
        command
    }

    /// What it answers.
    async fn ask(&self, words: &[&str]) -> String {
        let mut command = self.command("redis-cli");
        command.args(words);
        self.run.command("redis-cli", command).await.0
    }

    /// Sets a value that is no text, and gets it.
    async fn there_and_back(&self, folder: &Path) {
        let value = Content { seed: 11 }.bytes(BYTES);
        std::fs::write(folder.join("value"), &value).unwrap();
        for line in ["\"$@\" -x SET key <value", "\"$@\" GET key >got"] {
            let mut shell = Command::new("sh");
            let port = self.at.port().to_string();
            shell.args(["-c", line, "sh", "redis-cli", "-h", "127.0.0.1", "-p", &port]).current_dir(folder);
            self.run.command("redis-cli", shell).await;
        }
        let got = std::fs::read(folder.join("got")).unwrap();
        // It ends what it prints with a line feed.
        assert!(got.strip_suffix(b"\n") == Some(&value), "{} bytes came back, other ones", got.len());
    }
}
