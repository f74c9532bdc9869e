//! What a process writes to standard error, and that a standard error which takes nothing stops nothing.

use std::io::{PipeReader, Read, Write, pipe};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use http::Method;
use serde_json::Value;

use crate::support::eventually::{PATIENCE, eventually};
use crate::support::http1::RawHttp;
use crate::support::ports::free_address;
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, Folder, Running, TO_NODE, Transport};
use crate::support::targets::Target;

/// What a pipe holds that nobody reads.
const PIPE_BYTES: usize = 64 << 10;

/// A responder with a standard error that takes nothing any more, and a site.
struct Stuck {
    responder: std::process::Child,
    stderr: PipeReader,
    egress: SocketAddr,
    admin: PathBuf,
    _initiator: Running,
    _target: Target,
    _folder: Folder,
}

impl Stuck {
    async fn start() -> Self {
        let (folder, target) = (Folder::new(), Target::http1().await);
        let (tunnels, egress, admin) = (free_address(), free_address(), folder.path().join("admin.sock"));
        let cloud = Cloud::new()
            .responder("listen", &format!("{{ quic: \"{tunnels}\" }}"))
            .egress("http", &format!("\"{egress}\""))
            .process("admin", "unix:admin.sock");
        let file = folder.write("cloud.yaml", &cloud.text());
        let (stderr, mut full) = pipe().unwrap();
        full.write_all(&[b'\n'; PIPE_BYTES]).unwrap();
        let responder = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(["run", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(full)
            .spawn()
            .unwrap();
        let edge = Edge::new(Transport::Quic).target(&format!("http://{}", target.address()));
        let initiator = edge.start(&folder, tunnels).await;
        initiator.line_with("tunnel up").await;
        Self { responder, stderr, egress, admin, _initiator: initiator, _target: target, _folder: folder }
    }

    async fn metrics(&self) -> String {
        let address = adit::config::AdminAddress::Unix(self.admin.clone());
        let (_, metrics) = adit::admin::client::request(&address, Method::GET, "/metrics").await.unwrap();
        String::from_utf8(metrics.to_vec()).unwrap()
    }

    async fn dropped(&self) -> u64 {
        let metrics = self.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("adit_log_lines_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    async fn terminated(mut self) -> std::process::ExitStatus {
        let pid = self.responder.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        eventually("the end of the responder", async || self.responder.try_wait().unwrap()).await
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.responder.kill();
        let _ = self.responder.wait();
    }
}

/// Once the pipe of standard error was full, the next line stopped the process, health checks included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pipe_on_stderr_stops_nothing_and_what_was_dropped_is_counted_and_said() {
    let stuck = Stuck::start().await;
    let mut client = RawHttp::connect(stuck.egress).await.unwrap();
    let path = format!("/status/200?{}", "x".repeat(1000));
    let request = format!("GET /{path}{path} HTTP/1.1\r\nhost: {}\r\n{TO_NODE}\r\n\r\n", "h".repeat(250));
    let mut dropped = 0;
    while dropped == 0 {
        for _ in 0..100 {
            client.send(request.as_bytes()).await.unwrap();
            client.response().await.unwrap();
        }
        dropped = stuck.dropped().await;
    }
    let mut stderr = stuck.stderr.try_clone().unwrap();
    let (lines, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = stderr.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let _ = lines.send(serde_json::from_slice::<Value>(&line).unwrap_or_default());
            }
        }
    });
    let said = tokio::task::spawn_blocking(move || {
        loop {
            let line = read.recv_timeout(PATIENCE).unwrap();
            if line["message"].as_str().is_some_and(|message| message.contains("log lines were dropped")) {
                return line["total"].as_u64().unwrap();
            }
        }
    });
    assert!(said.await.unwrap() >= dropped);
    assert!(stuck.terminated().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pipe_on_stderr_does_not_hold_up_the_end() {
    let stuck = Stuck::start().await;
    assert!(stuck.terminated().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_line_says_what_runs_and_the_last_one_how_it_ended() {
    let folder = Folder::new();
    let mut responder = Cloud::new().start(&folder).await.0;
    responder.terminate();
    assert!(responder.exit().await.success());
    responder.line_with("drained").await;
    let log = responder.log();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["message"], "adit starts");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["pid"], responder.pid());
    assert_eq!(first["roles"], "responder");
    assert_eq!(first["file"], responder.file().to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_is_told_and_a_hangup_is_no_end() {
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let told = async || {
        let manager = manager.try_clone().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            manager.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut bytes = [0; 256];
            let length = manager.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        });
        read.await.unwrap()
    };
    let file = folder.write("cloud.yaml", &Cloud::new().text());
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(["run", file.to_str().unwrap()]).env("NOTIFY_SOCKET", folder.path().join("notify"));
    let mut responder: Program = Program::spawn("adit", command);
    assert!(told().await.contains("READY=1\n"));
    responder.signal("HUP");
    let reloading = told().await;
    assert!(reloading.contains("RELOADING=1\n") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(told().await.contains("READY=1\n"));
    let line: Value = serde_json::from_str(&responder.line_with("the settings are what they were").await).unwrap();
    assert_eq!(line["level"], "INFO");
    responder.terminate();
    assert!(told().await.contains("STOPPING=1\n"));
    assert!(responder.exit().await.success());
}

/// It did not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_folder_that_cannot_be_written_is_said_and_keeps_nobody_from_starting() {
    let folder = Folder::new();
    folder.write("state", "a file where a folder should be");
    let responder = Cloud::new().responder("state_dir", "state").start(&folder).await;
    let line = responder.0.line_with("the state folder cannot be used").await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(responder.0.ask(Method::GET, "/healthz").await.0, 200);
}
