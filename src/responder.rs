//! The role in the cloud: accepts connections, asks policy, registers tunnels, and lets go of them when they end.
//!
//! Row 9. Knows nothing of egress listeners: what it admits stands in the [`Directory`](crate::routing::Directory).
//! proto-spec section 2.

mod admit;
mod builder;
mod listener;

pub use builder::{BuildError, Builder, DEFAULT_NAME, Dangerous, Decided, Undecided};
pub use listener::{Admission, Responder, ResponderError, ResponderSettings, Sockets};
