//! Both ends as an operator runs them, with every log line on a pipe that nobody reads.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::certificates::{Authority, IDENTITY, Node};
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::ports::free_address;
use crate::support::site::Transport;
use crate::target;
use crate::usage::Process;

const NODE: Node<'_> = Node { tenant: "acme", cluster: "benches", node: "bench-1" };

/// The field that leads to the node.
pub(crate) const TO_NODE: &str = "x-node-id: bench-1";

/// A responder, an initiator and a target; both processes end when this is dropped.
pub(crate) struct Place {
    pub(crate) egress: SocketAddr,
    /// Where tunnels come in, over UDP and TCP.
    pub(crate) tunnels: SocketAddr,
    pub(crate) admin: SocketAddr,
    children: [Child; 2],
    _folder: tempfile::TempDir,
}

impl Place {
    pub(crate) async fn start(transport: Transport, program: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("bench");
        authority.write(folder.path(), "ca");
        authority.node(NODE).write(folder.path(), "node");
        authority.responder().write(folder.path(), "responder");
        let [tunnels, egress, admin, initiator_admin] = [(); 4].map(|()| free_address());
        let texts = [
            ("responder.yaml", responder(tunnels, egress, admin)),
            ("initiator.yaml", initiator(transport, tunnels, target::start(), initiator_admin)),
        ];
        let children = texts.map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let program = program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit")));
            let mut command = Command::new(program);
            command.arg("run").arg(path).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::piped()).spawn().unwrap()
        });
        let place = Self { egress, tunnels, admin, children, _folder: folder };
        let up = async || (get(egress, "/ok", &[TO_NODE]).await.ok()?.status() == 200).then_some(());
        eventually("a request that comes through", up).await;
        place
    }

    /// The responder, then the initiator.
    pub(crate) fn processes(&self) -> [Process; 2] {
        let [responder, initiator] = self.children.each_ref().map(Child::id);
        [Process { name: "responder", pid: responder }, Process { name: "initiator", pid: initiator }]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Paths in a file are relative to it.
fn responder(tunnels: SocketAddr, egress: SocketAddr, admin: SocketAddr) -> String {
    format!(
        r#"
responder:
  listen: {{ quic: "{tunnels}", tcp: "{tunnels}" }}
  tls: {{ cert: responder.pem, key: responder.key, client_ca: ca.pem }}
  identity: "{IDENTITY}"
egress:
  - http: "{egress}"
    host_id: "%REQ(x-node-id)%"
    tenant: {tenant}
admin: "{admin}"
"#,
        tenant = NODE.tenant,
    )
}

fn initiator(transport: Transport, tunnels: SocketAddr, target: SocketAddr, admin: SocketAddr) -> String {
    let (Node { tenant, cluster, node }, transport) = (NODE, transport.label());
    format!(
        r#"
initiator:
  node: {node}
  cluster: {cluster}
  tenant: {tenant}
  tunnels:
    - {{ to: "{tunnels}", transport: {transport} }}
  tls: {{ cert: node.pem, key: node.key, ca: ca.pem }}
services:
  - {{ name: api, match: {{ prefix: "/" }}, target: "http://{target}" }}
admin: "{admin}"
"#
    )
}
