//! What the registry needs to know of a tunnel.

use std::time::Duration;

/// A cheap handle of one tunnel.
///
/// The three questions are asked on the path of every request: each should be a few atomic loads, never a lock.
pub trait Handle: Clone + Send + Sync + 'static {
    /// Whether it should get requests.
    fn health(&self) -> Health;
    /// How many exchanges run on it.
    fn in_flight(&self) -> u32;
    /// Its current estimate of the round trip.
    fn rtt(&self) -> Duration;
}

/// Whether a tunnel should get requests; the better come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Heard recently.
    Healthy,
    /// Silent for longer than the suspect timeout: used only when there is nothing better.
    Suspect,
    /// Its WELCOME has not left yet: waited for, and not used. spec: HS-38
    Opening,
    /// One of the ends is draining it: not used.
    Draining,
}
