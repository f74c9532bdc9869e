//! One or two responders, a site that dials all of them, and another that will not answer.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::balancer::Responder;
use crate::support::certificates::Node;
use crate::support::eventually::eventually;
use crate::support::http1::get;
use crate::support::ports::free_address;
use crate::support::process::Adit;
use crate::support::site::{Cloud, Edge, Folder, NODE, Transport};
use crate::support::targets::Target;

/// Both sites; requests go to the first one.
const NODES: [Node<'static>; 2] = [NODE, Node { node: "edge-2", ..NODE }];

/// All of the processes; they end when this is dropped.
pub(crate) struct Place {
    responders: Vec<(Responder, Adit, PathBuf)>,
    sites: [Adit; 2],
    program: PathBuf,
    _target: Target,
    _folder: Folder,
}

impl Place {
    pub(crate) async fn start(transport: Transport, responders: usize, program: Option<&Path>) -> Self {
        let (folder, target) = (Folder::new(), Target::http1().await);
        let program = program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit"))).to_owned();
        let (mut started, mut addresses) = (Vec::new(), Vec::new());
        for number in 0..responders {
            // A balancer knows its responders by address, whichever process is there.
            let [tunnels, egress, admin] = [(); 3].map(|()| free_address());
            let cloud = Cloud::new()
                .responder("listen", &format!("{{ quic: \"{tunnels}\", tcp: \"{tunnels}\" }}"))
                .responder("state_dir", &format!("state-{number}"))
                .egress("http", &format!("\"{egress}\""))
                .process("admin", &admin.to_string());
            let path = folder.write(&format!("cloud-{number}.yaml"), &cloud.text());
            addresses.push(tunnels);
            started.push((Responder { egress, admin }, run(&program, &path), path));
        }
        let sites = NODES.map(|claim| {
            folder.authority.node(claim).write(folder.path(), claim.node);
            let edge = Edge::new(transport).named(claim.node).claim(claim);
            let edge = edge.target(&format!("http://{}", target.address()));
            let edge = addresses[1..].iter().fold(edge, |edge, responder| edge.also(*responder));
            run(&program, &folder.write(&format!("{}.yaml", claim.node), &edge.text(&addresses[0].to_string())))
        });
        let place = Self { responders: started, sites, program, _target: target, _folder: folder };
        for responder in place.responders() {
            for claim in NODES {
                let field = format!("x-node-id: {}", claim.node);
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
