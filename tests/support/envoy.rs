//! The real Envoy at either end of a reverse tunnel.
//!
//! Every listener takes port 0 and Envoy is asked which port it was given, so any number of them run at once. Its
//! listeners do without SO_REUSEPORT unless a test asks for it: two of them would share a port without a word.

mod config;
mod initiator;
mod responder;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::certificates::{Files, Node, RESPONDER_NAME};
use crate::support::eventually::{eventually, within};
use crate::support::http1::{RawHttp, Response};
use crate::support::process::Program;
use crate::support::site::Folder;
use crate::support::tools;

#[allow(unused_imports, reason = "benchmarks use other parts of this module")]
pub(crate) use initiator::{EnvoyInitiator, InitiatorOptions};
#[allow(unused_imports, reason = "as above")]
pub(crate) use responder::{EnvoyResponder, ResponderOptions};

/// How two ends are set up to fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Everything in clear.
    Plaintext,
    /// TLS with certificates on both sides, which Envoy drops after its handshake.
    Mtls,
    /// The same, and a second TLS session for what comes after the handshake, with the roles reversed.
    InnerMtls,
    /// In clear; the responder announces its drain and probes tunnels in use, the initiator replaces a tunnel at once.
    DrainAware,
}

impl Variant {
    /// Whether the handshake is inside TLS.
    pub(crate) const fn has_tls(self) -> bool {
        matches!(self, Self::Mtls | Self::InnerMtls)
    }

    /// Whether requests are inside TLS.
    pub(crate) const fn has_inner_tls(self) -> bool {
        matches!(self, Self::InnerMtls)
    }

    const fn is_drain_aware(self) -> bool {
        matches!(self, Self::DrainAware)
    }
}

/// What one end shows in TLS, and what it expects of the other. One certificate serves both sessions.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) shown: Files,
    pub(crate) ca: PathBuf,
    /// What the other end's certificate must say where the other end is the TLS server.
    pub(crate) peer: Name,
}

/// A name in a certificate.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    /// Also sent as SNI.
    Dns(String),
    Uri(String),
}

impl Tls {
    /// For a responder that is called [`RESPONDER_NAME`] and expects an initiator named after its node.
    pub(crate) fn responder(folder: &Folder, claim: Node<'_>) -> Self {
        let shown = folder.authority.either_role(RESPONDER_NAME, None).write(folder.path(), "envoy-responder");
        Self { shown, ca: folder.path().join("ca.pem"), peer: Name::Dns(claim.node.to_owned()) }
    }

    /// For the initiator that such a responder expects: the node is its DNS name, and the URI proves the whole claim.
    pub(crate) fn initiator(folder: &Folder, claim: Node<'_>) -> Self {
        let shown = folder.authority.either_role(claim.node, Some(claim)).write(folder.path(), "envoy-initiator");
        Self { shown, ca: folder.path().join("ca.pem"), peer: Name::Dns(RESPONDER_NAME.to_owned()) }
    }
}

/// A running Envoy. Killed when dropped.
pub(crate) struct Envoy {
    program: Program,
    admin: SocketAddr,
    _folder: TempDir,
}

/// How often it is looked whether it is ready.
const LOOK: Duration = Duration::from_millis(10);
/// What the last line of one that has ended may take from there to here.
const LAST_WORDS: Duration = Duration::from_secs(30);

async fn ask(admin: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
    let mut client = RawHttp::connect(admin).await?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\n\r\n");
    client.send(head.as_bytes()).await?;
    client.response().await
}

/// What is not in the configuration file.
struct Flags {
    name: &'static str,
    concurrency: usize,
    drain_time: Duration,
}

impl Envoy {
    /// Waits until its workers run. `None`: there is no Envoy here, and the calling test was recorded as skipped.
    async fn start(flags: Flags, config: &Value) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let [file, admin_file] = ["envoy.json", "admin"].map(|name| folder.path().join(name));
        std::fs::write(&file, serde_json::to_string_pretty(config).unwrap()).unwrap();
        let binary = tools::envoy()?;
        let (program, admin) = eventually("Envoy to be ready", async || {
            let _ = std::fs::remove_file(&admin_file);
            let mut command = Command::new(&binary);
            command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin_file);
            command.args(["--disable-hot-restart", "--log-level", "warning"]);
            command.args(["--concurrency", &flags.concurrency.to_string()]);
            command.args(["--drain-time-s", &flags.drain_time.as_secs().to_string()]);
            let mut program = Program::spawn(flags.name, command);
            while program.ended().is_none() {
                let admin = std::fs::read_to_string(&admin_file).ok().and_then(|text| text.parse().ok());
                if let Some(admin) = admin
                    && ask(admin, "GET", "/ready").await.is_ok_and(|response| response.status() == 200)
                {
                    return Some((program, admin));
                }
                tokio::time::sleep(LOOK).await;
            }
            // One that comes back to addresses which it had: whoever has one of them meanwhile, by chance, is waited for.
            let taken = async || program.log().contains("Address already in use").then_some(());
            within(LAST_WORDS, "that an address is taken: Envoy refused its configuration", taken).await;
            None
        })
        .await;
        Some(Self { program, admin, _folder: folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Everything printed so far.
    pub(crate) fn log(&self) -> String {
        self.program.log()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the admin listener; what changes something there wants `POST`.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> io::Result<Response> {
        ask(self.admin, method, path).await
    }

    /// The counters and gauges whose names contain `part`, hidden ones too.
    pub(crate) async fn stats(&self, part: &str) -> BTreeMap<String, u64> {
        let text = self.ask("GET", &format!("/stats?hidden=include&filter={part}")).await.unwrap().text();
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(value).collect()
    }

    /// One counter or gauge; 0 when it is not there yet.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        self.stats(name).await.get(name).copied().unwrap_or(0)
    }

    /// Where a listener of the configuration listens.
    async fn listener(&self, name: &str) -> SocketAddr {
        let answer = self.ask("GET", "/listeners?format=json").await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let mut listeners = answer["listener_statuses"].as_array().unwrap().iter();
        let listener = listeners.find(|listener| listener["name"] == name).unwrap();
        let address = &listener["local_address"]["socket_address"];
        format!("{}:{}", address["address"].as_str().unwrap(), address["port_value"]).parse().unwrap()
    }

    /// SIGSTOP: it keeps its connections and does nothing. Returns when all its threads have stopped.
    pub(crate) fn freeze(&self) {
        self.program.freeze();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.program.thaw();
    }

    /// SIGTERM: Envoy closes what it has and ends.
    pub(crate) fn terminate(&self) {
        self.program.terminate();
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.program.exit().await
    }
}
