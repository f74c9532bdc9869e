//! A responder and initiators as operators run them: the built binary, one file each, certificates of one CA.

mod plan;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use adit::admin::{TunnelsReport, client};
use adit::config::AdminAddress;
use http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::certificates::{Authority, Node};
use crate::support::eventually::eventually;
use crate::support::http1::{RawHttp, Response, get};
use crate::support::process::Adit;
use crate::support::targets::Target;

pub(crate) use plan::{Cloud, Edge};

/// The node that is there when a test does not say otherwise.
pub(crate) const NODE: Node<'static> = Node { tenant: "acme", cluster: "stores", node: "edge-1" };

/// The field that names it.
pub(crate) const TO_NODE: &str = "x-node-id: edge-1";

/// What carries the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Quic,
    Tcp,
}

impl Transport {
    /// The word in configuration, logs and `/tunnels`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// Makes a test of each of these functions, once per [`Transport`].
#[allow(unused_macros, reason = "benchmarks use other parts of this module")]
macro_rules! over_each_transport {
    ($($test:ident),* $(,)?) => {
        mod quic {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::site::Transport::Quic).await;
            })*
        }
        mod tcp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::site::Transport::Tcp).await;
            })*
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use over_each_transport;

/// Where the files of both ends are, and the CA that signed their certificates.
pub(crate) struct Folder {
    folder: TempDir,
    pub(crate) authority: Authority,
}

impl Folder {
    /// Holds `ca.pem` and the responder's `cloud.pem` and `cloud.key`.
    pub(crate) fn new() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("test CA"));
        authority.write(folder.path(), "ca");
        authority.responder().write(folder.path(), "cloud");
        Self { folder, authority }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and says where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A running `adit` with an admin listener.
pub(crate) struct Running {
    process: Adit,
    file: PathBuf,
}

impl Running {
    /// Starts what the file says and waits until its admin listener answers.
    pub(crate) async fn start(file: PathBuf) -> Self {
        let process = Adit::start(&["run", file.to_str().unwrap()]);
        process.line_with("admin listener").await;
        Self { process, file }
    }

    /// The same for one that comes back to addresses which it had: whoever has one of them meanwhile, by chance, is waited for.
    async fn start_again(file: PathBuf) -> Self {
        eventually("that its addresses are free", async || {
            let mut process = Adit::start(&["run", file.to_str().unwrap()]);
            while !process.log().contains("admin listener") {
                if process.ended().is_some() {
                    // It ends for no other reason.
                    process.line_with("in use").await;
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Some(Self { process, file: file.clone() })
        })
        .await
    }

    /// Those that it has said so far, by role: `accepting tunnels`, `taking requests`, `admin listener`.
    fn all_addresses(&self) -> Vec<(String, SocketAddr)> {
        let of_line = |line: &Value| {
            let address = line["address"].as_str()?.parse().ok()?;
            Some((line["message"].as_str()?.to_owned(), address))
        };
        lines(&self.process).iter().filter_map(of_line).collect()
    }

    fn addresses(&self, message: &str) -> Vec<SocketAddr> {
        self.all_addresses().into_iter().filter(|(of, _)| of == message).map(|(_, address)| address).collect()
    }

    /// Sends it the signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// The lines of the log so far that have this message.
    pub(crate) fn lines_of(&self, message: &str) -> Vec<Value> {
        let log = self.process.log();
        // Not every line is worth to be read.
        let likely = log.lines().filter(|line| line.contains(message));
        let parsed = likely.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == message).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The first line of the log that contains `text`.
    pub(crate) async fn line_with(&self, text: &str) -> Value {
        serde_json::from_str(&self.process.line_with(text).await).unwrap()
    }

    /// Where its admin listener is now.
    pub(crate) fn admin(&self) -> SocketAddr {
        *self.addresses("admin listener").last().unwrap()
    }

    /// Asks the admin listener.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> (StatusCode, String) {
        let (status, body) = client::request(&AdminAddress::Tcp(self.admin()), method, path).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn tunnels(&self) -> TunnelsReport {
        serde_json::from_str(&self.ask(Method::GET, "/tunnels").await.1).unwrap()
    }

    /// Waits until this many of the tunnels that it dials are up, by its own word: the other end knows of them earlier.
    pub(crate) async fn connected(&self, count: usize) -> TunnelsReport {
        let up = |state: &str| matches!(state, "connected" | "recovered");
        eventually(&format!("{count} tunnels at the initiator"), async || {
            let report = self.tunnels().await;
            let connected = report.dialled.iter().filter(|tunnel| up(&tunnel.state)).count();
            (connected >= count).then_some(report)
        })
        .await
    }

    /// The value of one series, written as it is exposed; 0 when it is not there yet.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let metrics = self.ask(Method::GET, "/metrics").await.1;
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        metrics.lines().find_map(value).unwrap_or(0)
    }

    /// Waits until one series has this value. What is counted when an exchange is over is counted behind what others see of its
    /// end: its answer, its reset, its line in the log.
    pub(crate) async fn counted(&self, series: &str, value: u64) {
        eventually(&format!("{series} {value}"), async || (self.metric(series).await == value).then_some(())).await;
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// SIGSTOP: it keeps its connections and does nothing. Returns when all its threads have stopped.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the end of the process.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await
    }

    /// The file it runs.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// SIGKILL: no word to anybody. Returns the file, to start again from.
    pub(crate) fn kill(self) -> PathBuf {
        self.file
    }
}

/// The JSON lines of a log so far.
fn lines(process: &Adit) -> Vec<Value> {
    process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A running responder.
pub(crate) struct Responder(pub(crate) Running);

impl Responder {
    /// Where tunnels are accepted.
    pub(crate) fn tunnel_address(&self) -> SocketAddr {
        self.0.addresses("accepting tunnels")[0]
    }

    /// The first egress listener.
    pub(crate) fn egress(&self) -> SocketAddr {
        self.egress_at(0)
    }

    /// An egress listener, in the order of the file.
    pub(crate) fn egress_at(&self, index: usize) -> SocketAddr {
        self.0.addresses("taking requests")[index]
    }

    /// A listener for bytes, in the order in which they were bound.
    pub(crate) fn tcp_at(&self, index: usize) -> SocketAddr {
        self.0.addresses("taking connections")[index]
    }

    /// A listener for datagrams, in the order in which they began.
    pub(crate) fn udp_at(&self, index: usize) -> SocketAddr {
        self.0.addresses("taking datagrams")[index]
    }

    /// Waits until this many tunnels are registered.
    pub(crate) async fn registered(&self, count: usize) -> TunnelsReport {
        eventually(&format!("{count} tunnels at the responder"), async || {
            Some(self.0.tunnels().await).filter(|report| report.accepted.len() == count)
        })
        .await
    }

    /// Asks it to stop, and starts it again on the same addresses as soon as it has.
    pub(crate) async fn restart_gracefully(mut self) -> Self {
        self.0.terminate();
        self.0.exit().await;
        self.restart().await
    }

    /// Kills it and starts it again on the same addresses.
    pub(crate) async fn restart(self) -> Self {
        let bound: Vec<_> = self.0.all_addresses().into_iter().map(|(_, address)| address).collect();
        let text = std::fs::read_to_string(&self.0.file).unwrap();
        let mut parts = text.split("127.0.0.1:0");
        let mut fixed = parts.next().unwrap().to_owned();
        for (address, rest) in bound.iter().zip(parts) {
            fixed += &format!("{address}{rest}");
        }
        let file = self.0.kill();
        std::fs::write(&file, if bound.is_empty() { text } else { fixed }).unwrap();
        Self(Running::start_again(file).await)
    }
}

/// A target, an initiator beside it and a responder that knows it; both ends know their tunnels.
pub(crate) struct Site {
    pub(crate) target: Target,
    pub(crate) responder: Responder,
    pub(crate) initiator: Running,
    pub(crate) folder: Folder,
}

impl Site {
    /// The usual one, with an HTTP/1.1 target.
    pub(crate) async fn start(transport: Transport) -> Self {
        Self::with(Cloud::new(), Edge::new(transport)).await
    }

    /// With an HTTP/1.1 target that [`Edge::service`] and the default service know.
    pub(crate) async fn with(cloud: Cloud, edge: Edge) -> Self {
        Self::around(Target::http1().await, "http", cloud, edge).await
    }

    /// With a target that speaks HTTP/2.
    pub(crate) async fn h2c(cloud: Cloud, edge: Edge) -> Self {
        Self::around(Target::h2c().await, "h2c", cloud, edge).await
    }

    async fn around(target: Target, scheme: &str, cloud: Cloud, edge: Edge) -> Self {
        let folder = Folder::new();
        let responder = cloud.start(&folder).await;
        let edge = edge.target(&format!("{scheme}://{}", target.address()));
        let tunnels = edge.tunnel_count();
        let initiator = edge.start(&folder, responder.tunnel_address()).await;
        responder.registered(tunnels).await;
        initiator.connected(tunnels).await;
        Self { target, responder, initiator, folder }
    }

    /// Starts another initiator, which serves a target of its own, and waits until its tunnels are registered.
    pub(crate) async fn join(&self, edge: Edge) -> (Running, Target) {
        let target = Target::http1().await;
        let before = self.responder.0.tunnels().await.accepted.len();
        let edge = edge.target(&format!("http://{}", target.address()));
        let initiator = edge.start(&self.folder, self.responder.tunnel_address()).await;
        self.responder.registered(before + edge.tunnel_count()).await;
        initiator.connected(edge.tunnel_count()).await;
        (initiator, target)
    }

    pub(crate) fn egress(&self) -> SocketAddr {
        self.responder.egress()
    }

    /// One GET to [`NODE`], on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Response {
        get(self.egress(), path, &[TO_NODE]).await.unwrap()
    }

    /// A connection to the egress; the caller writes the requests.
    pub(crate) async fn connect(&self) -> RawHttp<tokio::net::TcpStream> {
        RawHttp::connect(self.egress()).await.unwrap()
    }

    /// Waits until the target was asked for `path`.
    pub(crate) async fn arrived(&self, path: &str) {
        let what = format!("a request for {path} at the target");
        eventually(&what, async || self.target.requests().iter().find(|seen| seen.ends_with(path)).map(|_| ())).await;
    }

    /// Waits until the target saw this many cancellations.
    pub(crate) async fn cancelled(&self, count: usize) {
        let what = format!("{count} cancellations at the target");
        eventually(&what, async || (self.target.cancelled() == count).then_some(())).await;
    }
}
