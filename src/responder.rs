//! The role in the cloud: accepts connections, asks policy, registers tunnels, and lets go of them when they end.
//!
//! Row 10. Knows nothing of egress listeners: what it admits stands in the [`Directory`](crate::routing::Directory). What may
//! change while it runs is one snapshot, [`Terms`], which a [`Handle`] swaps whole. proto-spec section 2.

mod admission;
mod admit;
mod builder;
mod departure;
mod gone;
mod handle;
mod leave;
mod lifetime;
mod listener;
mod listeners;
mod renewal;
mod roster;
mod shared;
mod standing;
mod terms;
mod warnings;

pub use builder::{BuildError, Builder, DEFAULT_GRACE, DEFAULT_NAME, Dangerous, Decided, Undecided};
pub use gone::{Gone, GoneNodes, MAX_GONE};
pub use handle::{Bound, Handle};
pub use leave::Leaving;
pub(crate) use leave::is_elsewhere;
pub use listener::Responder;
pub use listeners::{Listen, ListenError, StartError};
pub use terms::{Terms, UpdateError};
