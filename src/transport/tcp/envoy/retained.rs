//! Sockets of tunnels that were given up, kept open until the next handshake is over. spec: EV-47

use std::sync::{Arc, Mutex, PoisonError};

use socket2::{SockRef, Socket};

use crate::transport::tcp::raw::Raw;

/// Those of one destination. At most one per tunnel, since a tunnel begins with a handshake.
#[derive(Debug, Clone, Default)]
pub(super) struct RetainedSockets(Arc<Mutex<Vec<Socket>>>);

/// A second hold on a connection: while it lives, dropping the first one tells the other end nothing.
#[derive(Debug)]
pub(super) struct Hold(Option<Socket>);

impl Hold {
    /// Of a connection whose first hold goes elsewhere. Without file descriptors left it holds nothing.
    pub(super) fn on(raw: &Raw) -> Self {
        Self(SockRef::from(raw.stream()).try_clone().ok())
    }
}

impl RetainedSockets {
    pub(super) fn keep(&self, hold: Hold) {
        self.lock().extend(hold.0);
    }

    /// Closes them.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
