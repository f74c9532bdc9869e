//! Two Envoys with a tunnel between them: one worker each, no access log, no limit on the time of an exchange.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::adit_pair::Http3Egress;
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::site::{Folder, NODE, TO_NODE};
use crate::support::tools;
use crate::thread::block_on;
use crate::tunnels::Ends;
use crate::usage::Process;

/// A responder and an initiator; both end when this is dropped.
pub(crate) struct EnvoyPair {
    responder: EnvoyResponder,
    initiator: EnvoyInitiator,
    folder: Folder,
}

impl EnvoyPair {
    /// Starts both in front of `target` and waits until every tunnel is up. `None`: there is no Envoy here.
    pub(crate) fn start(variant: Variant, tunnels: usize, target: SocketAddr) -> Option<Self> {
        let folder = Folder::new();
        let request_timeout = Some(Duration::ZERO);
        let tls = variant.has_tls().then(|| Tls::responder(&folder, NODE));
        let http3 = Some(Tls::responder(&folder, NODE));
        let responder = ResponderOptions { request_timeout, tls, http3, ..ResponderOptions::default() };
        let tls = variant.has_tls().then(|| Tls::initiator(&folder, NODE));
        let initiator = InitiatorOptions { request_timeout, tls, tunnels, ..InitiatorOptions::default() };
        block_on(async {
            let responder = EnvoyResponder::start(variant, responder).await?;
            let initiator = EnvoyInitiator::start(variant, responder.tunnel_address(), target, initiator).await?;
            responder.registered(tunnels).await;
            initiator.connected(tunnels).await;
            Some(Self { responder, initiator, folder })
        })
    }
}

impl Ends for EnvoyPair {
    fn egress(&self) -> SocketAddr {
        self.responder.egress()
    }

    fn http3(&self) -> Http3Egress {
        let address = self.responder.http3_egress().expect("it was asked for");
        Http3Egress { address, roots: self.folder.authority.roots() }
    }

    fn fields(&self) -> String {
        format!("{TO_NODE}\r\n")
    }

    fn processes(&self) -> [Process; 2] {
        [
            Process { name: "responder", pid: self.responder.pid() },
            Process { name: "initiator", pid: self.initiator.pid() },
        ]
    }
}

/// The number of the Envoy that is measured.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(tools::envoy()?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // PROGRAM version: COMMIT/NUMBER/STATE/...
    text.split_once("version: ")?.1.split('/').nth(1).map(str::to_owned)
}
