//! From a request to a tunnel: whom it asks for, which service it means, and who can take it.
//!
//! Row 9: chooses, and moves no bytes. [`Router`] is what one egress listener was configured to do, [`Directory`] the
//! live tunnels of the whole responder.

mod directory;
mod router;
#[cfg(test)]
pub(crate) mod testing;

pub use directory::{Directory, Hold};
pub use router::{Connect, DEFAULT_DEADLINE, DEFAULT_HOLD, Destination, Meant, Route, Router, RouterSettings, Tenant};
