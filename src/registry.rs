//! The live tunnels of this responder: entered only with an [`Admitted`](crate::policy::Admitted), found by tenant and
//! host id, generic over what a tunnel is.
//!
//! Row 5: no sockets, tasks, clocks or randomness; nothing of a [`Handle`] is called while the writers' lock is held,
//! save its `clone` and `health`.
//!
//! * **Readers never wait.** Everything that [`Registry::pick`] touches is an immutable snapshot behind an atomic
//!   pointer; writers take one lock, build the next snapshot and swap it in.
//! * **Writers copy little.** Names lie in a thousand small arrays, the members of a cluster in small chunks, so
//!   that ten thousand nodes that come back at once cost ten thousand times a little.
//! * **One name, one thing.** Within a tenant a name is a node or a cluster, never both; tenants are separate worlds.
//! * **The newest tunnel wins, the first key stays.** A higher generation supersedes its slot and a new instance the
//!   old one, but another key never takes a live node's name, unless its certificate is newer and nobody hears the old one.
//!   Tunnels that are leaving are not superseded: they finish
//!   what runs. spec: HS-14

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

mod cluster;
mod conflict;
mod departed;
mod handle;
mod ledger;
mod names;
mod node;
mod pick;
mod snapshot;
mod write;

pub use conflict::{Conflict, InsertError};
pub use departed::{MAX_DEPARTED, RECONNECT_WINDOW};
pub use handle::{Handle, Health};
pub use pick::{Balance, Choice, NoTunnel, Wanted, affinity};
pub use snapshot::LiveTunnel;
pub use write::Inserted;

use ledger::Ledger;
use names::Names;

/// The table of live tunnels. Shared by reference; every method takes `&self`.
pub struct Registry<H> {
    names: Names<H>,
    ledger: Mutex<Ledger>,
    changes: AtomicU64,
}

impl<H: Handle> Registry<H> {
    /// An empty registry.
    pub fn new() -> Self {
        Self { names: Names::new(), ledger: Mutex::default(), changes: AtomicU64::new(0) }
    }

    /// Another number after each tunnel that came, left, was removed or showed another proof. Wait-free; a change that it
    /// tells of is in every snapshot that is taken afterwards.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The writers' lock. Readers do not take it.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no writer panics while it holds the ledger")
    }
}

impl<H: Handle> Default for Registry<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> fmt::Debug for Registry<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// The shortest round trip that weighs: below, requests in flight alone decide. On a fast network the difference between
/// two round trips is noise of their measurement, and would send everything one way.
const RTT_FLOOR: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
