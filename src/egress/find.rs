//! The live tunnels as the ways of one request.

use std::sync::Arc;
use std::time::Duration;

use crate::id::TunnelId;
use crate::message::failure::{Cause, Failure};
use crate::protocol::budgets::SIBLING_STREAMS;
use crate::proxy::UnderWay;
use crate::proxy::opener::{Find, Opener};
use crate::registry::NoTunnel;
use crate::routing::{Destination, Directory, Hold};
use crate::shares::Account;
use crate::transport::MAX_STREAMS;

/// When to ask again for a node that was never seen: it has to be installed or started first.
const UNKNOWN_RETRY_AFTER: Duration = Duration::from_secs(5);
/// When to ask again for a node that is reconnecting.
const RECONNECT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Looks for tunnels in a directory, and waits for one that reconnects as long as the hold lasts.
pub(super) struct FindTunnel<'a, T> {
    directory: &'a Directory<T>,
    to: &'a Destination,
    hold: Hold,
    /// The exchange, as one of those of its client's connection that share a tunnel with others.
    client: Option<&'a UnderWay>,
}

/// The part of what is free on a tunnel that one connection of a client may have under way. So one that opens all it can
/// leaves room, and many of them share what there is: 17 that want everything get 163 streams each, and a third is free.
const SHARE: u32 = 8;

impl<'a, T: Opener> FindTunnel<'a, T> {
    pub(super) fn new(directory: &'a Directory<T>, to: &'a Destination, hold: Duration) -> Self {
        Self { directory, to, hold: Hold::new(hold), client: None }
    }

    /// For a request whose connection gets no more than its share of each tunnel.
    pub(super) fn sharing(self, client: &'a UnderWay) -> Self {
        Self { client: Some(client), ..self }
    }

    /// A tunnel of which this connection has its share already is as good as none.
    fn check_share(&self, tunnel: &T) -> Result<(), Failure> {
        let under_way = self.client.map_or(0, |client| client.on(tunnel.id()));
        let most = if tunnel.sibling().is_some() { SIBLING_STREAMS } else { MAX_STREAMS };
        let share = share(tunnel.in_flight(), most);
        if under_way <= share {
            return Ok(());
        }
        let details = format!("{under_way} requests of this connection are on one tunnel; there is room for {share}");
        Err(Failure::new(Cause::Quota, details).retry_after(RECONNECT_RETRY_AFTER))
    }

    fn failure(&self, reason: NoTunnel) -> Failure {
        let host_id = &self.to.host_id;
        match reason {
            NoTunnel::Unknown => {
                let details = format!("no node or cluster {host_id} is connected");
                Failure::new(Cause::UnknownHost, details).retry_after(UNKNOWN_RETRY_AFTER)
            }
            NoTunnel::Unread => no_tunnel(format!(
                "{host_id} is not connected here, and the directory of the fleet is not read yet: etcd is not reached since the start"
            )),
            NoTunnel::Opening => no_tunnel(format!("the initiator of {host_id} does not take its welcome")),
            NoTunnel::Reconnecting => no_tunnel(format!("{host_id} is reconnecting")),
            NoTunnel::Suspect => no_tunnel(format!("{host_id} does not answer; its tunnel is suspect")),
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
        let found = self.directory.find(self.to, avoid, &mut self.hold).await;
        let tunnel = found.map_err(|reason| self.failure(reason))?;
        self.check_share(&tunnel)?;
        Ok(tunnel)
    }

    fn account(&self, opener: &T) -> Option<Arc<Account>> {
        let shares = self.directory.shares();
        match opener.sibling() {
            None => shares.node(&opener.place().claim),
            // Whoever has its tunnel has the account of the node. Here it may not have all of the way there. spec: FL-53
            Some(sibling) => Some(shares.way(sibling, (&self.to.tenant, &self.to.host_id))),
        }
    }

    fn beside(&self, opener: &T) -> Vec<TunnelId> {
        self.directory.registry().tunnels_of(&opener.place().claim)
    }

    fn hurry(&mut self) {
        self.hold = Hold::new(Duration::ZERO);
    }

    async fn overtaken(&self, opener: &T, avoid: &[TunnelId]) {
        self.directory.overtaken(self.to, opener, avoid).await;
    }
}

/// How many requests of one connection a tunnel has room for that carries so many of so many already. One is always worth a try.
fn share(in_flight: u32, most: u32) -> u32 {
    (most.saturating_sub(in_flight) / SHARE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many streams this many connections have that open as many as they may.
    fn taken_by(connections: u32) -> u32 {
        let mut each = vec![0; connections as usize];
        loop {
            let before: u32 = each.iter().sum();
            for own in &mut each {
                let under_way: u32 = before;
                if *own < share(under_way, MAX_STREAMS) {
                    *own += 1;
                }
            }
            let after: u32 = each.iter().sum();
            if after == before || after >= MAX_STREAMS {
                return after;
            }
        }
    }

    #[test]
    fn connections_that_take_all_they_can_leave_room_for_others() {
        assert_eq!(share(0, MAX_STREAMS), MAX_STREAMS / SHARE);
        for connections in [1, 17, 64, 200] {
            let free = MAX_STREAMS - taken_by(connections);
            assert!(free / SHARE >= 10, "{free} are free beside {connections} connections");
        }
    }

    #[test]
    fn a_request_that_is_alone_on_its_connection_is_always_tried() {
        let share = |in_flight| share(in_flight, MAX_STREAMS);
        assert_eq!((share(MAX_STREAMS - 1), share(MAX_STREAMS * 2)), (1, 1));
    }
}
