//! ngtcp2's client, for what others do seldom or not at all: new keys and a new address, in the middle of an exchange.

use std::process::Command;

use super::cloud;
use crate::support::process::Program;
use crate::support::raw_target::{RawPeer, RawTarget};
use crate::support::site::{Edge, NODE, Site, Transport, over_each_transport};
use crate::support::tools;

over_each_transport!(new_keys_come_in_the_middle, a_client_moves_in_the_middle);

/// The client, waiting for the answer to its request.
struct Asking {
    client: Program,
    peer: RawPeer,
    _target: RawTarget,
    site: Site,
}

impl Asking {
    /// `None`: the test was recorded as skipped.
    async fn start(transport: Transport, more: &[&str]) -> Option<Self> {
        let program = tools::find("gtlsclient")?;
        let target = RawTarget::new().await;
        let service = format!("{{ name: raw, match: {{}}, target: \"http://{}\" }}", target.address());
        // The client cannot send a field that names the node.
        let cloud = cloud().egress("host_id", NODE.node);
        let site = Site::with(cloud, Edge::new(transport).service(&service)).await;
        let port = site.egress().port().to_string();
        let mut command = Command::new(program);
        command.args(["--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "--download"]);
        command.arg(site.folder.path()).args(more).args([
            "127.0.0.1",
            &port,
            &format!("https://localhost:{port}/answer"),
        ]);
        let client = Program::spawn("gtlsclient", command);
        let (peer, head) = target.accept().await;
        assert!(head.starts_with("get /answer http/1.1\r\n") && head.contains("via: 3.0 adit\r\n"), "{head}");
        Some(Self { client, peer, _target: target, site })
    }

    /// Waits for the end, and looks at what has arrived.
    async fn ends_with(&mut self, expected: &[u8]) {
        assert!(self.client.exit().await.success(), "{}", self.client.log());
        let answer = std::fs::read(self.site.folder.path().join("answer")).unwrap();
        assert!(answer == expected, "{} bytes arrived", answer.len());
    }
}

/// quinn changes its keys after 10 to 1,000 packets for the first time; this is more.
async fn new_keys_come_in_the_middle(transport: Transport) {
    let body = vec![b'a'; 3_000_000];
    let Some(mut asking) = Asking::start(transport, &[]).await else { return };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    asking.peer.send([head.as_bytes(), &body].concat()).await.unwrap();
    asking.ends_with(&body).await;
    asking.client.line_with("key update confirmed").await;
}

async fn a_client_moves_in_the_middle(transport: Transport) {
    let half = vec![b'a'; 300_000];
    let Some(mut asking) = Asking::start(transport, &["--change-local-addr=1s"]).await else { return };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * half.len());
    asking.peer.send([head.as_bytes(), &half].concat()).await.unwrap();
    asking.client.line_with("Changing local address").await;
    asking.peer.send(&half).await.unwrap();
    asking.ends_with(&half.repeat(2)).await;
}
