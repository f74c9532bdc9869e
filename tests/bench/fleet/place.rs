//! An etcd and three responders, each of which has lines to etcd and to the others that can be cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use adit::admin::{FleetReport, client};
use adit::config::AdminAddress;
use http::Method;

use crate::balancer::Responder;
use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::link::CLEAN;
use crate::support::link::tcp::TcpLink;
use crate::support::link::udp::UdpLink;
use crate::support::ports::free_address;
use crate::support::process::Adit;
use crate::support::site::{Cloud, Folder};
use crate::world::certificate_of;

/// How long the others know one that died.
const LEASE: &str = "5s";
/// As long as a balancer that asks ten times a second may need.
const LAME_DUCK: &str = "1s";

/// All of the processes; they end when this is dropped.
pub(crate) struct Place {
    pub(crate) etcd: Etcd,
    pub(crate) folder: Folder,
    members: Vec<Member>,
    program: PathBuf,
    /// Where what the processes print is kept, if anywhere.
    logs: Option<PathBuf>,
}

/// A responder, in whichever process it is.
struct Member {
    process: Adit,
    file: PathBuf,
    at: Responder,
    tunnels: SocketAddr,
    to_etcd: TcpLink,
    from_siblings: UdpLink,
}

impl Place {
    /// `None` where there is no etcd.
    pub(crate) async fn start(program: Option<&Path>, logs: Option<PathBuf>) -> Option<Self> {
        let (etcd, folder) = (Etcd::start().await?, Folder::new());
        let program = program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit"))).to_owned();
        let mut place = Self { etcd, folder, members: Vec::new(), program, logs };
        for id in ["a", "b", "c"] {
            let member = place.member(id).await;
            place.members.push(member);
        }
        Some(place)
    }

    async fn member(&self, id: &str) -> Member {
        // A balancer knows its responders by address, whichever process is there.
        let [tunnels, egress, admin, hop] = [(); 4].map(|()| free_address());
        let to_etcd = TcpLink::new(self.etcd.client(), CLEAN, 1).await.unwrap();
        let from_siblings = UdpLink::new(hop, CLEAN, 1).await.unwrap();
        let name = format!("spiffe://example.org/responder/{id}");
        certificate_of(&self.folder.authority, &name).write(self.folder.path(), &format!("hop-{id}"));
        let hop = format!(
            "{{ listen: \"{hop}\", identity: \"spiffe://example.org/responder/{{responder}}\", \
             tls: {{ cert: hop-{id}.pem, key: hop-{id}.key, ca: ca.pem }} }}"
        );
        let fleet = format!(
            "{{ etcd: \"http://{}\", id: {id}, lease: {LEASE}, siblings_at: \"{}\", initiators_at: \"{tunnels}\", hop: {hop} }}",
            to_etcd.address(),
            from_siblings.address()
        );
        let cloud = Cloud::new()
            .responder("listen", &format!("{{ quic: \"{tunnels}\", tcp: \"{tunnels}\" }}"))
            .responder("state_dir", &format!("state-{id}"))
            .egress("http", &format!("\"{egress}\""))
            .process("admin", &admin.to_string())
            .process("lame_duck", LAME_DUCK)
            .process("fleet", &fleet);
        let file = self.folder.write(&format!("{id}.yaml"), &cloud.text());
        let process = run(&self.program, &file);
        Member { process, file, at: Responder { egress, admin }, tunnels, to_etcd, from_siblings }
    }

    pub(crate) fn responders(&self) -> Vec<Responder> {
        self.members.iter().map(|member| member.at).collect()
    }

    /// Where initiators reach each of them.
    pub(crate) fn tunnels(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.tunnels).collect()
    }

    /// Waits until each of them knows of so many tunnels of the fleet, and is ready.
    pub(crate) async fn knows(&self, tunnels: usize) {
        for member in &self.members {
            let admin = AdminAddress::Tcp(member.at.admin);
            eventually(&format!("{tunnels} tunnels in the view"), async || {
                let (_, text) = client::request(&admin, Method::GET, "/fleet").await.ok()?;
                let report: FleetReport = serde_json::from_slice(&text).ok()?;
                (report.tunnels >= tunnels).then_some(())
            })
            .await;
            eventually("that it is ready", async || {
                let (status, _) = client::request(&admin, Method::GET, "/ready").await.ok()?;
                (status == 200).then_some(())
            })
            .await;
        }
    }

    /// SIGTERM; returns when it is gone, with the time that took.
    pub(crate) async fn terminate(&mut self, number: usize) -> Duration {
        let (process, begun) = (&mut self.members[number].process, Instant::now());
        process.terminate();
        while process.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill(&mut self, number: usize) {
        let process = &mut self.members[number].process;
        process.kill();
        process.exit().await;
    }

    /// Starts it again, with the same file and the same state.
    pub(crate) fn begin_again(&mut self, number: usize) {
        self.keep_log(number);
        let member = &mut self.members[number];
        member.process = run(&self.program, &member.file);
    }

    /// Keeps what the processes that run now have printed.
    pub(crate) fn keep_logs(&self) {
        (0..self.members.len()).for_each(|number| self.keep_log(number));
    }

    fn keep_log(&self, number: usize) {
        let (Some(logs), process) = (&self.logs, &self.members[number].process) else { return };
        let log = logs.join(format!("responder-{number}-{}.log", process.pid()));
        std::fs::write(log, process.log()).unwrap();
    }

    pub(crate) fn cut_from_etcd(&self, number: usize, is_cut: bool) {
        self.members[number].to_etcd.blackout(is_cut);
    }

    pub(crate) fn cut_from_siblings(&self, number: usize, is_cut: bool) {
        self.members[number].from_siblings.blackout(is_cut);
    }
}

fn run(program: &Path, file: &Path) -> Adit {
    let mut command = Command::new(program);
    if std::env::var_os("ADIT_LOG").is_none() {
        command.env("ADIT_LOG", "adit=warn");
    }
    command.arg("run").arg(file);
    Adit::spawn(command)
}
