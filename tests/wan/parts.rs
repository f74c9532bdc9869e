//! Both ends of the tunnel, the target and the client, each in its namespace.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit::admin::{DialledTunnel, TunnelsReport, client};
use adit::config::AdminAddress;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::link::Link;
use crate::roles::{ANSWER, Seen};
use crate::support::certificates::IDENTITY;
use crate::support::eventually::{eventually, within};
use crate::support::process::Program;
use crate::support::site::{Folder, NODE};

/// Configuration files and certificates.
pub(crate) struct Files(Folder);

impl Files {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        folder.authority.node(NODE).write(folder.path(), "edge");
        Self(folder)
    }
}

/// The time of day in UTC, as in the timestamps of logs.
pub(crate) fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_nanos((since.as_nanos() % (24 * 3600 * 1_000_000_000)) as u64)
}

/// When a line was written: its hours, minutes and seconds.
fn time_of(line: &Value) -> Duration {
    let stamp = line["timestamp"].as_str().unwrap();
    let time = stamp.split_once('T').unwrap().1.trim_end_matches('Z');
    let seconds = time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap());
    Duration::from_secs_f64(seconds)
}

/// This program in another role.
fn role(link: &Link, side: &str, name: &'static str, arguments: &[String]) -> Program {
    let mut command = link.command(side, &std::env::current_exe().unwrap());
    command.arg(name).args(arguments);
    Program::spawn(name, command)
}

pub(crate) fn foreign(link: &Link, address: SocketAddr) -> Program {
    role(link, "b", "foreign", &[address.to_string()])
}

pub(crate) fn client(link: &Link, egress: SocketAddr, seconds: u64) -> Program {
    role(link, "b", "client", &[egress.to_string(), seconds.to_string()])
}

/// What a role says at its end.
pub(crate) async fn answer<T: DeserializeOwned>(program: &Program, seconds: u64) -> T {
    let line = within(Duration::from_secs(seconds + 60), "the answer of a role", async || {
        program.log().lines().find_map(|line| line.strip_prefix(ANSWER).map(str::to_owned))
    });
    serde_json::from_str(&line.await).unwrap()
}

struct Adit {
    program: Program,
    admin: PathBuf,
}

impl Adit {
    fn start(link: &Link, side: &str, file: &Path, admin: PathBuf) -> Self {
        let mut command = link.command(side, Path::new(env!("CARGO_BIN_EXE_adit")));
        command.args(["run", file.to_str().unwrap()]);
        Self { program: Program::spawn("adit", command), admin }
    }

    async fn address(&self, message: &str) -> SocketAddr {
        let line = self.line_with(message).await;
        line["address"].as_str().unwrap().parse().unwrap()
    }

    async fn line_with(&self, message: &str) -> Value {
        serde_json::from_str(&self.program.line_with(message).await).unwrap()
    }
}

/// The responder.
pub(crate) struct Cloud {
    tunnels: SocketAddr,
    egress: SocketAddr,
    _adit: Adit,
}

impl Cloud {
    pub(crate) async fn start(link: &Link, files: &Files, listen: &str) -> Self {
        let text = format!(
            "responder:\n  listen: {{ {listen} }}\n  tls: {{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem }}\n  \
             identity: {IDENTITY:?}\n\
             egress: [{{ http: \"127.0.0.1:0\", host_id: \"%REQ(x-node-id)%\", tenant: {}, access_log: false }}]\n\
             admin: unix:cloud.sock\n",
            NODE.tenant
        );
        let adit = Adit::start(link, "b", &files.0.write("cloud.yaml", &text), files.0.path().join("cloud.sock"));
        let (tunnels, egress) = (adit.address("accepting tunnels").await, adit.address("taking requests").await);
        Self { tunnels, egress, _adit: adit }
    }

    pub(crate) fn tunnels(&self) -> SocketAddr {
        self.tunnels
    }

    pub(crate) fn egress(&self) -> SocketAddr {
        self.egress
    }
}

/// The initiator and its target.
pub(crate) struct Edge {
    adit: Adit,
    target: Program,
    started: Duration,
}

impl Edge {
    pub(crate) async fn start(link: &Link, files: &Files, responder: SocketAddr) -> Self {
        let target = role(link, "a", "target", &[]);
        let line = target.line_with("listening").await;
        let address = line.rsplit(' ').next().unwrap().to_owned();
        let text = format!(
            "initiator:\n  node: {}\n  cluster: {}\n  tenant: {}\n  \
             tunnels: [{{ to: \"{responder}\", transport: auto }}]\n  \
             tls: {{ cert: edge.pem, key: edge.key, ca: ca.pem, server_name: localhost }}\n\
             services: [{{ name: web, match: {{}}, target: \"http://{address}\" }}]\n\
             admin: unix:edge.sock\n",
            NODE.node, NODE.cluster, NODE.tenant
        );
        let file = files.0.write("edge.yaml", &text);
        let started = now();
        let adit = Adit::start(link, "a", &file, files.0.path().join("edge.sock"));
        Self { adit, target, started }
    }

    /// From the start of the process until its tunnel is up over this transport.
    pub(crate) async fn up(&self, transport: &str) -> Duration {
        let line = self.adit.line_with("tunnel up").await;
        assert_eq!(line["transport"], transport, "{line}");
        crate::since(self.started, time_of(&line))
    }

    /// The time of day at which it said so.
    pub(crate) async fn switched(&self, message: &str, patience: Duration) -> Duration {
        let line = within(patience + Duration::from_secs(5), message, async || {
            self.adit.program.log().lines().find(|line| line.contains(message)).map(str::to_owned)
        });
        time_of(&serde_json::from_str(&line.await).unwrap())
    }

    pub(crate) async fn switches(&self) -> u64 {
        let admin = AdminAddress::Unix(self.adit.admin.clone());
        let (_, body) = client::request(&admin, http::Method::GET, "/tunnels").await.unwrap();
        let mut report: TunnelsReport = serde_json::from_slice(&body).unwrap();
        let tunnel: DialledTunnel = report.dialled.remove(0);
        tunnel.switches
    }

    /// What the target was asked for.
    pub(crate) async fn seen(&self) -> Seen {
        // It says so every second.
        let before = self.target.log().lines().count();
        let line = eventually("what the target saw", async || {
            let log = self.target.log();
            log.lines().skip(before + 1).find_map(|line| line.strip_prefix(ANSWER).map(str::to_owned))
        });
        serde_json::from_str(&line.await).unwrap()
    }
}
