//! Who is let in under which terms, and what becomes of those inside when the terms change.
//!
//! Generic over what a tunnel is, and without sockets, so that every race is played through in a test. Two rules hold:
//!
//! * whoever is registered was admitted under the terms that hold now, or is among those that a swap returns to be ended;
//! * once a drain has begun, whoever is registered is in every snapshot that is taken afterwards.
//!
//! Both follow from the registry's lock: a swap stores the new terms, then tells the registry their generation, then looks
//! at what is registered. Who comes later is refused by the registry and asks policy again, under the new terms.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::fleet::View;
use crate::fleet::view::{Certified, Taken};
use crate::id::{PeerIdentity, Place, TunnelId};
use crate::policy::{Admitted, Rules, authorize};
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::{Refusal, Token};
use crate::protocol::limits::Limits;
use crate::registry::{Conflict, Handle, InsertError, Inserted, LiveTunnel};
use crate::responder::terms::Terms;
use crate::routing::Directory;
use crate::tls::{InitiatorJudge, TlsError};

/// How long who was refused by a draining responder should stay away, or as long as its tunnels were asked to.
const DRAINING_RETRY_AFTER: Duration = Duration::from_millis(250);

/// How long who has another key than a live node elsewhere should stay away: about as long as a dead one is known there.
const FLEET_RETRY_AFTER: Duration = Duration::from_secs(5);

/// One returns in so much time: a responder does about twice as many handshakes with two cores.
const RECONNECT_PACE: Duration = Duration::from_micros(500);
/// However many there are.
const MAX_RECONNECT_SPREAD: Duration = Duration::from_secs(4);

/// The terms of a responder, and who was admitted under them.
#[derive(Debug)]
pub(super) struct Admission<H> {
    directory: Arc<Directory<H>>,
    terms: ArcSwap<Terms>,
    /// Tells who is inside when other initiators are trusted. spec: SE-42
    trust: watch::Sender<u64>,
    /// Tells who is inside what is taken of message heads. spec: CT-31
    limits: watch::Sender<Limits>,
    /// Held by whoever swaps, from reading the old terms to the end of those who no longer fit.
    swapping: Mutex<()>,
    /// While it drains: how long who is refused should stay away.
    draining: OnceLock<Duration>,
    /// Why nobody is admitted any more before that, and the same.
    closed: OnceLock<(&'static str, Duration)>,
    /// What the other responders of its fleet have, if it is in one.
    fleet: ArcSwapOption<View>,
}

/// A connection that came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    /// The generation of the terms under which it was accepted.
    pub(super) generation: u64,
    /// Whether an Envoy is at its other end.
    pub(super) is_envoy: bool,
}

/// A credential that a live tunnel shows; the key of the chain is proven.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Its owner's certificate first.
    pub(super) chain: Option<Vec<CertificateDer<'static>>>,
    pub(super) token: Option<Token>,
}

/// The right to swap the terms, one at a time.
pub(super) struct Swap<'a, H> {
    admission: &'a Admission<H>,
    _lock: MutexGuard<'a, ()>,
}

/// Why a tunnel was not registered.
#[derive(Debug)]
pub(super) struct NotEntered<H> {
    pub(super) refusal: Refusal,
    /// Those whose place it had taken before it was refused.
    pub(super) superseded: Vec<H>,
}

impl<H> From<Refusal> for NotEntered<H> {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, superseded: Vec::new() }
    }
}

impl<H: Handle> Admission<H> {
    pub(super) fn new(directory: Arc<Directory<H>>, terms: Terms) -> Self {
        directory.shares().update(terms.shares.clone());
        let limits = watch::Sender::new(terms.tunnel.limits);
        Self {
            directory,
            terms: ArcSwap::from_pointee(terms),
            trust: watch::Sender::new(0),
            limits,
            swapping: Mutex::default(),
            draining: OnceLock::new(),
            closed: OnceLock::new(),
            fleet: ArcSwapOption::empty(),
        }
    }

    pub(super) fn directory(&self) -> &Arc<Directory<H>> {
        &self.directory
    }

    /// The terms as they are now.
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// Tells from now on when other initiators are trusted. Who asks before its handshake misses no change: one that comes
    /// before it is registered refuses it, and one that comes later is told here.
    pub(super) fn trust(&self) -> watch::Receiver<u64> {
        self.trust.subscribe()
    }

    /// What is taken of message heads, now and from now on.
    pub(super) fn limits(&self) -> watch::Receiver<Limits> {
        self.limits.subscribe()
    }

    /// Decides about a claim that was heard over a connection of this generation.
    pub(super) fn authorize(
        &self,
        place: Place,
        identity: &PeerIdentity,
        token: Option<&[u8]>,
        connection: Came,
    ) -> Result<Admitted, Refusal> {
        let terms = self.terms.load();
        self.check(&terms, connection)?;
        authorize(place, identity, token, &terms.rules)
    }

    /// Registers an admitted tunnel. If the terms changed since, it is decided about anew. Whoever is superseded is no
    /// longer registered, also where the newcomer is refused in the end.
    pub(super) fn enter(
        &self,
        mut admitted: Admitted,
        connection: Came,
        id: TunnelId,
        handle: H,
    ) -> Result<Inserted<H>, NotEntered<H>> {
        let (place, proof) = (admitted.place().clone(), Arc::clone(admitted.proof()));
        self.check_fleet(&admitted)?;
        let inserted = loop {
            match self.directory.insert(admitted, id, handle.clone()) {
                Ok(inserted) => break inserted,
                Err(InsertError::Outdated) => {
                    let terms = self.terms.load();
                    self.check(&terms, connection)?;
                    admitted = proof.authorize(place.clone(), &terms.rules)?;
                }
                Err(error) => {
                    if error == InsertError::Conflict(Conflict::OlderKey) {
                        self.directory.registry().doubt(&place.claim);
                    }
                    return Err(error.refusal().into());
                }
            }
        };
        // Who came before the drain began is drained with the others; who came after is told here.
        if let Err(refusal) = self.check_drain() {
            self.directory.registry().remove(id, Instant::now());
            return Err(NotEntered { refusal, superseded: inserted.superseded });
        }
        Ok(inserted)
    }

    /// A registered tunnel shows another credential. If it is admitted with that, it counts from now on in the place of the
    /// former one, under the terms in the answer; else nothing has changed. One that is gone already needs none. spec: CT-55
    pub(super) fn renew(&self, id: TunnelId, shown: &Shown) -> Result<Arc<Terms>, Refusal> {
        let registry = self.directory.registry();
        loop {
            let terms = self.terms();
            let Some((place, proof)) = registry.proof(id) else { return Ok(terms) };
            let identity = shown.chain.as_deref().map(|chain| terms.identify(chain)).transpose()?;
            let admitted = proof.authorize_with((identity.as_ref(), shown.token.as_ref()), place, &terms.rules)?;
            // If the terms changed meanwhile, it is judged by those that hold now.
            if registry.renew(&admitted, id).is_ok() {
                return Ok(terms);
            }
        }
    }

    fn check(&self, terms: &Terms, connection: Came) -> Result<(), Refusal> {
        self.check_drain()?;
        if connection.generation < terms.tls_since {
            return Err(unavailable("the responder's TLS settings changed during this handshake", None));
        }
        if connection.is_envoy && connection.generation < terms.envoy_since {
            return Err(unavailable("what the responder asks of an Envoy changed during this handshake", None));
        }
        Ok(())
    }

    /// From now on refuses what does not fit to what the siblings have; nothing of that without a view.
    pub(super) fn join(&self, fleet: Option<Arc<View>>) {
        self.fleet.store(fleet);
    }

    /// spec: FL-16
    fn check_fleet(&self, admitted: &Admitted) -> Result<(), Refusal> {
        let (place, issued) = (admitted.place(), admitted.proof().issued().map(Certified::from));
        let taken = self.fleet.load().as_ref().and_then(|view| view.taken(place, admitted.key(), issued));
        let Some(taken) = taken else { return Ok(()) };
        let reason = taken.to_string();
        if taken == Taken::OlderKey {
            // What it has here owes a sign of life, too; elsewhere it is asked by whoever has it.
            self.directory.registry().doubt(&place.claim);
            return Err(Refusal { reason, ..InsertError::from(Conflict::OlderKey).refusal() });
        }
        Err(Refusal { code: RefusalCode::Conflict, reason, retry_after: Some(FLEET_RETRY_AFTER) })
    }

    fn check_drain(&self) -> Result<(), Refusal> {
        match (self.draining.get(), self.closed.get()) {
            (Some(spread), _) => Err(unavailable("the responder is draining", Some(DRAINING_RETRY_AFTER.max(*spread)))),
            (None, Some((why, away))) => Err(unavailable(why, Some(*away))),
            (None, None) => Ok(()),
        }
    }

    /// Admits nobody from now on; who is refused should stay away for so long. Every tunnel there is, and every one that there
    /// will be, is in the answer. spec: FL-22
    pub(super) fn leave(&self, away: Duration) -> Vec<LiveTunnel<H>> {
        self.close("the responder is leaving its fleet", away)
    }

    /// The same, for another reason.
    pub(super) fn close(&self, why: &'static str, away: Duration) -> Vec<LiveTunnel<H>> {
        let _ = self.closed.set((why, away));
        self.all()
    }

    /// Every tunnel that there will be when nobody is admitted any more.
    fn all(&self) -> Vec<LiveTunnel<H>> {
        // Takes the registry's lock: who registers later sees that.
        self.directory.registry().require_generation(0);
        self.directory.registry().snapshot().collect()
    }

    /// Admits nobody from now on, and lets no request wait for anybody. Every tunnel there is, and every one that there will
    /// be, is in the answer.
    pub(super) fn drain(&self) -> Vec<LiveTunnel<H>> {
        let _ = self.draining.set(reconnect_spread(self.directory.registry().len()));
        self.directory.close();
        self.all()
    }

    /// Begins a swap; waits for another one to be done.
    pub(super) fn swap(&self) -> Swap<'_, H> {
        Swap { admission: self, _lock: self.swapping.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl<H: Handle> Swap<'_, H> {
    /// The terms that hold, changed, under the next generation.
    ///
    /// # Errors
    /// [`TlsError`] if what is trusted cannot be used.
    pub(super) fn changed(&self, change: impl FnOnce(&mut Terms)) -> Result<Terms, TlsError> {
        let before = self.admission.terms.load();
        let generation = before.rules.generation() + 1;
        let mut terms = Terms::clone(&before);
        change(&mut terms);
        terms.rules = terms.rules.with_generation(generation);
        terms.tls_since = if Arc::ptr_eq(&before.tls, &terms.tls) { before.tls_since } else { generation };
        let takes_the_same = match (&before.envoy, &terms.envoy) {
            (Some(before), Some(now)) => now.takes_the_same(before),
            (before, now) => before.is_none() && now.is_none(),
        };
        terms.envoy_since = if takes_the_same { before.envoy_since } else { generation };
        if before.tls.initiators != terms.tls.initiators {
            terms.judge = InitiatorJudge::new(&terms.tls.initiators)?;
            terms.trust_since = generation;
        }
        Ok(terms)
    }

    /// Puts other terms in force and returns the live tunnels that they do not admit, to be ended by the caller.
    pub(super) fn put(self, terms: Terms) -> Vec<LiveTunnel<H>> {
        let Admission { directory, terms: current, trust, limits, .. } = self.admission;
        let (generation, terms) = (terms.rules.generation(), Arc::new(terms));
        current.store(Arc::clone(&terms));
        directory.shares().update(terms.shares.clone());
        directory.registry().require_generation(generation);
        if terms.trust_since == generation {
            trust.send_replace(generation);
        }
        limits.send_if_modified(|limits| std::mem::replace(limits, terms.tunnel.limits) != terms.tunnel.limits);
        let admits = |live: &LiveTunnel<H>, rules: &Rules| live.proof.authorize(live.place.clone(), rules).is_ok();
        directory.registry().snapshot().filter(|live| !admits(live, &terms.rules)).collect()
    }
}

/// Over how long the initiators of this many tunnels are asked to spread their return. One that is alone need not wait.
pub(super) fn reconnect_spread(tunnels: usize) -> Duration {
    let tunnels = u32::try_from(tunnels.saturating_sub(1)).unwrap_or(u32::MAX);
    RECONNECT_PACE.saturating_mul(tunnels).min(MAX_RECONNECT_SPREAD)
}

fn unavailable(reason: &str, retry_after: Option<Duration>) -> Refusal {
    Refusal { code: RefusalCode::Unavailable, reason: reason.to_owned(), retry_after }
}

#[cfg(test)]
mod tests;
