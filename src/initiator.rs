//! The role at the site: dials every responder, keeps its tunnels up, and answers what arrives.
//!
//! Row 9. Knows nothing of egress or the registry; serves through any [`Serve`](crate::transport::Serve), of which
//! [`serve::Services`] (configured targets) is one. proto-spec sections 2 and 4.

pub mod auto;
mod builder;
mod dialer;
pub mod serve;
mod settings;
mod status;
mod supervisor;
pub mod targets;

pub use crate::transport::TransportChoice;
pub use builder::{BuildError, Builder};
pub use dialer::Initiator;
pub use settings::{DEFAULT_PROBE_INTERVAL, Destination, InitiatorSettings};
pub use status::{SlotStatus, StatusBoard};
