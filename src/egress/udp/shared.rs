//! What a UDP listener and its flows share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Current;
use super::queue::QueueSend;
use super::table::Table;
use crate::egress::lock;
use crate::net::AddressedUdp;
use crate::proxy::Recorder;
use crate::routing::Directory;
use crate::transport::Tunnel;

/// How long a flow may be silent while its listener drains.
pub(super) const DRAIN_SILENCE: Duration = Duration::from_secs(2);

/// The socket, who is found through it, and what counts that.
pub(super) struct Shared {
    pub(super) socket: Arc<AddressedUdp>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    pub(super) current: Arc<Current>,
    pub(super) directory: Arc<Directory<Tunnel>>,
    pub(super) recorder: Recorder,
    pub(super) table: Mutex<Table<QueueSend>>,
}

impl Shared {
    /// Looks at the terms again.
    pub(super) fn change(&self, draining: bool) {
        let (mut table, now) = (lock(&self.table), Instant::now());
        table.limit(self.current.in_force.load().terms.limits, now);
        if draining {
            table.close(DRAIN_SILENCE, now);
        }
    }
}
