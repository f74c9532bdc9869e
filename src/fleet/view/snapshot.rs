//! What the directory said at one revision, but for the names, which are those of now: whoever asks never waits for long.

use std::collections::{BTreeMap, HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use super::conflict::Claimant;
use super::lost::Missing;
use super::names::{Held, Members, Name, Names, OfNode};
use super::recent::Recent;
use super::record::Certified;
use super::starts::Start;
use crate::fleet::sibling::{Having, Perhaps, Sibling};
use crate::id::{ClusterId, HostId, NodeId, Place, ResponderId, ServiceName, SpkiPin, TenantId};

/// Whether the view is what etcd says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing was read yet.
    #[default]
    Empty,
    /// It follows etcd.
    Current,
    /// Etcd is not heard: it is what etcd said last.
    Stale,
}

/// Why a claim would not fit to what the directory says of other responders. spec: FL-16
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    /// The claimed node is the name of a cluster.
    #[error("the node's name is the name of a cluster at another responder of the fleet; rename the node")]
    NodeIsCluster,
    /// The claimed cluster is the name of a node.
    #[error("the cluster's name is the name of a node at another responder of the fleet; rename the cluster")]
    ClusterIsNode,
    /// The node is connected elsewhere with another key.
    #[error(
        "the node is connected to another responder of the fleet with another key; stop the other one, or give this one its own name"
    )]
    OtherKey,
    /// The same, but its certificate is an older one, and gives way once it is not heard.
    #[error(
        "the node is connected to another responder of the fleet with an older certificate, which gives way once it is not heard; come back soon"
    )]
    OlderKey,
}

/// What the directory said at one revision. Who has which name is what it says now: a name that changes meanwhile is seen as it was
/// or as it will be, and nothing in between.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) names: Names,
    pub(super) live: Arc<BTreeMap<ResponderId, Arc<Live>>>,
    /// Those of them that have tunnels, by their start.
    pub(super) starts: Arc<HashMap<Start, Arc<Sibling>>>,
    /// Those whose record is gone although they have not left.
    pub(super) lost: Arc<[Arc<Missing>]>,
    /// Names that nobody has any more.
    pub(super) recent: Recent,
    pub(super) standing: Standing,
    /// The revision of etcd up to which it knows everything.
    pub(super) revision: i64,
    /// When etcd last said that this is all.
    pub(super) heard: Option<Instant>,
    /// Tunnels in it, of all responders.
    pub(super) tunnels: usize,
}

/// A responder whose lease lives.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) sibling: Arc<Sibling>,
    pub(super) version: String,
    /// The revision of its record.
    pub(super) modified: i64,
}

impl Snapshot {
    /// Whether it is what etcd says.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The revision of etcd up to which it knows everything.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// When etcd last said that this is all there is.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// How many tunnels are in it, those of this responder included.
    pub fn tunnels(&self) -> usize {
        self.tunnels
    }

    /// The live responders and what they run, in the order of their names.
    pub fn responders(&self) -> impl Iterator<Item = (&Arc<Sibling>, &str)> {
        self.live.values().map(|live| (&live.sibling, live.version.as_str()))
    }

    /// The record of a responder whose lease lives.
    pub fn responder(&self, id: &ResponderId) -> Option<&Arc<Sibling>> {
        self.live.get(id).map(|live| &live.sibling)
    }

    /// Who has the node, else who has members of the cluster, best first; `own` is left out. spec: FL-15
    pub fn having(&self, own: &ResponderId, tenant: &TenantId, host: &HostId) -> Vec<Arc<Sibling>> {
        let found = self.found(own, (tenant.as_str(), host.as_str()), |_| false);
        found.into_iter().map(|having| having.sibling).collect()
    }

    /// The same for a request to this service; `None`: to whichever the node makes of it. spec: FL-15, CT-61
    pub fn having_for(
        &self,
        own: &ResponderId,
        (tenant, host): (&TenantId, &HostId),
        service: Option<&ServiceName>,
    ) -> Vec<Having> {
        self.found(own, (tenant.as_str(), host.as_str()), |members| !members.is_down(service))
    }

    /// `is_up`: whether members of a cluster come before others.
    fn found(&self, own: &ResponderId, name: (&str, &str), is_up: impl Fn(&Members) -> bool) -> Vec<Having> {
        let found = self.names.get(name, |held| -> Vec<(Arc<Sibling>, bool, bool)> {
            let of_node = self.siblings(own, held, held.node().iter().map(|of| (of.start, of.entry.suspect)));
            let of_cluster =
                || self.siblings(own, held, held.cluster().iter().map(|members| (members.start, is_up(members))));
            match of_node.is_empty() {
                true => of_cluster().into_iter().map(|(sibling, is_up)| (sibling, is_up, false)).collect(),
                false => of_node.into_iter().map(|(sibling, is_suspect)| (sibling, false, is_suspect)).collect(),
            }
        });
        let mut found = found.unwrap_or_default();
        found.sort_by_cached_key(|(sibling, is_up, is_suspect)| {
            let load = u64::from(sibling.tunnels) * u64::from(u16::MAX) / u64::from(sibling.weight.max(1));
            (!*is_up, sibling.draining, *is_suspect, load, turn(name, &sibling.id))
        });
        found.into_iter().map(|(sibling, is_up, _)| Having { sibling, is_up }).collect()
    }

    /// Who may have it although nobody says so: whoever is lost and had it, before the others that are lost; and where etcd is not
    /// heard everybody, for all may have changed since. Best first; `own` and those of [`Snapshot::having`] are left out. spec: FL-25
    pub fn perhaps_having(&self, own: &ResponderId, tenant: &TenantId, host: &HostId) -> Vec<Perhaps> {
        let is_stale = self.standing == Standing::Stale;
        if self.lost.is_empty() && !is_stale {
            return Vec::new();
        }
        let (name, having) = (Name::new(tenant, host.clone()), self.having(own, tenant, host));
        let is_asked = |id: &ResponderId| *id == *own || having.iter().any(|sibling| sibling.id == *id);
        let lost = self.lost.iter().filter(|missing| !is_asked(&missing.sibling.id));
        // One that is back may be reached elsewhere than before.
        let now = |missing: &Missing| Arc::clone(self.responder(&missing.sibling.id).unwrap_or(&missing.sibling));
        let lost = lost.map(|missing| Perhaps { sibling: now(missing), is_likely: missing.had(&name) });
        let (mut found, others): (Vec<_>, Vec<_>) = lost.partition(|perhaps| perhaps.is_likely);
        if is_stale {
            let is_lost = |id: &ResponderId| self.lost.iter().any(|missing| missing.sibling.id == *id);
            let live = self.live.values().map(|live| &live.sibling);
            let mut live: Vec<Arc<Sibling>> =
                live.filter(|sibling| !is_asked(&sibling.id) && !is_lost(&sibling.id)).cloned().collect();
            live.sort_by_cached_key(|sibling| (sibling.draining, turn((tenant.as_str(), host.as_str()), &sibling.id)));
            // A name that somebody has may be anywhere by now; one that nobody has is hardly worth a dial.
            let is_likely = self.names.get((tenant.as_str(), host.as_str()), |_| ()).is_some();
            found.extend(live.into_iter().map(|sibling| Perhaps { sibling, is_likely }));
        }
        found.extend(others);
        found
    }

    /// Whether somebody is named for it, if only as one that said it is not there, or was lately.
    pub fn has_known(&self, tenant: &TenantId, host: &HostId, now: Instant) -> bool {
        self.names.get((tenant.as_str(), host.as_str()), |_| ()).is_some()
            || self.recent.has(&Name::new(tenant, host.clone()), now)
    }

    /// The cluster of the node of this name.
    pub fn cluster_of(&self, tenant: &TenantId, host: &HostId) -> Option<ClusterId> {
        let of = |held: &Held| held.node().first().map(|of| of.entry.claim.cluster.clone());
        self.names.get((tenant.as_str(), host.as_str()), of).flatten()
    }

    /// Each once, where this start of it lives and was not found without the name; and whether so is said of all that it has.
    fn siblings(
        &self,
        own: &ResponderId,
        held: &Held,
        tunnels: impl Iterator<Item = (Start, bool)>,
    ) -> Vec<(Arc<Sibling>, bool)> {
        let mut found: Vec<(Arc<Sibling>, bool)> = Vec::new();
        for (start, is_so) in tunnels {
            let Some(sibling) = self.starts.get(&start) else { continue };
            if let Some((_, all_are)) = found.iter_mut().find(|(known, _)| Arc::ptr_eq(known, sibling)) {
                *all_are &= is_so;
            } else if sibling.id != *own && !held.is_doubted(start) {
                found.push((Arc::clone(sibling), is_so));
            }
        }
        found
    }

    /// Whether a sibling that stays hears the node. spec: FL-23
    pub fn hear(&self, own: &ResponderId, tenant: &TenantId, node: &NodeId) -> bool {
        let keeps = |held: &Held, of: &OfNode| {
            let sibling = self.starts.get(&of.start).filter(|sibling| sibling.id != *own && !sibling.draining);
            sibling.is_some() && !of.entry.suspect && !held.is_doubted(of.start)
        };
        let name = (tenant.as_str(), node.as_str());
        self.names.get(name, |held| held.node().iter().any(|of| keeps(held, of))).unwrap_or(false)
    }

    /// Whether a claim with this key, and of this certificate if it proves the claim by its names, does not fit to what others have.
    /// A view that is stale refuses nothing. spec: FL-16
    pub fn taken(
        &self,
        own: &ResponderId,
        place: &Place,
        (pin, issued): (Option<SpkiPin>, Option<Certified>),
    ) -> Option<Taken> {
        let claim = &place.claim;
        if self.standing != Standing::Current {
            return None;
        }
        let is_elsewhere = |start: Start| self.starts.get(&start).is_some_and(|sibling| sibling.id != *own);
        let claimant = Claimant { cluster: &claim.cluster, instance: place.instance, pin, issued };
        let other = |of: &OfNode| match is_elsewhere(of.start) && claimant.is_other_than(&of.entry) {
            true if !claimant.renews(&of.entry) => Some(Taken::OtherKey),
            true if !of.entry.suspect => Some(Taken::OlderKey),
            _ => None,
        };
        let others = |held: &Held| {
            let (mut others, is_other) =
                (held.node().iter().filter_map(other), |taken: &Taken| *taken == Taken::OtherKey);
            let first = others.next()?;
            Some(if is_other(&first) { first } else { others.find(is_other).unwrap_or(first) })
        };
        let node = self.names.get((claim.tenant.as_str(), claim.node.as_str()), |held| {
            let is_cluster = held.cluster().iter().any(|members| is_elsewhere(members.start));
            match is_cluster {
                true => Some(Taken::NodeIsCluster),
                false => others(held),
            }
        });
        let cluster = self.names.get((claim.tenant.as_str(), claim.cluster.as_str()), |held| {
            held.node().iter().any(|of| is_elsewhere(of.start)).then_some(Taken::ClusterIsNode)
        });
        match (node.flatten(), cluster.flatten()) {
            (Some(Taken::NodeIsCluster), _) => Some(Taken::NodeIsCluster),
            (node, cluster) => cluster.or(node),
        }
    }
}

/// Whose turn it is among those with the same load: another one for another name.
fn turn(name: (&str, &str), id: &ResponderId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, id).hash(&mut hasher);
    hasher.finish()
}
