//! Ends that must not fit each other: what is refused, and what each end says about it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::interop::End;
use crate::mixed_pair::{Initiator, Protocol, Responder, name};
use crate::support::certificates::Node;
use crate::support::envoy::{Tls, Variant};
use crate::support::http1::get;
use crate::support::site::{Folder, NODE, TO_NODE};

/// How the two do not fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Misfit {
    pub(crate) what: &'static str,
    responder: Variant,
    initiator: Variant,
    shown: Shown,
}

/// The certificate that the initiator shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Right,
    /// The right names, by an authority that the responder does not know.
    OtherAuthority,
    /// By the right authority, for another node than it claims to be.
    OtherNode,
}

const fn misfit(what: &'static str, responder: Variant, initiator: Variant, shown: Shown) -> Misfit {
    Misfit { what, responder, initiator, shown }
}

/// All of them.
pub(crate) const MISFITS: [Misfit; 6] = [
    misfit("a certificate of another CA", Variant::Mtls, Variant::Mtls, Shown::OtherAuthority),
    misfit("a certificate of another node", Variant::Mtls, Variant::Mtls, Shown::OtherNode),
    misfit("dialled in clear, TLS expected", Variant::Mtls, Variant::Plaintext, Shown::Right),
    misfit("dialled with TLS, none expected", Variant::Plaintext, Variant::Mtls, Shown::Right),
    misfit("inner TLS at the responder only", Variant::InnerMtls, Variant::Mtls, Shown::Right),
    misfit("inner TLS at the initiator only", Variant::Mtls, Variant::InnerMtls, Shown::Right),
];

/// Long enough for every handshake, and less than a connection that says nothing may take.
const SETTLING: Duration = Duration::from_secs(3);
/// More than a responder holds a request for a node that reconnects.
const PATIENCE: Duration = Duration::from_secs(6);

/// What came of a misfit.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Tunnels that the responder counts, first before a request was sent, then after.
    pub(crate) tunnels: [usize; 2],
    /// The status of a request to the node, and what the answer says.
    pub(crate) status: Option<u16>,
    pub(crate) answer: String,
    pub(crate) responder: String,
    pub(crate) initiator: String,
}

impl Refusal {
    /// `None`: there is no Envoy here, and it was said so.
    pub(crate) async fn provoke(responder: End, initiator: End, misfit: Misfit, target: SocketAddr) -> Option<Self> {
        let folder = Folder::new();
        let proof = misfit.shown == Shown::OtherNode;
        let responder = Responder::start(responder, Protocol::Envoy(misfit.responder), &folder, proof).await?;
        let (to, protocol) = (responder.tunnel_address(), Protocol::Envoy(misfit.initiator));
        let initiator =
            Initiator::start(initiator, protocol, &folder, to, target, |folder| misfit.shown.put(folder)).await?;
        sleep(SETTLING).await;
        let before = responder.observer().tunnels().await.unwrap_or_default().len();
        let response = timeout(PATIENCE, get(responder.egress(), "/echo", &[TO_NODE])).await;
        let response = response.ok().and_then(Result::ok);
        let after = responder.observer().tunnels().await.unwrap_or_default().len();
        let answer = response.as_ref().map_or_else(String::new, |response| {
            response.field("proxy-status").map_or_else(|| response.text().trim().to_owned(), str::to_owned)
        });
        Some(Self {
            tunnels: [before, after],
            status: response.map(|response| response.status()),
            answer,
            responder: responder_says(&responder).await,
            initiator: initiator.observer().complaint().await,
        })
    }
}

impl Shown {
    /// Puts it where the initiator takes its own from.
    fn put(self, folder: &Folder) {
        const OTHER: Node<'static> = Node { node: "edge-2", ..NODE };
        match self {
            Self::Right => {}
            Self::OtherNode => drop(Tls::initiator(folder, OTHER)),
            Self::OtherAuthority => {
                let other = Folder::new();
                other.authority.either_role(NODE.node, Some(NODE)).write(folder.path(), "envoy-initiator");
            }
        }
    }
}

/// What it logged, or counted where it logs nothing.
async fn responder_says(responder: &Responder) -> String {
    let Responder::Adit(adit) = responder else { return responder.observer().complaint().await };
    let log = adit.0.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let text = |line: &serde_json::Value, key: &str| {
        let value = line.get(key).filter(|value| !value.is_null())?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let complaint = |line: serde_json::Value| {
        let message = text(&line, "message")?;
        let said: Vec<_> = ["code", "reason", "error"].iter().filter_map(|key| text(&line, key)).collect();
        let is_complaint = text(&line, "level")? == "WARN" || message == "tunnel down";
        (is_complaint && !said.is_empty()).then(|| format!("{message}: {}", said.join(", ")))
    };
    let mut words: Vec<_> = lines.filter_map(complaint).collect();
    words.dedup();
    words.truncate(2);
    words.join("; ")
}

/// Who is at the ends, for a table.
pub(crate) fn ends(responder: End, initiator: End) -> [String; 2] {
    [responder, initiator].map(|end| name(end).to_owned())
}
