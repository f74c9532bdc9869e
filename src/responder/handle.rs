//! What stays of a responder while it runs, to look at it and to change it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::fleet::{Siblings, View};
use crate::protocol::code::{CloseCode, RefusalCode};
use crate::registry::LiveTunnel;
use crate::responder::admit;
use crate::responder::leave::{self, Leaving};
use crate::responder::listeners::{Listen, ListenError, Made};
use crate::responder::shared::Shared;
use crate::responder::terms::{Terms, UpdateError};
use crate::routing::Directory;
use crate::transport::tcp::envoy::{AcceptSettings, StillTaken};
use crate::transport::{Tunnel, quic};

/// When nobody has connected for so long, nobody waits to be accepted.
const QUIET: Duration = Duration::from_millis(50);

/// For how long who waits at a listener that was left is taken, at most.
const LEAVING: Duration = Duration::from_secs(1);

/// How long who is refused by a responder that was closed should stay away.
const AWAY: Duration = Duration::from_secs(5);

/// Listeners that are bound, and from which nobody accepts before [`Handle::listen`].
#[derive(Debug)]
#[must_use = "nobody accepts there before it is handed back"]
pub struct Bound {
    quic: Listen,
    tcp: Listen,
    made: Made,
}

impl Bound {
    /// Where it will listen for tunnels over QUIC, if that changes.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.made.quic.as_ref().and_then(|quic| quic.endpoint.local_addr().ok())
    }

    /// Where it will listen for tunnels over TCP, if that changes.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.made.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

/// Changes a responder while it runs. Cheap to clone; of no effect once the responder is gone.
#[derive(Debug, Clone)]
pub struct Handle(pub(super) Arc<Shared>);

impl Handle {
    /// The tunnels that it admitted.
    pub fn directory(&self) -> Arc<Directory<Tunnel>> {
        Arc::clone(self.0.admission.directory())
    }

    /// It is one of a fleet from now on, or not any more: names that do not fit to what its siblings have are refused, and
    /// initiators are told of the siblings. Who is connected stays.
    pub fn join(&self, fleet: Option<Arc<View>>) {
        self.0.admission.join(fleet.clone());
        self.0.rosters.join(fleet);
    }

    /// Leaves the fleet in which these are the others, before the responder drains: refuses whoever dials from now on, asks its
    /// initiators for tunnels elsewhere, one after the other, and drains each tunnel when its node is there. Returns when that
    /// is done, or `leaving.within` is over; at once where no sibling could take a node. spec: FL-22, FL-23
    ///
    /// # Cancel safety
    /// Cancel safe: nobody else is told, and those who were go on until the responder drains.
    pub async fn leave(&self, siblings: Arc<dyn Siblings>, leaving: Leaving) {
        leave::leave(&self.0, siblings, leaving).await;
    }

    /// The terms that hold now.
    pub fn terms(&self) -> Arc<Terms> {
        self.0.admission.terms()
    }

    /// Changes the terms, all at once: `change` is applied to a copy of those that hold, which is then put in force.
    /// Updates wait for each other, so none is lost; `change` must not call this itself.
    ///
    /// Every live tunnel, those that drain included, is decided about again; those that the new rules do not admit are
    /// closed with `revoked`, and so is a handshake that they refuse, however far it came. The same holds for tunnels of Envoys
    /// under other settings for those ([`Terms::envoy`]). Returns how many tunnels were closed. Quotas are not asked again: they bound who comes, not who is there.
    ///
    /// Where other initiators are trusted (roots, revocation lists, pins), the chain that each live tunnel showed is verified
    /// again, soon after this returns: one that is not accepted any more is drained, however its initiator is heard, and ends
    /// with the drain's deadline at the latest. All others are untouched. Another certificate of the responder is shown in
    /// the next handshake; no live tunnel sees it. spec: SE-42
    ///
    /// Other limits of message heads are told on live tunnels, and hold there from then on: a lower one once the idle timeout is
    /// over (spec: CT-31, CT-33).
    ///
    /// # Errors
    /// [`UpdateError`] if the credentials or what is trusted cannot be used: nothing has changed then.
    pub fn update(&self, change: impl FnOnce(&mut Terms)) -> Result<usize, UpdateError> {
        let shared = &self.0;
        let swap = shared.admission.swap();
        let terms = swap.changed(change)?;
        shared.listeners.reconfigure(&terms)?;
        let envoy = terms.takes_other_envoys().then(|| terms.envoy.clone());
        let drain_timeout = terms.tunnel.drain_timeout;
        let mut revoked = swap.put(terms);
        if let Some(envoy) = envoy {
            revoked.extend(self.envoys_let_go(envoy.as_ref(), drain_timeout));
        }
        for live in &revoked {
            shared.metrics.refused(RefusalCode::Forbidden);
            live.handle.close(CloseCode::Revoked, "the rules changed and no longer admit this tunnel");
        }
        info!(revoked = revoked.len(), "the terms of the responder changed");
        Ok(revoked.len())
    }

    /// Decides again about the tunnels of Envoys: returns those that would not be accepted any more, and drains those inside
    /// which another certificate is expected by now.
    fn envoys_let_go(&self, settings: Option<&AcceptSettings>, drain_timeout: Duration) -> Vec<LiveTunnel<Tunnel>> {
        let mut revoked = Vec::new();
        for live in self.0.admission.directory().registry().snapshot() {
            match live.handle.still_taken(settings) {
                StillTaken::Yes => {}
                StillTaken::Untrusted => {
                    self.0.metrics.refused(RefusalCode::Forbidden);
                    warn!(tunnel = %live.id, "another certificate is expected inside this tunnel by now: draining it");
                    live.handle.retire(drain_timeout);
                }
                StillTaken::No => revoked.push(live),
            }
        }
        revoked
    }

    /// Admits nobody from now on: who dials is refused, and told so. Tunnels that are up stay as they are until the responder
    /// drains.
    pub fn close(&self) {
        drop(self.0.admission.close("the responder takes no tunnels any more", AWAY));
    }

    /// Whether [`Handle::update`] would take the change; changes nothing.
    ///
    /// # Errors
    /// As for [`Handle::update`].
    pub fn check(&self, change: impl FnOnce(&mut Terms)) -> Result<(), UpdateError> {
        let terms = self.0.admission.swap().changed(change)?;
        let config = terms.configured()?.adit;
        quic::Listener::server_config(config, &terms.tunnel, &terms.quic)?;
        Ok(())
    }

    /// Where it listens for tunnels over QUIC, if it does.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.0.listeners.quic_addr()
    }

    /// Where it listens for tunnels over TCP, if it does.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.0.listeners.tcp_addr()
    }

    /// Binds other addresses to listen at, and changes nothing yet: [`Handle::listen`] does. Two free ports on one address
    /// are the same number. An address over QUIC that was left, and whose tunnels live on, is taken back. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ListenError`]: an address cannot be bound.
    pub fn bind(&self, quic: Listen, tcp: Listen) -> Result<Bound, ListenError> {
        let made = self.0.listeners.bind(quic.address(), tcp.address(), &self.terms())?;
        Ok(Bound { quic, tcp, made })
    }

    /// Listens elsewhere from now on, under the terms that hold. Tunnels that are up stay, those over QUIC on their socket;
    /// handshakes that have begun go on; nobody is accepted any more where it listened before. Needs a tokio runtime.
    ///
    /// Who connected to the former socket and was not accepted yet, is, for a second at most: his connection would be reset.
    pub fn listen(&self, bound: Bound) {
        let Bound { quic, tcp, made } = bound;
        let (shared, swap) = (&self.0, self.0.admission.swap());
        // They were made under earlier terms, perhaps. What follows from those that hold was made once already.
        if let Err(error) = made.reconfigure(&self.terms()) {
            error!(%error, "the terms that hold cannot be put in force at another address");
        }
        let left = shared.listeners.exchange(quic, tcp, made);
        drop(swap);
        let leaving = take_and_keep(Arc::clone(shared), left);
        shared.tasks.spawn(leaving);
    }
}

/// Takes those who wait at listeners that were left, and keeps the endpoint until its last tunnel has ended.
async fn take_and_keep(shared: Arc<Shared>, left: Made) {
    let taking = async {
        while let Ok(Some(incoming)) = timeout(QUIET, left.accept()).await {
            shared.tasks.spawn(admit::admit(Arc::clone(&shared), incoming));
        }
    };
    // Others may connect without end.
    let _ = timeout(LEAVING, taking).await;
    let Made { quic, tcp } = left;
    drop(tcp);
    let Some(quic) = quic else { return };
    {
        // Nobody takes it back meanwhile.
        let _swap = shared.admission.swap();
        if !shared.listeners.listens_with(&quic) {
            quic.endpoint.set_server_config(None);
        }
    }
    drop(shared);
    quic.endpoint.wait_idle().await;
}
