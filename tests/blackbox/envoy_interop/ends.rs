//! Who plays which end, in every variant of Envoy's tunnels.

use std::net::SocketAddr;

use crate::support::envoy::{EnvoyInitiator, EnvoyResponder, InitiatorOptions, ResponderOptions, Tls, Variant};
use crate::support::http1::{Response, get};
use crate::support::site::{Folder, NODE};
use crate::support::targets::Target;

/// What plays an end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Envoy,
}

/// The end that accepts tunnels and takes requests.
pub(super) enum Responder {
    Envoy(EnvoyResponder),
}

/// The end that dials and knows the target.
pub(super) enum Initiator {
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
            End::Envoy => {
                let tls = variant.has_tls().then(|| Tls::responder(folder, NODE));
                let options = ResponderOptions { tls, ..ResponderOptions::default() };
                EnvoyResponder::start(variant, options).await.map(Self::Envoy)
            }
        }
    }

    fn tunnel_address(&self) -> SocketAddr {
        match self {
            Self::Envoy(envoy) => envoy.tunnel_address(),
        }
    }

    pub(super) fn egress(&self) -> SocketAddr {
        match self {
            Self::Envoy(envoy) => envoy.egress(),
        }
    }

    async fn registered(&self, count: usize) {
        match self {
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
            End::Envoy => {
                let tls = variant.has_tls().then(|| Tls::initiator(folder, NODE));
                let options = InitiatorOptions { tls, ..InitiatorOptions::default() };
                EnvoyInitiator::start(variant, responder, target, options).await.map(Self::Envoy)
            }
        }
    }

    async fn connected(&self, count: usize) {
        match self {
            Self::Envoy(envoy) => envoy.connected(count).await,
        }
    }
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
