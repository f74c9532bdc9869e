//! What a slot is made of, and what all slots share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::initiator::sight::Watched;
use crate::initiator::snapshot::{Prepared, State};
use crate::initiator::status::StatusBoard;
use crate::lifecycle::DrainWatch;
use crate::telemetry::TunnelMetrics;
use crate::transport::TransportChoice;

/// What all slots of an initiator have in common. Cheap to clone.
#[derive(Debug)]
pub(in crate::initiator) struct Shared<A> {
    pub(in crate::initiator) state: Arc<State<A>>,
    pub(in crate::initiator) board: StatusBoard,
    pub(in crate::initiator) tasks: TaskTracker,
    pub(in crate::initiator) metrics: TunnelMetrics,
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        let Self { state, board, tasks, metrics } = self;
        Self { state: Arc::clone(state), board: board.clone(), tasks: tasks.clone(), metrics: metrics.clone() }
    }
}

/// Where one tunnel goes and which one it is.
#[derive(Debug)]
pub(in crate::initiator) struct Slot {
    /// The first of its numbers; [`Slot::numbers`] says how many it has.
    pub(in crate::initiator) number: u32,
    pub(in crate::initiator) address: SocketAddr,
    /// Its destination when it began.
    pub(in crate::initiator) prepared: Arc<Prepared>,
    /// Told of each failure, so that the name is resolved again.
    pub(in crate::initiator) failed: Arc<Notify>,
    /// Says that another slot is to take over from this one.
    pub(in crate::initiator) outdated: Arc<Outdated>,
    /// What it does, for whoever decides where it goes.
    pub(in crate::initiator) watched: Arc<Watched>,
    /// Stops the slots that it takes over from.
    pub(in crate::initiator) replaces: Vec<CancellationToken>,
}

/// Whether another slot is to take over: its tunnel cannot follow the terms.
#[derive(Debug)]
pub(in crate::initiator) struct Outdated {
    is: AtomicBool,
    keeper: Arc<Notify>,
}

impl Outdated {
    /// Of a slot that is up to date; `keeper` is woken when it is not.
    pub(in crate::initiator) fn new(keeper: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { is: AtomicBool::new(false), keeper })
    }

    pub(in crate::initiator) fn is(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }

    pub(super) fn say(&self) {
        self.is.store(true, Ordering::Release);
        self.keeper.notify_one();
    }
}

/// Until when a slot is kept.
#[derive(Debug)]
pub(in crate::initiator) struct Until {
    /// Drains it. Cancelled with `drain` at the latest.
    pub(in crate::initiator) stop: CancellationToken,
    /// That of the process.
    pub(in crate::initiator) drain: DrainWatch,
}

impl Until {
    /// What is left of the drain of the process, if there is one.
    pub(super) fn left(&self) -> Option<Duration> {
        self.drain.is_draining().then(|| self.drain.remaining())
    }
}

impl Slot {
    /// How many slot numbers of HELLO it needs: two where a tunnel may come up beside another one. An Envoy knows none.
    pub(in crate::initiator) const fn numbers(transport: &TransportChoice) -> u32 {
        match transport {
            TransportChoice::Envoy(_) => 1,
            TransportChoice::Auto | TransportChoice::Quic | TransportChoice::Tcp => 2,
        }
    }

    pub(super) fn destination(&self) -> &Arc<str> {
        &self.prepared.key.target
    }

    pub(super) fn transport(&self) -> &TransportChoice {
        &self.prepared.destination.transport
    }

    /// Lets go of the slots that it takes over from.
    pub(super) fn take_over(&self) {
        for stop in &self.replaces {
            stop.cancel();
        }
    }
}
