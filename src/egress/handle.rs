//! What stays of an egress while it runs, to look at it and to change it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::egress::entrances::{Entrances, Leaving};
use crate::egress::gateway::Gateway;
use crate::egress::listener::Listener;
use crate::egress::terms::{Current, Terms};
use crate::net;
use crate::proxy::{AccessLog, Recorder};
use crate::routing::Directory;
use crate::telemetry::{Metrics, Side};
use crate::tls::TlsError;
use crate::transport::Tunnel;

/// Changes an egress while it runs. Cheap to clone; of no effect once the egress is gone.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// What an egress and its handles share.
pub(super) struct Shared {
    pub(super) directory: Arc<Directory<Tunnel>>,
    pub(super) current: Arc<Current>,
    pub(super) name: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) entrances: Entrances<Gateway<Tunnel>>,
}

/// Why an egress listener could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The credentials or roots.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] net::BindError),
    /// A bound socket that does not tell its address.
    #[error("a listener does not know its address")]
    Address(#[source] io::Error),
    /// A listener for an egress that takes no more.
    #[error("the egress drains or is gone")]
    Over,
}

impl Handle {
    /// The terms that hold now.
    pub fn terms(&self) -> Terms {
        self.0.current.terms()
    }

    /// Changes the terms, all at once: `change` is applied to a copy of those that hold, which is then put in force.
    /// Updates wait for each other, so none is lost; `change` must not call this itself.
    ///
    /// A request is routed and logged as the terms say when it was read, and a connection keeps the TLS and the limits that
    /// held when it came, so nothing that runs is disturbed.
    ///
    /// # Errors
    /// The credentials or what is trusted cannot be used: nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut Terms)) -> Result<(), TlsError> {
        self.0.current.update(change)?;
        tracing::info!("the terms of an egress changed");
        Ok(())
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.entrances.addresses()
    }

    /// Binds one more TCP address, under the same terms; port 0 takes a free one. Returns the address with its real port.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`]: the address cannot be bound, or the egress drains or is gone.
    pub fn add(&self, address: SocketAddr) -> Result<SocketAddr, BuildError> {
        let listener = Listener::current(net::bind_tcp(address)?, Arc::clone(&self.0.current), &self.0.metrics);
        let address = listener.local_addr().map_err(BuildError::Address)?;
        let name = self.0.name.clone().unwrap_or_else(|| address.to_string());
        // The terms say what is logged.
        let recorder = Recorder::new(&self.0.metrics, Side::Egress, Some(name), AccessLog::Off);
        let gateway = Gateway::new(Arc::clone(&self.0.directory), Arc::clone(&self.0.current), recorder);
        self.0.entrances.add(address, listener, gateway).map_err(|_| BuildError::Over)?;
        Ok(address)
    }

    /// Takes a listener away: one of [`Handle::addresses`]; `None` if it is none of them. Returns once its socket is closed,
    /// so that the address can be bound again. Its connections finish what they carry, say so to their clients (GOAWAY,
    /// `Connection: close`), and are cut after `limit`; [`Leaving::ended`] waits for that.
    ///
    /// # Cancel safety
    /// Cancel safe: once polled, the listener leaves all the same.
    pub async fn remove(&self, address: SocketAddr, limit: Duration) -> Option<Leaving> {
        self.0.entrances.remove(address, limit).await
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
