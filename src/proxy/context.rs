//! What is known of an exchange beside its messages.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::id::{PeerIdentity, TunnelId};
use crate::message::interim::InformationalSink;
use crate::proxy::pace::Pace;
use crate::shares::{Account, Wait};

/// What comes with a request into an egress listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The connection that the request came in on.
    pub connection: ConnectionInfo,
    /// Where interim (1xx) responses go until the final head is sent.
    pub interim: InformationalSink,
}

/// What is known about the connection a request came in; cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionInfo(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    details: ConnectionDetails,
    pace: Pace,
    /// That of calls of gRPC: references to it are part of every exchange.
    call_pace: Pace,
    /// Its exchanges on the tunnels that fall to each place. Two tunnels may fall to one, which a connection that has a
    /// whole share on neither does not feel.
    on_tunnels: [AtomicU32; PLACES],
    /// Whose the request was that was read last.
    tenant: Mutex<Weak<Account>>,
}

/// Over how many places the tunnels are spread that one connection uses; their ids are random.
const PLACES: usize = 32;
/// The exchange is on no tunnel yet.
const NOWHERE: u8 = u8::MAX;

/// An exchange of a connection that is under way while this lives.
#[derive(Debug)]
pub(crate) struct UnderWay {
    connection: ConnectionInfo,
    /// Where it counts.
    place: AtomicU8,
}

impl UnderWay {
    /// Counts it on this tunnel, and no longer on the one before; how many of its connection there are, itself included.
    pub(crate) fn on(&self, tunnel: TunnelId) -> u32 {
        let place = (tunnel.0 % PLACES as u64) as u8;
        let (counts, before) = (&self.connection.0.on_tunnels, self.place.swap(place, Ordering::Relaxed));
        if before == place {
            return counts[usize::from(place)].load(Ordering::Relaxed);
        }
        self.connection.leave(before);
        counts[usize::from(place)].fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Deref for UnderWay {
    type Target = ConnectionInfo;
    fn deref(&self) -> &ConnectionInfo {
        &self.connection
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.connection.leave(*self.place.get_mut());
    }
}

/// The facts of a [`ConnectionInfo`].
#[derive(Debug, Clone)]
pub struct ConnectionDetails {
    /// The address of the other end.
    pub remote: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The name in the TLS handshake (SNI), if any.
    pub server_name: Option<String>,
    /// What the certificate of the other end proved, if it showed one.
    pub peer: Option<PeerIdentity>,
}

impl ConnectionInfo {
    /// Shares the facts. Its exchanges have the usual [`Pace`].
    pub fn new(details: ConnectionDetails) -> Self {
        Self::paced(details, Pace::default())
    }

    /// The same, with how long its exchanges may rest.
    pub fn paced(details: ConnectionDetails, pace: Pace) -> Self {
        let call_pace = Pace { whole: true, ..pace };
        Self(Arc::new(Shared { details, pace, call_pace, on_tunnels: Default::default(), tenant: Mutex::default() }))
    }

    /// The same of its calls of gRPC.
    pub(crate) fn call_pace(&self) -> &Pace {
        &self.0.call_pace
    }

    /// How long its exchanges may rest.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// An exchange that is on no tunnel yet; it counts until the returned guard drops.
    pub(crate) fn begin(&self) -> UnderWay {
        UnderWay { connection: self.clone(), place: AtomicU8::new(NOWHERE) }
    }

    /// Its requests are this tenant's, as far as is known.
    pub(crate) fn is_of(&self, tenant: &Arc<Account>) {
        *self.tenant() = Arc::downgrade(tenant);
    }

    /// The turn of reading its next request, where it has to wait for that.
    pub(crate) fn turn(&self) -> Option<Wait> {
        Wait::to_read(&*self.tenant().upgrade()?)
    }

    fn tenant(&self) -> MutexGuard<'_, Weak<Account>> {
        self.0.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, place: u8) {
        if let Some(count) = self.0.on_tunnels.get(usize::from(place)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Deref for ConnectionInfo {
    type Target = ConnectionDetails;
    fn deref(&self) -> &ConnectionDetails {
        &self.0.details
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TenantId;
    use crate::shares::{Shares, Stake, What};

    fn connection() -> ConnectionInfo {
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        let details = ConnectionDetails { remote: address, local: address, tls: false, server_name: None, peer: None };
        ConnectionInfo::new(details)
    }

    #[test]
    fn an_exchange_counts_on_the_tunnel_that_it_is_on_now_and_on_none_when_it_is_over() {
        let (connection, other) = (connection(), connection());
        let (first, second) = (connection.begin(), connection.begin());
        assert_eq!([first.on(TunnelId(7)), second.on(TunnelId(7)), second.on(TunnelId(7))], [1, 2, 2]);
        assert_eq!(second.on(TunnelId(8)), 1, "it was tried elsewhere");
        assert_eq!((first.on(TunnelId(7)), other.begin().on(TunnelId(7))), (1, 1));
        drop((first, second, connection.begin()));
        let next = connection.begin();
        assert_eq!([next.on(TunnelId(7)), next.on(TunnelId(8))], [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_request_is_read_in_the_turn_of_the_tenant_that_the_last_one_was_for() {
        let (shares, greedy, modest) = (Shares::new(), connection(), connection());
        assert!(greedy.turn().is_none(), "nobody knows yet whose it is");
        let under_way = ["acme", "other"].map(|name: &str| {
            let account = shares.tenant(&name.parse::<TenantId>().unwrap());
            [&greedy, &modest][usize::from(name == "other")].is_of(&account);
            Stake::of_tenant(account, What::Exchange).unwrap()
        });
        let at_once = (0..1_000).take_while(|_| greedy.turn().is_none()).count();
        assert!((8..=32).contains(&at_once), "{at_once}");
        assert!(modest.turn().is_none(), "another tenant's connection is read at once");
        drop((shares, under_way));
        assert!(greedy.turn().is_none(), "the tenant has nothing under way any more");
    }
}
