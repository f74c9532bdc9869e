//! What the registry needs to know of a tunnel.

use std::time::Duration;

use crate::id::ServiceName;

/// A cheap handle of one tunnel.
///
/// The questions are asked on the path of every request: each should be a few atomic loads, never a lock.
pub trait Handle: Clone + Send + Sync + 'static {
    /// Whether it should get requests.
    fn health(&self) -> Health;
    /// How many exchanges run on it.
    fn in_flight(&self) -> u32;
    /// Its current estimate of the round trip.
    fn rtt(&self) -> Duration;
    /// Whether its initiator says that this service is down; `None`: all that a request which names none could mean.
    fn is_down(&self, service: Option<&ServiceName>) -> bool {
        let _ = service;
        false
    }
    /// Asks for a sign of life, because there is a reason to doubt that one would come. Not on the path of a request.
    fn doubt(&self) {}
}

/// Whether a tunnel should get requests; the better come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Heard recently.
    Healthy,
    /// New, and has not shown yet that it works: used only when there is nothing better.
    Unproven,
    /// Silent for longer than the suspect timeout: what goes into it may never be answered.
    Suspect,
    /// Its WELCOME has not left yet: waited for, and not used. spec: HS-38
    Opening,
    /// One of the ends is draining it: not used.
    Draining,
}
