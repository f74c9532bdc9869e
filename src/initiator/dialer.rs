//! Which addresses there are to dial: resolves every destination again and again, and keeps a set of slots per address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::initiator::handle::Handle;
use crate::initiator::snapshot::{Fixed, Key, Prepared, State};
use crate::initiator::status::{StatusBoard, UNRESOLVED_ADVICE};
use crate::initiator::supervisor::{Outdated, Shared, Slot, Until, keep};
use crate::initiator::terms::{Terms, UpdateError};
use crate::lifecycle::{Backoff, DrainWatch, LAST_WORDS};
use crate::protocol::code::CloseCode;
use crate::telemetry::{Metrics, Role};
use crate::transport::Accept;

/// How often a name is asked again while all is well.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// The shortest pause after a name could not be resolved.
const MIN_RESOLVE_PAUSE: Duration = Duration::from_secs(1);
/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The initiator role, ready to run.
#[derive(Debug, Clone)]
pub struct Initiator<A> {
    shared: Shared<A>,
    next_slot: Arc<AtomicU32>,
}

/// A slot that was started, as whoever may stop it knows it.
#[derive(Debug)]
struct Started {
    number: u32,
    /// Of its destination when it was started.
    since: u64,
    /// Whether another one is to take over for another reason.
    outdated: Arc<Outdated>,
    /// Drains its tunnel.
    stop: CancellationToken,
    /// The slots that it takes over from.
    replaces: Vec<CancellationToken>,
}

impl Started {
    fn end(self) {
        for stop in self.with_replaced() {
            stop.cancel();
        }
    }

    /// What stops it and those that it takes over from.
    fn with_replaced(self) -> Vec<CancellationToken> {
        self.replaces.into_iter().filter(|stop| !stop.is_cancelled()).chain([self.stop]).collect()
    }
}

/// The slots of one destination.
struct Slots<A> {
    initiator: Initiator<A>,
    until: Until,
    /// Told of each failure, so that the name is resolved again.
    failed: Arc<Notify>,
    /// Told when a slot is outdated.
    outdated: Arc<Notify>,
    by_address: BTreeMap<SocketAddr, Vec<Started>>,
}

impl<A: Accept> Initiator<A> {
    /// Prepares the role; nothing is dialled before [`Initiator::run`].
    ///
    /// # Errors
    /// [`UpdateError`] says which credential is missing or cannot be used.
    pub(super) fn new(terms: Terms<A>, fixed: Fixed, metrics: &Metrics) -> Result<Self, UpdateError> {
        let shared = Shared {
            state: Arc::new(State::new(terms, fixed)?),
            board: StatusBoard::new(metrics.destinations()),
            tasks: TaskTracker::new(),
            metrics: metrics.tunnels(Role::Initiator),
        };
        Ok(Self { shared, next_slot: Arc::default() })
    }

    /// What its tunnels are doing.
    pub fn status(&self) -> StatusBoard {
        self.shared.board.clone()
    }

    /// What changes it while it runs.
    pub fn handle(&self) -> Handle<A> {
        Handle { state: Arc::clone(&self.shared.state), board: self.status() }
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
            tokio::select! {
                () = drain.announced() => {}
                () = self.keep_destinations(&drain) => {}
            }
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

    /// Begins with destinations that are new in the terms, and ends those that are gone. Does not return.
    async fn keep_destinations(&self, drain: &DrainWatch) {
        let mut changes = self.shared.state.changes();
        let mut kept = HashMap::<Key, CancellationToken>::new();
        loop {
            changes.mark_unchanged();
            let snapshot = self.shared.state.current();
            kept.retain(|key, stop| {
                let keep = snapshot.find(key).is_some();
                if !keep {
                    info!(destination = %key.target, "no longer a destination: draining it");
                    stop.cancel();
                }
                keep
            });
            for Prepared { key, .. } in snapshot.destinations.iter().map(AsRef::as_ref) {
                if !kept.contains_key(key) {
                    let until = Until { stop: drain.token().child_token(), drain: drain.clone() };
                    kept.insert(key.clone(), until.stop.clone());
                    self.shared.tasks.spawn(Slots::new(self.clone(), until).keep(key.clone()));
                }
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl<A: Accept> Slots<A> {
    fn new(initiator: Initiator<A>, until: Until) -> Self {
        Self { initiator, until, failed: Arc::default(), outdated: Arc::default(), by_address: BTreeMap::new() }
    }

    /// Keeps them up until they are to stop; each then drains by itself.
    async fn keep(mut self, key: Key) {
        let mut changes = self.initiator.shared.state.changes();
        let mut found = BTreeSet::new();
        let (mut pause, mut backoff) = (Duration::ZERO, Backoff::default());
        loop {
            changes.mark_unchanged();
            if let Some(prepared) = self.initiator.shared.state.current().find(&key) {
                self.reconcile(prepared, &found);
            }
            tokio::select! {
                () = self.until.stop.cancelled() => return self.initiator.shared.board.resolved(&key.target),
                _ = changes.changed() => {}
                () = self.outdated.notified() => {}
                resolved = self.resolve_after(pause, &key.target) => match resolved {
                    Ok(addresses) => {
                        found = addresses;
                        pause = RESOLVE_INTERVAL;
                        backoff.reset();
                        self.initiator.shared.board.resolved(&key.target);
                    }
                    Err(error) => pause = self.unresolved(&key, error, &mut backoff, found.is_empty()),
                },
            }
        }
    }

    /// Says that the name has no address, and after which pause it is asked again; addresses that it had stay.
    fn unresolved(&self, key: &Key, error: String, backoff: &mut Backoff, nothing_to_dial: bool) -> Duration {
        // Jitter must not turn a schedule for one destination into a flood of questions.
        let retry_in = backoff.next_delay(rand::random(), None).max(MIN_RESOLVE_PAUSE);
        let (destination, advice) = (&*key.target, UNRESOLVED_ADVICE);
        warn!(destination, %error, advice, ?retry_in, "cannot resolve the responder's name");
        if nothing_to_dial {
            let reason = format!("its name cannot be resolved: {error}");
            self.initiator.shared.board.cannot_resolve(&key.target, reason, (Instant::now() + retry_in).into_std());
        }
        retry_in
    }

    /// The addresses of the name, after a pause. Cancel safe.
    async fn resolve_after(&self, pause: Duration, target: &str) -> Result<BTreeSet<SocketAddr>, String> {
        tokio::select! {
            // A failed dial may mean that the name moved. A tunnel in backoff does not ask more often than it dials.
            () = self.failed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        resolve(target).await
    }

    /// Starts what is missing, drains what is too much, and replaces what was dialled otherwise.
    fn reconcile(&mut self, prepared: &Arc<Prepared>, found: &BTreeSet<SocketAddr>) {
        let mut by_address = std::mem::take(&mut self.by_address);
        for (address, slots) in by_address.extract_if(.., |address, _| !found.contains(address)) {
            let destination = &*prepared.key.target;
            info!(destination, %address, "the name no longer has this address: draining it");
            slots.into_iter().for_each(Started::end);
        }
        for address in found {
            let slots = by_address.entry(*address).or_default();
            self.shrink(slots, prepared.destination.count as usize);
            *slots = slots.drain(..).map(|slot| self.renewed(slot, prepared, *address)).collect();
            while slots.len() < prepared.destination.count as usize {
                slots.push(self.start(prepared, *address, Vec::new()));
            }
        }
        self.by_address = by_address;
    }

    /// Ends the slots beyond `count`, those without a tunnel first.
    fn shrink(&self, slots: &mut Vec<Started>, count: usize) {
        while slots.len() > count {
            let board = &self.initiator.shared.board;
            let idle = slots.iter().rposition(|slot| !board.is_connected(slot.number));
            slots.remove(idle.unwrap_or(slots.len() - 1)).end();
        }
    }

    /// The slot, or the one that takes over from it.
    fn renewed(&self, slot: Started, prepared: &Arc<Prepared>, address: SocketAddr) -> Started {
        let may_stay = slot.since == prepared.since && !slot.outdated.is();
        if may_stay { slot } else { self.start(prepared, address, slot.with_replaced()) }
    }

    fn start(&self, prepared: &Arc<Prepared>, address: SocketAddr, replaces: Vec<CancellationToken>) -> Started {
        let numbers = Slot::numbers(&prepared.destination.transport);
        let outdated = Outdated::new(Arc::clone(&self.outdated));
        let slot = Slot {
            number: self.initiator.next_slot.fetch_add(numbers, Ordering::Relaxed),
            address,
            prepared: Arc::clone(prepared),
            failed: Arc::clone(&self.failed),
            outdated: Arc::clone(&outdated),
            replaces: replaces.clone(),
        };
        let (number, since, stop) = (slot.number, prepared.since, self.until.stop.child_token());
        let until = Until { stop: stop.clone(), drain: self.until.drain.clone() };
        let shared = &self.initiator.shared;
        shared.tasks.spawn(keep(shared.clone(), slot, until));
        Started { number, since, outdated, stop, replaces }
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
