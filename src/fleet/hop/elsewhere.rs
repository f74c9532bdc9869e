//! Where a directory of tunnels looks for what it has not.

use std::fmt;

use tokio::sync::Notify;

use crate::id::TunnelId;
use crate::registry::Wanted;

/// A way to a node that has no tunnel here.
#[derive(Debug)]
pub enum Way<H> {
    /// It can be used now.
    Open(H),
    /// It is being made; [`Elsewhere::changed`] tells when to ask again.
    Soon,
    /// There is none now, of a name that somebody has, or had a moment ago. spec: FL-52
    Away,
    /// There is none that is known, and nobody has told yet who has what. spec: FL-27
    Unread,
    /// There is none.
    None,
}

/// Who else has ways to nodes. Asked on the path of a request: never waits.
pub trait Elsewhere<H>: fmt::Debug + Send + Sync {
    /// A way that is not among those to `avoid`. May begin to make one.
    fn way(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Way<H>;

    /// A way to members of a cluster at which the service that is wanted is not down, for who has only those at which it is.
    /// spec: FL-50, CT-61
    fn way_up(&self, wanted: Wanted<'_>, avoid: &[TunnelId]) -> Way<H>;

    /// Notified whenever a way was made, or could not be, or is in doubt.
    fn changed(&self) -> &Notify;
}
