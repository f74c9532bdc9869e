//! `adit demo`: one request's way, step by step, with everything made up for it and nothing faked.
//!
//! Two apps run in this process as they would on two machines, each from a file of its own; they meet over real
//! sockets on loopback, with certificates that a new CA signed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use adit::admin::{AcceptedTunnel, TunnelsReport, client};
use adit::config::AdminAddress;
use adit::lifecycle::Signals;
use anyhow::{Context as _, bail};
use http::Method;

mod files;
mod side;
mod site;

use super::say;
use files::{CLOUD, Files, NODE};
use side::Side;
use site::Site;

/// How long the tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(super) fn demo(once: bool) -> anyhow::Result<ExitCode> {
    super::small_runtime()?.block_on(story(once))?;
    Ok(ExitCode::SUCCESS)
}

async fn story(once: bool) -> anyhow::Result<()> {
    let mut tale = Tale::begin();
    let files = Files::create()?;
    tale.tell("certificates", &format!("a CA; one for the responder (127.0.0.1), one for the node: {}", files.san));
    let site = Site::start().await?;
    tale.tell("service", &format!("an HTTP service on {}, reachable by the initiator only", site.address()));
    let mut cloud = Side::start(&files.cloud()?).await.context("the responder did not start")?;
    let (tunnels, egress) = (cloud.tunnel_address()?, cloud.egress_address()?);
    tale.tell("responder", &format!("waits for tunnels on {tunnels} (QUIC) and takes requests on http://{egress}"));
    let mut edge = Side::start(&files.edge(tunnels, site.address())?).await.context("the initiator did not start")?;
    tale.tell("initiator", &format!("accepts nothing from outside; dials out to {tunnels}"));
    let tunnel = first_tunnel(&mut cloud, &mut edge).await?;
    tale.tell("tunnel", &admitted(&tunnel, &files.san));
    let answer = site::ask(egress, NODE).await.context("the request did not come back")?;
    let request = format!("GET http://{egress}/hello, x-node-id: {NODE}: into the tunnel of that node");
    tale.tell_at(answer.sent, "request in", &request);
    tale.tell_at(site.served().context("the service saw no request")?, "at the service", "the request arrives");
    tale.tell_at(answer.received, "response out", &answer.summary());
    say(&format!("\n{}\n", answer.body.trim_end()));
    if !once {
        linger(&files, egress).await?;
    }
    edge.stop().await?;
    cloud.stop().await?;
    tale.tell("done", "both sides drained and stopped");
    Ok(())
}

/// Waits until the responder's admin listener shows a tunnel, or a side gives up.
async fn first_tunnel(cloud: &mut Side, edge: &mut Side) -> anyhow::Result<AcceptedTunnel> {
    let admin = cloud.admin_address()?;
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(tunnel) = tunnels(&admin).await?.accepted.into_iter().next() {
                return Ok(tunnel);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    });
    tokio::select! {
        tunnel = seen => tunnel.with_context(|| format!("no tunnel came up within {PATIENCE:?}"))?,
        ended = cloud.ended() => bail!("the responder ended: {ended}"),
        ended = edge.ended() => bail!("the initiator ended: {ended}"),
    }
}

async fn tunnels(admin: &AdminAddress) -> anyhow::Result<TunnelsReport> {
    let (_, body) = client::request(admin, Method::GET, "/tunnels").await?;
    serde_json::from_slice(&body).context("/tunnels is not what it should be")
}

fn admitted(tunnel: &AcceptedTunnel, san: &str) -> String {
    let AcceptedTunnel { id, node, cluster, tenant, remote, rtt_ms, .. } = tunnel;
    format!(
        "{id} from {remote}: admitted as node {node}, cluster {cluster}, tenant {tenant}, because its certificate says \
         {san}; round trip {rtt_ms:.2} ms"
    )
}

async fn linger(files: &Files, egress: std::net::SocketAddr) -> anyhow::Result<()> {
    let (admin, folder) = (files.admin(), files.folder().display());
    say(&format!(
        "\nBoth sides keep running. Try:\n\n  \
         curl -i -H 'x-node-id: {NODE}' http://{egress}/hello\n  \
         curl -i -H 'x-node-id: nobody' http://{egress}/hello\n  \
         adit status --admin {admin}\n\n\
         Their files are in {folder} ({CLOUD} and the rest). Ctrl-C ends the demo.\n"
    ));
    Signals::new()?.next().await;
    say("\n");
    Ok(())
}

/// Prints steps with the time since the beginning.
struct Tale {
    begun: Instant,
    step: u32,
}

impl Tale {
    fn begin() -> Self {
        say("A request enters a responder, crosses a tunnel that an initiator dialled out, and comes back.\n\n");
        Self { begun: Instant::now(), step: 0 }
    }

    fn tell(&mut self, what: &str, text: &str) {
        self.tell_at(Instant::now(), what, text);
    }

    fn tell_at(&mut self, at: Instant, what: &str, text: &str) {
        self.step += 1;
        let millis = at.duration_since(self.begun).as_secs_f64() * 1000.0;
        say(&format!("{:>2}  {millis:>8.2} ms  {what:<14}  {text}\n", self.step));
    }
}
