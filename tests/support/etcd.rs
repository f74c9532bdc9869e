//! A real etcd on loopback, of one member.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit::fleet::etcd::EtcdSettings;
use adit::fleet::view::Prefix;
use adit::fleet::{FleetSettings, Member};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::eventually::eventually;
use crate::support::http1::RawHttp;
use crate::support::ports::free_address;
use crate::support::process::Program;
use crate::support::tools;

/// A running etcd, killed when dropped.
pub(crate) struct Etcd {
    binary: PathBuf,
    data: TempDir,
    client: SocketAddr,
    more: Vec<String>,
    scheme: &'static str,
    program: Program,
}

impl Etcd {
    /// Starts one in clear, without users; `None` where there is no etcd, and the test returns.
    pub(crate) async fn start() -> Option<Self> {
        let etcd = Self::spawn("http", Vec::new())?;
        etcd.answers().await;
        Some(etcd)
    }

    /// Starts one that asks for certificates of this CA, and shows this one.
    pub(crate) async fn start_with_tls(ca: &Path, cert: &Path, key: &Path) -> Option<Self> {
        let mut more = vec!["--client-cert-auth".to_owned()];
        for (flag, path) in [("--trusted-ca-file", ca), ("--cert-file", cert), ("--key-file", key)] {
            more.extend([flag.to_owned(), path.to_str().unwrap().to_owned()]);
        }
        let etcd = Self::spawn("https", more)?;
        etcd.program.line_with("serving client").await;
        Some(etcd)
    }

    fn spawn(scheme: &'static str, more: Vec<String>) -> Option<Self> {
        let (binary, data, client) = (tools::etcd()?, tempfile::tempdir().unwrap(), free_address());
        let program = run(&binary, data.path(), client, scheme, &more);
        Some(Self { binary, data, client, more, scheme, program })
    }

    /// Its endpoint, as a file names it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.client)
    }

    /// One of a fleet that writes there, with a lease that outlasts a test and nobody beside it.
    pub(crate) fn member(&self, id: &str) -> Member {
        Member::new(FleetSettings {
            prefix: Prefix::default(),
            id: id.parse().unwrap(),
            lease: Duration::from_secs(60),
            siblings: Vec::new(),
            initiators: Vec::new(),
            region: None,
            weight: 100,
            etcd: EtcdSettings::new(vec![self.url().parse().unwrap()]),
        })
    }

    /// Where its clients connect.
    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// SIGKILL: its clients are told nothing.
    pub(crate) async fn kill(&mut self) {
        self.program.kill();
        self.program.exit().await;
    }

    /// Throws away what one that is killed has stored.
    pub(crate) fn empty(&mut self) {
        self.data = tempfile::tempdir().unwrap();
    }

    /// A copy of what one that is killed has stored.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(self.data.path(), copy.path());
        copy
    }

    /// Puts such a copy in the place of what one that is killed has stored.
    pub(crate) fn restore(&mut self, copy: TempDir) {
        self.data = copy;
    }

    /// Starts it again on the same address, with what it has stored.
    pub(crate) async fn begin_again(&mut self) {
        self.program = run(&self.binary, self.data.path(), self.client, self.scheme, &self.more);
        self.answers().await;
    }

    /// SIGSTOP: it keeps its connections, and answers nothing.
    pub(crate) fn freeze(&self) {
        self.program.freeze();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.program.thaw();
    }

    /// Asks its JSON gateway; `None` where it says no.
    pub(crate) async fn ask(&self, path: &str, request: Value) -> Option<Value> {
        self.ask_as("", path, request).await
    }

    /// The same as the user of a token.
    pub(crate) async fn ask_as(&self, token: &str, path: &str, request: Value) -> Option<Value> {
        let mut client = RawHttp::connect(self.client).await.ok()?;
        let body = request.to_string();
        let who = if token.is_empty() { String::new() } else { format!("authorization: {token}\r\n") };
        let head = format!("POST {path} HTTP/1.1\r\nhost: etcd\r\n{who}content-length: {}\r\n\r\n", body.len());
        client.send(format!("{head}{body}").as_bytes()).await.ok()?;
        let response = client.response().await.ok()?;
        (response.status() == 200).then(|| serde_json::from_slice(&response.body).unwrap())
    }

    /// Forgets every revision before the latest.
    pub(crate) async fn compact(&self) {
        let everything = serde_json::json!({ "key": "AA==", "range_end": "AA==", "count_only": true });
        let answer = self.ask("/v3/kv/range", everything).await.unwrap();
        let request = serde_json::json!({ "revision": answer["header"]["revision"] });
        self.ask("/v3/kv/compaction", request).await.unwrap();
    }

    async fn answers(&self) {
        eventually("etcd answers", async || self.ask("/v3/maintenance/status", serde_json::json!({})).await).await;
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn run(binary: &Path, data: &Path, client: SocketAddr, scheme: &str, more: &[String]) -> Program {
    let (client, peer) = (format!("{scheme}://{client}"), format!("http://{}", free_address()));
    let mut command = Command::new(binary);
    command.args(["--name", "one", "--logger", "zap", "--data-dir", data.to_str().unwrap()]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}")]).args(more);
    Program::spawn("etcd", command)
}
