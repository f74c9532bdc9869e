//! What the rest of a responder knows of the others, and the one question that it asks: who else has this name?

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::id::{ClusterId, HostId, HostPort, NodeId, ResponderId, ServiceName, TenantId};

/// A responder of the same fleet, as the directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// Its name, which no other responder of the fleet has.
    pub id: ResponderId,
    /// Where siblings reach it, over UDP.
    pub siblings_at: Vec<HostPort>,
    /// Where initiators reach it.
    pub initiators_at: Vec<HostPort>,
    /// Where it stands, as its operator names the place.
    pub region: Option<String>,
    /// Its share of the work beside those of its siblings.
    pub weight: u16,
    /// Rises with each start of it.
    pub epoch: u64,
    /// It is leaving: what it has goes on, and it gets nothing new.
    pub draining: bool,
    /// How many tunnels it has.
    pub tunnels: u32,
}

/// A sibling that has a node or a cluster, and how it stands there with a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Having {
    /// Who.
    pub sibling: Arc<Sibling>,
    /// It is a cluster, and not all of its tunnels there say that the service is down. spec: CT-61
    pub is_up: bool,
}

/// A sibling that may have a node or a cluster although the directory does not say so. spec: FL-25
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Perhaps {
    /// Who.
    pub sibling: Arc<Sibling>,
    /// It had it when its record went away, or the name is known and etcd is not heard: worth a dial. Else it is asked only where
    /// there is a connection already.
    pub is_likely: bool,
}

/// Who else has a node or a cluster. Lookups never wait.
pub trait Siblings: fmt::Debug + Send + Sync {
    /// Live siblings that have it, best first: those that are not draining, of those the ones that hear the node, and of these the
    /// least loaded for its weight.
    fn having(&self, tenant: &TenantId, host: &HostId) -> Vec<Arc<Sibling>>;

    /// As [`Siblings::having`], for a request to this service (`None`: to whichever the node makes of it): those first where members
    /// of a cluster do not all say that it is down. By default nothing is known of that. spec: FL-15
    fn having_for(&self, tenant: &TenantId, host: &HostId, service: Option<&ServiceName>) -> Vec<Having> {
        let _ = service;
        self.having(tenant, host).into_iter().map(|sibling| Having { sibling, is_up: false }).collect()
    }

    /// Whether a live sibling that stays has a tunnel of this node in which it hears the node. spec: FL-23
    fn hear(&self, tenant: &TenantId, node: &NodeId) -> bool;

    /// Siblings that may have it although they are not among [`Siblings::having`], the likeliest first: those whose records are
    /// gone although they have not left, and where etcd is not heard everybody. The last resort. spec: FL-24, FL-25
    fn perhaps_having(&self, tenant: &TenantId, host: &HostId) -> Vec<Perhaps>;

    /// Whether the directory names anybody for it, or did so in the half minute before `now`: then it is waited for. spec: FL-52
    fn has_known(&self, tenant: &TenantId, host: &HostId, now: Instant) -> bool;

    /// Whether the directory was not read yet: then that it names nobody means nothing. By default it was. spec: FL-27
    fn are_unread(&self) -> bool {
        false
    }

    /// In which cluster the node of this name is; `None` where that is not known, and for the name of a cluster.
    fn cluster_of(&self, tenant: &TenantId, host: &HostId) -> Option<ClusterId>;

    /// This one said "not here": it is not named for this host any more until the directory says so anew.
    fn not_here(&self, id: &ResponderId, tenant: &TenantId, host: &HostId);

    /// All live siblings, in the order of their names. The responder itself is none.
    fn all(&self) -> Vec<Arc<Sibling>>;
}
