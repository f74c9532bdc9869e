//! One hop: what reaches a responder goes on to a sibling that has a tunnel to the node, and never further. spec: FL-30 to FL-51
//!
//! A connection to a sibling speaks the wire of a tunnel: requests, raw streams and flows are opened on it as on any other,
//! with a route in front that says to which node they go on. So to whoever opens one a sibling is a tunnel with a name, and
//! trailers, interim responses, cancellation and datagrams pass as they do through the node's own.
//!
//! * [`Hop`] listens for siblings, and serves them with the tunnels that end here.
//! * [`Ways`] are the connections to siblings; a directory of tunnels looks there for what it has not
//!   ([`Directory::look_elsewhere`](../../routing/struct.Directory.html#method.look_elsewhere)).

mod absent;
mod askers;
mod dial;
mod elsewhere;
mod find;
mod flow;
mod identity;
mod listener;
mod raw;
mod relay;
mod served;
mod settings;
mod slot;
mod terms;
mod ways;

pub use elsewhere::{Elsewhere, Way};
pub use find::LocalTunnels;
pub use identity::{SiblingIdentity, SiblingIdentityError};
pub use listener::{Hop, HopHandle, Renewal};
pub use settings::{DEFAULT_IDLE, HopError, HopSettings};
pub use ways::Ways;
