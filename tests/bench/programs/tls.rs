//! Three servers of TLS behind one listener, which goes by the name that a connection asks for and decrypts nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::content::Content;
use crate::run::{Run, not_on_path};
use crate::support::certificates::Authority;
use crate::support::ports;
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, NODE, Site};

const NAMES: [&str; 3] = ["shop.example.org", "till.example.org", "stock.example.org"];
/// A name that is nobody's.
const OTHER: &str = "other.example.org";
/// Of what each server has.
const BYTES: usize = 8 << 20;
/// Of curl: the TLS handshake did not come to an end.
const CURL_NO_TLS: i32 = 35;

pub(crate) fn missing() -> Vec<&'static str> {
    not_on_path(&["openssl", "curl"])
}

pub(crate) async fn run(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("site CA");
    authority.write(folder.path(), "ca");
    let (mut servers, mut edge, mut routes) = (Vec::new(), Edge::new(run.transport), Vec::new());
    for (number, name) in NAMES.into_iter().enumerate() {
        let server = Server::start(&authority, name, number as u64, &folder.path().join(name)).await;
        edge = edge.service(&format!("{{ name: tls-{number}, target: \"tcp://{}\" }}", server.address));
        routes.push(format!("{{ server_name: {name}, service: tls-{number} }}"));
        servers.push(server);
    }
    let to = format!("{{ node: {}, tenant: {} }}", NODE.node, NODE.tenant);
    let routes = format!("[{}]", routes.join(", "));
    let cloud = Cloud::new().and_tcp("none").egress("to", &to).egress("routes", &routes);
    let site = Site::with(cloud, edge).await;
    let listener = site.responder.tcp_at(0);

    run.begin("openssl s_client for three names on one port");
    for name in NAMES {
        let (said, _) = run.command("openssl s_client", s_client(listener, name, folder.path())).await;
        let subject = format!("subject=CN = {name}");
        assert!(said.lines().any(|line| line.replace("subject=CN=", "subject=CN = ") == subject), "{name}: {said}");
    }
    run.done(format!("each has its own certificate: {}", NAMES.join(", ")));

    run.begin("curl of 8 MiB from each, and from a name that has no route");
    for (number, name) in NAMES.into_iter().enumerate() {
        run.command("curl", curl(listener, name, folder.path())).await;
        let got = std::fs::read(folder.path().join("got")).unwrap();
        assert!(got == content(number as u64), "{name}: {} bytes came, other ones", got.len());
    }
    let mut nobody = Program::spawn("curl", curl(listener, OTHER, folder.path()));
    let status = nobody.finish(crate::support::eventually::PATIENCE).await;
    assert_eq!(status.code(), Some(CURL_NO_TLS), "{}", nobody.log());
    run.done("each has its own content, byte for byte; the other name is reset");
}

fn content(number: u64) -> Vec<u8> {
    Content { seed: number }.bytes(BYTES)
}

/// It checks the certificate and its name.
fn s_client(listener: SocketAddr, name: &str, folder: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &listener.to_string(), "-servername", name, "-CAfile", "ca.pem"]);
    command.args(["-verify_hostname", name, "-verify_return_error"]).current_dir(folder);
    command
}

/// It does, too.
fn curl(listener: SocketAddr, name: &str, folder: &Path) -> Command {
    let port = listener.port();
    let mut command = Command::new("curl");
    command.args([
        "-q",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "60",
        "--cacert",
        "ca.pem",
        "--noproxy",
        "*",
    ]);
    command.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), "--output", "got"]);
    command.arg(format!("https://{name}:{port}/page")).current_dir(folder);
    command
}

/// A server with a certificate and a page of its own.
struct Server {
    address: SocketAddr,
    _program: Program,
}

impl Server {
    async fn start(authority: &Authority, name: &str, number: u64, folder: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        authority.either_role(name, None).write(folder, "own");
        std::fs::write(folder.join("page"), content(number)).unwrap();
        let address = ports::free_address();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", &address.to_string(), "-cert", "own.pem", "-key", "own.key", "-WWW"]);
        let program = Program::spawn("openssl s_server", {
            command.current_dir(folder);
            command
        });
        program.line_with("ACCEPT").await;
        Self { address, _program: program }
    }
}
