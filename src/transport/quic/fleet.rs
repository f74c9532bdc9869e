//! Connections between the responders of a fleet: a greeting each way, then the wire of a tunnel, on which the sibling that has
//! dialled asks and the other one serves. spec: FL-30 to FL-46

mod accept;
mod dial;
mod greet;
mod serve;

pub(crate) use accept::Claiming;
pub(crate) use dial::{Asking, SiblingDialer};
pub(crate) use serve::Relay;

use std::sync::Arc;

use crate::id::{Claim, ClusterId, InstanceId, NodeId, Place, TenantId};
use crate::protocol::fleet::Greeting;
use crate::transport::kind::TransportKind;
use crate::transport::quic::new_tunnel_id;
use crate::transport::state::TunnelState;

/// The cluster that a connection to a sibling is shown under, as it belongs to none.
const CLUSTER: &str = "fleet";

/// What is known of the connection to the sibling that has greeted so, and was.
fn state_of((own, peer): (&Greeting, &Greeting), rtt: std::time::Duration) -> Arc<TunnelState> {
    let claim = Claim {
        tenant: TenantId::default(),
        cluster: ClusterId::new(CLUSTER).expect("a constant that is an id"),
        node: NodeId::from(&peer.responder),
    };
    let place = Place { claim, instance: InstanceId([0; 16]), slot: 0, generation: peer.epoch };
    let state = TunnelState::new(new_tunnel_id(), place, TransportKind::Quic, peer.limits, Vec::new());
    state.heads().replace_takes(own.limits);
    state.note_rtt(rtt);
    state.leads_to_many();
    state
}
