//! Two processes with a tunnel between them, each of them adit or Envoy, which can be killed, started again and frozen.

use std::net::SocketAddr;

use crate::interop::{End, adit_initiator, adit_responder};
use crate::observer::{Observer, Side};
use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder as AditResponder, Running, Transport};

/// What the two speak.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// Envoy's, in one of its variants.
    Envoy(Variant),
    /// adit's own.
    Own(Transport),
}

/// Who is at the ends, and what is between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) responder: End,
    pub(crate) initiator: End,
    pub(crate) protocol: Protocol,
}

impl Kind {
    /// Whether adit is at an end, and with it our promises.
    pub(crate) fn is_ours(self) -> bool {
        matches!((self.responder, self.initiator), (End::Adit, _) | (_, End::Adit))
    }
}

/// The word for an end in a table.
pub(crate) fn name(end: End) -> &'static str {
    match end {
        End::Adit => "adit",
        End::Envoy => "Envoy",
    }
}

/// The word for a variant in a table.
pub(crate) fn variant_name(variant: Variant) -> &'static str {
    match variant {
        Variant::Plaintext => "plaintext",
        Variant::Mtls => "mTLS",
        Variant::InnerMtls => "inner mTLS",
        Variant::DrainAware => "drain-aware",
    }
}

/// The end that accepts tunnels and takes requests.
pub(crate) enum Responder {
    Adit(AditResponder),
    Envoy(Box<EnvoyResponder>),
}

/// The end that dials and knows the target.
pub(crate) enum Initiator {
    Adit(Running),
    Envoy(EnvoyInitiator),
}

impl Responder {
    /// With the standard settings of either program; `proof`: the certificate must name the node. `None`: there is no
    /// Envoy here, and it was said so.
    pub(crate) async fn start(end: End, protocol: Protocol, folder: &Folder, proof: bool) -> Option<Self> {
        match (end, protocol) {
            (End::Adit, Protocol::Envoy(variant)) => {
                let envoy = format!("{{ security: {} }}", security(variant));
                Some(Self::Adit(adit_responder(variant, folder).responder("envoy", &envoy).start(folder).await))
            }
            (End::Adit, Protocol::Own(_)) => {
                // The keys in it let a restarted responder say at once which tunnels are gone.
                Some(Self::Adit(Cloud::new().responder("state_dir", "state").start(folder).await))
            }
            (End::Envoy, Protocol::Envoy(variant)) => {
                let tls = variant.has_tls().then(|| Tls::responder(folder, NODE));
                let node_id_format = proof.then_some("%DOWNSTREAM_PEER_DNS_SAN%");
                let options = ResponderOptions { tls, node_id_format, ..ResponderOptions::default() };
                EnvoyResponder::start(variant, options).await.map(Box::new).map(Self::Envoy)
            }
            (End::Envoy, Protocol::Own(_)) => unreachable!("Envoy speaks its own protocol only"),
        }
    }

    pub(crate) fn tunnel_address(&self) -> SocketAddr {
        match self {
            Self::Adit(adit) => adit.tunnel_address(),
            Self::Envoy(envoy) => envoy.tunnel_address(),
        }
    }

    pub(crate) fn egress(&self) -> SocketAddr {
        match self {
            Self::Adit(adit) => adit.egress(),
            Self::Envoy(envoy) => envoy.egress(),
        }
    }

    async fn registered(&self) {
        match self {
            Self::Adit(adit) => drop(adit.registered(1).await),
            Self::Envoy(envoy) => envoy.registered(1).await,
        }
    }

    /// SIGKILL, and at once the same again on the same addresses.
    async fn restart(self) -> Self {
        match self {
            Self::Adit(adit) => Self::Adit(adit.restart().await),
            Self::Envoy(envoy) => Self::Envoy(Box::new(envoy.kill().restart().await)),
        }
    }

    pub(crate) fn freeze(&self) {
        match self {
            Self::Adit(adit) => adit.0.freeze(),
            Self::Envoy(envoy) => envoy.freeze(),
        }
    }

    pub(crate) fn thaw(&self) {
        match self {
            Self::Adit(adit) => adit.0.thaw(),
            Self::Envoy(envoy) => envoy.thaw(),
        }
    }

    pub(crate) fn observer(&self) -> Observer {
        match self {
            Self::Adit(adit) => Observer { side: Side::Responder, end: End::Adit, admin: adit.0.admin() },
            Self::Envoy(envoy) => Observer { side: Side::Responder, end: End::Envoy, admin: envoy.admin() },
        }
    }
}

impl Initiator {
    /// Like [`Responder::start`]. It shows what lies in the folder as `envoy-initiator`; `tampered` may change that.
    pub(crate) async fn start(
        end: End,
        protocol: Protocol,
        folder: &Folder,
        responder: SocketAddr,
        target: SocketAddr,
        tampered: impl FnOnce(&Folder),
    ) -> Option<Self> {
        let url = format!("http://{target}");
        match (end, protocol) {
            (End::Adit, Protocol::Envoy(variant)) => {
                let text = adit_initiator(variant, folder).target(&url).text(&responder.to_string());
                tampered(folder);
                Some(Self::Adit(Running::start(folder.write("edge.yaml", &text)).await))
            }
            (End::Adit, Protocol::Own(transport)) => {
                Some(Self::Adit(Edge::new(transport).target(&url).start(folder, responder).await))
            }
            (End::Envoy, Protocol::Envoy(variant)) => {
                let tls = variant.has_tls().then(|| Tls::initiator(folder, NODE));
                tampered(folder);
                let options = InitiatorOptions { tls, ..InitiatorOptions::default() };
                EnvoyInitiator::start(variant, responder, target, options).await.map(Self::Envoy)
            }
            (End::Envoy, Protocol::Own(_)) => unreachable!("Envoy speaks its own protocol only"),
        }
    }

    pub(crate) fn freeze(&self) {
        match self {
            Self::Adit(adit) => adit.freeze(),
            Self::Envoy(envoy) => envoy.freeze(),
        }
    }

    pub(crate) fn thaw(&self) {
        match self {
            Self::Adit(adit) => adit.thaw(),
            Self::Envoy(envoy) => envoy.thaw(),
        }
    }

    pub(crate) fn observer(&self) -> Observer {
        match self {
            Self::Adit(adit) => Observer { side: Side::Initiator, end: End::Adit, admin: adit.admin() },
            Self::Envoy(envoy) => Observer { side: Side::Initiator, end: End::Envoy, admin: envoy.admin() },
        }
    }
}

/// Both, with one tunnel for [`NODE`]; they end when this is dropped.
pub(crate) struct MixedPair {
    pub(crate) responder: Responder,
    pub(crate) initiator: Initiator,
    kind: Kind,
    target: SocketAddr,
    folder: Folder,
}

impl MixedPair {
    /// Waits until both ends know of the tunnel. `None`: there is no Envoy here, and it was said so.
    pub(crate) async fn start(kind: Kind, target: SocketAddr) -> Option<Self> {
        let folder = Folder::new();
        let responder = Responder::start(kind.responder, kind.protocol, &folder, false).await?;
        let to = responder.tunnel_address();
        let initiator = Initiator::start(kind.initiator, kind.protocol, &folder, to, target, |_| {}).await?;
        initiator.observer().has_a_tunnel().await;
        responder.registered().await;
        Some(Self { responder, initiator, kind, target, folder })
    }

    pub(crate) fn egress(&self) -> SocketAddr {
        self.responder.egress()
    }

    pub(crate) async fn restart_responder(self) -> Self {
        let responder = self.responder.restart().await;
        Self { responder, ..self }
    }

    /// SIGKILL, and at once the same again, with another certificate for the same names.
    pub(crate) async fn restart_initiator(self) -> Self {
        let initiator = match self.initiator {
            Initiator::Adit(adit) => Initiator::Adit(Running::start(adit.kill()).await),
            Initiator::Envoy(envoy) => {
                envoy.kill();
                let (Kind { initiator, protocol, .. }, to) = (self.kind, self.responder.tunnel_address());
                Initiator::start(initiator, protocol, &self.folder, to, self.target, |_| {}).await.unwrap()
            }
        };
        Self { initiator, ..self }
    }
}

/// What adit calls the security of this variant.
fn security(variant: Variant) -> &'static str {
    match (variant.has_tls(), variant.has_inner_tls()) {
        (false, _) => "none",
        (true, false) => "handshake_tls",
        (true, true) => "inner_tls",
    }
}
