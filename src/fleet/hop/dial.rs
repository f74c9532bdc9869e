//! One dial of a sibling: every address that the directory tells, until one answers as who is meant. spec: FL-32, FL-37

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fleet::Sibling;
use crate::fleet::hop::SiblingIdentity;
use crate::fleet::hop::terms::{Standing, Terms};
use crate::id::{HostPort, ResponderId};
use crate::protocol::code::CloseCode;
use crate::protocol::fleet::Greeting;
use crate::tls::peer_identity;
use crate::transport::{Asking, DialError, Tunnel};

/// How long all addresses of a sibling may take together, their names included.
const DIAL: Duration = Duration::from_secs(15);
/// How long one name may take of that.
const RESOLVE: Duration = Duration::from_secs(3);
/// How long an address may be silent before the next one is dialled beside it.
const STAGGER: Duration = Duration::from_millis(500);
/// The most addresses of one sibling that are dialled.
const MAX_ADDRESSES: usize = 32;

/// What a dial needs beside whom it is for.
#[derive(Debug, Clone)]
pub(super) struct Dialling {
    pub(super) terms: watch::Receiver<Arc<Terms>>,
    pub(super) own: Greeting,
    pub(super) identity: SiblingIdentity,
}

/// Why a sibling cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum SiblingError {
    #[error("the directory tells no address of it")]
    NoAddress,
    #[error("none of its addresses answered within {DIAL:?}")]
    Late,
    #[error("{0}: {1}")]
    Name(String, std::io::Error),
    #[error("{0}: {1}")]
    Dial(SocketAddr, DialError),
    #[error("{0}: its certificate does not have the name {1:?}, which only that responder's has")]
    Identity(SocketAddr, String),
    #[error("{address}: it greets as {found}, and {wanted} is meant")]
    Other { address: SocketAddr, found: ResponderId, wanted: ResponderId },
}

/// A sibling that can be asked.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) tunnel: Tunnel,
    pub(super) asking: Asking,
    pub(super) standing: Standing,
}

impl Dialling {
    /// Dials until one address answers; else says what the last one said, or that it took too long. Each has a moment to answer
    /// before the next one is dialled beside it: one that is silent costs no more. Cancel safe.
    pub(super) async fn dial(&self, sibling: &Arc<Sibling>) -> Result<Dialled, SiblingError> {
        timeout(DIAL, self.dial_each(sibling)).await.unwrap_or(Err(SiblingError::Late))
    }

    async fn dial_each(&self, sibling: &Arc<Sibling>) -> Result<Dialled, SiblingError> {
        let (mut last, mut dials) = (SiblingError::NoAddress, JoinSet::new());
        let mut addresses = VecDeque::new();
        for at in &sibling.siblings_at {
            match resolve(at).await {
                Ok(found) => addresses.extend(found.into_iter().map(|address| (address, at.host.clone()))),
                Err(error) => last = SiblingError::Name(at.to_string(), error),
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        loop {
            let is_last = addresses.len() <= 1;
            if let Some((address, host)) = addresses.pop_front() {
                let (dialling, sibling) = (self.clone(), Arc::clone(sibling));
                dials.spawn(async move { dialling.dial_one((address, &host), &sibling).await });
            }
            let ended = async {
                match is_last {
                    true => dials.join_next().await,
                    false => timeout(STAGGER, dials.join_next()).await.unwrap_or(None),
                }
            };
            match ended.await {
                Some(Ok(Ok(dialled))) => return Ok(dialled),
                Some(Ok(Err(error))) => last = error,
                // One that has panicked has said nothing; or the next one is dialled beside those that are silent.
                Some(Err(_)) => {}
                None if is_last => return Err(last),
                None => {}
            }
        }
    }

    async fn dial_one(&self, (address, host): (SocketAddr, &str), sibling: &Sibling) -> Result<Dialled, SiblingError> {
        let mut terms = self.terms.clone();
        let dialer = terms.borrow_and_update().dialer.clone();
        let dialled = dialer.dial((address, host), &self.own).await;
        let (tunnel, greeting, asking) = dialled.map_err(|error| SiblingError::Dial(address, error))?;
        match self.check(address, sibling, &tunnel, greeting) {
            Ok(()) => {
                let standing = Standing::new(tunnel.peer_certificates(), false, terms);
                Ok(Dialled { tunnel, asking, standing })
            }
            Err(error) => {
                // The driver ends with the only handle, and says that the rules do not let it be asked.
                tunnel.close(CloseCode::Revoked, "it is not the sibling that is meant");
                drop(tunnel);
                asking.run().await;
                Err(error)
            }
        }
    }

    fn check(
        &self,
        address: SocketAddr,
        sibling: &Sibling,
        tunnel: &Tunnel,
        greeting: Greeting,
    ) -> Result<(), SiblingError> {
        let shown = peer_identity(&tunnel.peer_certificates()).unwrap_or_default();
        if !self.identity.proves(&shown, &sibling.id) {
            let name = self.identity.name(&sibling.id).unwrap_or_default();
            return Err(SiblingError::Identity(address, name));
        }
        if greeting.responder != sibling.id {
            return Err(SiblingError::Other { address, found: greeting.responder, wanted: sibling.id.clone() });
        }
        Ok(())
    }
}

async fn resolve(at: &HostPort) -> std::io::Result<Vec<SocketAddr>> {
    let found = timeout(RESOLVE, lookup_host((at.host.as_str(), at.port))).await;
    Ok(found.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??.collect())
}
