//! What becomes of a request or a connection: ordered rules, as the network policies of a virtual router.
//!
//! Pure, as everything here. [`Rules`] are looked at from the highest priority down, and the first whose [`Matcher`] holds of
//! the [`Subject`] decides, once: what a rule has rerouted is not judged again. Where none holds, the last rule does, which
//! nobody can change: what the listener, or the initiator, does by itself.
//!
//! Who is to be refused must not get around a rule by another spelling. So hosts are compared as
//! [`host_name`](crate::message::authority::host_name) writes them, paths in their normal form, and a path that some readers
//! would take for another one is refused where the rules would decide otherwise on that (400). The same holds for a fact that
//! a rule asks for and that is there twice, or cannot be read. What is not there at all (no certificate, no path of a CONNECT)
//! meets no condition.

mod matcher;
mod rule;
mod rules;
mod subject;
#[cfg(test)]
mod tests;

pub use matcher::{FieldPattern, Matcher, PeerPattern, PeerPatternError};
pub use rule::{Action, Priority, Reroute, Rule};
pub use rules::{Decision, DuplicatePriority, ExplainedRule, Rules};
pub use subject::{Fact, Subject};
