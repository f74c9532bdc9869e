//! One node: its tunnels, and which of them a newcomer supersedes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::conflict::Conflict;
use super::handle::{Handle, Health};
use crate::id::{ClusterId, InstanceId, Place, SpkiPin, TunnelId};
use crate::policy::Proof;

/// How many replaced instances of a live node are remembered, so that they do not come back.
const MAX_RETIRED: usize = 8;

/// A live node: stays the same value while its tunnels come and go.
pub(super) struct Node<H> {
    /// Its seat in its cluster; used by writers only.
    seat: AtomicUsize,
    state: ArcSwap<NodeState<H>>,
}

/// What is known of a node at one moment.
pub(super) struct NodeState<H> {
    /// Of the newest tunnel, as the next three.
    pub(super) cluster: ClusterId,
    key: Option<SpkiPin>,
    instance: InstanceId,
    /// Instances that this one and its predecessors replaced, the latest last.
    retired: Vec<InstanceId>,
    /// In order of arrival. Those that are not leaving are all of `instance`.
    pub(super) tunnels: Vec<Member<H>>,
}

/// One tunnel of a node.
#[derive(Clone)]
pub(super) struct Member<H> {
    pub(super) id: TunnelId,
    pub(super) place: Place,
    /// What it showed when it was admitted.
    pub(super) proof: Arc<Proof>,
    /// It finishes what runs and gets nothing new.
    pub(super) leaving: bool,
    pub(super) handle: H,
}

impl<H> Node<H> {
    pub(super) fn new(state: NodeState<H>) -> Self {
        Self { seat: AtomicUsize::new(0), state: ArcSwap::from_pointee(state) }
    }

    /// The node as it is now. Wait-free.
    pub(super) fn state(&self) -> Guard<Arc<NodeState<H>>> {
        self.state.load()
    }

    pub(super) fn store(&self, state: NodeState<H>) {
        self.state.store(Arc::new(state));
    }

    pub(super) fn seat(&self) -> usize {
        self.seat.load(Ordering::Relaxed)
    }

    pub(super) fn take_seat(&self, seat: usize) {
        self.seat.store(seat, Ordering::Relaxed);
    }
}

impl<H: Handle> NodeState<H> {
    /// A node that was not there before.
    pub(super) fn first(newcomer: &Member<H>) -> Self {
        Self {
            cluster: newcomer.place.claim.cluster.clone(),
            key: newcomer.proof.key(),
            instance: newcomer.place.instance,
            retired: Vec::new(),
            tunnels: vec![newcomer.clone()],
        }
    }

    /// The node with one more tunnel, and the tunnels that it supersedes. `renews`: it was admitted with a later certificate
    /// than the one who showed this. spec: HS-14
    pub(super) fn admit(
        &self,
        newcomer: &Member<H>,
        renews: impl Fn(&Proof) -> bool,
    ) -> Result<(Self, Vec<Member<H>>), Conflict> {
        let is_other_key = self.key != newcomer.proof.key();
        if is_other_key {
            self.give_way(newcomer, renews)?;
        }
        let retired = match self.instance == newcomer.place.instance {
            true => self.same_instance(&newcomer.place)?,
            false => self.new_instance(&newcomer.place)?,
        };
        let (superseded, mut tunnels): (Vec<_>, Vec<_>) = self
            .tunnels
            .iter()
            .cloned()
            .partition(|tunnel| tunnel.is_superseded_by(&newcomer.place) || (is_other_key && !tunnel.leaving));
        tunnels.push(newcomer.clone());
        Ok((Self { retired, tunnels, ..Self::first(newcomer) }, superseded))
    }

    /// Whether another key may have the name: nobody has it, or who has it is not heard and has an older certificate.
    fn give_way(&self, newcomer: &Member<H>, renews: impl Fn(&Proof) -> bool) -> Result<(), Conflict> {
        let mut live = self.tunnels.iter().filter(|tunnel| !tunnel.leaving).peekable();
        if live.peek().is_none() {
            return Ok(());
        }
        let is_renewal =
            self.cluster == newcomer.place.claim.cluster && live.clone().all(|tunnel| renews(&tunnel.proof));
        match (is_renewal, live.any(|tunnel| !matches!(tunnel.handle.health(), Health::Suspect | Health::Draining))) {
            (false, _) => Err(Conflict::OtherKey),
            (true, true) => Err(Conflict::OlderKey),
            (true, false) => Ok(()),
        }
    }

    /// The node without this tunnel, and the tunnel.
    pub(super) fn without(&self, id: TunnelId) -> (Self, Option<Member<H>>) {
        let (mut gone, kept): (Vec<_>, Vec<_>) = self.tunnels.iter().cloned().partition(|tunnel| tunnel.id == id);
        (self.with_tunnels(kept), gone.pop())
    }

    /// The node whose tunnel has another proof. Its key is the node's from now on, unless it is leaving. spec: CT-55
    pub(super) fn renewed(&self, id: TunnelId, proof: &Arc<Proof>) -> Self {
        let is_it = |tunnel: &&Member<H>| tunnel.id == id && !tunnel.leaving;
        let key = if self.tunnels.iter().any(|tunnel| is_it(&tunnel)) { proof.key() } else { self.key };
        let renew = |tunnel: &Member<H>| match tunnel.id == id {
            true => Member { proof: Arc::clone(proof), ..tunnel.clone() },
            false => tunnel.clone(),
        };
        Self { key, ..self.with_tunnels(self.tunnels.iter().map(renew).collect()) }
    }

    /// The node with this tunnel leaving.
    pub(super) fn leaving(&self, id: TunnelId) -> Self {
        let mark = |tunnel: &Member<H>| Member { leaving: tunnel.leaving || tunnel.id == id, ..tunnel.clone() };
        self.with_tunnels(self.tunnels.iter().map(mark).collect())
    }

    /// An instance stays in its cluster, and the generations of a slot only rise.
    fn same_instance(&self, place: &Place) -> Result<Vec<InstanceId>, Conflict> {
        if self.cluster != place.claim.cluster {
            return Err(Conflict::OtherCluster);
        }
        let not_later = |tunnel: &Member<H>| tunnel.place.generation >= place.generation;
        match self.tunnels.iter().any(|tunnel| tunnel.is_in_slot_of(place) && not_later(tunnel)) {
            true => Err(Conflict::StaleGeneration),
            false => Ok(self.retired.clone()),
        }
    }

    /// Instances have no order, so the replaced ones are remembered: else two processes with one name would replace
    /// each other for ever.
    fn new_instance(&self, place: &Place) -> Result<Vec<InstanceId>, Conflict> {
        if self.retired.contains(&place.instance) {
            return Err(Conflict::RetiredInstance);
        }
        let forgotten = (self.retired.len() + 1).saturating_sub(MAX_RETIRED);
        Ok(self.retired.iter().skip(forgotten).copied().chain([self.instance]).collect())
    }

    fn with_tunnels(&self, tunnels: Vec<Member<H>>) -> Self {
        Self { cluster: self.cluster.clone(), retired: self.retired.clone(), tunnels, ..*self }
    }
}

impl<H> Member<H> {
    fn is_in_slot_of(&self, place: &Place) -> bool {
        self.place.instance == place.instance && self.place.slot == place.slot
    }

    fn is_superseded_by(&self, place: &Place) -> bool {
        !self.leaving && (self.place.instance != place.instance || self.place.slot == place.slot)
    }
}
