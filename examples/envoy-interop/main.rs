//! Envoy's reverse tunnels with adit at either end or both: one site, two responders, two tunnels to the one and three to
//! the other.

mod envoy;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use adit::admin::{TunnelsReport, client};
use adit::app::App;
use adit::config::{self, AdminAddress, Given};
use adit::lifecycle::Drain;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::{Method, Uri};
use envoy::Envoy;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const NODE: &str = "edge-17";
/// Tunnels to the first and to the second responder, as both initiator files say.
const COUNTS: [usize; 2] = [2, 3];
const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let site = Site::create().await?;
    println!("1. adit dials adit");
    let responders = [site.cloud().await?, site.cloud().await?];
    let edge = site.edge(&responders).await?;
    visit(&responders).await?;
    edge.stop().await?;
    for responder in &responders {
        eventually("the tunnels are gone", async || Ok(responder.tunnels().await? == 0)).await?;
    }

    let Some(program) = envoy::find() else {
        println!("no Envoy here: set ADIT_ENVOY, or run tests/run, and the other two follow");
        return Ok(());
    };
    println!("2. Envoy dials adit");
    let config = site.fitted(include_str!("envoy-initiator.yaml"), &responders);
    let initiator = Envoy::start(&program, site.folder.path(), &config).await?;
    visit(&responders).await?;
    drop(initiator);
    for responder in responders {
        responder.stop().await?;
    }

    println!("3. adit dials Envoy");
    let responders = [site.envoy_cloud(&program).await?, site.envoy_cloud(&program).await?];
    let edge = site.edge(&responders).await?;
    visit(&responders).await?;
    edge.stop().await
}

/// The certificates, and the service that only initiators can reach.
struct Site {
    folder: TempDir,
    target: SocketAddr,
}

/// A running responder, and where it is.
struct Responder {
    program: Program,
    tunnels: SocketAddr,
    requests: SocketAddr,
}

enum Program {
    Adit(Running, AdminAddress),
    Envoy(Envoy),
}

/// A running adit.
struct Running {
    drain: Drain,
    task: JoinHandle<Result<(), adit::app::AppError>>,
}

impl Site {
    async fn create() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        write_certificates(&folder.path().join("pki"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let target = listener.local_addr()?;
        let router = Router::new().fallback(async |uri: Uri| format!("you asked for {}", uri.path()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { folder, target })
    }

    /// The files name fixed ports, so that they can be tried by hand; here, any free ones.
    fn fitted(&self, text: &str, responders: &[Responder]) -> String {
        let first = responders.first().map_or(0, |responder| responder.tunnels.port());
        let second = responders.get(1).map_or(0, |responder| responder.tunnels.port());
        let ports = [(10001, first), (10002, second), (10090, self.target.port())];
        let ports = ports.into_iter().chain([10081, 10901, 10902].map(|port| (port, 0)));
        ports.fold(text.to_owned(), |text, (written, real)| {
            let text = text.replace(&format!("127.0.0.1:{written}"), &format!("127.0.0.1:{real}"));
            text.replace(&format!("port_value: {written}"), &format!("port_value: {real}"))
        })
    }

    async fn adit(&self, text: &str, responders: &[Responder]) -> anyhow::Result<App> {
        let text = self.fitted(text, responders);
        Ok(App::build(config::check(&text, &self.folder.path().join("adit.yaml"), &Given(&[]))?).await?)
    }

    async fn cloud(&self) -> anyhow::Result<Responder> {
        let app = self.adit(include_str!("cloud.yaml"), &[]).await?;
        let tunnels = app.tcp_tunnel_address().context("there is no port for tunnels")?;
        let requests = *app.egress_addresses().first().context("there is no egress")?;
        let admin = app.admin_address().context("there is no admin listener")?;
        Ok(Responder { program: Program::Adit(Running::start(app), admin), tunnels, requests })
    }

    async fn edge(&self, responders: &[Responder]) -> anyhow::Result<Running> {
        Ok(Running::start(self.adit(include_str!("edge.yaml"), responders).await?))
    }

    async fn envoy_cloud(&self, program: &Path) -> anyhow::Result<Responder> {
        let config = self.fitted(include_str!("envoy-responder.yaml"), &[]);
        let envoy = Envoy::start(program, self.folder.path(), &config).await?;
        let (tunnels, requests) = (envoy.listener("tunnels").await?, envoy.listener("requests").await?);
        Ok(Responder { program: Program::Envoy(envoy), tunnels, requests })
    }
}

impl Running {
    fn start(app: App) -> Self {
        let drain = Drain::new();
        Self { task: tokio::spawn(app.run(drain.clone())), drain }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.drain.begin(Duration::from_secs(5));
        Ok(self.task.await??)
    }
}

impl Responder {
    async fn tunnels(&self) -> anyhow::Result<usize> {
        match &self.program {
            Program::Envoy(envoy) => envoy.tunnels(NODE).await,
            Program::Adit(_, admin) => {
                let (_, body) = client::request(admin, Method::GET, "/tunnels").await?;
                Ok(serde_json::from_slice::<TunnelsReport>(&body)?.accepted.len())
            }
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        match self.program {
            Program::Adit(adit, _) => adit.stop().await,
            Program::Envoy(_) => Ok(()),
        }
    }
}

/// Waits for the tunnels, then sends requests to each responder: the node's name goes before the cluster's.
async fn visit(responders: &[Responder; 2]) -> anyhow::Result<()> {
    for (responder, count) in responders.iter().zip(COUNTS) {
        let what = format!("{count} tunnels to {}", responder.tunnels);
        eventually(&what, async || Ok(responder.tunnels().await? == count)).await?;
        println!("   {what}");
        let requests: [(&[&str], _); 4] = [
            (&["x-node-id: edge-17"], "200"),
            (&["x-cluster-id: stores-eu"], "200"),
            (&["x-node-id: edge-17", "x-cluster-id: nowhere"], "200"),
            (&["x-node-id: nobody", "x-cluster-id: stores-eu"], "503"),
        ];
        for (fields, expected) in requests {
            let answer = get(responder.requests, "/orders", fields).await?;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            ensure!(status == expected, "{fields:?}: {answer}");
            ensure!(status != "200" || answer.contains("you asked for /orders"), "{fields:?}: {answer}");
            println!("   {}: {status}", fields.join(", "));
        }
    }
    Ok(())
}

/// What `adit pki init`, `adit pki responder` and `adit pki node` write, with `--envoy`.
fn write_certificates(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    let valid = |lifetime| Validity { from: SystemTime::now(), lifetime };
    let authority = Authority::create("interop CA", valid(CA_LIFETIME))?;
    authority.save(&folder.join("ca.pem"), &folder.join("ca.key"))?;
    let authority = authority.for_both_roles();
    let responder = authority.responder(&["127.0.0.1".to_owned()], valid(LEAF_LIFETIME))?;
    responder.save(&folder.join("responder.pem"), &folder.join("responder.key"))?;
    let node = authority.node(&[San::Dns(NODE.to_owned())], valid(LEAF_LIFETIME))?;
    node.save(&folder.join("edge-17.pem"), &folder.join("edge-17.key"))?;
    Ok(())
}

/// Asks again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await? {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A request by hand, so that nothing hides what is sent.
async fn get(entrance: SocketAddr, path: &str, fields: &[&str]) -> anyhow::Result<String> {
    let mut client = TcpStream::connect(entrance).await?;
    let fields = fields.join("\r\n");
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}
