//! Which destinations there are: begins and ends what keeps the tunnels of each.

mod names;
mod others;
mod seat;
mod slots;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::others::Others;
use self::seat::Starter;
use self::slots::Slots;
use crate::initiator::handle::Handle;
use crate::initiator::snapshot::{Fixed, Key, Prepared, State};
use crate::initiator::status::StatusBoard;
use crate::initiator::supervisor::{Shared, Until};
use crate::initiator::terms::{Terms, UpdateError};
use crate::lifecycle::{DrainWatch, LAST_WORDS};
use crate::protocol::code::CloseCode;
use crate::telemetry::{Metrics, Role};
use crate::transport::Accept;

/// The initiator role, ready to run.
#[derive(Debug, Clone)]
pub struct Initiator<A> {
    shared: Shared<A>,
    starter: Starter<A>,
    others: Arc<Others>,
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
        let starter = Starter::new(shared.clone());
        Ok(Self { shared, starter, others: Arc::default() })
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
                    let slots = Slots::new(self.starter.clone(), (Arc::clone(&self.others), key.clone()), until);
                    self.shared.tasks.spawn(slots.keep());
                }
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
