//! Datagrams through a tunnel: a question and its answer, and an answer that fits no packet of the path.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use adit::app::App;
use adit::config::{self, Given};
use adit::lifecycle::Drain;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use anyhow::{Context as _, bail, ensure};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const NAME: &str = "spiffe://adit.internal/tenant/default/cluster/stores-eu/node/edge-17";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write_certificates(folder.path())?;
    let target = start_target().await?;
    println!("target:    udp://{target}, which only the initiator can reach");

    let cloud = app(include_str!("cloud.yaml"), folder.path(), &[]).await?;
    let responder = cloud.tunnel_address().context("the responder has no address")?;
    let listener = *cloud.udp_addresses().first().context("there is no listener for datagrams")?;
    println!("responder: accepts tunnels on {responder} (QUIC) and datagrams on {listener}");

    let values = [("RESPONDER", responder.to_string()), ("TARGET", target.to_string())];
    let edge = app(include_str!("edge.yaml"), folder.path(), &values).await?;
    let status = edge.initiator_status().context("the initiator has no status")?;

    let drain = Drain::new();
    let running = [cloud, edge].map(|app| tokio::spawn(app.run(drain.clone())));
    let slot = status.first_outcome().await;
    let tunnel = slot.tunnel.with_context(|| format!("no tunnel: {:?}", slot.reason))?;
    println!("tunnel:    {} to {}, admitted as node {}", tunnel.id, slot.address, tunnel.node);

    for question in ["1", "100", "4000"] {
        let answer = ask(listener, question).await?;
        println!("answer:    {} bytes for {question} copies", answer.len());
        ensure!(answer.len() == 2 * question.parse::<usize>()?, "{answer}");
    }

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
    let authority = Authority::create("udp example CA", valid(CA_LIFETIME))?;
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

/// Answers a number with so many copies of "y ".
async fn start_target() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut room = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut room).await {
            let count = std::str::from_utf8(&room[..length]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            let _ = socket.send_to("y ".repeat(count).as_bytes(), from).await;
        }
    });
    Ok(address)
}

/// Asks until there is an answer, as whoever uses datagrams has to.
async fn ask(listener: SocketAddr, question: &str) -> anyhow::Result<String> {
    let client = UdpSocket::bind("127.0.0.1:0").await?;
    client.connect(listener).await?;
    let mut room = vec![0; 65_536];
    for _ in 0..10 {
        client.send(question.as_bytes()).await?;
        if let Ok(length) = timeout(Duration::from_secs(1), client.recv(&mut room)).await {
            return Ok(String::from_utf8(room[..length?].to_vec())?);
        }
    }
    bail!("no answer to {question}")
}
