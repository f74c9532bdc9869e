//! Another stack (aioquic) on both sides of CONNECT-UDP: a QUIC server at the site, and a client that reaches it through an
//! HTTP/3 listener.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::certificates::Authority;
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, NODE, Site, Transport};

/// What the client sends, of each of which it says whether it came back as it was.
pub(crate) const SIZES: [u64; 3] = [1, 1000, 300_000];

/// A QUIC server that sends back what comes on a stream, under an authority of its own.
pub(crate) struct Server {
    python: PathBuf,
    keys: TempDir,
    port: u16,
    _program: Program,
}

impl Server {
    /// With a Python that has the packages of `tests/foreign/requirements.txt`.
    pub(crate) async fn start(python: PathBuf) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let authority = Authority::new("site CA");
        authority.write(keys.path(), "ca");
        authority.responder().write(keys.path(), "site");
        let arguments = ["serve", "--cert", "site.pem", "--key", "site.key"];
        let program = Program::spawn("QUIC server", command(&python, keys.path(), &arguments));
        let told: Value = serde_json::from_str(&program.line_with("serve").await).unwrap();
        let port = told["port"].as_u64().and_then(|port| port.try_into().ok()).unwrap();
        Self { python, keys, port, _program: program }
    }

    /// A site that exports it, and a listener that allows CONNECT-UDP over HTTP/3.
    pub(crate) async fn site(&self, transport: Transport) -> Site {
        let cloud = Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }").egress("connect_udp", "true");
        let edge = Edge::new(transport)
            .service("{ name: web, match: {}, target: \"{target}\" }")
            .service(&format!("{{ name: quic, target: \"udp://127.0.0.1:{}\" }}", self.port));
        let site = Site::with(cloud, edge).await;
        // One file with both CAs, for both connections.
        let cas = [site.folder.path().join("ca.pem"), self.keys.path().join("ca.pem")];
        let both: Vec<String> = cas.iter().map(|ca| std::fs::read_to_string(ca).unwrap()).collect();
        std::fs::write(self.keys.path().join("both.pem"), both.concat()).unwrap();
        site
    }

    /// A client that asks the listener for it, and speaks in capsules, or in QUIC datagrams where they are long enough.
    pub(crate) fn client(&self, egress: SocketAddr, datagrams: bool) -> Client {
        let (egress, path) = (egress.to_string(), "/.well-known/masque/udp/quic/443/");
        let arguments = ["ask", "--address", &egress, "--ca", "both.pem", "--path", path, "--node", NODE.node];
        let arguments = [&arguments[..], if datagrams { &["--datagrams"] } else { &[] }].concat();
        Client(Program::spawn("CONNECT-UDP client", command(&self.python, self.keys.path(), &arguments)))
    }
}

fn command(python: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/connect_udp.py");
    let mut command = Command::new(python);
    command.arg(&script).args(arguments).current_dir(folder);
    command
}

/// A running client.
pub(crate) struct Client(Program);

/// How many datagrams came to a client in each of the two forms.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) capsules: u64,
    pub(crate) datagrams: u64,
}

impl Client {
    /// Waits for its end, which must be a good one: it was let in, and each of [`SIZES`] came back as it was.
    pub(crate) async fn served(mut self) -> Came {
        let head = self.told("\"head\"").await;
        assert_eq!((&head["status"], &head["capsules"]), (&200.into(), &"?1".into()));
        for size in SIZES {
            let line = self.told(&format!("\"bytes\": {size},")).await;
            assert_eq!(line["same"], true, "{line}");
        }
        let end = self.told("\"end\"").await;
        assert!(self.0.exit().await.success());
        let count = |of: &str| end[of].as_u64().unwrap();
        Came { capsules: count("capsules"), datagrams: count("datagrams") }
    }

    async fn told(&self, text: &str) -> Value {
        serde_json::from_str(&self.0.line_with(text).await).unwrap()
    }
}
