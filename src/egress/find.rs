//! The live tunnels as the ways of one request.

use std::time::Duration;

use crate::id::TunnelId;
use crate::message::failure::{Cause, Failure};
use crate::proxy::opener::{Find, Opener};
use crate::registry::NoTunnel;
use crate::routing::{Destination, Directory, Hold};

/// When to ask again for a node that was never seen: it has to be installed or started first.
const UNKNOWN_RETRY_AFTER: Duration = Duration::from_secs(5);
/// When to ask again for a node that is reconnecting.
const RECONNECT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Looks for tunnels in a directory, and waits for one that reconnects as long as the hold lasts.
pub(super) struct FindTunnel<'a, T> {
    directory: &'a Directory<T>,
    to: &'a Destination,
    hold: Hold,
}

impl<'a, T: Opener> FindTunnel<'a, T> {
    pub(super) fn new(directory: &'a Directory<T>, to: &'a Destination, hold: Duration) -> Self {
        Self { directory, to, hold: Hold::new(hold) }
    }

    fn failure(&self, reason: NoTunnel) -> Failure {
        let host_id = &self.to.host_id;
        match reason {
            NoTunnel::Unknown => {
                let details = format!("no node or cluster {host_id} is connected");
                Failure::new(Cause::UnknownHost, details).retry_after(UNKNOWN_RETRY_AFTER)
            }
            NoTunnel::Reconnecting => no_tunnel(format!("{host_id} is reconnecting")),
            NoTunnel::AllAvoided => no_tunnel(format!("no tunnel of {host_id} takes the request")),
        }
    }
}

fn no_tunnel(details: String) -> Failure {
    Failure::new(Cause::NoTunnel, details).retry_after(RECONNECT_RETRY_AFTER)
}

impl<T: Opener> Find for FindTunnel<'_, T> {
    type Opener = T;

    async fn find(&mut self, avoid: &[TunnelId]) -> Result<T, Failure> {
        self.directory.find(self.to, avoid, &mut self.hold).await.map_err(|reason| self.failure(reason))
    }
}
