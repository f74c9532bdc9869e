//! What serves siblings, and how they are told that it could not.

use std::sync::Arc;

use crate::fleet::hop::find::LocalTunnels;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::StreamCode;
use crate::proxy::Recorder;

/// What serves them.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) tunnels: Arc<dyn LocalTunnels>,
    pub(super) recorder: Recorder,
}

/// What the sibling is told of a failure.
pub(super) enum Told {
    Reset(StreamCode),
    /// The service has no room: as its initiator says it. spec: ST-45
    Full,
}

/// As the sibling would have met it on a tunnel of its own. `has_found`: there was a tunnel. spec: FL-44, FL-45
pub(super) fn told(failure: &Failure, has_found: bool) -> Told {
    Told::Reset(match failure.cause() {
        Cause::UnknownHost | Cause::NoTunnel if !has_found => StreamCode::NotHere,
        Cause::UnknownHost | Cause::NoTunnel => StreamCode::Rejected,
        Cause::TunnelLost => StreamCode::TunnelLost,
        Cause::TunnelFull => StreamCode::TunnelFull,
        Cause::HeadTooLarge => StreamCode::HeadTooLarge,
        Cause::Quota => StreamCode::Quota,
        Cause::UpgradeRefused => StreamCode::UnknownType,
        Cause::PeerProtocol => StreamCode::Protocol,
        Cause::ServiceFull => return Told::Full,
        _ => StreamCode::Internal,
    })
}
