//! The role at the site: dials every responder, keeps its tunnels up, and answers what arrives.
//!
//! Row 10. Knows nothing of egress or the registry; serves through any [`Serve`](crate::transport::Serve), of which
//! [`serve::Services`] (configured targets) is one. What may change while it
//! runs is one snapshot, [`Terms`], which a [`Handle`] swaps whole. proto-spec sections 2 and 4.

pub mod auto;
mod builder;
mod dialer;
mod handle;
pub mod health;
pub mod serve;
mod settings;
mod sight;
mod snapshot;
mod spread;
mod status;
mod supervisor;
mod terms;

pub use crate::transport::TransportChoice;
pub use builder::{BuildError, Builder};
pub use dialer::Initiator;
pub use handle::Handle;
pub use settings::{DEFAULT_PROBE_INTERVAL, DEFAULT_REBALANCE, Destination};
pub use status::{SlotStatus, StatusBoard, UnresolvedStatus};
pub use terms::{Terms, UpdateError};
