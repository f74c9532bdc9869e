//! One or two responders, a site that dials all of them, and another that will not answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::balancer::Responder;
use crate::support::certificates::{Authority, IDENTITY, Node};
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::ports::free_address;
use crate::support::process::Adit;
use crate::support::site::Transport;
use crate::support::targets::Target;

/// The field that leads to the site that answers.
pub(crate) const TO_NODE: &str = "x-node-id: bench-1";

/// Names of both sites.
const NODES: [&str; 2] = ["bench-1", "bench-2"];

/// All of the processes; they end when this is dropped.
pub(crate) struct Place {
    responders: Vec<(Responder, Adit, PathBuf)>,
    sites: [Adit; 2],
    program: PathBuf,
    _target: Target,
    _folder: TempDir,
}

impl Place {
    pub(crate) async fn start(transport: Transport, responders: usize, program: Option<&Path>) -> Self {
        let (folder, target) = (TempDir::new().unwrap(), Target::http1().await);
        let program = program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit"))).to_owned();
        write_certificates(folder.path());
        let mut started = Vec::new();
        let mut addresses = Vec::new();
        for number in 0..responders {
            let [tunnels, egress, admin] = [(); 3].map(|()| free_address());
            let state = folder.path().join(format!("state-{number}"));
            std::fs::create_dir(&state).unwrap();
            let text = responder(tunnels, egress, admin, &state);
            let path = write(folder.path(), &format!("responder-{number}.yaml"), &text);
            let adit = run(&program, &path);
            addresses.push(tunnels);
            started.push((Responder { egress, admin }, adit, path));
        }
        let sites = NODES.map(|node| {
            let text = initiator(transport, node, &addresses, target.address());
            run(&program, &write(folder.path(), &format!("{node}.yaml"), &text))
        });
        let place = Self { responders: started, sites, program, _target: target, _folder: folder };
        for responder in place.responders() {
            for node in NODES {
                let field = format!("x-node-id: {node}");
                let up = async || (get(responder.egress, "/", &[&field]).await.ok()?.status() == 200).then_some(());
                eventually("a request that comes through", up).await;
            }
        }
        place
    }

    pub(crate) fn responders(&self) -> Vec<Responder> {
        self.responders.iter().map(|(responder, ..)| *responder).collect()
    }

    /// SIGSTOP: its tunnels stay and carry nothing.
    pub(crate) fn freeze_the_other_site(&self) {
        self.sites[1].freeze();
    }

    /// SIGTERM to the first responder; returns when it is gone.
    pub(crate) async fn terminate_first(&mut self) {
        let (_, adit, _) = &mut self.responders[0];
        adit.terminate();
        adit.exit().await;
    }

    /// SIGKILL to the first responder; returns when it is gone.
    pub(crate) async fn kill_first(&mut self) {
        let (_, adit, _) = &mut self.responders[0];
        adit.kill();
        adit.exit().await;
    }

    /// Starts it again, with the same file and the same state.
    pub(crate) fn start_first(&mut self) {
        let (_, adit, path) = &mut self.responders[0];
        *adit = run(&self.program, path);
    }
}

fn run(program: &Path, file: &Path) -> Adit {
    let mut command = Command::new(program);
    command.env("ADIT_LOG", "adit=warn").arg("run").arg(file);
    Adit::spawn(command)
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn write_certificates(folder: &Path) {
    let authority = Authority::new("bench");
    authority.write(folder, "ca");
    authority.responder().write(folder, "responder");
    for node in NODES {
        authority.node(place(node)).write(folder, node);
    }
}

const fn place(node: &str) -> Node<'_> {
    Node { tenant: "acme", cluster: "benches", node }
}

/// Paths in a file are relative to it.
fn responder(tunnels: SocketAddr, egress: SocketAddr, admin: SocketAddr, state: &Path) -> String {
    format!(
        r#"
responder:
  listen: {{ quic: "{tunnels}", tcp: "{tunnels}" }}
  tls: {{ cert: responder.pem, key: responder.key, client_ca: ca.pem }}
  identity: "{IDENTITY}"
  state_dir: "{state}"
egress:
  - http: "{egress}"
    host_id: "%REQ(x-node-id)%"
    tenant: {tenant}
admin: "{admin}"
"#,
        state = state.display(),
        tenant = place(NODES[0]).tenant,
    )
}

fn initiator(transport: Transport, node: &str, responders: &[SocketAddr], target: SocketAddr) -> String {
    let (Node { tenant, cluster, .. }, transport) = (place(node), transport.label());
    let lines = responders.iter().map(|to| format!("    - {{ to: \"{to}\", transport: {transport} }}\n"));
    format!(
        r#"
initiator:
  node: {node}
  cluster: {cluster}
  tenant: {tenant}
  tunnels:
{tunnels}  tls: {{ cert: {node}.pem, key: {node}.key, ca: ca.pem }}
services:
  - {{ name: api, match: {{ prefix: "/" }}, target: "http://{target}" }}
"#,
        tunnels = lines.collect::<String>(),
    )
}
