//! What all accounts of a responder have in common: the turns that tenants take, and what is counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::turns::{Turn, Turns};
use crate::telemetry::ShareMetrics;

/// Shared by all accounts.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// More than one tenant uses the responder. Nobody takes turns otherwise.
    is_contended: AtomicBool,
    state: Mutex<State>,
    metrics: OnceLock<ShareMetrics>,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns<oneshot::Sender<()>>,
    /// A task begins the passes.
    is_driven: bool,
}

impl Common {
    pub(super) fn is_contended(&self) -> bool {
        self.is_contended.load(Ordering::Relaxed)
    }

    pub(super) fn contend(&self, is_contended: bool) {
        self.is_contended.store(is_contended, Ordering::Relaxed);
    }

    /// Counts from here on; the first call decides.
    pub(super) fn count_with(&self, metrics: ShareMetrics) {
        let _ = self.metrics.set(metrics);
    }

    pub(super) fn metrics(&self) -> Option<&ShareMetrics> {
        self.metrics.get()
    }

    /// Takes a turn; what is returned resolves when it has come. `None`: it is now.
    pub(super) fn take(self: &Arc<Self>, tenant: u64, weight: u32, cost: u64) -> Option<oneshot::Receiver<()>> {
        // Outside a runtime nobody could begin a pass.
        let runtime = Handle::try_current().ok()?;
        let mut waits = None;
        let mut state = self.lock();
        let turn = state.turns.take(tenant, weight, cost, || {
            let (told, hears) = oneshot::channel();
            waits = Some(hears);
            told
        });
        let is_to_be_driven = state.turns.needs_pass() && !std::mem::replace(&mut state.is_driven, true);
        drop(state);
        if is_to_be_driven {
            // Without the lock: a runtime that ends drops the driver at once, which wants it.
            runtime.spawn(Driver { common: Arc::clone(self), is_done: false }.run());
        }
        if turn == Turn::Later
            && let Some(metrics) = self.metrics()
        {
            metrics.waited_for_turn();
        }
        waits
    }

    pub(super) fn forget(&self, tenant: u64) {
        self.lock().turns.forget(tenant);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins the passes while there is somebody to begin them for.
struct Driver {
    common: Arc<Common>,
    is_done: bool,
}

impl Driver {
    async fn run(mut self) {
        while !self.is_done {
            // Everything else that is ready on this thread comes first: that is the pass that ends here.
            yield_now().await;
            let mut state = self.common.lock();
            state.turns.begin_pass(|told| told.send(()).is_ok());
            self.is_done = !state.turns.needs_pass();
            state.is_driven = !self.is_done;
        }
    }
}

impl Drop for Driver {
    /// Ended with its runtime, it lets go of whoever waits.
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.common.lock();
            state.is_driven = false;
            state.turns.abandon();
        }
    }
}
