//! What the tasks of a responder share.

use tokio_util::task::TaskTracker;

use crate::responder::admission::Admission;
use crate::responder::gone::GoneNodes;
use crate::responder::listeners::Listeners;
use crate::responder::roster::Rosters;
use crate::responder::warnings::Warnings;
use crate::telemetry::TunnelMetrics;
use crate::transport::Tunnel;

/// What every admission needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) listeners: Listeners,
    pub(super) admission: Admission<Tunnel>,
    /// What initiators are told of the fleet.
    pub(super) rosters: Rosters,
    pub(super) metrics: TunnelMetrics,
    /// Who was here and is gone.
    pub(super) gone: GoneNodes,
    pub(super) tasks: TaskTracker,
    pub(super) warnings: Warnings,
}
