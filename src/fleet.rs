//! Several responders that act as one: who has which node, as etcd tells, and the way to it over one hop.
//!
//! Row 9: knows tunnels and the registry; knows no listener for application traffic, and invents no membership: who is
//! there is what leases in etcd say. Nothing of it runs unless a file has `fleet:`. spec: FL-1

pub mod etcd;
pub mod hop;
pub mod register;
mod sibling;
pub mod view;

pub(crate) use register::now_epoch;
pub use register::{FleetSettings, Member, MemberState, Tunnels};
pub use sibling::{Having, Perhaps, Sibling, Siblings};
pub use view::View;
