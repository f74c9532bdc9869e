//! What the end of one tunnel says about those beside it: a responder that does not know one of them has been started anew,
//! and knows none. spec: CT-50

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::{self, error::RecvError};

/// How long one word about an address is enough: many tunnels say the same, and all of them hear it.
const QUIET: Duration = Duration::from_millis(500);
/// Words that a tunnel may be behind; one that lost some looks up all the same.
const BACKLOG: usize = 4;

/// The tunnels of one dialer. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Siblings(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    words: broadcast::Sender<SocketAddr>,
    said: Mutex<HashMap<SocketAddr, Instant>>,
}

/// One tunnel's ear.
#[derive(Debug)]
pub(super) struct Sibling {
    words: broadcast::Receiver<SocketAddr>,
    address: SocketAddr,
}

impl Siblings {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { words: broadcast::Sender::new(BACKLOG), said: Mutex::default() }))
    }

    /// The tunnels to `address` should find out whether they are still there. `true` if they were told.
    pub(super) fn doubt(&self, address: SocketAddr, now: Instant) -> bool {
        // Plain times: nothing that a panic elsewhere could leave half-changed.
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        let is_new = said.insert(address, now).is_none();
        if !is_new {
            return false;
        }
        // Nobody may listen.
        let _ = self.0.words.send(address);
        true
    }

    /// Listens from now on.
    pub(super) fn join(&self, address: SocketAddr) -> Sibling {
        Sibling { words: self.0.words.subscribe(), address }
    }
}

impl Sibling {
    /// Resolves when this tunnel should find out whether it is still there. Cancel safe.
    pub(super) async fn doubted(&mut self) {
        loop {
            match self.words.recv().await {
                Ok(address) if address == self.address => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-50
    #[tokio::test]
    async fn a_thousand_tunnels_that_are_reset_ask_their_siblings_once() {
        let (siblings, start) = (Siblings::new(), Instant::now());
        let (here, there) = ("192.0.2.1:7843".parse().unwrap(), "192.0.2.2:7843".parse().unwrap());
        let (mut sibling, mut other) = (siblings.join(here), siblings.join(there));
        assert!(siblings.doubt(here, start));
        assert!((1..1000).all(|micros| !siblings.doubt(here, start + Duration::from_micros(micros))));
        sibling.doubted().await;
        assert!(sibling.words.is_empty(), "one word");
        let late = tokio::time::timeout(Duration::from_millis(1), other.doubted()).await;
        assert!(late.is_err(), "another responder is not meant");
        assert!(siblings.doubt(here, start + 2 * QUIET), "that was long ago");
    }
}
