//! Which addresses there are to dial: resolves every destination again and again, and keeps a set of slots per address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::id::InstanceId;
use crate::initiator::settings::{Destination, InitiatorSettings};
use crate::initiator::status::StatusBoard;
use crate::initiator::supervisor::{Shared, Slot, keep};
use crate::lifecycle::{DrainWatch, LAST_WORDS};
use crate::protocol::code::CloseCode;
use crate::telemetry::{Metrics, Role};
use crate::tls::TlsError;
use crate::transport::{Accept, Dialer};

/// How often a name is asked again while all is well.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The initiator role, ready to run.
#[derive(Debug, Clone)]
pub struct Initiator<A> {
    shared: Shared<A>,
    destinations: Arc<[Arc<Prepared>]>,
    next_slot: Arc<AtomicU32>,
}

/// A destination and what dials it.
#[derive(Debug)]
struct Prepared {
    destination: Destination,
    dialer: Dialer,
}

impl<A: Accept> Initiator<A> {
    /// Prepares the role; nothing is dialled before [`Initiator::run`].
    ///
    /// # Errors
    /// [`TlsError`]: a tunnel to an Envoy needs credentials that are not there or cannot be used.
    pub fn new(settings: InitiatorSettings, dialer: Dialer, accept: A, metrics: &Metrics) -> Result<Self, TlsError> {
        let prepared = settings.destinations.iter().map(|destination| {
            let dialer = settings.dialer_for(destination, dialer.clone())?;
            Ok(Arc::new(Prepared { destination: destination.clone(), dialer }))
        });
        let destinations = prepared.collect::<Result<_, TlsError>>()?;
        let shared = Shared {
            settings: Arc::new(settings),
            accept,
            instance: InstanceId(rand::random()),
            board: StatusBoard::new(metrics.destinations()),
            tasks: TaskTracker::new(),
            metrics: metrics.tunnels(Role::Initiator),
        };
        Ok(Self { shared, destinations, next_slot: Arc::default() })
    }

    /// What its tunnels are doing.
    pub fn status(&self) -> StatusBoard {
        self.shared.board.clone()
    }

    /// Keeps the tunnels up until a drain is announced, then drains them all and is done when the last is gone, at the
    /// latest when the drain expires: what is left is cut. The drain waits for it.
    ///
    /// Not cancel safe: dropping the future leaves the tunnels' tasks running.
    pub fn run(self, drain: DrainWatch) -> impl Future<Output = ()> + Send + 'static {
        // Taken before the future is first polled, so that a drain never overlooks a role that is about to start.
        let guard = drain.guard();
        async move {
            let tasks = &self.shared.tasks;
            for prepared in self.destinations.iter() {
                tasks.spawn(self.clone().keep_destination(Arc::clone(prepared), drain.token()));
            }
            drain.announced().await;
            tasks.close();
            tokio::select! {
                () = tasks.wait() => {}
                () = drain.expired() => {
                    for tunnel in self.shared.board.tunnels() {
                        tunnel.close(CloseCode::Done, "the drain deadline passed");
                    }
                    let _ = timeout(LAST_WORDS, tasks.wait()).await;
                }
            }
            drop(guard);
        }
    }

    async fn keep_destination(self, prepared: Arc<Prepared>, drain: CancellationToken) {
        let destination = &prepared.destination;
        let failed = Arc::new(Notify::new());
        let mut addresses = BTreeMap::<SocketAddr, CancellationToken>::new();
        loop {
            match resolve(&destination.target).await {
                Ok(found) => self.reconcile(&prepared, &found, &mut addresses, &failed, &drain),
                Err(error) => {
                    warn!(destination = destination.target, %error, "cannot resolve the responder's name; trying again");
                }
            }
            let pause = if addresses.is_empty() { Duration::from_secs(1) } else { RESOLVE_INTERVAL };
            tokio::select! {
                () = drain.cancelled() => return,
                // A failed dial may mean that the name moved. A tunnel in backoff does not ask more often than it dials.
                () = failed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts slots for new addresses and drains those of addresses that are gone.
    fn reconcile(
        &self,
        prepared: &Prepared,
        found: &BTreeSet<SocketAddr>,
        addresses: &mut BTreeMap<SocketAddr, CancellationToken>,
        failed: &Arc<Notify>,
        drain: &CancellationToken,
    ) {
        let Prepared { destination, dialer } = prepared;
        addresses.retain(|address, stop| {
            let keep = found.contains(address);
            if !keep {
                info!(destination = destination.target, %address, "the name no longer has this address: draining it");
                stop.cancel();
            }
            keep
        });
        for address in found {
            if addresses.contains_key(address) {
                continue;
            }
            let stop = drain.child_token();
            for _ in 0..destination.count {
                let slot = Slot {
                    number: self.next_slot.fetch_add(Slot::numbers(&destination.transport), Ordering::Relaxed),
                    destination: destination.target.as_str().into(),
                    address: *address,
                    server_name: destination.server_name(),
                    transport: destination.transport.clone(),
                    dialer: dialer.clone(),
                    failed: Arc::clone(failed),
                };
                self.shared.tasks.spawn(keep(self.shared.clone(), slot, stop.clone()));
            }
            addresses.insert(*address, stop);
        }
    }
}

async fn resolve(target: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match timeout(RESOLVE_TIMEOUT, lookup_host(target)).await {
        Ok(Ok(found)) => {
            let found: BTreeSet<_> = found.map(unmapped).collect();
            if found.is_empty() { Err("the name has no address".into()) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
    }
}

/// An IPv4 address in IPv6 clothes is the same responder.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}
