//! Both roles in one program; the initiator serves an axum router directly, with no socket in between.

use std::time::{Duration, SystemTime};

use adit::lifecycle::Drain;
use adit::routing::RouterSettings;
use adit::tls::Trust;
use adit::tls::pki::{Authority, Validity};
use adit::{egress, initiator, policy::San, responder};
use anyhow::ensure;
use axum::{Router, routing::get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A certificate for each side. In earnest they come from files: tls::Credentials::load, tls::load_roots.
    let valid = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(3600) };
    let authority = Authority::create("example CA", valid)?;
    let trust = Trust::roots([authority.certificate().clone()]);
    let cloud = authority.responder(&["127.0.0.1".to_owned()], valid)?.credentials()?;
    let site = authority.node(&[San::Uri("spiffe://example.org/default/stores/edge-1".to_owned())], valid)?;

    // The cloud: admit nodes by the name in their certificate, take HTTP requests for them.
    let responder = responder::Builder::new(cloud)
        .admit_certificates(trust.roots.clone(), "spiffe://example.org/{tenant}/{cluster}/{node}")?
        .bind(([127, 0, 0, 1], 0).into())?;
    let to_node = RouterSettings::new("%REQ(x-node-id)%".parse()?);
    let egress = egress::Builder::new(responder.directory(), to_node).bind(([127, 0, 0, 1], 0).into())?;

    // The site: dial out, and answer what comes back through the tunnel.
    let router = Router::new().route("/", get(async || "hello from the site\n"));
    let address = format!("rc://edge-1:stores:@{}", responder.local_addr()?).parse()?;
    let initiator = initiator::Builder::new(address, trust).credentials(site.credentials()?).serve(router)?;

    let (drain, entrance, status) = (Drain::new(), egress.local_addr(), initiator.status());
    let cloud = tokio::spawn(responder.run(drain.watch()));
    let requests = tokio::spawn(egress.run(drain.watch()));
    let site = tokio::spawn(initiator.run(drain.watch()));
    let slot = status.first_outcome().await;
    ensure!(slot.tunnel.is_some(), "no tunnel: {slot:?}");

    let mut client = TcpStream::connect(entrance).await?;
    client.write_all(b"GET / HTTP/1.1\r\nhost: site\r\nx-node-id: edge-1\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    drop(client);
    println!("{answer}");
    ensure!(answer.ends_with("hello from the site\n"), "another answer was expected");

    // Every role finishes what runs; what is left after 5 s is cut.
    drain.drain(Duration::from_secs(5)).await;
    tokio::try_join!(site, requests, cloud)?;
    Ok(())
}
