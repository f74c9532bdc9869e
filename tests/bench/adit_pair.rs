//! Two adit processes with a tunnel between them, as an operator would run them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustls::RootCertStore;
use tempfile::TempDir;

use crate::support::certificates::{Authority, IDENTITY, Node};
use crate::support::eventually::within;
use crate::support::http1;
use crate::support::ports::free_address;
use crate::support::process::Adit;
use crate::support::site::Transport;
use crate::thread::block_on;
use crate::usage::Process;

/// What differs between the pairs that are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// What carries the tunnels.
    pub(crate) transport: Transport,
    /// Tunnels between the two.
    pub(crate) tunnels: usize,
    /// The program to run, where it is not the one that was just built.
    pub(crate) program: Option<&'static Path>,
}

/// A responder and an initiator; both end when this is dropped.
pub(crate) struct Pair {
    responder: Adit,
    initiator: Adit,
    files: Files,
}

/// An egress that HTTP/3 clients can reach.
#[derive(Debug, Clone)]
pub(crate) struct Http3Egress {
    pub(crate) address: SocketAddr,
    /// Who vouches for it; its name is [`RESPONDER_NAME`](crate::support::certificates::RESPONDER_NAME).
    pub(crate) roots: RootCertStore,
}

/// What the two are told, and where they will be.
pub(crate) struct Files {
    /// The responder's, then the initiator's.
    pub(crate) paths: [PathBuf; 2],
    /// Where requests enter.
    pub(crate) egress: SocketAddr,
    /// Where bytes enter.
    bytes: Option<SocketAddr>,
    http3: Http3Egress,
    admins: [SocketAddr; 2],
    tunnels: usize,
    _folder: TempDir,
}

const NODE: Node<'_> = Node { tenant: "acme", cluster: "benches", node: "bench-1" };

/// Whole header lines that name the node.
pub(crate) fn fields() -> String {
    format!("x-node-id: {}\r\n", NODE.node)
}

impl Files {
    /// For a pair in front of `target`.
    pub(crate) fn write(settings: Settings, target: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let roots = write_certificates(folder.path());
        let [tunnels, egress, secure, bytes, responder_admin, initiator_admin] = [(); 6].map(|()| free_address());
        // A former build may not know such a listener.
        let bytes = settings.program.is_none().then_some(bytes);
        let texts = [
            ("responder.yaml", responder_yaml(tunnels, ([egress, secure], bytes), responder_admin, settings)),
            ("initiator.yaml", initiator_yaml(tunnels, target, initiator_admin, settings)),
        ];
        let paths = texts.map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let admins = [responder_admin, initiator_admin];
        let http3 = Http3Egress { address: secure, roots };
        Self { paths, egress, bytes, http3, admins, tunnels: settings.tunnels, _folder: folder }
    }

    /// Waits until both run and every tunnel is up.
    pub(crate) async fn up(&self) {
        for admin in self.admins {
            ready(admin).await;
        }
        all_tunnels(self.admins[0], self.tunnels).await;
    }
}

impl Pair {
    /// Starts both in front of `target` and waits until every tunnel is up.
    pub(crate) fn start(settings: Settings, target: SocketAddr) -> Self {
        let files = Files::write(settings, target);
        let [responder, initiator] = files.paths.each_ref().map(|path| {
            let mut command = Command::new(settings.program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit"))));
            // By the environment, because a former build does not know the key of the initiator.
            command.env("ADIT_LOG", "adit=info,adit::access=off").arg("run").arg(path);
            Adit::spawn(command)
        });
        block_on(files.up());
        Self { responder, initiator, files }
    }

    /// Where requests enter.
    pub(crate) fn egress(&self) -> SocketAddr {
        self.files.egress
    }

    /// Where bytes enter for the target, whatever they are.
    pub(crate) fn bytes(&self) -> Option<SocketAddr> {
        self.files.bytes
    }

    /// Where clients of HTTP/3 enter.
    pub(crate) fn http3(&self) -> Http3Egress {
        self.files.http3.clone()
    }

    /// Whole header lines that name the node.
    pub(crate) fn fields(&self) -> String {
        fields()
    }

    /// The responder, then the initiator.
    pub(crate) fn processes(&self) -> [Process; 2] {
        [
            Process { name: "responder", pid: self.responder.pid() },
            Process { name: "initiator", pid: self.initiator.pid() },
        ]
    }

    /// Exchanges that the responder counts as running on its tunnels.
    pub(crate) async fn in_flight(&self) -> Option<u64> {
        tunnels(self.files.admins[0]).await?.iter().map(|tunnel| tunnel["in_flight"].as_u64()).sum()
    }
}

fn write_certificates(folder: &Path) -> RootCertStore {
    let authority = Authority::new("bench");
    authority.write(folder, "ca");
    authority.node(NODE).write(folder, "node");
    authority.responder().write(folder, "responder");
    authority.roots()
}

/// Paths in a file are relative to it.
fn responder_yaml(
    tunnels: SocketAddr,
    (egress, bytes): ([SocketAddr; 2], Option<SocketAddr>),
    admin: SocketAddr,
    settings: Settings,
) -> String {
    let (transport, [clear, secure]) = (settings.transport.label(), egress);
    let Node { tenant, node, .. } = NODE;
    let to = format!("{{ node: {node}, service: bytes, tenant: {tenant} }}");
    let bytes = bytes.map(|bytes| format!("  - {{ tcp: \"{bytes}\", access_log: false, to: {to} }}\n"));
    format!(
        r#"
responder:
  listen: {{ {transport}: "{tunnels}" }}
  tls: {{ cert: responder.pem, key: responder.key, client_ca: ca.pem }}
  identity: "{IDENTITY}"
  quotas: {{ tunnels_per_node: 1000 }}
egress:
  - http: "{clear}"
    host_id: "%REQ(x-node-id)%"
    access_log: false
    tenant: {tenant}
  - http: "{secure}"
    tls: {{ cert: responder.pem, key: responder.key }}
    host_id: "%REQ(x-node-id)%"
    access_log: false
    tenant: {tenant}
{bytes}admin: "{admin}"
"#,
        bytes = bytes.unwrap_or_default(),
    )
}

fn initiator_yaml(tunnels: SocketAddr, target: SocketAddr, admin: SocketAddr, settings: Settings) -> String {
    let Node { tenant, cluster, node } = NODE;
    let (transport, count) = (settings.transport.label(), settings.tunnels);
    format!(
        r#"
initiator:
  node: {node}
  cluster: {cluster}
  tenant: {tenant}
  tunnels:
    - {{ to: "{tunnels}", count: {count}, transport: {transport} }}
  tls: {{ cert: node.pem, key: node.key, ca: ca.pem }}
services:
  - {{ name: api, match: {{ prefix: "/" }}, target: "http://{target}" }}
  - {{ name: bytes, target: "tcp://{target}" }}
admin: "{admin}"
"#
    )
}

async fn ready(admin: SocketAddr) {
    let probe = async || http1::get(admin, "/ready", &[]).await.ok().and_then(is_ok);
    within(Duration::from_secs(30), "/ready", probe).await;
}

fn is_ok(response: http1::Response) -> Option<()> {
    (response.status() == 200).then_some(())
}

async fn all_tunnels(admin: SocketAddr, count: usize) {
    let probe = async || tunnels(admin).await.filter(|tunnels| tunnels.len() == count);
    within(Duration::from_secs(60), &format!("{count} tunnels"), probe).await;
}

async fn tunnels(admin: SocketAddr) -> Option<Vec<serde_json::Value>> {
    let response = http1::get(admin, "/tunnels", &[]).await.ok()?;
    let answer: serde_json::Value = serde_json::from_slice(&response.body).ok()?;
    answer["accepted"].as_array().cloned()
}
