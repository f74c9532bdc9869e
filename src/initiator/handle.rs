//! What stays of an initiator while it runs, to look at it and to change it.

use std::sync::Arc;

use tracing::info;

use crate::initiator::snapshot::State;
use crate::initiator::status::StatusBoard;
use crate::initiator::terms::{Terms, UpdateError};

/// Changes an initiator while it runs. Cheap to clone; of no effect once the initiator is gone.
#[derive(Debug)]
pub struct Handle<A> {
    pub(super) state: Arc<State<A>>,
    pub(super) board: StatusBoard,
}

impl<A> Handle<A> {
    /// What its tunnels are doing.
    pub fn status(&self) -> StatusBoard {
        self.board.clone()
    }

    /// The terms that hold now.
    pub fn terms(&self) -> Arc<Terms<A>> {
        Arc::clone(&self.state.current().terms)
    }
}

impl<A: Clone> Handle<A> {
    /// Whether [`Handle::update`] would take the change; changes nothing.
    ///
    /// # Errors
    /// As for [`Handle::update`].
    pub fn check(&self, change: impl FnOnce(&mut Terms<A>)) -> Result<(), UpdateError> {
        self.state.check(change)
    }

    /// Changes the terms, all at once: `change` is applied to a copy of those that hold, which is then put in force.
    /// Updates wait for each other, so none is lost; `change` must not call this itself. Returns before the tunnels have
    /// followed, see [`Handle::status`].
    ///
    /// Only what changed is touched. Who is no longer to be dialled, or less often, has tunnels drained. Another certificate or
    /// token is shown on live tunnels, which stay (spec: CT-57). Other trust is asked about the responder of each live
    /// tunnel, which stays if it is trusted still (spec: SE-43). Other limits of message heads are told on live tunnels, and hold
    /// there from then on: a lower one once the idle timeout is over (spec: CT-31, CT-33).
    ///
    /// Where that is not possible (the responder does not take it, refuses or does not answer, a credential is taken away, a
    /// tunnel to an Envoy, a responder that is not trusted any more), and after a change of server name or transport, a
    /// tunnel stays until one that is dialled anew has come up beside it, and is then drained; it is drained first where the
    /// responder refuses a second tunnel beside it (quota, or another key of the same node), and within seconds where it
    /// is not trusted. It is not dialled again, and an attempt that had begun before the change never takes its place.
    ///
    /// # Errors
    /// [`UpdateError`] if the credentials or what is trusted cannot be used: nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut Terms<A>)) -> Result<(), UpdateError> {
        self.state.update(change)?;
        info!("the terms of the initiator changed");
        Ok(())
    }
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), board: self.board.clone() }
    }
}
