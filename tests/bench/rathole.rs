//! Two rathole processes with a tunnel between them, over TCP with Noise, which forward bytes as a listener of adit for
//! bytes does. What its README does not mention is left at its defaults.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use crate::line::{Direction, Line, Sample, Shape, WARM_UP, Workload};
use crate::load::HttpLine;
use crate::support::eventually::within;
use crate::support::http1;
use crate::support::ports::free_address;
use crate::support::process::Program;
use crate::support::tools;
use crate::thread::block_on;
use crate::usage::Process;

/// Its row in the table.
pub(crate) const NAME: &str = "rathole, TCP with Noise";

/// Beyond the time of a workload. A client of rathole 0.5 asks its server for a connection for at most 10 s and then forgets
/// whom it was for: whoever has waited longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// A line whose two ends are started again where they have left somebody waiting.
pub(crate) struct Rathole {
    program: PathBuf,
    keys: Keys,
    target: SocketAddr,
    pair: RefCell<Pair>,
}

impl Rathole {
    /// Starts both ends in front of `target` and waits until the tunnel carries an exchange. `None`: there is no rathole
    /// here that could do it, and it was said.
    pub(crate) fn start(target: SocketAddr) -> Option<Self> {
        let program = program()?;
        let keys = keys(&program)?;
        let pair = RefCell::new(Pair::start(&program, &keys, target));
        Some(Self { program, keys, target, pair })
    }
}

impl Line for Rathole {
    fn name(&self) -> &str {
        NAME
    }

    fn requests(&self, workload: Workload) -> Option<Sample> {
        let Shape::Http1(connections) = workload.shape else { return None };
        let limit = WARM_UP + workload.duration + PATIENCE;
        let bounded =
            |line: &HttpLine| block_on(async { timeout(limit, line.over_http1(connections, workload)).await });
        let sample = bounded(&self.pair.borrow().line).ok();
        if sample.is_none() {
            let Workload { kind, shape, .. } = workload;
            eprintln!("left out: {NAME}: {kind:?} with {shape} at once: some had no answer after {limit:?}");
            self.pair.replace(Pair::start(&self.program, &self.keys, self.target));
        }
        sample
    }

    fn bulk(&self, direction: Direction, bytes: usize) -> Option<Duration> {
        self.pair.borrow().line.bulk(direction, bytes)
    }

    fn processes(&self) -> Vec<Process> {
        self.pair.borrow().line.processes()
    }
}

/// A server and a client; both end when this is dropped.
struct Pair {
    line: HttpLine,
    _programs: [Program; 2],
    _folder: TempDir,
}

impl Pair {
    fn start(program: &Path, keys: &Keys, target: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let [tunnel, address] = [(); 2].map(|()| free_address());
        let [server, client] = [
            ("rathole, server", "server.toml", server_toml(tunnel, address, &keys.private)),
            ("rathole, client", "client.toml", client_toml(tunnel, target, &keys.public)),
        ]
        .map(|(name, file, text)| {
            let path = folder.path().join(file);
            std::fs::write(&path, text).unwrap();
            let mut command = Command::new(program);
            // Nobody else has an access log either.
            command.env("RUST_LOG", "warn").arg(path);
            Program::spawn(name, command)
        });
        let exchange = async || http1::get(address, "/", &[]).await.ok().filter(|answer| answer.status() == 200);
        block_on(within(Duration::from_secs(60), "an exchange through rathole", exchange));
        // Named as the roles of the others: the server accepts the tunnel.
        let processes =
            vec![Process { name: "responder", pid: server.pid() }, Process { name: "initiator", pid: client.pid() }];
        let line = HttpLine { name: NAME.into(), address, fields: String::new(), takes_http2: false, processes };
        Self { line, _programs: [server, client], _folder: folder }
    }
}

/// The number of the rathole that is measured.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(program()?).arg("-V").output().ok()?;
    // PROGRAM NUMBER, where `--version` has more lines.
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_whitespace().nth(1)?.to_owned())
}

fn program() -> Option<PathBuf> {
    let targets = [Some(concat!(env!("CARGO_MANIFEST_DIR"), "/target").into()), std::env::var_os("CARGO_TARGET_DIR")];
    let installed = targets.into_iter().flatten().map(|target| PathBuf::from(target).join("rathole/bin/rathole"));
    let found = installed.into_iter().find(|binary| binary.is_file()).or_else(|| tools::on_path("rathole"));
    if found.is_none() {
        tools::skip("there is no rathole on the path or in target/rathole/bin; README.md says how to install it");
    }
    found
}

/// What the client knows the server by, in base64.
struct Keys {
    private: String,
    public: String,
}

/// A new pair. `None`: this rathole was built without Noise, and it was said.
fn keys(program: &Path) -> Option<Keys> {
    let output = Command::new(program).arg("--genkey").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // A title above each.
    let mut keys = text.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).map(str::to_owned);
    match (keys.next(), keys.next()) {
        (Some(private), Some(public)) if output.status.success() => Some(Keys { private, public }),
        _ => {
            let why = String::from_utf8_lossy(&output.stderr);
            tools::skip(&format!("{} makes no keys for Noise: {}", program.display(), why.trim()));
            None
        }
    }
}

fn server_toml(tunnel: SocketAddr, service: SocketAddr, private: &str) -> String {
    format!(
        r#"
[server]
bind_addr = "{tunnel}"

[server.transport]
type = "noise"

[server.transport.noise]
local_private_key = "{private}"

[server.services.bytes]
token = "bench"
bind_addr = "{service}"
"#
    )
}

fn client_toml(tunnel: SocketAddr, target: SocketAddr, public: &str) -> String {
    format!(
        r#"
[client]
remote_addr = "{tunnel}"

[client.transport]
type = "noise"

[client.transport.noise]
remote_public_key = "{public}"

[client.services.bytes]
token = "bench"
local_addr = "{target}"
"#
    )
}
