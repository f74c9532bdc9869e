//! A real PostgreSQL, which no test installs because it is large, and its own client.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::ports;
use crate::support::process::Program;
use crate::support::tools;

/// The user `nobody` of the system: the server does not run as root.
const NOBODY: u32 = 65_534;
/// Rows of the table that is moved.
const ROWS: u32 = 100_000;

/// Where its programs are.
pub(crate) struct Installed {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
}

impl Installed {
    /// `None` where one of them is not there.
    pub(crate) fn find() -> Option<Self> {
        Some(Self { initdb: find("initdb")?, postgres: find("postgres")?, psql: find("psql")? })
    }
}

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

/// A server with a database of its own. Both end with this value.
pub(crate) struct Server {
    address: SocketAddr,
    _program: Program,
    folder: TempDir,
    psql: PathBuf,
}

impl Server {
    pub(crate) async fn start(installed: Installed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = folder.path().join("data");
        let mut make = unprivileged(&installed.initdb);
        make.args(["--auth=trust", "--username=adit", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
        let made = tokio::task::spawn_blocking(move || make.output()).await.unwrap().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = ports::free_address();
        let mut serve = unprivileged(&installed.postgres);
        serve.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-D"]);
        serve.arg(&data).args(["-p", &address.port().to_string()]);
        let program = Program::spawn("postgres", serve);
        program.line_with("ready to accept connections").await;
        Self { address, _program: program, folder, psql: installed.psql }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own client, at another address than its own.
    pub(crate) fn client(&self, at: SocketAddr) -> Client {
        Client { psql: self.psql.clone(), at: at.port().to_string(), table: self.folder.path().join("table") }
    }
}

/// The client of PostgreSQL, at a listener.
pub(crate) struct Client {
    psql: PathBuf,
    at: String,
    table: PathBuf,
}

/// What it took to move a table.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    pub(crate) out: Duration,
    pub(crate) back: Duration,
}

impl Client {
    /// What it prints; fails where the server says no.
    pub(crate) async fn run(&self, asked: &str) -> String {
        let mut command = Command::new(&self.psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.at]);
        command.args(["-U", "adit", "-d", "postgres", "-c", asked]).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{asked}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A table to the client and back into another one, which then has the same rows.
    pub(crate) async fn move_table(&self) -> Moved {
        let make =
            "CREATE TABLE t AS SELECT i, md5(i::text) AS h FROM generate_series(1, ROWS) AS i; CREATE TABLE u (LIKE t)";
        assert_eq!(self.run(&make.replace("ROWS", &ROWS.to_string())).await, "");
        let begun = Instant::now();
        let table = self.run("COPY t TO STDOUT").await;
        let out = begun.elapsed();
        assert_eq!(table.lines().count(), ROWS as usize);
        std::fs::write(&self.table, &table).unwrap();
        let begun = Instant::now();
        self.run(&format!("\\copy u FROM '{}'", self.table.display())).await;
        let back = begun.elapsed();
        let sum = |table: &str| format!("SELECT count(*), md5(string_agg(h, '' ORDER BY i)) FROM {table}");
        let (there, again) = (self.run(&sum("t")).await, self.run(&sum("u")).await);
        assert!(there.starts_with(&format!("{ROWS}|")) && there == again, "{there} and {again}");
        Moved { rows: ROWS, bytes: table.len(), out, back }
    }

    /// How long so many connections take, one after the other, with a question on each.
    pub(crate) async fn connect(&self, times: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..times {
            assert_eq!(self.run("SELECT 1").await, "1\n");
        }
        begun.elapsed()
    }
}
