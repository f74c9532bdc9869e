//! Bytes through a tunnel: both roles from their configuration files, a target behind one, clients before the other.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use adit::app::App;
use adit::config::{self, Given};
use adit::lifecycle::Drain;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "spiffe://adit.internal/tenant/default/cluster/stores-eu/node/edge-17";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write_certificates(folder.path())?;
    let target = start_target().await?;
    println!("target:    {target}, which only the initiator can reach");

    let cloud = app(include_str!("cloud.yaml"), folder.path(), &[]).await?;
    let responder = cloud.tunnel_address().context("the responder has no address")?;
    let entrances = cloud.egress_addresses();
    println!("responder: accepts tunnels on {responder} (QUIC) and connections on {entrances:?}");

    let values = [("RESPONDER", responder.to_string()), ("TARGET", target.to_string())];
    let edge = app(include_str!("edge.yaml"), folder.path(), &values).await?;
    let status = edge.initiator_status().context("the initiator has no status")?;

    let drain = Drain::new();
    let running = [cloud, edge].map(|app| tokio::spawn(app.run(drain.clone())));
    let slot = status.first_outcome().await;
    let tunnel = slot.tunnel.with_context(|| format!("no tunnel: {:?}", slot.reason))?;
    println!("tunnel:    {} to {}, admitted as node {}", tunnel.id, slot.address, tunnel.node);

    let answer = ask(entrances[0], "how much is the fish?").await?;
    println!("answer:    {answer}");
    ensure!(answer == "you said 21 bytes", "{answer}");

    let refused = ask(entrances[2], "anybody there?").await.err().context("somebody is there")?;
    println!("nobody:    the connection was reset ({refused})");

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
    let authority = Authority::create("raw-tcp CA", valid(CA_LIFETIME))?;
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

/// A service that answers when its client has said everything.
async fn start_target() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut said = Vec::new();
                client.read_to_end(&mut said).await?;
                client.write_all(format!("you said {} bytes", said.len()).as_bytes()).await
            });
        }
    });
    Ok(address)
}

/// Says everything, ends its direction, and reads up to the end of the other.
async fn ask(entrance: SocketAddr, question: &str) -> anyhow::Result<String> {
    let mut client = TcpStream::connect(entrance).await?;
    client.write_all(question.as_bytes()).await?;
    client.shutdown().await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}
