//! What tests of routing and of the gateway need: admissions without a handshake.

use crate::id::{Claim, InstanceId, PeerIdentity, Place};
use crate::policy::{Admitted, RuleSettings, Rules, authorize};

/// An admitted tunnel of a node in the cluster `stores` of the default tenant.
pub(crate) fn admitted(node: &str, slot: u32) -> Admitted {
    let claim = Claim {
        node: node.parse().unwrap(),
        cluster: "stores".parse().unwrap(),
        tenant: crate::id::TenantId::default(),
    };
    let place = Place { claim, instance: InstanceId([1; 16]), slot, generation: 1 };
    let rules = Rules::new(RuleSettings { insecure_accept_any: true, ..RuleSettings::default() }).unwrap();
    authorize(place, &PeerIdentity::default(), None, &rules).unwrap()
}
