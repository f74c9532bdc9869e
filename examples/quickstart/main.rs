//! HTTP through a tunnel: both roles from their configuration files, a target behind one, a client before the other.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use adit::app::App;
use adit::config::{self, Given};
use adit::lifecycle::Drain;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const NODE: &str = "edge-17";
const NAME: &str = "spiffe://adit.internal/tenant/default/cluster/stores-eu/node/edge-17";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write_certificates(folder.path())?;
    let target = start_target().await?;
    println!("target:     http://{target}, which only the initiator can reach");

    let cloud = app(include_str!("cloud.yaml"), folder.path(), &[]).await?;
    let responder = cloud.tunnel_address().context("the responder has no address")?;
    let entrance = *cloud.egress_addresses().first().context("there is no egress")?;
    println!("responder:  accepts tunnels on {responder} (QUIC) and requests on http://{entrance}");

    let values = [("RESPONDER", responder.to_string()), ("TARGET", target.to_string())];
    let edge = app(include_str!("edge.yaml"), folder.path(), &values).await?;
    let status = edge.initiator_status().context("the initiator has no status")?;

    let drain = Drain::new();
    let running = [cloud, edge].map(|app| tokio::spawn(app.run(drain.clone())));
    let slot = status.first_outcome().await;
    let tunnel = slot.tunnel.with_context(|| format!("no tunnel: {:?}", slot.reason))?;
    println!("tunnel:     {} to {}, admitted as node {}", tunnel.id, slot.address, tunnel.node);

    let answer = get(entrance, "/orders", &format!("x-node-id: {NODE}")).await?;
    println!("answer:     {}", answer.lines().last().unwrap_or_default());
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("you asked for /orders"), "{answer}");

    let refused = get(entrance, "/orders", "x-node-id: nobody").await?;
    println!("for nobody: {}", refused.lines().last().unwrap_or_default());
    ensure!(refused.starts_with("HTTP/1.1 503"), "{refused}");

    drain.begin(Duration::from_secs(5));
    for app in running {
        app.await??;
    }
    println!("both roles drained and stopped");
    Ok(())
}

/// What `adit pki init`, `adit pki responder` and `adit pki node` write.
fn write_certificates(folder: &Path) -> anyhow::Result<()> {
    let valid = |lifetime| Validity { from: SystemTime::now(), lifetime };
    let authority = Authority::create("quickstart CA", valid(CA_LIFETIME))?;
    authority.save(&folder.join("ca.pem"), &folder.join("ca.key"))?;
    let responder = authority.responder(&["127.0.0.1".to_owned()], valid(LEAF_LIFETIME))?;
    responder.save(&folder.join("responder.pem"), &folder.join("responder.key"))?;
    let node = authority.node(&[San::Uri(NAME.to_owned())], valid(LEAF_LIFETIME))?;
    node.save(&folder.join("edge-17.pem"), &folder.join("edge-17.key"))?;
    Ok(())
}

/// A file of this example, with its certificates in `folder`.
async fn app(text: &str, folder: &Path, values: &[(&str, String)]) -> anyhow::Result<App> {
    let checked = config::check(text, &folder.join("adit.yaml"), &Given(values))?;
    Ok(App::build(checked).await?)
}

async fn start_target() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(async |uri: Uri| format!("you asked for {}", uri.path()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// A request by hand, so that nothing hides what is sent.
async fn get(entrance: SocketAddr, path: &str, header: &str) -> anyhow::Result<String> {
    let mut client = TcpStream::connect(entrance).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{header}\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}
