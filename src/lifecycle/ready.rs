//! Whether a start is complete, and what it still waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The steps of a start. Ready once every step is done.
///
/// Take all guards before handing this to whoever asks: without any step it is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    steps: Arc<Mutex<Vec<Step>>>,
    changed: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    name: &'static str,
    done: bool,
}

impl Ready {
    /// No steps yet.
    pub fn new() -> Self {
        Self { steps: Arc::default(), changed: Arc::new(watch::Sender::new(true)) }
    }

    /// Adds a step; its `name` is shown while it is missing ("listeners bound").
    pub fn guard(&self, name: &'static str) -> ReadyGuard {
        let mut steps = self.lock();
        steps.push(Step { name, done: false });
        self.changed.send_replace(false);
        ReadyGuard { ready: self.clone(), index: steps.len() - 1 }
    }

    /// Whether every step is done.
    pub fn is_ready(&self) -> bool {
        *self.changed.borrow()
    }

    /// The names of the steps that are not done, in the order they were added.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().iter().filter(|step| !step.done).map(|step| step.name).collect()
    }

    /// Returns once every step is done. Cancel safe.
    pub async fn wait(&self) {
        let mut changed = self.changed.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        let _ = changed.wait_for(|ready| *ready).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self::new()
    }
}

/// One step of a start. Dropped without [`ReadyGuard::done`], the step stays missing: a start that failed half-way
/// is not ready.
#[derive(Debug)]
#[must_use = "the step stays missing until it is done"]
pub struct ReadyGuard {
    ready: Ready,
    index: usize,
}

impl ReadyGuard {
    /// The step is done.
    pub fn done(self) {
        let mut steps = self.ready.lock();
        steps[self.index].done = true;
        self.ready.changed.send_replace(steps.iter().all(|step| step.done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_that_every_step_is_done() {
        let ready = Ready::new();
        let (listeners, tunnel) = (ready.guard("listeners bound"), ready.guard("first tunnel up"));
        assert_eq!(ready.missing(), ["listeners bound", "first tunnel up"]);
        listeners.done();
        assert!(!ready.is_ready());
        assert_eq!(ready.missing(), ["first tunnel up"]);

        let waiting = tokio::spawn({
            let ready = ready.clone();
            async move { ready.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        tunnel.done();
        waiting.await.unwrap();
        assert!(ready.is_ready());
    }

    #[test]
    fn a_step_that_was_given_up_stays_missing() {
        let ready = Ready::new();
        drop(ready.guard("certificates loaded"));
        assert!(!ready.is_ready());
        assert_eq!(ready.missing(), ["certificates loaded"]);
    }
}
