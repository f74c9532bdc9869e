//! The terms that hold, made ready to dial by, and how they are swapped.
//!
//! A swap reaches the slots through [`State::changes`]. Between the two a slot may hear that an attempt under the former
//! terms has come up; so it asks [`Snapshot::keeps`] about every report, not only when it is woken.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::id::{Claim, InstanceId};
use crate::initiator::settings::Destination;
use crate::initiator::terms::{Terms, UpdateError};
use crate::protocol::ALPN;
use crate::tls::{self, InitiatorTls, ResponderJudge, TlsError};
use crate::transport::quic;
use crate::transport::tcp::{self, envoy};
use crate::transport::{Accept, Arrival, Dialer, StreamRefusal, TransportChoice, TunnelFacts};

/// What stays as it was at the start.
#[derive(Debug)]
pub(super) struct Fixed {
    /// Who it claims to be.
    pub(super) claim: Claim,
    /// Which run of the program it is.
    pub(super) instance: InstanceId,
    /// What dials over QUIC.
    pub(super) endpoint: quinn::Endpoint,
}

/// Which destination it is, among those of all terms: the target, and how many of the same target come before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) target: Arc<str>,
    nth: usize,
}

/// A destination and what dials it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) key: Key,
    pub(super) destination: Destination,
    pub(super) dialer: Dialer,
    /// The generation of the first terms since which its tunnels are dialled to the same name, over the same transport. A
    /// tunnel of an earlier one is to be replaced.
    pub(super) since: u64,
    /// What `dialer` shows, and whom it trusts.
    pub(super) tls: Arc<InitiatorTls>,
    pub(super) standing: Standing,
}

/// Since when what concerns tunnels that are up is as it is, by the generation of the first such terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The same certificate and token are shown.
    pub(super) shows: u64,
    /// The same responders are trusted.
    pub(super) trusts: u64,
}

/// Terms in force.
#[derive(Debug)]
pub(super) struct Snapshot<A> {
    pub(super) terms: Arc<Terms<A>>,
    pub(super) destinations: Vec<Arc<Prepared>>,
    /// What judges the responders of tunnels that are up.
    pub(super) judge: ResponderJudge,
    pub(super) standing: Standing,
    /// What dials all but Envoys.
    dialer: Dialer,
    generation: u64,
}

/// The terms of an initiator, and who is told when they change.
#[derive(Debug)]
pub(super) struct State<A> {
    pub(super) fixed: Fixed,
    current: ArcSwap<Snapshot<A>>,
    changes: watch::Sender<u64>,
    /// Held by whoever swaps.
    swapping: Mutex<()>,
}

/// Serves what arrives with what serves at that time.
#[derive(Debug)]
pub(super) struct Serving<A>(pub(super) Arc<State<A>>);

impl<A> Snapshot<A> {
    /// The first terms.
    fn first(terms: Terms<A>, fixed: &Fixed) -> Result<Self, UpdateError> {
        let dialer = base(&terms, fixed)?;
        let judge = ResponderJudge::new(&terms.tls.responder)?;
        let standing = Standing { shows: 0, trusts: 0 };
        let terms = Arc::new(terms);
        let mut first = Self { terms, destinations: Vec::new(), judge, standing, dialer, generation: 0 };
        first.destinations = first.prepare(None)?;
        Ok(first)
    }

    /// The terms that follow these. What has not changed is taken over.
    fn next(&self, terms: Terms<A>, fixed: &Fixed) -> Result<Self, UpdateError> {
        let unchanged = terms.tls == self.terms.tls && sends_like(&self.terms, &terms);
        let dialer = if unchanged { self.dialer.clone() } else { base(&terms, fixed)? };
        let generation = self.generation + 1;
        let shows_same = terms.tls.credentials == self.terms.tls.credentials && terms.token == self.terms.token;
        let trusts_same = terms.tls.responder == self.terms.tls.responder;
        let standing = Standing {
            shows: if shows_same { self.standing.shows } else { generation },
            trusts: if trusts_same { self.standing.trusts } else { generation },
        };
        let judge = if trusts_same { self.judge.clone() } else { ResponderJudge::new(&terms.tls.responder)? };
        let terms = Arc::new(terms);
        let mut next = Self { terms, destinations: Vec::new(), judge, standing, dialer, generation };
        next.destinations = next.prepare(Some(self))?;
        Ok(next)
    }

    fn prepare(&self, before: Option<&Self>) -> Result<Vec<Arc<Prepared>>, UpdateError> {
        let all = &self.terms.destinations;
        let prepared = all.iter().enumerate().map(|(at, destination)| {
            let nth = all[..at].iter().filter(|other| other.target == destination.target).count();
            let key = Key { target: destination.target.as_str().into(), nth };
            let same = before.and_then(|before| Some((before, before.find(&key)?)));
            let same = same.filter(|(before, prepared)| self.dials_like(before, &prepared.destination, destination));
            let dialer = match same {
                Some((before, prepared))
                    if before.terms.tls == self.terms.tls && sends_like(&before.terms, &self.terms) =>
                {
                    prepared.dialer.clone()
                }
                _ => self.dialer_for(destination)?,
            };
            let since = same.map_or(self.generation, |(_, prepared)| prepared.since);
            let (destination, tls) = (destination.clone(), Arc::clone(&self.terms.tls));
            Ok(Arc::new(Prepared { key, destination, dialer, since, tls, standing: self.standing }))
        });
        prepared.collect()
    }

    /// Whether a tunnel that was dialled as `former` under `before` may stay: an Envoy can be shown nothing while it is up.
    fn dials_like(&self, before: &Self, former: &Destination, now: &Destination) -> bool {
        former.transport == now.transport
            && former.server_name == now.server_name
            && (!matches!(now.transport, TransportChoice::Envoy(_)) || before.standing == self.standing)
    }

    /// The dialer, which can dial an Envoy as well where `destination` is one.
    fn dialer_for(&self, destination: &Destination) -> Result<Dialer, TlsError> {
        let dialer = self.dialer.clone();
        let TransportChoice::Envoy(dial) = &destination.transport else { return Ok(dialer) };
        let Terms { tls, tunnel, tcp, .. } = &*self.terms;
        Ok(dialer.with_envoy(envoy::Dialer::new(tls, dial.as_ref().clone(), *tunnel, tcp.clone())?))
    }

    /// A destination of these terms.
    pub(super) fn find(&self, key: &Key) -> Option<&Arc<Prepared>> {
        self.destinations.iter().find(|prepared| prepared.key == *key)
    }

    /// The destination, if what was dialled to it since `since` may stay.
    pub(super) fn keeps(&self, key: &Key, since: u64) -> Option<&Arc<Prepared>> {
        self.find(key).filter(|prepared| prepared.since == since)
    }
}

/// Whether tunnels that are dialled under both are of the same settings.
fn sends_like<A>(before: &Terms<A>, now: &Terms<A>) -> bool {
    before.tunnel == now.tunnel && before.quic == now.quic && before.tcp == now.tcp
}

/// What dials over QUIC and TCP under these terms.
fn base<A>(terms: &Terms<A>, fixed: &Fixed) -> Result<Dialer, UpdateError> {
    let config = tls::initiator_config(&terms.tls, &[ALPN])?;
    let quic = quic::Dialer::new(fixed.endpoint.clone(), config.clone(), terms.tunnel, terms.quic.clone())?;
    let tcp = tcp::Dialer::new(config, terms.tunnel, terms.tcp.clone());
    Ok(Dialer::new(Some(quic), Some(tcp)))
}

impl<A> State<A> {
    pub(super) fn new(terms: Terms<A>, fixed: Fixed) -> Result<Self, UpdateError> {
        let current = ArcSwap::from_pointee(Snapshot::first(terms, &fixed)?);
        Ok(Self { fixed, current, changes: watch::Sender::new(0), swapping: Mutex::default() })
    }

    /// The terms as they are now.
    pub(super) fn current(&self) -> Arc<Snapshot<A>> {
        self.current.load_full()
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl<A: Clone> State<A> {
    /// Whether an update would take the change; changes nothing.
    pub(super) fn check(&self, change: impl FnOnce(&mut Terms<A>)) -> Result<(), UpdateError> {
        let before = self.current();
        let mut terms = Terms::clone(&before.terms);
        change(&mut terms);
        before.next(terms, &self.fixed).map(drop)
    }

    /// Puts changed terms in force; nothing has changed when it fails.
    pub(super) fn update(&self, change: impl FnOnce(&mut Terms<A>)) -> Result<(), UpdateError> {
        let _lock = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let mut terms = Terms::clone(&before.terms);
        change(&mut terms);
        let next = before.next(terms, &self.fixed)?;
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.changes.send_replace(generation);
        Ok(())
    }
}

impl<A> Clone for Serving<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Accept> Accept for Serving<A> {
    fn accept(self, arrival: Arrival) -> impl Future<Output = ()> + Send + 'static {
        let accept = self.0.current.load().terms.accept.clone();
        accept.accept(arrival)
    }

    fn refused(&self, tunnel: TunnelFacts<'_>, refusal: &StreamRefusal) {
        self.0.current.load().terms.accept.refused(tunnel, refusal);
    }
}

#[cfg(test)]
mod tests;
