//! What every tunnel slot is doing, for `adit status`, `/tunnels` and the gauges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::initiator::auto::{Auto, PathStatus};
use crate::telemetry::{DestinationMetrics, DestinationRecord, DestinationState, Moved};
use crate::transport::{TransportKind, Tunnel, TunnelSnapshot};

mod unresolved;

pub(super) use unresolved::ADVICE as UNRESOLVED_ADVICE;
use unresolved::Unresolved;
pub use unresolved::UnresolvedStatus;

/// One slot as operators see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SlotStatus {
    /// The configured destination.
    pub destination: String,
    /// The address dialled.
    pub address: SocketAddr,
    /// Which of the instance's tunnels.
    pub slot: u32,
    /// What carries its tunnel, or is tried while there is none.
    pub transport: TransportKind,
    /// What it is doing.
    pub state: DestinationState,
    /// Why the last attempt or tunnel before this one ended.
    pub reason: Option<String>,
    /// What to change, when something can be.
    pub advice: Option<&'static str>,
    /// Seconds in this state.
    pub since_seconds: u64,
    /// Seconds until the next dial, while backing off.
    pub retry_in_seconds: Option<f64>,
    /// The responder's own name, while there is a tunnel; where it is one of a fleet, its name there.
    pub responder: Option<String>,
    /// The tunnel, while there is one.
    pub tunnel: Option<TunnelSnapshot>,
    /// What is known of each transport that it may use.
    pub paths: PathStatus,
}

#[derive(Debug)]
struct Slot {
    destination: Arc<str>,
    address: SocketAddr,
    transport: TransportKind,
    auto: Arc<Mutex<Auto>>,
    record: DestinationRecord,
    since: Instant,
    reason: Option<String>,
    advice: Option<&'static str>,
    next: Option<Instant>,
    responder: Option<String>,
    tunnel: Option<Tunnel>,
}

/// All slots of one initiator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusBoard {
    slots: Arc<Mutex<BTreeMap<u32, Slot>>>,
    unresolved: Arc<Unresolved>,
    metrics: DestinationMetrics,
    changed: Arc<Notify>,
}

/// What changed about a slot.
#[derive(Debug)]
pub(super) enum Change {
    Connecting {
        over: TransportKind,
    },
    Connected {
        tunnel: Tunnel,
        responder: String,
    },
    /// Its responder has told its name in the fleet.
    Named {
        responder: String,
    },
    /// The tunnel ended; what follows, follows.
    Lost {
        reason: String,
    },
    /// The next dial comes at `until`; `permanent` when waiting alone will not help.
    Waiting {
        permanent: bool,
        reason: String,
        advice: Option<&'static str>,
        until: Instant,
    },
}

impl StatusBoard {
    pub(super) fn new(metrics: DestinationMetrics) -> Self {
        Self { slots: Arc::default(), unresolved: Arc::default(), metrics, changed: Arc::default() }
    }

    /// A copy of every slot, in slot order.
    pub fn slots(&self) -> Vec<SlotStatus> {
        let now = Instant::now();
        self.lock().iter().map(|(slot, status)| status.view(*slot, now)).collect()
    }

    /// The destinations of which no address is known, and which therefore have no slot.
    pub fn unresolved(&self) -> Vec<UnresolvedStatus> {
        self.unresolved.view()
    }

    /// The name has no address, and is asked again at `next`.
    pub(super) fn cannot_resolve(&self, destination: &Arc<str>, reason: String, next: Instant) {
        self.unresolved.note(destination, reason, next, &self.metrics);
    }

    /// The name has addresses, or is no longer a destination.
    pub(super) fn resolved(&self, destination: &str) {
        self.unresolved.forget(destination);
    }

    /// How many slots have a tunnel.
    pub fn connected(&self) -> usize {
        self.lock().values().filter(|slot| slot.tunnel.is_some()).count()
    }

    /// Whether a slot has a tunnel.
    pub(super) fn is_connected(&self, slot: u32) -> bool {
        self.lock().get(&slot).is_some_and(|slot| slot.tunnel.is_some())
    }

    /// Resolves when a slot has a tunnel. Cancel safe.
    pub async fn first_connected(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.connected() > 0 {
                return;
            }
            changed.await;
        }
    }

    /// Resolves with a slot that has a tunnel, or else knows why it has none ([`SlotStatus::reason`]). Cancel safe.
    pub async fn first_outcome(&self) -> SlotStatus {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let slots = self.slots();
            let connected = slots.iter().position(|slot| slot.tunnel.is_some());
            let outcome = connected.or_else(|| slots.iter().position(|slot| slot.reason.is_some()));
            if let Some(slot) = outcome.and_then(|at| slots.into_iter().nth(at)) {
                return slot;
            }
            changed.await;
        }
    }

    /// The live tunnels.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        self.lock().values().filter_map(|slot| slot.tunnel.clone()).collect()
    }

    pub(super) fn add(
        &self,
        slot: u32,
        destination: Arc<str>,
        address: SocketAddr,
        preferred: TransportKind,
        auto: Arc<Mutex<Auto>>,
    ) {
        let status = Slot {
            destination,
            address,
            transport: preferred,
            auto,
            record: self.metrics.begin(),
            since: Instant::now(),
            reason: None,
            advice: None,
            next: None,
            responder: None,
            tunnel: None,
        };
        self.lock().insert(slot, status);
    }

    /// A tunnel has gone to another responder of its fleet.
    pub(super) fn moved(&self, moved: Moved) {
        self.metrics.moved(moved);
    }

    /// A slot's tunnel came up on another transport than the one before.
    pub(super) fn switched(&self, from: TransportKind, to: TransportKind) {
        self.metrics.switched(from.label(), to.label());
    }

    pub(super) fn remove(&self, slot: u32) {
        self.lock().remove(&slot);
    }

    pub(super) fn apply(&self, slot: u32, change: Change) {
        let mut slots = self.lock();
        let Some(status) = slots.get_mut(&slot) else { return };
        let now = Instant::now();
        self.changed.notify_waiters();
        match change {
            Change::Connecting { over } => {
                status.transport = over;
                status.enter(DestinationState::Connecting, now);
                status.tunnel = None;
                status.next = None;
            }
            Change::Connected { tunnel, responder } => {
                status.responder = Some(responder);
                let again = status.reason.is_some();
                status.enter(if again { DestinationState::Recovered } else { DestinationState::Connected }, now);
                status.tunnel = Some(tunnel);
                (status.advice, status.next) = (None, None);
            }
            Change::Named { responder } => status.responder = Some(responder),
            Change::Lost { reason } => {
                status.enter(DestinationState::Failed, now);
                status.tunnel = None;
                status.reason = Some(reason);
            }
            Change::Waiting { permanent, reason, advice, until } => {
                status.enter(if permanent { DestinationState::CannotConnect } else { DestinationState::Backoff }, now);
                status.tunnel = None;
                (status.reason, status.advice, status.next) = (Some(reason), advice, Some(until));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn enter(&mut self, state: DestinationState, now: Instant) {
        if self.record.state() != state {
            self.since = now;
        }
        self.record.set(state);
    }

    fn view(&self, slot: u32, now: Instant) -> SlotStatus {
        SlotStatus {
            destination: self.destination.to_string(),
            address: self.address,
            slot,
            transport: self.tunnel.as_ref().map_or(self.transport, Tunnel::transport),
            state: self.record.state(),
            reason: self.reason.clone(),
            advice: self.advice,
            since_seconds: now.duration_since(self.since).as_secs(),
            retry_in_seconds: self.next.map(|next| next.saturating_duration_since(now).as_secs_f64()),
            responder: self.responder.clone().filter(|_| self.tunnel.is_some()),
            tunnel: self.tunnel.as_ref().map(Tunnel::snapshot),
            paths: self.auto.lock().unwrap_or_else(PoisonError::into_inner).status(now),
        }
    }
}
