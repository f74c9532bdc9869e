//! The way through a sibling of the fleet: what is opened on it goes on to one node or cluster there. spec: FL-40 to FL-44

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::id::{Claim, ClusterId, HostId, InstanceId, NodeId, Place, ResponderId, TenantId};
use crate::protocol::fleet::Route;

/// Hears that a sibling has no tunnel to where a stream should have gone. spec: FL-44
pub(crate) trait NotHere: fmt::Debug + Send + Sync {
    /// This one has none for this route.
    fn not_here(&self, sibling: &ResponderId, route: &Route);
}

/// Where the streams of a connection to a sibling go.
#[derive(Debug)]
pub(crate) struct Via {
    sibling: ResponderId,
    route: Route,
    encoded: Bytes,
    /// As if the node, or any of the cluster, had the name: more than the directory tells is not known here.
    place: Place,
    told: Arc<dyn NotHere>,
}

impl Via {
    /// Through this sibling along this route, to a node that is in this cluster, or to a cluster where that is `None`; `told` hears
    /// where that has ended.
    pub(crate) fn new(sibling: ResponderId, route: Route, cluster: Option<ClusterId>, told: Arc<dyn NotHere>) -> Self {
        let mut encoded = BytesMut::with_capacity(64);
        route.encode(&mut encoded);
        let claim = Claim {
            tenant: route.tenant.clone(),
            cluster: cluster.unwrap_or_else(|| ClusterId::from(&route.host_id)),
            node: NodeId::from(&route.host_id),
        };
        let place = Place { claim, instance: InstanceId([0; 16]), slot: 0, generation: 0 };
        Self { sibling, route, encoded: encoded.freeze(), place, told }
    }

    pub(super) const fn sibling(&self) -> &ResponderId {
        &self.sibling
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// The tenant, and the node or cluster of it that this leads to.
    pub(super) const fn to(&self) -> (&TenantId, &HostId) {
        (&self.route.tenant, &self.route.host_id)
    }

    /// What stands in front of each stream.
    pub(super) fn route(&self) -> &[u8] {
        &self.encoded
    }

    pub(super) fn not_here(&self) {
        self.told.not_here(&self.sibling, &self.route);
    }
}
