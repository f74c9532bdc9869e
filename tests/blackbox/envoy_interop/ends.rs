//! Who plays which end, in every variant of Envoy's tunnels.

use std::net::SocketAddr;

use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::eventually::eventually;
use crate::support::http1::{Response, get};
use crate::support::site::{Cloud, Edge, Folder, NODE, Responder as AditResponder, Running};
use crate::support::targets::Target;

/// What plays an end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Adit,
    Envoy,
}

/// The end that accepts tunnels and takes requests.
#[allow(clippy::large_enum_variant, reason = "there is one per test")]
pub(super) enum Responder {
    Adit(AditResponder),
    Envoy(EnvoyResponder),
}

/// The end that dials and knows the target.
pub(super) enum Initiator {
    Adit(Running),
    Envoy(EnvoyInitiator),
}

/// Both, with one tunnel for [`NODE`].
pub(super) struct Pair {
    pub(super) target: Target,
    pub(super) responder: Responder,
    _initiator: Initiator,
    _folder: Folder,
}

impl Responder {
    /// `None`: the test was recorded as skipped.
    async fn start(end: End, variant: Variant, folder: &Folder) -> Option<Self> {
        match end {
            End::Adit => Some(Self::Adit(adit_responder(variant, folder).start(folder).await)),
            End::Envoy => {
                let tls = variant.has_tls().then(|| Tls::responder(folder, NODE));
                let options = ResponderOptions { tls, ..ResponderOptions::default() };
                EnvoyResponder::start(variant, options).await.map(Self::Envoy)
            }
        }
    }

    fn tunnel_address(&self) -> SocketAddr {
        match self {
            Self::Adit(adit) => adit.tunnel_address(),
            Self::Envoy(envoy) => envoy.tunnel_address(),
        }
    }

    pub(super) fn egress(&self) -> SocketAddr {
        match self {
            Self::Adit(adit) => adit.egress(),
            Self::Envoy(envoy) => envoy.egress(),
        }
    }

    async fn registered(&self, count: usize) {
        match self {
            Self::Adit(adit) => drop(adit.registered(count).await),
            Self::Envoy(envoy) => envoy.registered(count).await,
        }
    }
}

impl Initiator {
    /// `None`: the test was recorded as skipped.
    async fn start(
        end: End,
        variant: Variant,
        responder: SocketAddr,
        target: SocketAddr,
        folder: &Folder,
    ) -> Option<Self> {
        match end {
            End::Adit => {
                let edge = adit_initiator(variant, folder).target(&format!("http://{target}"));
                let file = folder.write("edge.yaml", &edge.text(&responder.to_string()));
                Some(Self::Adit(Running::start(file).await))
            }
            End::Envoy => {
                let tls = variant.has_tls().then(|| Tls::initiator(folder, NODE));
                let options = InitiatorOptions { tls, ..InitiatorOptions::default() };
                EnvoyInitiator::start(variant, responder, target, options).await.map(Self::Envoy)
            }
        }
    }

    async fn connected(&self, count: usize) {
        match self {
            Self::Adit(adit) => {
                eventually("a tunnel at the initiator", async || {
                    let dialled = adit.tunnels().await.dialled;
                    (dialled.iter().filter(|tunnel| tunnel.id.is_some()).count() == count).then_some(())
                })
                .await;
            }
            Self::Envoy(envoy) => envoy.connected(count).await,
        }
    }
}

/// What `security` says of this variant.
fn security(variant: Variant) -> &'static str {
    match (variant.has_tls(), variant.has_inner_tls()) {
        (false, _) => "none",
        (true, false) => "handshake_tls",
        (true, true) => "inner_tls",
    }
}

/// A responder of ours that takes Envoys of this variant, and admits by certificate where there is one.
pub(super) fn adit_responder(variant: Variant, folder: &Folder) -> Cloud {
    Tls::responder(folder, NODE);
    let envoy = format!("{{ security: {}, ping_interval: 1s }}", security(variant));
    let tls = "{ cert: envoy-responder.pem, key: envoy-responder.key, client_ca: ca.pem }";
    let cloud = Cloud::new().responder("tls", tls).responder("envoy", &envoy);
    match variant.has_tls() {
        true => cloud,
        false => cloud.without_identity().responder("insecure_accept_any", "true"),
    }
}

/// An initiator of ours that dials an Envoy of this variant.
pub(super) fn adit_initiator(variant: Variant, folder: &Folder) -> Edge {
    Tls::initiator(folder, NODE);
    let tls = "{ cert: envoy-initiator.pem, key: envoy-initiator.key, ca: ca.pem }";
    Edge::envoy(&format!("{{ security: {} }}", security(variant))).initiator("tls", tls)
}

impl Pair {
    /// Waits until both ends know of the tunnel. `None`: the test was recorded as skipped.
    pub(super) async fn start(responder: End, initiator: End, variant: Variant) -> Option<Self> {
        let (target, folder) = (Target::http1().await, Folder::new());
        let responder = Responder::start(responder, variant, &folder).await?;
        let to = responder.tunnel_address();
        let initiator = Initiator::start(initiator, variant, to, target.address(), &folder).await?;
        initiator.connected(1).await;
        responder.registered(1).await;
        Some(Self { target, responder, _initiator: initiator, _folder: folder })
    }

    /// One GET on a connection of its own.
    pub(super) async fn get(&self, path: &str, fields: &[&str]) -> Response {
        get(self.responder.egress(), path, fields).await.unwrap()
    }
}

/// Makes a test of each of these functions, once per pair of ends and variant.
macro_rules! over_each_pair {
    ($($test:ident),* $(,)?) => {
        mod between_envoys {
            $crate::envoy_interop::ends::over_each_variant!(Envoy, Envoy: $($test),*);
        }
        mod from_envoy_to_adit {
            $crate::envoy_interop::ends::over_each_variant!(Adit, Envoy: $($test),*);
        }
        mod from_adit_to_envoy {
            $crate::envoy_interop::ends::over_each_variant!(Envoy, Adit: $($test),*);
        }
        mod between_adits {
            $crate::envoy_interop::ends::over_each_variant!(Adit, Adit: $($test),*);
        }
    };
}
pub(super) use over_each_pair;

macro_rules! over_each_variant {
    ($responder:ident, $initiator:ident: $($test:ident),*) => {
        use $crate::envoy_interop::ends::tests;
        mod plaintext { super::tests!($responder, $initiator, Plaintext: $($test),*); }
        mod mtls { super::tests!($responder, $initiator, Mtls: $($test),*); }
        mod inner_mtls { super::tests!($responder, $initiator, InnerMtls: $($test),*); }
        mod drain_aware { super::tests!($responder, $initiator, DrainAware: $($test),*); }
    };
}
pub(super) use over_each_variant;

macro_rules! tests {
    ($responder:ident, $initiator:ident, $variant:ident: $($test:ident),*) => {
        use $crate::envoy_interop::{End, Pair};
        use $crate::support::envoy::Variant;

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let pair = Pair::start(End::$responder, End::$initiator, Variant::$variant).await;
            let Some(pair) = pair else { return };
            $crate::envoy_interop::$test(pair).await;
        })*
    };
}
pub(super) use tests;
