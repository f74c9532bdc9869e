//! UDP listeners: each source gets a flow of its own to one service of a fixed node or cluster, one for each address of this
//! machine that it speaks to, and is answered from there. spec: ST-70 to ST-78
//!
//! Nothing is sent to a source but what the site has sent on its flow, so that nobody is made to send more than the service
//! itself sends. A flow whose tunnel is lost ends; the next datagram of its source opens another one.

mod carry;
mod judge;
mod listener;
mod queue;
mod shared;
mod table;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::listener::Listener;
use self::shared::Shared;
use crate::id::{HostId, ServiceName, TenantId};
use crate::lifecycle::DrainWatch;
use crate::net::{self, AddressedUdp};
use crate::policy::traffic;
use crate::protocol::limits::DEFAULT_FLOW_IDLE_TIMEOUT;
use crate::proxy::{AccessLog, Recorder, RuleCounters};
use crate::registry::Balance;
use crate::routing::{DEFAULT_HOLD, Directory};
use crate::telemetry::{Metrics, Side};
use crate::transport::Tunnel;

/// The most flows of a listener.
pub const DEFAULT_FLOWS: usize = 4096;
/// The most flows that sources of one address prefix have of a listener: the /24 of an IPv4 address, the /56 of an IPv6 one.
pub const DEFAULT_FLOWS_PER_PREFIX: usize = 1024;

/// What a UDP listener goes by. All of it can be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpTerms {
    /// In whose world the flows go.
    pub tenant: TenantId,
    /// To which node or cluster. Holds for flows that begin from now on.
    pub host_id: HostId,
    /// To which service there, which its initiator exports for datagrams. Holds for flows that begin from now on.
    pub service: ServiceName,
    /// How a node of a cluster is chosen; by hash, the flows of one address go to the same node. Default: two choices.
    pub balance: Balance,
    /// How long a flow waits for a node that is reconnecting, with what its source sends meanwhile. Default 2 s.
    pub hold: Duration,
    /// Whether each flow leaves a line in the log when it is over. Default: no.
    pub access_log: AccessLog,
    /// Which flows are denied or go elsewhere: what is known of one is its source, its tenant and its service. Holds for
    /// flows that begin from now on. Default: none.
    pub policies: FlowRules,
    /// How many there may be.
    pub limits: UdpLimits,
}

/// The rules of a listener for datagrams, which forwards nothing out of tunnels.
pub type FlowRules = traffic::Rules<Infallible>;

/// How many flows a UDP listener may have, and how long each of them may rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpLimits {
    /// Of all sources. Where there are as many, a source that the site has not answered gives way after 1 s, one that it has
    /// after 10 s of silence.
    pub flows: usize,
    /// Of the sources of one address prefix; the same holds among them.
    pub flows_per_prefix: usize,
    /// How long a flow may carry nothing; then it is ended at both ends.
    pub flow_idle: Duration,
}

impl Default for UdpLimits {
    fn default() -> Self {
        Self { flows: DEFAULT_FLOWS, flows_per_prefix: DEFAULT_FLOWS_PER_PREFIX, flow_idle: DEFAULT_FLOW_IDLE_TIMEOUT }
    }
}

impl UdpTerms {
    /// All defaults; flows go to this service of a node or cluster of the tenant `default`.
    pub fn new(host_id: HostId, service: ServiceName) -> Self {
        Self {
            tenant: TenantId::default(),
            host_id,
            service,
            balance: Balance::default(),
            hold: DEFAULT_HOLD,
            access_log: AccessLog::Off,
            policies: FlowRules::default(),
            limits: UdpLimits::default(),
        }
    }
}

/// A bound UDP listener in front of the tunnels of a responder.
pub struct UdpEgress {
    listener: Listener,
    address: SocketAddr,
    /// Who has read the socket until now.
    former: Option<Arc<Current>>,
}

/// Changes a UDP listener while it runs. Cheap to clone; of no effect once it is gone.
#[derive(Debug, Clone)]
pub struct UdpHandle {
    current: Arc<Current>,
    /// As long as the listener is there, or a flow of it.
    shared: Weak<Shared>,
}

/// What holds now.
#[derive(Debug)]
struct Current {
    in_force: ArcSwap<InForce>,
    changed: Notify,
    /// Another listener reads the socket now.
    succeeded: CancellationToken,
}

/// Terms, and what counts the decisions of their rules.
#[derive(Debug)]
struct InForce {
    terms: UdpTerms,
    counters: RuleCounters,
}

impl From<UdpTerms> for InForce {
    fn from(terms: UdpTerms) -> Self {
        Self { counters: RuleCounters::new(&terms.policies), terms }
    }
}

impl UdpEgress {
    /// Binds an address; port 0 takes a free one. Flows go through the tunnels of `directory` and are counted into `metrics`.
    ///
    /// # Errors
    /// [`net::BindError`], as `BuildError::Bind` of a listener for HTTP, says which address is at fault.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn bind(
        address: SocketAddr,
        terms: UdpTerms,
        directory: Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Result<Self, super::BuildError> {
        let (socket, _) = net::bind_udp(address)?;
        let socket = AddressedUdp::new(socket).map_err(super::BuildError::Address)?;
        let address = socket.local_addr().map_err(super::BuildError::Address)?;
        Ok(Self::over((Arc::new(socket), address), terms, directory, metrics))
    }

    fn over(
        socket: (Arc<AddressedUdp>, SocketAddr),
        terms: UdpTerms,
        directory: Arc<Directory<Tunnel>>,
        metrics: &Metrics,
    ) -> Self {
        let address = socket.1;
        // The terms say what is logged.
        let recorder = Recorder::new(metrics, Side::Egress, Some(address.to_string()), AccessLog::Off);
        let current = Current {
            in_force: ArcSwap::from_pointee(terms.into()),
            changed: Notify::new(),
            succeeded: CancellationToken::new(),
        };
        Self { listener: Listener::new(socket, Arc::new(current), directory, recorder), address, former: None }
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What changes it while it runs.
    pub fn handle(&self) -> UdpHandle {
        let (current, shared) = (Arc::clone(self.listener.current()), self.listener.shared());
        UdpHandle { current, shared }
    }

    /// Takes datagrams until a drain is announced; then no new source, and the flows that there are as long as they are not
    /// silent for 2 s, at the latest until the drain expires. The drain waits for it.
    ///
    /// # Cancel safety
    /// Dropping the future ends every flow.
    pub fn run(self, drain: DrainWatch) -> impl Future<Output = ()> + Send + 'static {
        // Taken before the future is first polled, so that a drain never overlooks a role that is about to start.
        let guard = drain.guard();
        async move {
            if let Some(former) = self.former {
                former.succeeded.cancel();
            }
            tokio::select! {
                () = self.listener.run(&drain) => {}
                () = drain.expired() => {}
            }
            drop(guard);
        }
    }
}

impl UdpHandle {
    /// The terms that hold now.
    pub fn terms(&self) -> UdpTerms {
        self.current.in_force.load().terms.clone()
    }

    /// Puts other terms in force. Flows that are there go on where they go; the bounds hold for them, too, but end none of
    /// them at once.
    pub fn put(&self, terms: UdpTerms) {
        self.current.in_force.store(Arc::new(terms.into()));
        self.current.changed.notify_one();
    }

    /// Whether it has its socket still, to itself.
    pub fn is_there(&self) -> bool {
        self.shared.strong_count() > 0 && !self.current.succeeded.is_cancelled()
    }

    /// Another listener on the same socket, as long as this one has not ended, which it may do for long while it drains: its
    /// address cannot be bound meanwhile. It ends when the other one begins to run, and so do its flows: the next datagram of
    /// each source opens one of the other listener.
    pub fn succeed(&self, terms: UdpTerms, directory: Arc<Directory<Tunnel>>, metrics: &Metrics) -> Option<UdpEgress> {
        let shared = self.shared.upgrade().filter(|_| self.is_there())?;
        let (socket, address) = (Arc::clone(&shared.socket), shared.address);
        let former = Some(Arc::clone(&self.current));
        Some(UdpEgress { former, ..UdpEgress::over((socket, address), terms, directory, metrics) })
    }
}

impl fmt::Debug for UdpEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpEgress").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Whether an error of a socket with many peers says nothing of the socket itself.
fn is_passing(error: &io::Error) -> bool {
    // ICMP of some peer shows as an error of whoever reads next.
    !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected)
}
