//! Both ends as an operator runs them, with every log line on a pipe that nobody reads.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::ports::free_address;
use crate::support::site::{Cloud, Edge, Folder, NODE, TO_NODE, Transport};
use crate::target;
use crate::usage::Process;

/// A responder, an initiator and a target; both processes end when this is dropped.
pub(crate) struct Place {
    pub(crate) egress: SocketAddr,
    /// Where tunnels come in, over UDP and TCP.
    pub(crate) tunnels: SocketAddr,
    pub(crate) admin: SocketAddr,
    children: [Child; 2],
    _folder: Folder,
}

impl Place {
    pub(crate) async fn start(transport: Transport, program: Option<&Path>) -> Self {
        let folder = Folder::new();
        folder.authority.node(NODE).write(folder.path(), "edge");
        // Nobody reads the lines that would say which ports were taken.
        let [tunnels, egress, admin] = [(); 3].map(|()| free_address());
        let cloud = Cloud::new().responder("listen", &format!("{{ quic: \"{tunnels}\", tcp: \"{tunnels}\" }}"));
        let cloud = cloud.egress("http", &format!("\"{egress}\"")).process("admin", &admin.to_string());
        let edge = Edge::new(transport).target(&format!("http://{}", target::start()));
        let texts = [("cloud.yaml", cloud.text()), ("edge.yaml", edge.text(&tunnels.to_string()))];
        let children = texts.map(|(name, text)| {
            let program = program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit")));
            let mut command = Command::new(program);
            command.arg("run").arg(folder.write(name, &text)).stdin(Stdio::null()).stdout(Stdio::null());
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
