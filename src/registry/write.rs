//! What changes the registry: a tunnel comes, leaves, is gone.

use std::sync::Arc;
use std::time::Instant;

use super::cluster::{Cluster, Seat};
use super::conflict::{Conflict, InsertError};
use super::departed::Departure;
use super::ledger::Ledger;
use super::names::Held;
use super::node::{Member, Node, NodeState};
use super::pick::affinity;
use super::{Handle, Registry};
use crate::id::{Claim, ClusterId, HostId, NodeId, Place, TenantId, TunnelId};
use crate::policy::{Admitted, Counts, Proof};

/// A tunnel was registered.
#[derive(Debug)]
#[must_use = "superseded tunnels are no longer registered, and still open"]
pub struct Inserted<H> {
    /// The tunnels whose place it took: out of the registry already, to be closed by the caller.
    pub superseded: Vec<H>,
}

impl<H: Handle> Registry<H> {
    /// Registers a tunnel under an id that no live tunnel has. From here on requests find it.
    ///
    /// Nothing changes when it fails: the name or place is taken, or a quota of the admission is used up. Tunnels that
    /// are superseded do not count.
    pub fn insert(&self, admitted: Admitted, id: TunnelId, handle: H) -> Result<Inserted<H>, InsertError> {
        let quotas = admitted.quotas();
        let renews = |older: &Proof| admitted.renews(older);
        let member =
            Member { id, place: admitted.place().clone(), proof: Arc::clone(admitted.proof()), leaving: false, handle };
        let claim = member.place.claim.clone();

        // Declared after `member`, so that a refused handle is dropped when the lock is free again.
        let mut ledger = self.ledger();
        if admitted.generation() < ledger.generation {
            return Err(InsertError::Outdated);
        }
        if ledger.owner(id).is_some() {
            return Err(InsertError::DuplicateId);
        }
        let node = self.check_names(&claim)?;
        let (state, superseded) = match &node {
            Some(node) => node.state().admit(&member, renews)?,
            None => (NodeState::first(&member), Vec::new()),
        };
        quotas.check(Counts {
            node: state.tunnels.len() - 1,
            tenant: ledger.of_tenant(&claim.tenant) - superseded.len(),
            total: ledger.total() - superseded.len(),
        })?;

        for tunnel in &superseded {
            ledger.strike(tunnel.id);
        }
        ledger.enter(id, claim.tenant.clone(), claim.node.clone());
        match node {
            Some(node) => self.update(&claim, &node, state),
            None => self.create(&claim, state),
        }
        self.changed();
        Ok(Inserted { superseded: superseded.into_iter().map(|tunnel| tunnel.handle).collect() })
    }

    /// What a registered tunnel showed, and where it is.
    pub fn proof(&self, id: TunnelId) -> Option<(Place, Arc<Proof>)> {
        let ledger = self.ledger();
        let (tenant, node) = ledger.owner(id)?;
        let node = self.node(tenant, node)?;
        let state = node.state();
        let member = state.tunnels.iter().find(|member| member.id == id)?;
        Some((member.place.clone(), Arc::clone(&member.proof)))
    }

    /// A registered tunnel has shown another credential: what it was admitted with now takes the place of what it showed before.
    /// False when there is none with this id. spec: CT-55
    ///
    /// # Errors
    /// [`InsertError::Outdated`], and nothing has changed.
    pub fn renew(&self, admitted: &Admitted, id: TunnelId) -> Result<bool, InsertError> {
        let ledger = self.ledger();
        if admitted.generation() < ledger.generation {
            return Err(InsertError::Outdated);
        }
        let Some(node) = ledger.owner(id).and_then(|(tenant, node)| self.node(tenant, node)) else { return Ok(false) };
        let state = node.state().renewed(id, admitted.proof());
        node.store(state);
        self.changed();
        Ok(true)
    }

    /// From now on refuses what was admitted under rules of an earlier generation. Whatever was registered before this
    /// returns is in every snapshot that is taken afterwards, so that nothing escapes who asks policy again for those.
    pub fn require_generation(&self, generation: u64) {
        let mut ledger = self.ledger();
        ledger.generation = ledger.generation.max(generation);
    }

    /// Takes a tunnel out of the choice; it still counts until it is removed. False when there is none with this id.
    pub fn leave(&self, id: TunnelId) -> bool {
        let ledger = self.ledger();
        let Some(node) = ledger.owner(id).and_then(|(tenant, node)| self.node(tenant, node)) else { return false };
        let state = node.state().leaving(id);
        node.store(state);
        self.changed();
        true
    }

    /// Removes a tunnel and returns its handle; `None` when it is gone already, for instance superseded.
    ///
    /// A name that loses its last tunnel counts as reconnecting for [`RECONNECT_WINDOW`](super::RECONNECT_WINDOW) from
    /// `now`; of such names the latest [`MAX_DEPARTED`](super::MAX_DEPARTED) are remembered.
    pub fn remove(&self, id: TunnelId, now: Instant) -> Option<H> {
        let mut ledger = self.ledger();
        let (tenant, node_id) = ledger.strike(id)?;
        let node = self.node(&tenant, &node_id)?;
        let (state, gone) = node.state().without(id);
        if state.tunnels.is_empty() {
            if self.part(&tenant, &state.cluster, &node) {
                self.depart(&mut ledger, &tenant, HostId::from(&state.cluster), now);
            }
            self.depart(&mut ledger, &tenant, HostId::from(&node_id), now);
        }
        node.store(state);
        self.forget_departed(&mut ledger, now);
        self.changed();
        gone.map(|tunnel| tunnel.handle)
    }

    /// Counts the node and the cluster of a claim as lost just now, unless they are there: who knew them before a restart
    /// says so. Bounded as what [`Registry::remove`] remembers.
    pub fn remember(&self, claim: &Claim, now: Instant) {
        let mut ledger = self.ledger();
        for name in [HostId::from(&claim.node), HostId::from(&claim.cluster)] {
            if self.names.get(&claim.tenant, &name).is_none() {
                self.depart(&mut ledger, &claim.tenant, name, now);
            }
        }
        self.forget_departed(&mut ledger, now);
    }

    /// Asks the tunnels of a node for a sign of life.
    pub fn doubt(&self, claim: &Claim) {
        let node = self.node(&claim.tenant, &claim.node);
        for tunnel in node.iter().flat_map(|node| node.state().tunnels.clone()) {
            tunnel.handle.doubt();
        }
    }

    /// The node that the claim names, if it is live. A name is a node or a cluster, never both. spec: HS-12
    fn check_names(&self, claim: &Claim) -> Result<Option<Arc<Node<H>>>, Conflict> {
        if claim.node.as_str() == claim.cluster.as_str() {
            return Err(Conflict::SameName);
        }
        if let Some(Held::Node(_)) = self.names.get(&claim.tenant, &HostId::from(&claim.cluster)) {
            return Err(Conflict::ClusterIsNode);
        }
        match self.names.get(&claim.tenant, &HostId::from(&claim.node)) {
            Some(Held::Cluster(_)) => Err(Conflict::NodeIsCluster),
            Some(Held::Node(node)) => Ok(Some(node)),
            Some(Held::Left(_)) | None => Ok(None),
        }
    }

    pub(super) fn node(&self, tenant: &TenantId, node: &NodeId) -> Option<Arc<Node<H>>> {
        match self.names.get(tenant, &HostId::from(node)) {
            Some(Held::Node(node)) => Some(node),
            _ => None,
        }
    }

    fn create(&self, claim: &Claim, state: NodeState<H>) {
        let node = Arc::new(Node::new(state));
        self.names.set(&claim.tenant, &HostId::from(&claim.node), Held::Node(Arc::clone(&node)));
        self.join(claim, node);
    }

    /// A new instance may come in another cluster; the old cluster was not lost, so nobody waits for it.
    fn update(&self, claim: &Claim, node: &Arc<Node<H>>, state: NodeState<H>) {
        let before = node.state().cluster.clone();
        if before == claim.cluster {
            return node.store(state);
        }
        if self.part(&claim.tenant, &before, node) {
            self.names.clear(&claim.tenant, &HostId::from(&before));
        }
        node.store(state);
        self.join(claim, Arc::clone(node));
    }

    fn join(&self, claim: &Claim, node: Arc<Node<H>>) {
        let name = HostId::from(&claim.cluster);
        let seat = Seat { affinity: affinity(claim.node.as_str()), node };
        match self.names.get(&claim.tenant, &name) {
            Some(Held::Cluster(cluster)) => cluster.join(seat),
            _ => {
                let cluster = Cluster::new();
                cluster.join(seat);
                self.names.set(&claim.tenant, &name, Held::Cluster(Arc::new(cluster)));
            }
        }
    }

    /// True when the cluster has no node left; its name is then the caller's to settle.
    fn part(&self, tenant: &TenantId, cluster: &ClusterId, node: &Node<H>) -> bool {
        match self.names.get(tenant, &HostId::from(cluster)) {
            Some(Held::Cluster(cluster)) => cluster.part(node),
            _ => false,
        }
    }

    fn depart(&self, ledger: &mut Ledger, tenant: &TenantId, name: HostId, now: Instant) {
        self.names.set(tenant, &name, Held::Left(now));
        ledger.departed.push(Departure { at: now, tenant: tenant.clone(), name });
    }

    fn forget_departed(&self, ledger: &mut Ledger, now: Instant) {
        while let Some(Departure { at, tenant, name }) = ledger.departed.pop_forgotten(now) {
            // The name may have come back, and may even have been lost again.
            if matches!(self.names.get(&tenant, &name), Some(Held::Left(left)) if left == at) {
                self.names.clear(&tenant, &name);
            }
        }
    }
}
