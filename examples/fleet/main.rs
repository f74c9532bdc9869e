//! Three responders that act as one through etcd: a request reaches a node wherever that is connected, also when the responder
//! that it came through is killed.
//!
//! Each responder is a process of its own, since one of them is killed: this program, called with `responder`.

mod etcd;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use adit::admin::{FleetReport, client};
use adit::app::App;
use adit::config::{self, AdminAddress, Given};
use adit::lifecycle::Drain;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::http::{Method, Uri};
use etcd::Etcd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const RESPONDERS: [&str; 3] = ["cloud-1", "cloud-2", "cloud-3"];
const NODES: [&str; 2] = ["edge-1", "edge-2"];
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[..] {
        [_, role, id, folder, etcd] if role == "responder" => respond(id, Path::new(folder), etcd).await,
        [_] => show().await,
        _ => bail!("this example takes no arguments"),
    }
}

async fn show() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(folder.path()).await?;
    println!("etcd:      http://{}", etcd.address);
    write_certificates(folder.path())?;
    let mut responders = Vec::new();
    for id in RESPONDERS {
        let responder = Responder::start(id, folder.path(), etcd.address).await?;
        println!("responder: {id} takes requests on {}, tunnels on {}", responder.requests, responder.tunnels);
        responders.push(responder);
    }
    let [first, second, third] = &mut responders[..] else { bail!("there are three responders") };
    let places = [[&*first, third], [second, third]];
    for (node, at) in NODES.into_iter().zip(places) {
        start_node(node, folder.path(), at.map(|responder| responder.tunnels)).await?;
        println!("node:      {node} is connected to {} and {}", at[0].id, at[1].id);
    }

    let report = first.sees("3 responders and 4 tunnels", |report| report.responders.len() == 3 && report.tunnels == 4);
    say(&report.await?);
    println!("request:   {}", first.ask("edge-2").await?);
    second.process.kill().context("cannot kill cloud-2")?;
    println!("kill:      cloud-2 is dead, and nobody was told");
    println!("request:   {}", first.ask("edge-2").await?);
    let report = first.sees("the end of the lease", |report| report.responders.len() == 2);
    say(&report.await?);
    println!("request:   {}", first.ask("edge-2").await?);
    println!("end:       all of it is stopped");
    Ok(())
}

/// What a responder knows of its fleet.
fn say(report: &FleetReport) {
    for responder in &report.responders {
        let this = if responder.is_this { ", which says so" } else { "" };
        println!("fleet:     {} has {} tunnels{this}", responder.id, responder.tunnels);
    }
}

/// A responder in a process of its own, killed when dropped.
struct Responder {
    id: &'static str,
    process: Child,
    requests: SocketAddr,
    tunnels: SocketAddr,
    admin: AdminAddress,
}

impl Responder {
    async fn start(id: &'static str, folder: &Path, etcd: SocketAddr) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["responder", id]).arg(folder).arg(etcd.to_string()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("cannot start {id}"))?;
        let said = process.stdout.take().context("it has no standard output")?;
        let lines = tokio::task::spawn_blocking(move || BufReader::new(said).lines().next());
        let line = lines.await?.with_context(|| format!("{id} did not start"))??;
        let places: Vec<&str> = line.split(' ').collect();
        let [requests, tunnels, admin] = places[..] else { bail!("{id} says {line:?}") };
        Ok(Self { id, process, requests: requests.parse()?, tunnels: tunnels.parse()?, admin: admin.parse()? })
    }

    /// Waits until its view of the fleet is so.
    async fn sees(&self, what: &str, is_so: impl Fn(&FleetReport) -> bool) -> anyhow::Result<FleetReport> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, text) = client::request(&self.admin, Method::GET, "/fleet").await?;
            let report: FleetReport = serde_json::from_slice(&text)?;
            if is_so(&report) {
                return Ok(report);
            }
            ensure!(Instant::now() < deadline, "{} does not see {what} within {PATIENCE:?}: {report:?}", self.id);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it for a node, by hand, so that nothing hides what is sent.
    async fn ask(&self, node: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        let mut client = TcpStream::connect(self.requests).await?;
        let request =
            format!("GET /orders HTTP/1.1\r\nhost: shop.example\r\nx-node-id: {node}\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        let (status, body) = (answer.split(' ').nth(1).unwrap_or_default(), answer.lines().last().unwrap_or_default());
        ensure!(status == "200", "{} answers {answer}", self.id);
        Ok(format!("{} for {node}: {status}, {body:?}, after {:.0?}", self.id, begun.elapsed()))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process of a responder: says where it is, and runs until it is killed.
async fn respond(id: &str, folder: &Path, etcd: &str) -> anyhow::Result<()> {
    let text = include_str!("cloud.yaml").replace("cloud-1", id);
    let app = app(&text, folder, &[("ETCD", etcd.to_owned())]).await?;
    let requests = *app.egress_addresses().first().context("there is no egress")?;
    let tunnels = app.tunnel_address().context("there is no port for tunnels")?;
    let admin = app.admin_address().context("there is no admin listener")?;
    println!("{requests} {tunnels} {admin}");
    Ok(app.run(Drain::new()).await?)
}

/// Starts a node and the service that it alone can reach, and waits for both of its tunnels.
async fn start_node(node: &'static str, folder: &Path, responders: [SocketAddr; 2]) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = listener.local_addr()?;
    let router = Router::new().fallback(async move |uri: Uri| format!("{node} has {}", uri.path()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let [first, second] = responders.map(|address| address.to_string());
    let values = [("FIRST", first), ("SECOND", second), ("TARGET", target.to_string())];
    let edge = app(&include_str!("edge.yaml").replace("edge-1", node), folder, &values).await?;
    let status = edge.initiator_status().context("the initiator has no status")?;
    tokio::spawn(edge.run(Drain::new()));
    let deadline = Instant::now() + PATIENCE;
    while status.connected() < 2 {
        ensure!(Instant::now() < deadline, "{node} has {} tunnels: {:?}", status.connected(), status.slots());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A file of this example, with its certificates in `folder`.
async fn app(text: &str, folder: &Path, values: &[(&str, String)]) -> anyhow::Result<App> {
    let checked = config::check(text, &folder.join("adit.yaml"), &Given(values))?;
    Ok(App::build(checked).await?)
}

/// What `adit pki` writes. Responders have a CA of their own: what it signs is a responder of the fleet.
fn write_certificates(folder: &Path) -> anyhow::Result<()> {
    let valid = |lifetime| Validity { from: SystemTime::now(), lifetime };
    let files = |name: &str| -> [PathBuf; 2] { ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}"))) };
    let sites = Authority::create("sites CA", valid(CA_LIFETIME))?;
    let fleet = Authority::create("fleet CA", valid(CA_LIFETIME))?.for_both_roles();
    for (authority, name) in [(&sites, "sites-ca"), (&fleet, "fleet-ca")] {
        let [certificate, key] = files(name);
        authority.save(&certificate, &key)?;
    }
    let mut issued = vec![("responder", sites.responder(&["127.0.0.1".to_owned()], valid(LEAF_LIFETIME))?)];
    for node in NODES {
        let name = format!("spiffe://adit.internal/tenant/default/cluster/stores-eu/node/{node}");
        issued.push((node, sites.node(&[San::Uri(name)], valid(LEAF_LIFETIME))?));
    }
    for id in RESPONDERS {
        issued.push((id, fleet.responder(&[format!("{id}.responders.adit.internal")], valid(LEAF_LIFETIME))?));
    }
    for (name, issued) in issued {
        let [certificate, key] = files(name);
        issued.save(&certificate, &key)?;
    }
    Ok(())
}
