//! What stays of a responder while it runs, to look at it and to change it.

use std::sync::Arc;

use tracing::info;

use crate::protocol::code::{CloseCode, RefusalCode};
use crate::responder::shared::Shared;
use crate::responder::terms::{Terms, UpdateError};
use crate::routing::Directory;
use crate::transport::Tunnel;

/// Changes a responder while it runs. Cheap to clone; of no effect once the responder is gone.
#[derive(Debug, Clone)]
pub struct Handle(pub(super) Arc<Shared>);

impl Handle {
    /// The tunnels that it admitted.
    pub fn directory(&self) -> Arc<Directory<Tunnel>> {
        Arc::clone(self.0.admission.directory())
    }

    /// The terms that hold now.
    pub fn terms(&self) -> Arc<Terms> {
        self.0.admission.terms()
    }

    /// Changes the terms, all at once: `change` is applied to a copy of those that hold, which is then put in force.
    /// Updates wait for each other, so none is lost; `change` must not call this itself.
    ///
    /// Every live tunnel, those that drain included, is decided about again; those that the new rules do not admit are
    /// closed with `revoked`, and so is a handshake that they refuse, however far it came. Returns how many tunnels were
    /// closed. Quotas are not asked again: they bound who comes, not who is there. Neither is TLS: to end the tunnel of a
    /// key that is no longer trusted, change the rules.
    ///
    /// # Errors
    /// [`UpdateError`] if the credentials or what is trusted cannot be used: nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut Terms)) -> Result<usize, UpdateError> {
        let shared = &self.0;
        let swap = shared.admission.swap();
        let terms = swap.changed(change);
        shared.listeners.reconfigure(&terms)?;
        let revoked = swap.put(terms);
        for live in &revoked {
            shared.metrics.refused(RefusalCode::Forbidden);
            live.handle.close(CloseCode::Revoked, "the rules changed and no longer admit this tunnel");
        }
        info!(revoked = revoked.len(), "the terms of the responder changed");
        Ok(revoked.len())
    }
}
