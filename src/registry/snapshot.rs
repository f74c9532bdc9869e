//! Walking and counting what is registered.

use std::sync::Arc;

use super::names::{Held, Shard};
use super::node::Member;
use super::{Handle, Registry};
use crate::id::{Claim, Place, TunnelId};
use crate::policy::{Counts, Proof};

/// A registered tunnel, with all that is needed to ask policy again.
#[derive(Debug, Clone)]
pub struct LiveTunnel<H> {
    /// Its id.
    pub id: TunnelId,
    /// Whose it is, and which of the node's.
    pub place: Place,
    /// What it showed when it was admitted.
    pub proof: Arc<Proof>,
    /// It gets no new requests.
    pub leaving: bool,
    /// The tunnel.
    pub handle: H,
}

impl<H: Handle> Registry<H> {
    /// Every registered tunnel, in no order; those of a node come together. Takes no lock: a tunnel that comes or goes
    /// during the walk may be in it or not, every other one is in it exactly once.
    pub fn snapshot(&self) -> impl Iterator<Item = LiveTunnel<H>> {
        self.names.shards().flat_map(|shard| tunnels(&shard))
    }

    /// The tunnels of one node. Takes no lock.
    pub fn tunnels_of(&self, claim: &Claim) -> Vec<TunnelId> {
        let node = self.node(&claim.tenant, &claim.node);
        node.map_or_else(Vec::new, |node| node.state().tunnels.iter().map(|member| member.id).collect())
    }

    /// How many tunnels count against the quotas of this claim.
    pub fn counts(&self, claim: &Claim) -> Counts {
        let ledger = self.ledger();
        let node = self.node(&claim.tenant, &claim.node).map_or(0, |node| node.state().tunnels.len());
        Counts { node, tenant: ledger.of_tenant(&claim.tenant), total: ledger.total() }
    }

    /// How many tunnels are registered, leaving ones included.
    pub fn len(&self) -> usize {
        self.ledger().total()
    }

    /// Whether no tunnel is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn tunnels<H: Handle>(shard: &Shard<H>) -> Vec<LiveTunnel<H>> {
    let mut tunnels = Vec::new();
    for held in shard.held() {
        if let Held::Node(node) = held {
            tunnels.extend(node.state().tunnels.iter().map(live_tunnel));
        }
    }
    tunnels
}

fn live_tunnel<H: Handle>(member: &Member<H>) -> LiveTunnel<H> {
    LiveTunnel {
        id: member.id,
        place: member.place.clone(),
        proof: Arc::clone(&member.proof),
        leaving: member.leaving,
        handle: member.handle.clone(),
    }
}
