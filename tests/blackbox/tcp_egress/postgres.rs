//! PostgreSQL at the site, and its own client at the cloud: a protocol in which the server speaks in pieces of many sizes, and
//! bulk goes both ways.
//!
//! It is large and no test installs it: where it is not there, the test says so and shows nothing.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::ports;
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, Site, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(psql_reaches_a_database_and_moves_a_table_both_ways);

/// The user `nobody` of the system: the server does not run as root.
const NOBODY: u32 = 65_534;
/// Rows of the table.
const ROWS: u32 = 100_000;

/// Where a program of PostgreSQL is: on the path, or where Debian has those that are not.
fn find(program: &str) -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places = installed.map(|version| version.path().join("bin").join(program));
    tools::on_path(program).or_else(|| places.find(|place| place.is_file()))
}

/// As somebody who may run a server.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

async fn psql_reaches_a_database_and_moves_a_table_both_ways(transport: Transport) {
    let programs = (find("initdb"), find("postgres"), find("psql"));
    let (Some(initdb), Some(postgres), Some(psql)) = programs else {
        return eprintln!("PostgreSQL is not installed: nothing was shown");
    };
    let folder = tempfile::tempdir().unwrap();
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let data = folder.path().join("data");
    let mut make = unprivileged(&initdb);
    make.args(["--auth=trust", "--username=adit", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
    let made = tokio::task::spawn_blocking(move || make.output()).await.unwrap().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let target = ports::free_address();
    let mut serve = unprivileged(&postgres);
    serve.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-D"]);
    serve.arg(&data).args(["-p", &target.port().to_string()]);
    let server = Program::spawn("postgres", serve);
    server.line_with("ready to accept connections").await;

    let service = format!("{{ name: db, target: \"tcp://{target}\" }}");
    let site = Site::with(Cloud::new().and_tcp("db"), Edge::new(transport).service(&service)).await;
    let client = Client { psql, at: site.responder.tcp_at(0).port().to_string() };
    let make =
        "CREATE TABLE t AS SELECT i, md5(i::text) AS h FROM generate_series(1, ROWS) AS i; CREATE TABLE u (LIKE t)";
    assert_eq!(client.run(&make.replace("ROWS", &ROWS.to_string())).await, "");
    let begun = Instant::now();
    let table = client.run("COPY t TO STDOUT").await;
    let out = begun.elapsed();
    assert_eq!(table.lines().count(), ROWS as usize);
    let file = folder.path().join("table");
    std::fs::write(&file, &table).unwrap();
    let begun = Instant::now();
    client.run(&format!("\\copy u FROM '{}'", file.display())).await;
    let back = begun.elapsed();
    let sum = |table: &str| format!("SELECT count(*), md5(string_agg(h, '' ORDER BY i)) FROM {table}");
    let (there, again) = (client.run(&sum("t")).await, client.run(&sum("u")).await);
    assert!(there.starts_with(&format!("{ROWS}|")) && there == again, "{there} and {again}");
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.run("SELECT 1").await, "1\n");
    }
    let bytes = table.len();
    println!("{transport:?}: {bytes} bytes out in {out:?}, back in {back:?}; 20 connections in {:?}", begun.elapsed());
}

/// The client of PostgreSQL, at the listener of the cloud.
struct Client {
    psql: PathBuf,
    at: String,
}

impl Client {
    /// What it prints; fails where the server says no.
    async fn run(&self, asked: &str) -> String {
        let mut command = Command::new(&self.psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.at]);
        command.args(["-U", "adit", "-d", "postgres", "-c", asked]).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{asked}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
