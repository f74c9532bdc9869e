//! What a hostile initiator meets.

use crate::support::site::{Cloud, Edge, Site, Transport};

/// What a process may grow by, whatever a single peer does.
const MOST_GROWTH: u64 = 48 << 20;

/// What its responder allows for a handshake. Whoever means to finish one has to, on a machine that is busy.
pub(super) const HANDSHAKE_TIMEOUT: &str = "3s";

/// A responder with an honest tunnel, beside which a hostile peer connects.
pub(super) struct Victim {
    pub(super) site: Site,
    memory: u64,
}

impl Victim {
    /// With an honest tunnel over this transport, and [`HANDSHAKE_TIMEOUT`].
    pub(super) async fn beside(honest: Transport, cloud: Cloud) -> Self {
        let cloud = cloud.responder("handshake_timeout", HANDSHAKE_TIMEOUT);
        let site = Site::with(cloud, Edge::new(honest)).await;
        assert_eq!(site.get("/bytes/100000").await.status(), 200);
        let memory = site.responder.0.memory();
        Self { site, memory }
    }

    /// Nobody but the honest node is registered, it works, and memory is bounded.
    pub(super) async fn unharmed(&self) {
        let report = self.site.responder.registered(1).await;
        assert_eq!(report.accepted[0].node, "edge-1");
        assert_eq!(self.site.get("/").await.status(), 200);
        self.bounded();
    }

    pub(super) fn bounded(&self) {
        let growth = self.site.responder.0.memory().saturating_sub(self.memory);
        assert!(growth < MOST_GROWTH, "the responder grew by {} MiB", growth >> 20);
    }
}
