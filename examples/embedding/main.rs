//! Both roles in one program without a listener: the cloud sends requests of its own, the site answers with an axum router.

use std::time::{Duration, SystemTime};

use adit::policy::San;
use adit::tls::pki::{Authority, Validity};
use adit::{Client, Drain, InitiatorBuilder, ResponderBuilder, Trust};
use anyhow::ensure;
use axum::{Router, routing::get};
use http::Request;
use http_body_util::{BodyExt as _, Empty};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A certificate for each side. In earnest they come from files: tls::Credentials::load, tls::load_roots.
    let valid = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(3600) };
    let authority = Authority::create("example CA", valid)?;
    let trust = Trust::roots([authority.certificate().clone()]);
    let cloud = authority.responder(&["127.0.0.1".to_owned()], valid)?.credentials()?;
    let site = authority.node(&[San::Uri("spiffe://example.org/default/stores/edge-1".to_owned())], valid)?;

    // The cloud: admit nodes by the name in their certificate, send requests to one of them.
    let responder = ResponderBuilder::new(cloud)
        .admit_certificates(trust.roots.clone(), "spiffe://example.org/{tenant}/{cluster}/{node}")?
        .bind(([127, 0, 0, 1], 0).into())?;
    let edge = Client::new(responder.directory(), "edge-1".parse()?);

    // The site: dial out, and answer what comes back through the tunnel.
    let router = Router::new().route("/", get(async || "hello from the site\n"));
    let address = format!("rc://edge-1:stores:@{}", responder.local_addr()?).parse()?;
    let initiator = InitiatorBuilder::new(address, trust).credentials(site.credentials()?).serve(router)?;

    let (drain, status) = (Drain::new(), initiator.status());
    let cloud = tokio::spawn(responder.run(drain.watch()));
    let site = tokio::spawn(initiator.run(drain.watch()));
    let slot = status.first_outcome().await;
    ensure!(slot.tunnel.is_some(), "no tunnel: {slot:?}");

    let request = Request::get("http://site/").body(Empty::new())?;
    let response = edge.send(request).await?;
    println!("{:?} {}", response.version(), response.status());
    let answer = response.into_body().collect().await?.to_bytes();
    print!("{}", str::from_utf8(&answer)?);
    ensure!(answer == "hello from the site\n", "another answer was expected");

    // Every role finishes what runs; what is left after 5 s is cut.
    drain.drain(Duration::from_secs(5)).await;
    tokio::try_join!(site, cloud)?;
    Ok(())
}
